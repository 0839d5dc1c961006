import ArgumentParser
import PostriderCore

/// Follows a batch until it is over, with a bar, and says what came of it.
struct BatchWatcher {
  let session: Session
  /// Seconds; `nil`: as long as it takes.
  var timeout: Double?
  /// Seconds in which nothing comes from workers until the queue is looked at.
  var patience = 10.0

  /// The JSON of a command that waited: the batch with all its failures, at most ``maximumFailures``.
  struct Answer: Codable, Sendable {
    var batch: Batch
    var failures: [BatchResult]
    /// Why nothing came from workers for a while, in the order in which it was found out.
    var waits: [RequestWaiter.Wait]?
  }

  /// More failures than this are not listed.
  static let maximumFailures = 1_000

  /// Waits for the end of a batch; returns as it is then, or as it is when the time is over, without failures.
  func wait(_ id: BatchID) async throws -> Answer {
    let clock = ContinuousClock()
    let start = clock.now
    var batch: Batch = try await session.api.get("/batches/\(id)")
    var progress = Progress(total: batch.total)
    defer { progress.clear() }
    var nextLook = start + .seconds(patience)
    var told: WaitReason?
    var waits: [RequestWaiter.Wait] = []
    while !batch.state.isOver {
      progress.set(
        done: batch.done, failed: batch.failed,
        waitingFor: batch.waiting > 0 ? "waiting for workers with \(batch.waiting)" : "")
      if let timeout, (clock.now - start) / .seconds(1) >= timeout { break }
      if clock.now >= nextLook {
        let reason = try await reason(batch)
        if let reason, reason != told {
          progress.remark("waiting for workers: \(reason.message)")
          waits.append(RequestWaiter.Wait(afterSeconds: (clock.now - start) / .seconds(1), reason: reason))
        }
        told = reason
        nextLook = clock.now + .seconds(RequestWaiter.lookInterval)
      }
      try await clock.sleep(for: .milliseconds(250))
      let next: Batch = try await session.api.get("/batches/\(id)")
      if next.version > batch.version { nextLook = max(nextLook, clock.now + .seconds(patience)) }
      batch = next
    }
    return Answer(batch: batch, failures: [], waits: waits.isEmpty ? nil : waits)
  }

  /// Why nothing comes from workers, as far as the API knows of the first mailboxes that wait; `nil` when one is at it.
  private func reason(_ batch: Batch) async throws -> WaitReason? {
    guard batch.waiting > 0, let job = batch.verb.job, let kind = RequestWaiter.Kind(rawValue: job.word) else {
      return nil
    }
    let rows: Page<BatchResult> = try await session.api.get(
      "/batches/\(batch.id)/results",
      [("result", BatchRowState.waiting.rawValue), ("limit", "\(RequestWaiter.looked)")])
    var mailboxes: [Mailbox] = []
    for id in rows.items.compactMap(\.mailboxID) { mailboxes.append(try await session.api.get("/mailboxes/\(id)")) }
    return try await WaitReasonFinder(kind: kind, api: session.api).reason(mailboxes)
  }

  /// Waits, prints, and ends with exit code 1 when a row failed or the batch did not come to its end.
  func report(_ id: BatchID) async throws {
    var answer = try await wait(id)
    let batch = answer.batch
    let failures: Page<BatchResult> =
      batch.failed == 0
      ? Page(items: [], nextCursor: nil, total: 0)
      : try await Selection.list(
        "/batches/\(id)/results", [("result", BatchRowState.failed.rawValue)], limit: Self.maximumFailures, session.api)
    if session.isJSON {
      answer.failures = failures.items
      try session.printJSON(answer)
    } else {
      if !failures.items.isEmpty { try session.print(Self.table(failures.items, batch.verb)) }
      if failures.items.count < failures.total {
        Terminal.warn(
          "These are the first \(failures.items.count) of \(failures.total) failures; "
            + "all of them: postrider batch results \(id) --result failed --limit 20000")
      }
      try session.print(Self.sentence(batch))
    }
    if batch.failed > 0 || batch.state != .finished { throw ExitCode(1) }
  }

  /// Rows of a batch.
  static func table(_ results: [BatchResult], _ verb: BatchVerb) -> Table {
    let isImport = verb == .importMailboxes
    var table = Table(
      .number(isImport ? "ROW" : "ID"), .flexible("ADDRESS"), .text("RESULT"), .text(isImport ? "FIELD" : "CODE"),
      .flexible("WHY"))
    for result in results {
      let number = isImport ? "\(result.row)" : result.mailboxID?.description ?? "-"
      let problems = result.problems ?? []
      if problems.isEmpty {
        table.add(
          number, result.address ?? "-", result.result.rawValue, isImport ? "-" : result.code ?? "-",
          isImport ? result.message ?? result.code ?? "" : result.message ?? "")
      }
      for problem in problems {
        let field = problem.pointer.isEmpty ? "-" : String(problem.pointer.dropFirst())
        table.add(number, result.address ?? "-", result.result.rawValue, field, problem.message)
      }
    }
    return table
  }

  /// `1198 mailboxes approved, 1 so already, 1 failed (batch 7).`
  static func sentence(_ batch: Batch) -> String {
    let verb = batch.dryRun ? "would be \(done(batch.verb))" : done(batch.verb)
    var parts = ["\(count(batch.done - batch.unchanged)) \(verb)"]
    if batch.unchanged > 0 {
      parts.append("\(batch.unchanged) \(batch.verb == .importMailboxes ? "there already" : "so already")")
    }
    if batch.failed > 0 { parts.append("\(batch.failed) failed") }
    switch batch.state {
    case .canceled: parts.append("\(batch.remaining) not done, because it was canceled")
    case .finished: break
    case .receiving, .running, .canceling:
      parts.append("\(batch.remaining) not done yet; it goes on by itself: postrider batch watch \(batch.id)")
    }
    return parts.joined(separator: ", ") + " (batch \(batch.id))."
  }

  static func count(_ number: Int) -> String { "\(number) mailbox\(number == 1 ? "" : "es")" }

  /// `approve 1200 mailboxes`; begins with a small letter.
  static func intention(_ verb: BatchVerb, _ number: Int) -> String {
    switch verb {
    case .approve, .reject, .test, .poll, .importMailboxes: "\(verb.rawValue) \(count(number))"
    case .applyDefaults: "apply the defaults to \(count(number)) and test them"
    case .writeDefaults: "apply the defaults to \(count(number))"
    case .delete: "delete \(count(number)) with their stored mail for good"
    case .deleteWithUnsentMail: "delete \(count(number)) with their stored and unsent mail for good"
    }
  }

  private static func done(_ verb: BatchVerb) -> String {
    switch verb {
    case .approve: "approved"
    case .reject: "rejected"
    case .test: "tested and working"
    case .poll: "polled"
    case .applyDefaults: "given the defaults, tested and working"
    case .writeDefaults: "given the defaults"
    case .delete, .deleteWithUnsentMail: "deleted"
    case .importMailboxes: "created"
    }
  }
}
