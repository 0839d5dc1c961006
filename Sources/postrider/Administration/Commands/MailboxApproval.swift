import ArgumentParser
import PostriderCore

/// `postrider mailbox approve`
struct MailboxApprove: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "approve", abstract: "Let mailboxes process mail.",
    discussion: """
      Exit code 1 when one of them could not be approved.
      Example: postrider mailbox approve support@example.com sales@example.com
      """)

  @OptionGroup var chosen: ApprovalOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await chosen.decide("approve", session) }
}

/// `postrider mailbox reject`
struct MailboxReject: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "reject", abstract: "Refuse mailboxes; they process no mail.",
    discussion: """
      Exit code 1 when one of them could not be rejected.
      Example: postrider mailbox reject support@example.com
      """)

  @OptionGroup var chosen: ApprovalOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await chosen.decide("reject", session) }
}

/// Which mailboxes are approved or rejected.
struct ApprovalOptions: ParsableArguments {
  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String] = []

  @Flag(help: "All that wait for approval when the command begins.")
  var allPending = false

  func validate() throws {
    if mailboxes.isEmpty == !allPending { throw ValidationError("Name mailboxes, or give --all-pending.") }
  }

  func decide(_ verb: String, _ session: Session) async throws {
    let chosen = allPending ? try await pending(session.api) : try await Selection.mailboxes(mailboxes, session.api)
    var progress = Progress(
      total: chosen.count, isVisible: Terminal.showsProgress && chosen.count > BulkRequest.maximumIDs)
    defer { progress.clear() }
    var answer = BulkAnswer(results: [])
    for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
      let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
      let part: BulkAnswer = try await session.api.post("/mailboxes/\(verb)", BulkRequest(ids: ids))
      answer.results += part.results
      for result in part.results { try progress.finish(nil, isFailure: !result.ok) }
    }
    progress.clear()
    try session.report(answer, chosen, done: verb == "approve" ? "approved" : "rejected")
  }

  /// Read to the end before anything is changed: decided ones leave the view, which would shift the pages.
  private func pending(_ api: APIClient) async throws -> [Mailbox] {
    var found: [Mailbox] = []
    var cursor: String?
    repeat {
      let page: Page<Mailbox> = try await api.get(
        "/mailboxes", [("view", MailboxFilter.View.pendingApproval.rawValue), ("limit", "500"), ("cursor", cursor)])
      found += page.items
      cursor = page.items.isEmpty ? nil : page.nextCursor
    } while cursor != nil
    return found
  }
}

extension Session {
  /// Prints the answers of a bulk verb; exit code 1 when one was refused.
  func report(_ answer: BulkAnswer, _ mailboxes: [Mailbox], done: String) throws {
    let refused = answer.results.filter { !$0.ok }
    if isJSON {
      try printJSON(answer)
    } else {
      let addresses = Dictionary(mailboxes.map { ($0.id, $0.address) }, uniquingKeysWith: { first, _ in first })
      var table = Table(.number("ID"), .flexible("ADDRESS"), .text("RESULT"), .flexible("WHY"))
      // A long list is not repeated; what was refused always is.
      for result in answer.results.count <= 100 ? answer.results : refused {
        table.add(
          "\(result.id)", addresses[result.id] ?? "", result.ok ? done : result.code ?? "refused", result.message ?? "")
      }
      if !table.rows.isEmpty { try print(table) }
      let words = Words.count(answer.results.count - refused.count, "mailbox").replacing("mailboxs", with: "mailboxes")
      try print("\(words) \(done)\(refused.isEmpty ? "" : ", \(refused.count) refused").")
    }
    if !refused.isEmpty { throw ExitCode(1) }
  }
}
