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
    try await session.whileOpen { try await poll(session, awaited, budget) }
  }

  /// What a session does once it is logged in.
  private func poll(_ session: POP3Session, _ awaited: [KeptMessage], _ budget: RetrievalBudget) async throws {
    // Fetching has the first half of the time, and removing half of the rest: what was stored just now can be removed
    // without another look, later it cannot.
    let end = ContinuousClock.now + task.settings.sessionDeadline * 3 / 4
    let survey = try await survey(session, awaited)
    await context.servers.proved(task, .incoming)
    note(session.capabilities)
    try await giveBack(awaited, missingFrom: survey.found)
    if task.assignment.reimport == nil { try await haltIfRenumbered(survey, session) }
    var new = survey.new
    if task.assignment.reimport == .missing { new = try await withoutStored(new, survey, session) }
    let backlog = try await backlog(survey, session)
    let held = survey.repeated.merging(backlog.held) { first, _ in first }
    new = try await withoutOld(new + backlog.reused, held, session)
    let fetched = try await fetch(new, survey, held, session, budget)
    // A message that does not end: nothing can be asked behind it. It is entered, and the next session goes on.
    guard fetched.goesOn else { return session.abort() }
    if !awaited.isEmpty { _ = try await messagesToReprocess() }
    if task.assignment.reimport != nil, !progress.counts.moreMail {
      try await context.store.finishReimport(writer: task.writer)
    }
    let removed = try await remove(fetched.settled, backlog, session, until: end)
    noteDrain()
    do {
      try await session.quit()
    } catch let failure as Failure where removed == 0 {
      // All is stored and nothing waits for the server to remove it: how it takes its leave changes nothing.
      context.logger.debug("QUIT failed", metadata: ["job.id": "\(task.lease.job)", "error": "\(failure)"])
    }
  }

  // MARK: Listing

  /// Reads the list and asks the ledger about it, page by page.
  private func survey(_ session: POP3Session, _ awaited: [KeptMessage]) async throws -> MailboxSurvey {
    let settings = task.settings
    var survey = MailboxSurvey(
      limit: settings.messagesPerPoll, newestFirst: context.configuration.newestFirst,
      wanted: Set(awaited.map(\.uidl)))
    try await session.list { page in
      let uidls = page.map(\.uidl.text)
      let unknown = try await context.store.unknown(
        uidls: uidls, mailbox: settings.mailboxID, organization: settings.organizationID)
      let failing = try await context.store.failing(
        uidls: Array(unknown), mailbox: settings.mailboxID, organization: settings.organizationID)
      let stored = try await stored(uidls.filter { !unknown.contains($0) })
      survey.add(page, unknown: unknown, failing: failing, stored: stored)
    }
    survey.endList()
    if survey.ids.areRepeated { try await addRepeated(to: &survey, session) }
    survey.finish()
    // Added: some may have been counted before the server was asked.
    progress.note {
      $0.known += survey.known
      $0.moreMail = $0.moreMail || survey.hasMore
    }
    return survey
  }

  /// Looks closer at unique ids that are listed more than once. The list is asked for again: it was not kept for a case
  /// that hardly ever comes up.
  private func addRepeated(to survey: inout MailboxSurvey, _ session: POP3Session) async throws {
    var copies: [String: [POP3Entry]] = [:]
    var count = 0
    let ids = survey.ids
    try await session.list { page in
      for entry in page where count < MailboxSurvey.backlog && ids.isRepeated(entry.uidl.text) {
        copies[entry.uidl.text, default: []].append(entry)
        count += 1
      }
    }
    let held = try await ledger(of: Array(copies.keys))
    for (uidl, entries) in copies.sorted(by: { $0.key < $1.key }) {
      survey.add(copies: entries, held: held[uidl] ?? [])
    }
  }

  private static let idsAtOnce = 500

  /// What the ledger holds of unique ids, and of those made of them, by the server's own id.
  func ledger(of uidls: [String]) async throws -> [String: [LedgerEntry]] {
    var rows: [LedgerEntry] = []
    for start in stride(from: 0, to: uidls.count, by: Self.idsAtOnce) {
      rows += try await context.store.ledger(
        of: Array(uidls[start..<min(start + Self.idsAtOnce, uidls.count)]), mailbox: task.settings.mailboxID,
        organization: task.settings.organizationID)
    }
    return Dictionary(grouping: rows) { LedgerEntry.listed($0.uidl) }
  }

  // MARK: Headers

  /// So many headers are read before what follows from them is written.
  private static let headersAtOnce = 50

  /// Reads the headers of messages while a quarter of the session's time lasts, and hands them over part by part; `nil`
  /// for one that is refused or cannot be read. Returns how many were handed over: none where there is no TOP.
  @discardableResult
  func look(
    at entries: [POP3Entry], _ session: POP3Session,
    _ consume: ([(entry: POP3Entry, envelope: MessageEnvelope?)]) async throws -> Void
  ) async throws -> Int {
    let end = ContinuousClock.now + task.settings.sessionDeadline / 4
    var part: [(entry: POP3Entry, envelope: MessageEnvelope?)] = []
    var looked = 0
    try await session.headers(of: entries.map(\.number)) { _, octets in
      let envelope = octets.flatMap { try? MessageReader.parse($0) }?.envelope
      part.append((entries[looked], envelope))
      looked += 1
      if part.count == Self.headersAtOnce {
        try await consume(part)
        part = []
      }
      return ContinuousClock.now < end
    }
    if !part.isEmpty { try await consume(part) }
    return looked
  }

  /// Enters messages received before the floor into the ledger and leaves them out (features P14). Those that there was
  /// no time to look at are for a later session.
  private func withoutOld(
    _ entries: [POP3Entry], _ held: [String: [LedgerEntry]], _ session: POP3Session
  ) async throws -> [POP3Entry] {
    // Without TOP the whole message has to be fetched to find its date.
    guard task.settings.processEmailFrom != nil, session.mayTop, !entries.isEmpty else { return entries }
    var kept: [POP3Entry] = []
    let looked = try await look(at: entries, session) { part in
      var skipped: [String: SkipReason] = [:]
      for (entry, envelope) in part {
        // A message without a date is new. Under an id that others have too, it is entered once its content is known.
        if let envelope, isBeforeFloor(envelope), held[entry.uidl.text] == nil {
          skipped[entry.uidl.text] = .beforeFloor
        } else {
          kept.append(entry)
        }
      }
      if !skipped.isEmpty { try await context.store.skip(skipped, writer: task.writer) }
    }
    guard session.mayTop else { return entries }
    if looked < entries.count { progress.note { $0.moreMail = true } }
    return kept
  }

  func isBeforeFloor(_ envelope: MessageEnvelope) -> Bool {
    guard let floor = task.settings.processEmailFrom, let date = envelope.receivedDate ?? envelope.date else {
      return false
    }
    return date < floor
  }
}
