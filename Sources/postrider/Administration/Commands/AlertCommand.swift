import ArgumentParser
import PostriderCore

/// `postrider alert …`
struct AlertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "alert", abstract: "Alerts: what went wrong and what to do.",
    subcommands: [AlertList.self, AlertMail.self])
}

/// `postrider alert list`
struct AlertList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List alerts, newest first.",
    discussion: "Example: postrider alert list --level error")

  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?

  @Option(
    help: ArgumentHelp(
      "Only these: information, warning or error.", discussion: "Default: all.", valueName: "level"))
  var level: AlertLevel?

  @Flag(help: "Only those of your own mailboxes, shared queues and profiles.") var mine = false
  @Flag(help: "Also those that went away by themselves.") var resolved = false
  @Flag(help: "Also print what to do about each.") var remedies = false

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var id: MailboxID?
    if let mailbox { id = try await Selection.mailbox(mailbox, session.api).id }
    let query = [
      ("mailbox", id?.description), ("level", level?.rawValue), ("resolved", resolved ? "true" : nil),
      ("view", mine ? "mine" : nil),
    ]
    let page: Page<Alert> = try await Selection.list(
      "/alerts", query, limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("LEVEL"), .text("CODE"), .flexible("MAILBOX"), .flexible("TEXT"), .number("COUNT"),
      .text("LAST SEEN"), .text("STATE"))
    for alert in page.items {
      table.add(
        "\(alert.id)", alert.level.rawValue, alert.code, alert.mailboxAddress ?? "-", alert.text, "\(alert.count)",
        Words.time(alert.lastSeen), alert.resolvedAt == nil ? "open" : "resolved")
    }
    try session.print(table, page, "alert")
    guard remedies else { return }
    for alert in page.items {
      if let remedy = alert.remedy { try session.print("\(alert.id): \(Terminal.safe(remedy))") }
    }
  }
}
