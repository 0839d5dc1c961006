import FoundationEssentials
import MailMessage
import MailProtocols
import PostriderCore

/// Messages on their way from the server into the store.
extension PollSession {
  /// So many refusals in a row, with no message between them, are the mailbox's or the server's where there is no message
  /// that the server gave before and could be asked for.
  private static let refusalsInARow = 3
  /// And where there is: bad messages come last, all of them together.
  private static let mostRefusalsInARow = 20

  /// What came of fetching.
  struct Fetched {
    /// Whether the session can go on.
    var goesOn = true
    /// The messages that are settled by now: their numbers, and under which ids they stand in the ledger.
    var settled: [Int: String] = [:]
  }

  /// A message that was refused for a reason that may be no fault of its own.
  private struct Refusal {
    /// Under which id it is entered.
    var uidl: String
    var failure: Failure
  }

  /// Messages on their way into one transaction.
  private struct Batch {
    struct Item {
      var message: ReceivedMessage
      var number: Int
      /// One more id, where it is a copy of a message before it.
      var copy: String?
    }

    var items: [Item] = []
    var octets: Int64 = 0

    mutating func add(_ item: Item) {
      items.append(item)
      octets += item.message.raw.sizeOctets
    }

    func isFull(_ configuration: WorkerConfiguration) -> Bool {
      items.count >= configuration.batchMessages || octets >= configuration.batchOctets
    }

    mutating func removeFiles() {
      for item in items { item.message.removeFiles() }
      items = []
      octets = 0
    }
  }

  /// Fetches and stores messages, a batch per transaction.
  ///
  /// Those that have arrived are stored even when the session then fails, so that a server that always fails at one
  /// message does not keep back the others; that one comes last the next time.
  func fetch(
    _ entries: [POP3Entry], _ survey: MailboxSurvey, _ held: [String: [LedgerEntry]], _ session: POP3Session,
    _ budget: RetrievalBudget
  ) async throws -> Fetched {
    var fetched = Fetched()
    if entries.isEmpty { return fetched }
    var repeated = RepeatedIDs(entries, held)
    var batch = Batch()
    var refusals: [Refusal] = []
    var witness: Int?
    var answered = 0
    var spool = newSpool()
    defer {
      spool.remove()
      batch.removeFiles()
    }
    noteUnderWay(entries, 0)
    do {
      try await session.retrieve(
        entries.map(\.number), maximumOctets: task.settings.maximumMessageOctets, budget: budget
      ) { _, chunk in
        if case .octets(let octets) = chunk { return try spool.append(octets) }
        let entry = entries[answered]
        answered += 1
        noteUnderWay(entries, answered)
        if case .refused(let failure) = chunk {
          spool.remove()
          spool = newSpool()
          let uidl = repeated.key(ofRefused: entry)
          if failure.scope != .message {
            refusals.append(Refusal(uidl: uidl, failure: failure))
            let canAsk = witness != nil || !survey.witnesses.isEmpty
            if refusals.count == (canAsk ? Self.mostRefusalsInARow : Self.refusalsInARow) { throw refusals[0].failure }
            return
          }
          // One that is too large has come, or began to.
          if failure.code == .messageTooLarge { try await blame(&refusals) }
          return try await refused(uidl, failure)
        }
        witness = entry.number
        try await blame(&refusals)
        let (raw, hash) = try spool.finish()
        spool = newSpool()
        let key = repeated.key(of: entry, hash)
        if let message = try await taken(key.uidl, raw, hash, survey) {
          batch.add(Batch.Item(message: message, number: entry.number, copy: key.copy))
        } else if let copy = key.copy {
          // One more of what is settled without being stored: it need not come again.
          try await context.store.skip([copy: .copy], writer: task.writer)
        }
        if batch.isFull(context.configuration) { try await store(&batch, &fetched) }
      }
      progress.note { $0.underWay = nil }
      if answered < entries.count { progress.note { $0.moreMail = true } }
      try await store(&batch, &fetched)
      try await judge(&refusals, [witness].compactMap(\.self) + survey.witnesses.reversed(), session)
    } catch let failure as Failure {
      try await store(&batch, &fetched)
      if failure.code == .messageTooLarge {
        try await blame(&refusals)
        progress.note { $0.moreMail = true }
        fetched.goesOn = false
      } else {
        try await postpone(refusals, failure)
        throw failure
      }
    }
    return fetched
  }

  func newSpool() -> MessageSpool {
    MessageSpool(directory: context.configuration.spoolDirectory, memoryOctets: context.configuration.memoryOctets)
  }

  private func noteUnderWay(_ entries: [POP3Entry], _ position: Int) {
    let uidl = entries.indices.contains(position) ? entries[position].uidl.text : nil
    progress.note { $0.underWay = uidl }
  }

  /// A message that arrived, ready to be stored; `nil` when it cannot be read or is stored under another unique id.
  private func taken(
    _ uidl: String, _ raw: Content, _ hash: [UInt8], _ survey: MailboxSurvey
  ) async throws -> ReceivedMessage? {
    let message: ReceivedMessage
    do throws(Failure) {
      message = try await parsed(uidl, raw, hash)
    } catch {
      defer { raw.removeFile() }
      try await failed(uidl, error, raw)
      return nil
    }
    var isTaken = false
    defer { if !isTaken { message.removeFiles() } }
    if isBeforeFloor(message.envelope) {
      // Its header was not to be had without it.
      try await context.store.skip([uidl: .beforeFloor], writer: task.writer)
    } else {
      isTaken = try await !isStored(message, survey)
    }
    return isTaken ? message : nil
  }

  /// What a message holds. Throws `message.unparsable`.
  func parsed(_ uidl: String, _ raw: Content, _ hash: [UInt8]) async throws(Failure) -> ReceivedMessage {
    var limits = MessageLimits()
    limits.maximumAttachmentOctets = task.settings.maximumAttachmentOctets
    limits.spoolDirectory = context.configuration.spoolDirectory
    let message: ParsedMessage
    do {
      let parser = context.parser
      // It computes: other sessions of the event loop go on meanwhile.
      message = try await withTaskExecutorPreference(globalConcurrentExecutor) { [limits] in
        try parser(raw, limits)
      }
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

  // MARK: Refusals

  private func refused(_ uidl: String, _ failure: Failure) async throws {
    if failure.code == .messageTooLarge {
      note(failure)
      try await context.store.skip([uidl: .tooLarge], writer: task.writer)
    } else {
      try await failed(uidl, failure, nil)
    }
  }

  /// A message came behind them: they were refused for what they are.
  private func blame(_ refusals: inout [Refusal]) async throws {
    for refusal in refusals {
      let failure = refusal.failure
      try await failed(
        refusal.uidl,
        Failure(
          failure.code, class: .message, scope: .message, serverWords: failure.serverWords, context: failure.context),
        nil)
    }
    refusals = []
  }

  /// Decides about refusals that no message came behind. Others that the server gave before are asked for: while one
  /// comes, these were refused for what they are; so they are where there is no other and the server says that it will not
  /// pass. Throws the first of them otherwise.
  private func judge(_ refusals: inout [Refusal], _ witnesses: [Int], _ session: POP3Session) async throws {
    guard let first = refusals.first else { return }
    var came = witnesses.isEmpty && first.failure.failureClass == .permanent
    for witness in witnesses where !came {
      try await session.retrieve([witness], maximumOctets: task.settings.maximumMessageOctets) { _, chunk in
        switch chunk {
        case .octets: break
        case .end: came = true
        case .refused(let failure): came = failure.code == .messageTooLarge
        }
      }
    }
    guard came else { throw first.failure }
    try await blame(&refusals)
  }

  /// What the session ended with comes behind everything else the next time; no attempt is counted. A server that
  /// refuses a message and hangs up has not come to the next one.
  private func postpone(_ refusals: [Refusal], _ failure: Failure) async throws {
    let uidls = refusals.isEmpty ? [progress.counts.underWay].compactMap(\.self) : refusals.map(\.uidl)
    progress.note { $0.underWay = nil }
    try await context.store.postpone(uidls, failure, writer: task.writer)
  }

  /// Counts a failed attempt; the mailbox goes on.
  private func failed(_ uidl: String, _ failure: Failure, _ raw: Content?) async throws {
    note(failure)
    // A server that does not list it again leaves no second chance to keep what it holds.
    let isLast = raw != nil && progress.counts.forgetsFetched
    _ = try await context.store.messageFailed(
      uidl: uidl, failure: failure, raw: raw, isLast: isLast, writer: task.writer)
  }

  // MARK: Storing

  private func store(_ batch: inout Batch, _ fetched: inout Fetched) async throws {
    defer { batch.removeFiles() }
    guard !batch.items.isEmpty else { return }
    let startedAt = Date()
    let began = ContinuousClock.now
    do {
      try await write(batch.items, &fetched)
    } catch StoreError.statement {
      // One message spoils the transaction of all: alone, the bad one is found and counted.
      for item in batch.items { try await writeAlone(item, &fetched) }
    }
    trace.record(
      TraceStep(
        direction: .incoming, name: .store, tried: "\(batch.items.count) messages, \(batch.octets) octets",
        result: .ok, startedAt: startedAt, milliseconds: (ContinuousClock.now - began) / .milliseconds(1)))
  }

  private func write(_ items: [Batch.Item], _ fetched: inout Fetched) async throws {
    let messages = items.map(\.message)
    note(try await context.store.store(messages, writer: task.writer), messages)
    for item in items { fetched.settled[item.number] = item.message.uidl }
    let copies = items.compactMap(\.copy)
    if !copies.isEmpty {
      let reasons = Dictionary(copies.map { ($0, SkipReason.copy) }, uniquingKeysWith: { first, _ in first })
      try await context.store.skip(reasons, writer: task.writer)
    }
  }

  private func writeAlone(_ item: Batch.Item, _ fetched: inout Fetched) async throws {
    do {
      try await write([item], &fetched)
    } catch StoreError.statement(let state, let text) {
      try await failed(item.message.uidl, Failure(.messageStore, context: "\(state) \(text)"), item.message.raw)
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
