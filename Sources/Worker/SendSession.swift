import FoundationEssentials
import Logging
import MailProtocols
import PostriderCore

/// One sending session: many messages of a mailbox over one connection, by priority.
///
/// While much is due, the session of lane 0 opens further lanes up to the limit, each a session of its own that takes on
/// one message after the other from the same list.
///
/// Each message is committed as `sending` before any of its octets leaves, and again before its end does; what the server
/// answered is committed before the next one is taken on. A mailbox with nothing due is not connected to.
struct SendSession {
  /// At most so many messages in one session, so that other mailboxes of the profile get their turn.
  static let messagesPerSession = 50

  let context: SessionContext
  let task: SessionTask

  /// Runs the session and decides what follows. Throws only what is not the mailbox's fault: cancellation, a lost
  /// database, a late writer, a server whose breaker is open.
  func outcome() async throws -> SessionOutcome {
    let startedAt = Date()
    let outlook = try await context.store.outlook(pace: task.settings.pace, writer: task.writer)
    if let id = outlook.uncertain.first {
      task.progress.note {
        $0.failed += outlook.uncertain.count
        $0.leftUncertain = Failure(
          .smtpUncertain, context: "message \(id): the session that sent it ended before the answer")
      }
    }
    var failure: Failure?
    var breaker: OpenBreaker?
    var wait = outlook.wait
    let connects = outlook.due > 0 && wait == nil && lane < outlook.connections ?? JobID.maximumLanes
    // One that died is looked after by its successor; one that lives has no work when it is asked for again.
    if lane == 0 { await open(outlook.lanesAtWork) }
    if connects {
      do {
        wait = try await send(outlook)
      } catch let error as FencedError {
        throw error
      } catch let error as CancellationError {
        throw error
      } catch StoreError.unavailable(let reason) {
        throw StoreError.unavailable(reason: reason)
      } catch let error as JobQueueError {
        throw error
      } catch let error as ServerWait {
        throw error
      } catch {
        try Task.checkCancellation()
        failure = Failure(sorting: error).scoped(to: task.settings.outgoing.credentials)
      }
      breaker = await context.servers.leave(
        task, .outgoing, failure, progress: task.progress.counts.sent > 0)
    }
    // Our own other sessions may be those that the server counts.
    let isOneTooMany = failure?.code == .smtpConcurrency && !outlook.lanesAtWork.isEmpty
    if isOneTooMany {
      wait = SendWait(
        until: Date().addingTimeInterval(Self.retryBesideLanesSeconds), reason: FailureCode.smtpConcurrency.rawValue)
    }
    let outcome = outcome(
      failure, breaker, wait, from: startedAt, connected: connects, isOneTooMany: isOneTooMany)
    if let failure {
      let letIn = lane > 0 ? lane : isOneTooMany ? outlook.lanesAtWork.count : nil
      try await adapt(to: failure, letIn: letIn, until: outcome.next.at)
    }
    return outcome
  }

  var lane: Int { task.lease.job.lane }

  /// Makes sure that these lanes are in the queue. Nothing rests on it: what is not opened now is by the next session.
  private func open(_ lanes: [Int]) async {
    let now = Int64(Date().timeIntervalSince1970 * 1_000)
    let jobs = lanes.filter { $0 > 0 && $0 < JobID.maximumLanes }.map {
      Job(
        id: JobID(mailbox: task.settings.mailboxID, kind: .send, lane: $0), profile: task.lease.profile,
        jobClass: .send, dueMilliseconds: now)
    }
    if jobs.isEmpty { return }
    do {
      try await context.queue.enqueue(jobs)
    } catch {
      context.logger.debug(
        "Cannot open more lanes", metadata: ["job.id": "\(task.lease.job)", "error": "\(error)"])
    }
  }

  /// Sends what is due. Returns why it stopped before all of it was sent, where a quota is the reason.
  private func send(_ outlook: OutgoingOutlook) async throws -> SendWait? {
    let settings = task.settings
    let end = ContinuousClock.now + settings.sessionDeadline / 2
    // What is missing altogether costs the server nothing.
    if settings.outgoing.credentials != .oauth { _ = try context.credentials(settings, .outgoing) }
    try await context.servers.enter(task, .outgoing)
    let session = try await context.signingIn(task, .outgoing) { try await signIn($0) }
    return try await session.whileOpen {
      await context.servers.proved(task, .outgoing)
      // Not before the server has let this one in: a dead one must not see ten of them.
      if lane == 0 { await open(Array(0..<lanes(outlook))) }
      var count = 0
      var wait: SendWait?
      while count < Self.messagesPerSession, ContinuousClock.now < end {
        switch try await next(before: end) {
        case .message(let message):
          count += 1
          try await send(message, session)
          continue
        case .wait(let longer): wait = longer
        case .nothing: break
        }
        break
      }
      // Lane 0 comes back by its schedule; the others come back only when they are asked for.
      if lane > 0, count == Self.messagesPerSession || ContinuousClock.now >= end { await open([lane]) }
      // Every answer is written: how the server takes its leave changes nothing.
      try? await session.quit()
      return wait
    }
  }

  /// Opens a session and logs in.
  private func signIn(_ credentials: Credentials) async throws -> SMTPSession {
    let session = try await context.openSMTP(task, trace: task.trace(.outgoing))
    try await session.whileOpen {
      try await context.servers.login(task, .outgoing) {
        try await session.authenticate(credentials, mechanism: task.settings.outgoing.mechanism)
      }
    }
    return session
  }

  /// Hands over one message and writes what became of it. Throws what ends the session.
  private func send(_ message: ClaimedMessage, _ session: SMTPSession) async throws {
    let rules = AttemptRules(message: message)
    let result: AttemptResult
    var ending: (any Error)?
    do {
      result = rules.answered(
        try await session.send(
          from: message.sender, to: message.recipients,
          context.store.octets(of: message, writer: task.writer)
            .reporting(message.notification, envelopeID: message.messageID)))
      if let failure = result.failure, AttemptRules.endsSending(failure) { ending = failure }
    } catch let failure as Failure {
      result = rules.failed(failure)
      if AttemptRules.endsSession(failure) { ending = failure }
    } catch {
      // Ended before the final dot: nothing was handed over. One that takes longer than a session may is not tried for ever.
      let outlasted = error is CancellationError && context.keeper.interruption(of: task.lease) == nil
      result = rules.failed(Failure(outlasted ? .sessionDeadline : .runAborted, scope: .message))
      ending = error
    }
    // The task may be cancelled by now; the answer must be written all the same.
    try await Task { try await write(result, of: message.id) }.value
    count(message, result)
    if let ending { throw ending }
  }

  /// Writes what became of a message, waiting for a database that is away for as long as the lease is held: an answer
  /// that is not written makes the message uncertain.
  private func write(_ result: AttemptResult, of message: OutgoingEmailID) async throws {
    while true {
      do {
        return try await context.store.finish(message, result, writer: task.writer)
      } catch StoreError.unavailable(let reason) {
        try await Task.sleep(for: .milliseconds(500))
        if context.keeper.interruption(of: task.lease) == .leaseLost { throw StoreError.unavailable(reason: reason) }
      }
    }
  }

  private func count(_ message: ClaimedMessage, _ result: AttemptResult) {
    switch result.state {
    case .sent: task.progress.note { $0.sent += 1 }
    case .pendingSend:
      guard let failure = result.recipients.first(where: { $0.state == .failed })?.failure else { return }
      note(failure, of: message)
    default:
      if result.state == .partlySent { task.progress.note { $0.sent += 1 } }
      guard let failure = result.failure else { return }
      note(failure, of: message)
    }
  }

  private func note(_ failure: Failure, of message: ClaimedMessage) {
    let failure = Failure(
      failure.code, class: failure.failureClass, scope: .message, serverWords: failure.serverWords,
      context: "message \(message.id)" + (failure.context.map { ": \($0)" } ?? ""))
    task.progress.note {
      $0.failed += 1
      $0.messageFailures.append(failure)
    }
  }
}
