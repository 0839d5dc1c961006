import ArgumentParser
import PostriderCore

/// `postrider quarantine reprocess`
struct QuarantineReprocess: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "reprocess", abstract: "Try messages in quarantine again, after the cause was removed.",
    discussion: """
      A worker reads what is kept of them, at once and without the mail server; what is not kept is fetched again. What \
      fails goes back to quarantine. Exit code 1 when one of them was refused.
      Example: postrider quarantine reprocess 17 18
      """)

  @OptionGroup var chosen: QuarantineSelection
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let ids = try await chosen.ids(session)
    try await chosen.carryOut("reprocess", ids, session, done: "to be tried again")
  }
}

/// `postrider quarantine discard`
struct QuarantineDiscard: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "discard", abstract: "Delete messages from quarantine for good.",
    discussion: """
      What is kept of them is deleted. They stay on the mail server, but are not fetched again. Asks before, unless --yes \
      is given. Exit code 1 when one of them was refused.
      Example: postrider quarantine discard --all --mailbox support@example.com --dry-run
      """)

  @OptionGroup var chosen: QuarantineSelection
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let ids = try await chosen.ids(session)
    if !ids.isEmpty && !chosen.dryRun && !yes {
      let words = Words.count(ids.count, "message")
      guard Terminal.canAsk else {
        throw ClientError.usage("\(words) would be deleted for good: say --yes, or look first with --dry-run")
      }
      guard Terminal.confirm("Delete \(words) from quarantine for good?") else {
        throw ClientError.failed("nothing was deleted")
      }
    }
    try await chosen.carryOut("discard", ids, session, done: "discarded")
  }
}

/// The messages of a bulk verb, and how it is carried out.
struct QuarantineSelection: ParsableArguments {
  @Argument(help: "Ids of messages in quarantine.") var messages: [Int64] = []
  @Flag(help: "All that are in quarantine when the command begins, or those of them that --mailbox and --reason leave.")
  var all = false
  @OptionGroup var filter: QuarantineFilterOptions
  @Flag(help: "Only say what would be done.") var dryRun = false

  func validate() throws {
    if messages.isEmpty == !all { throw ValidationError("Name messages by their ids, or give --all.") }
    if !all && (filter.mailbox != nil || filter.reason != nil) {
      throw ValidationError("--mailbox and --reason go with --all.")
    }
    if let wrong = messages.first(where: { $0 < 1 }) { throw ValidationError("\(wrong) is not an id.") }
  }

  /// The chosen ids, each once. Read to the end before anything is changed: discarded ones would shift the pages.
  func ids(_ session: Session) async throws -> [QuarantineID] {
    var seen: Set<QuarantineID> = []
    guard all else { return messages.map { QuarantineID($0) }.filter { seen.insert($0).inserted } }
    let page: Page<QuarantinedMessage> = try await Selection.list(
      "/quarantine", try await filter.query(session.api), limit: Selection.maximumScanned, session.api)
    if page.items.count < page.total {
      Terminal.warn("These are the first \(page.items.count) of \(page.total); run the command again for the others.")
    }
    return page.items.map(\.id)
  }

  /// Sends the ids in parts and prints the answers; exit code 1 when one was refused.
  func carryOut(_ verb: String, _ ids: [QuarantineID], _ session: Session, done: String) async throws {
    var answer = QuarantineAnswer(results: [], dryRun: dryRun)
    var progress = Progress(
      total: ids.count, isVisible: Terminal.showsProgress && ids.count > QuarantineRequest.maximumIDs)
    defer { progress.clear() }
    for start in stride(from: 0, to: ids.count, by: QuarantineRequest.maximumIDs) {
      let part = Array(ids[start..<min(start + QuarantineRequest.maximumIDs, ids.count)])
      let some: QuarantineAnswer = try await session.api.post(
        "/quarantine/\(verb)", QuarantineRequest(ids: part, dryRun: dryRun ? true : nil))
      answer.results += some.results
      for result in some.results { try progress.finish(nil, isFailure: !result.ok) }
    }
    progress.clear()
    try report(answer, session, done: dryRun ? "would be \(done)" : done)
  }

  private func report(_ answer: QuarantineAnswer, _ session: Session, done: String) throws {
    let refused = answer.results.filter { !$0.ok }
    if session.isJSON {
      try session.printJSON(answer)
    } else {
      var table = Table(.number("ID"), .text("RESULT"), .flexible("WHY"))
      // A long list is not repeated; what was refused always is.
      for result in answer.results.count <= 100 ? answer.results : refused {
        table.add("\(result.id)", result.ok ? done : result.code ?? "refused", result.message ?? "")
      }
      if !table.rows.isEmpty { try session.print(table) }
      let words = Words.count(answer.results.count - refused.count, "message")
      try session.print("\(words) \(done)\(refused.isEmpty ? "" : ", \(refused.count) refused").")
    }
    if !refused.isEmpty { throw ExitCode(1) }
  }
}
