import ArgumentParser
import PostriderCore

/// `postrider mailbox reimport`
struct MailboxReimport: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "reimport", abstract: "Let mailboxes go on whose server gave their mail new unique ids.",
    discussion: """
      Such a mailbox stands still with pop3.uidl-reset, because everything would be imported twice. With `missing` what \
      is stored already is recognized by its Message-ID, or by its content where it has none, and only the rest is \
      imported. With `all` everything is imported again. Exit code 1 when one of them does not wait for a choice.
      Example: postrider mailbox reimport support@example.com --choice missing
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @Option(help: ArgumentHelp("missing or all.", valueName: "choice")) var choice: ReimportChoice
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let chosen = try await Selection.mailboxes(mailboxes, session.api)
    var answer = BulkAnswer(results: [])
    for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
      let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
      let part: BulkAnswer = try await session.api.post(
        "/mailboxes/reimport", ReimportRequest(ids: ids, choice: choice))
      answer.results += part.results
    }
    try session.report(answer, chosen, done: choice == .all ? "imported again" : "goes on")
  }
}
