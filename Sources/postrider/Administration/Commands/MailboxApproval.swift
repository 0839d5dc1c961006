import ArgumentParser
import PostriderCore

/// `postrider mailbox approve`
struct MailboxApprove: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "approve", abstract: "Let mailboxes process mail.",
    discussion: """
      With --view, --profile or --all it is a batch, done step by step by the API's processes; more than 100 mailboxes \
      are asked about first. Exit code 1 when one of them could not be approved.
      Examples:
        postrider mailbox approve --view pending-approval --dry-run
        postrider mailbox approve --profile "Example mail" --yes
      Example: postrider mailbox approve support@example.com sales@example.com
      """)

  @OptionGroup var chosen: ApprovalOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await chosen.decide(.approve, session) }
}

/// `postrider mailbox reject`
struct MailboxReject: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "reject", abstract: "Refuse mailboxes; they process no mail.",
    discussion: """
      With --view, --profile or --all it is a batch, done step by step by the API's processes; more than 100 mailboxes \
      are asked about first. Exit code 1 when one of them could not be rejected.
      Example: postrider mailbox reject support@example.com
      """)

  @OptionGroup var chosen: ApprovalOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await chosen.decide(.reject, session) }
}

/// Which mailboxes are approved or rejected.
struct ApprovalOptions: ParsableArguments {
  @OptionGroup var bulk: BulkOptions

  func decide(_ verb: BatchVerb, _ session: Session) async throws {
    // A few that are named are decided at once, with an answer for each.
    if bulk.isFilter || bulk.dryRun || bulk.doesNotWait || bulk.mailboxes.count > BulkRequest.maximumIDs {
      return try await bulk.carryOut(verb, session)
    }
    let chosen = try await Selection.mailboxes(bulk.mailboxes, session.api)
    let answer: BulkAnswer = try await session.api.post(
      "/mailboxes/\(verb.rawValue)", BulkRequest(ids: chosen.map(\.id)))
    try session.report(answer, chosen, done: verb == .approve ? "approved" : "rejected")
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
