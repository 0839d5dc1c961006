import ArgumentParser
import PostriderCore

/// `postrider alert …`
struct AlertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "alert", abstract: "Alerts: what went wrong and what to do.",
    subcommands: [AlertList.self, AlertShow.self, AlertDismiss.self, AlertDeleteAll.self, AlertMail.self])
}

/// `postrider alert list`
struct AlertList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List alerts, newest first.",
    discussion: """
      Example: postrider alert list --level error
      Example: postrider alert list --wall mine
      Example: postrider alert list --wall profile --profile "Example mail"
      """)

  @OptionGroup var filter: AlertFilterOptions
  @Flag(help: "Oldest first.") var oldestFirst = false
  @Flag(help: "Also print what to do about each.") var remedies = false

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let query =
      try await filter.query(session.api) + [("order", oldestFirst ? RowOrder.ascending.rawValue : nil)]
    let page: Page<Alert> = try await Selection.list(
      "/alerts", query, limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("LEVEL"), .text("CODE"), .flexible("MAILBOX"), .flexible("TEXT"), .number("COUNT"),
      .text("LAST SEEN"), .text("STATE"))
    for alert in page.items {
      table.add(
        "\(alert.id)", alert.level.rawValue, alert.code, alert.mailboxAddress ?? "-", alert.text, "\(alert.count)",
        Words.time(alert.lastSeen), AlertShow.state(alert))
    }
    try session.print(table, page, "alert")
    guard remedies else { return }
    for alert in page.items {
      if let remedy = alert.remedy { try session.print("\(alert.id): \(Terminal.safe(remedy))") }
    }
  }
}
