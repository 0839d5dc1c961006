import FoundationEssentials
import Logging
import PostriderCore

extension WorkerService {
  /// Runs one session under its lease, commits its outcome and ends the lease – in this order, so that a crash in
  /// between only polls again.
  func run(_ task: SessionTask) async {
    metrics.started(task)
    do {
      let startedAt = Date()
      let (outcome, result) = try await keeper.hold(task.lease, deadline: task.settings.sessionDeadline) {
        do {
          return try await session(task)
        } catch let error as FencedError {
          // Counted here: the end of the lease, which makes a write late, must not hide it.
          metrics.fenced()
          throw error
        } catch StoreError.unavailable(let reason) {
          // The job is ready again as soon as it is given back, so a database that refuses only some statements must
          // not make a mail server see one login after the other.
          try await Task.sleep(for: .milliseconds(Int.random(in: 500...1_500)))
          throw StoreError.unavailable(reason: reason)
        }
      } then: { outcome in
        // Without an outcome it outlived its deadline. Only now the work is over, and its last step recorded.
        let outcome =
          outcome
          ?? task.failed(Failure(.sessionDeadline, context: "\(task.settings.sessionDeadline)"), from: startedAt)
        #if DEBUG
          if Mistakes.completeBeforeCommit { await Mistakes.end(task.lease, in: queue) }
        #endif
        return (outcome, try await commit(outcome, task.lease))
      }
      finisher.complete(task.lease)
      metrics.finished(outcome, result)
      log(outcome, result)
    } catch Interruption.leaseLost {
      metrics.interrupted(task, "lost-lease")
      // The socket is closed. A lease that was withdrawn, or that is not taken back yet, need not last to its end.
      finisher.giveBack(task.lease)
    } catch is FencedError {
      // A newer session or a change of profile came before: nothing was written, and nothing must be.
      finisher.complete(task.lease)
    } catch {
      // Stopped, or the database went away before anything was decided: somebody does it again.
      metrics.interrupted(task, "given-back")
      if !(error is CancellationError) && !(error is Interruption) {
        logger.warning("A session is given back", metadata: ["job.id": "\(task.lease.job)", "error": "\(error)"])
      }
      finisher.giveBack(task.lease)
    }
  }

  private func session(_ task: SessionTask) async throws -> SessionOutcome {
    if let standIn { return try await standIn(task.lease, task.assignment) }
    return switch task.lease.job.kind {
    case .poll: try await PollSession(context: context, task: task).outcome()
    case .test: try await TestSession(context: context, task: task).outcome()
    case .send: throw Failure(.internalError, context: "sending is not scheduled by this release")
    }
  }

  /// Commits, waiting for a database that is away for as long as the lease is held.
  private func commit(_ outcome: SessionOutcome, _ lease: Lease) async throws -> OutcomeResult {
    var trouble = Trouble()
    while true {
      do {
        return try await store.commit(outcome)
      } catch StoreError.unavailable(let reason) {
        let error = StoreError.unavailable(reason: reason)
        let wait = trouble.wait(after: error)
        if trouble.isNew { logger.warning("An outcome waits for PostgreSQL", metadata: ["error": "\(error)"]) }
        try await Task.sleep(for: wait)
        if let interruption = keeper.interruption(of: lease) { throw interruption }
      }
    }
  }

  private func log(_ outcome: SessionOutcome, _ result: OutcomeResult) {
    // Thousands a second: the words are made only when somebody reads them.
    guard outcome.run.failure != nil || logger.logLevel <= .debug else { return }
    var metadata: Logger.Metadata = [
      "job.id": "\(outcome.writer.job)", "mailbox.id": "\(outcome.run.mailboxID)",
      "run.result": "\(outcome.run.result.rawValue)", "messages": "\(outcome.run.messagesStored)",
    ]
    if case .written(let id) = result { metadata["run.id"] = "\(id)" } else { metadata["fenced"] = "true" }
    if let failure = outcome.run.failure {
      metadata["error.kind"] = "\(failure.code.rawValue)"
      logger.info("A session failed", metadata: metadata)
    } else {
      logger.debug("A session is done", metadata: metadata)
    }
  }
}

extension SessionTask {
  /// The outcome of a session that was ended from outside by a failure.
  func failed(_ failure: Failure, from startedAt: Date) -> SessionOutcome {
    var run = run(from: startedAt, result: .failure, failure: failure)
    run.steps = Direction.allCases.flatMap { trace($0).steps }
    if lease.job.kind == .test {
      let directions = Direction.allCases.filter { settings.method($0) == .serverSideSync }
      let changes = directions.map {
        DirectionChange($0, status: .failure, enabled: false, failureCode: failure.code)
      }
      let alerts = directions.map { direction in
        var draft = AlertDraft(level: .error, failure: failure, direction: direction)
        draft.onProfile = false
        return AlertChange.raise(draft)
      }
      return SessionOutcome(
        writer: writer, profileID: settings.profileID, served: assignment.requested,
        next: NextDue(at: nil, reason: "tested"), failures: 0, failureCode: failure.code, directions: changes,
        alerts: alerts, run: run)
    }
    let rules = DispositionRules(
      direction: .incoming, slots: PollingSlots(mailbox: settings.mailboxID, interval: settings.pollingInterval),
      failuresBefore: assignment.failures, lastFailureCode: assignment.lastFailureCode)
    var generator = SystemRandomNumberGenerator()
    let disposition = rules.failure(failure, at: Date(), using: &generator)
    return SessionOutcome(
      writer: writer, profileID: settings.profileID, served: assignment.requested, next: disposition.next,
      failures: disposition.failures, failureCode: failure.code,
      directions: disposition.direction.map { [$0] } ?? [], alerts: disposition.alerts, run: run)
  }
}
