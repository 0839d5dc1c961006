import FoundationEssentials
import Logging
import MailMessage
import MailProtocols
import PostriderCore

/// One poll: connect, authenticate, list, fetch what the ledger does not know, store, commit, remove, log out.
///
/// Storing is committed before anything is removed and before QUIT, because QUIT is what makes some servers forget.
struct PollSession {
  let context: SessionContext
  let task: SessionTask
  var trace: SessionTrace { task.trace(.incoming) }

  var progress: SessionProgress { task.progress }

  /// Runs the session and decides what follows. Throws only what is not the mailbox's fault: cancellation, a lost
  /// database, a late writer, a server whose breaker is open.
  func outcome() async throws -> SessionOutcome {
    let startedAt = Date()
    var failure: Failure?
    do {
      try await poll()
    } catch let error as FencedError {
      throw error
    } catch let error as CancellationError {
      throw error
    } catch StoreError.unavailable(let reason) {
      throw StoreError.unavailable(reason: reason)
    } catch let error as JobQueueError {
      throw error
    } catch let wait as ServerWait {
      guard task.isInteractive else { throw wait }
      return task.answered(wait.breaker, from: startedAt)
    } catch {
      try Task.checkCancellation()
      failure = Failure(sorting: error).scoped(to: task.settings.incoming.credentials)
    }
    let counts = progress.counts
    let breaker = await context.servers.leave(
      task, .incoming, failure, progress: counts.stored + counts.known > 0)
    let now = Date()
    var disposition = task.disposition(
      failure, breaker, moreMail: counts.moreMail, loginDelaySeconds: counts.loginDelaySeconds, at: now)
    disposition.alerts += counts.messageFailures.map {
      .raise(AlertDraft(level: .warning, failure: $0, direction: .incoming))
    }
    disposition.alerts += task.alerts(counts)
    var run = task.run(
      from: startedAt, result: failure != nil ? .failure : counts.failed > 0 ? .partial : .success,
      failure: failure ?? counts.messageFailures.first)
    run.enter(counts)
    if run.result != .success || task.settings.verbose { run.steps = trace.steps }
    return SessionOutcome(
      writer: task.writer, profileID: task.settings.profileID, served: task.assignment.requested,
      next: disposition.next, failures: disposition.failures,
      failureCode: failure?.code ?? counts.messageFailures.first?.code,
      directions: disposition.direction.map { [$0] } ?? [], alerts: disposition.alerts, run: run)
  }

  private func poll() async throws {
    let settings = task.settings
    let budget = try await budget()
    let awaited = try await reprocess()
    // What is missing altogether costs the server nothing.
    if settings.incoming.credentials != .oauth { _ = try context.credentials(settings, .incoming) }
    try await context.servers.enter(task, .incoming)
    let session = try await context.signInPOP3(task, trace: trace)
    do {
      let survey = try await survey(session, awaited)
      await context.servers.proved(task, .incoming)
      note(session.capabilities)
      try await giveBack(awaited, missingFrom: survey.found)
      if task.assignment.reimport == nil { try await haltIfRenumbered(survey, session) }
      var new = survey.new
      if task.assignment.reimport == .missing { new = try await withoutStored(new, survey, session) }
      new = try await withoutOld(new, session)
      guard try await fetch(new, survey, session, budget) else {
        // A message that does not end: nothing can be asked behind it. It is entered, and the next session goes on.
        return session.abort()
      }
      if !awaited.isEmpty { _ = try await messagesToReprocess() }
      if task.assignment.reimport != nil, !progress.counts.moreMail {
        try await context.store.finishReimport(writer: task.writer)
      }
      let removed = try await removeStored(survey, session)
      noteDrain()
      do {
        try await session.quit()
      } catch let failure as Failure where removed == 0 {
        // All is stored and nothing waits for the server to remove it: how it takes its leave changes nothing.
        context.logger.debug("QUIT failed", metadata: ["job.id": "\(task.lease.job)", "error": "\(failure)"])
      }
    } catch {
      session.abort()
      throw error
    }
  }

  /// Reads the list and asks the ledger about it, page by page.
  private func survey(_ session: POP3Session, _ awaited: [KeptMessage]) async throws -> MailboxSurvey {
    let settings = task.settings
    var survey = MailboxSurvey(
      limit: settings.messagesPerPoll, newestFirst: context.configuration.newestFirst,
      wanted: Set(awaited.map(\.uidl)), keepsIDs: task.assignment.reimport == .missing)
    try await session.list { page in
      let uidls = page.map(\.uidl.text)
      let unknown = try await context.store.unknown(
        uidls: uidls, mailbox: settings.mailboxID, organization: settings.organizationID)
      let stored = try await stored(uidls.filter { !unknown.contains($0) })
      survey.add(page, unknown: unknown, stored: stored)
    }
    survey.finish()
    // Added: some may have been counted before the server was asked.
    progress.note {
      $0.known += survey.known
      $0.moreMail = $0.moreMail || survey.hasMore
    }
    return survey
  }

  /// Those that may be removed from the server, where the mailbox wants that at all.
  private func stored(_ uidls: [String]) async throws -> Set<String> {
    guard task.removesStored else { return [] }
    return try await context.store.stored(
      uidls: uidls, mailbox: task.settings.mailboxID, organization: task.settings.organizationID)
  }

  /// Marks stored messages as deleted where the mailbox wants that; returns how many. What was skipped or quarantined is
  /// nowhere else and stays.
  private func removeStored(_ survey: MailboxSurvey, _ session: POP3Session) async throws -> Int {
    let now = try await stored(survey.new.map(\.uidl.text))
    let numbers = Set(survey.stored).union(survey.new.filter { now.contains($0.uidl.text) }.map(\.number)).sorted()
    if !numbers.isEmpty { _ = try await session.delete(numbers) }
    return numbers.count
  }

  // MARK: Process email from

  /// Enters messages received before the floor into the ledger and leaves them out (features P14).
  private func withoutOld(_ entries: [POP3Entry], _ session: POP3Session) async throws -> [POP3Entry] {
    // Without TOP the whole message has to be fetched to find its date.
    guard task.settings.processEmailFrom != nil, session.capabilities.top else { return entries }
    var kept: [POP3Entry] = []
    var skipped: [String: SkipReason] = [:]
    for entry in entries {
      // A header that is refused or cannot be read has no date, and mail without a date is new.
      let envelope = try await header(of: entry, session).flatMap {
        try? MessageReader.parse($0)
      }?.envelope
      if let envelope, isBeforeFloor(envelope) {
        skipped[entry.uidl.text] = .beforeFloor
      } else {
        kept.append(entry)
      }
    }
    if !skipped.isEmpty { try await context.store.skip(skipped, writer: task.writer) }
    return kept
  }

  private func isBeforeFloor(_ envelope: MessageEnvelope) -> Bool {
    guard let floor = task.settings.processEmailFrom, let date = envelope.receivedDate ?? envelope.date else {
      return false
    }
    return date < floor
  }

  func header(of entry: POP3Entry, _ session: POP3Session) async throws -> [UInt8]? {
    do {
      return try await session.top(entry.number, lines: 0)
    } catch let failure as Failure where failure.failureClass == .message {
      return nil
    }
  }

  // MARK: Fetching

  /// Fetches and stores messages, a batch per transaction. Returns whether the session can go on.
  ///
  /// Those that have arrived are stored even when the session then fails, so that a server that always fails at one
  /// message does not keep back the others.
  private func fetch(
    _ entries: [POP3Entry], _ survey: MailboxSurvey, _ session: POP3Session, _ budget: RetrievalBudget
  ) async throws -> Bool {
    guard !entries.isEmpty else { return true }
    let byNumber = Dictionary(entries.map { ($0.number, $0) }, uniquingKeysWith: { first, _ in first })
    var repeated = RepeatedIDs(entries)
    var batch = Batch()
    var spool = newSpool()
    defer {
      spool.remove()
      batch.removeFiles()
    }
    do {
      let answered = try await session.retrieve(
        entries.map(\.number), maximumOctets: task.settings.maximumMessageOctets, budget: budget
      ) { number, chunk in
        guard let entry = byNumber[number] else { return }
        switch chunk {
        case .octets(let octets):
          try spool.append(octets)
        case .end:
          let (raw, hash) = try spool.finish()
          spool = newSpool()
          if let message = try await taken(repeated.key(of: entry, hash), raw, hash, survey) { batch.add(message) }
          if batch.messages.count >= context.configuration.batchMessages
            || batch.octets >= context.configuration.batchOctets
          {
            try await store(&batch)
          }
        case .refused(let failure):
          spool.remove()
          spool = newSpool()
          try await refused(entry, failure)
        }
      }
      if answered < entries.count { progress.note { $0.moreMail = true } }
    } catch let failure as Failure {
      try await store(&batch)
      guard failure.code == .messageTooLarge else { throw failure }
      progress.note { $0.moreMail = true }
      return false
    }
    try await store(&batch)
    return true
  }

  func newSpool() -> MessageSpool {
    MessageSpool(directory: context.configuration.spoolDirectory, memoryOctets: context.configuration.memoryOctets)
  }

  /// Messages on their way into one transaction.
  private struct Batch {
    var messages: [ReceivedMessage] = []
    var octets: Int64 = 0

    mutating func add(_ message: ReceivedMessage) {
      messages.append(message)
      octets += message.raw.sizeOctets
    }

    mutating func removeFiles() {
      for message in messages { message.removeFiles() }
      messages = []
      octets = 0
    }
  }

  /// A message that arrived, ready to be stored; `nil` when it cannot be read or is stored under another unique id.
  private func taken(
    _ uidl: String, _ raw: Content, _ hash: [UInt8], _ survey: MailboxSurvey
  ) async throws -> ReceivedMessage? {
    let message: ReceivedMessage
    do throws(Failure) {
      message = try parsed(uidl, raw, hash)
    } catch {
      defer { raw.removeFile() }
      try await failed(uidl, error, raw)
      return nil
    }
    if isBeforeFloor(message.envelope) {
      // Its header was not to be had without it.
      try await context.store.skip([uidl: .beforeFloor], writer: task.writer)
    } else if try await !isStored(message, survey) {
      return message
    }
    message.removeFiles()
    return nil
  }

  /// What a message holds. Throws `message.unparsable`.
  func parsed(_ uidl: String, _ raw: Content, _ hash: [UInt8]) throws(Failure) -> ReceivedMessage {
    var limits = MessageLimits()
    limits.maximumAttachmentOctets = task.settings.maximumAttachmentOctets
    limits.spoolDirectory = context.configuration.spoolDirectory
    let message: ParsedMessage
    do {
      message = try context.parser(raw, limits)
    } catch {
      throw Failure(.messageUnparsable, context: "\(error)")
    }
    return ReceivedMessage(
      uidl: uidl, envelope: message.envelope, messageClass: message.messageClass,
      notification: message.notification, text: message.text, html: message.html,
      attachments: message.attachments.map {
        ReceivedAttachment(record: $0.record, content: $0.spooled ?? $0.content.map(Content.bytes))
      }, raw: raw, contentHash: hash)
  }

  private func refused(_ entry: POP3Entry, _ failure: Failure) async throws {
    if failure.code == .messageTooLarge {
      note(failure)
      try await context.store.skip([entry.uidl.text: .tooLarge], writer: task.writer)
    } else {
      try await failed(entry.uidl.text, failure, nil)
    }
  }

  /// Counts a failed attempt; the mailbox goes on.
  private func failed(_ uidl: String, _ failure: Failure, _ raw: Content?) async throws {
    note(failure)
    _ = try await context.store.messageFailed(uidl: uidl, failure: failure, raw: raw, writer: task.writer)
  }

  // MARK: Storing

  private func store(_ batch: inout Batch) async throws {
    defer { batch.removeFiles() }
    guard !batch.messages.isEmpty else { return }
    let startedAt = Date()
    let began = ContinuousClock.now
    do {
      let results = try await context.store.store(batch.messages, writer: task.writer)
      note(results, batch.messages)
    } catch StoreError.statement {
      // One message spoils the transaction of all: alone, the bad one is found and counted.
      for message in batch.messages { try await storeAlone(message) }
    }
    trace.record(
      TraceStep(
        direction: .incoming, name: .store, tried: "\(batch.messages.count) messages, \(batch.octets) octets",
        result: .ok, startedAt: startedAt, milliseconds: (ContinuousClock.now - began) / .milliseconds(1)))
  }

  private func storeAlone(_ message: ReceivedMessage) async throws {
    do {
      note(try await context.store.store([message], writer: task.writer), [message])
    } catch StoreError.statement(let state, let text) {
      try await failed(message.uidl, Failure(.messageStore, context: "\(state) \(text)"), message.raw)
    }
  }

  func note(_ results: [StoredMessage], _ messages: [ReceivedMessage]) {
    progress.note { counts in
      for (result, message) in zip(results, messages) {
        switch result {
        case .stored:
          counts.stored += 1
          counts.octets += message.raw.sizeOctets
        case .duplicate, .own:
          counts.known += 1
        }
      }
    }
  }

  func note(_ failure: Failure) {
    progress.note {
      $0.failed += 1
      $0.messageFailures.append(failure)
    }
  }
}
