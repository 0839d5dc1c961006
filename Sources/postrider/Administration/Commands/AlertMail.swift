import ArgumentParser
import PostriderCore

/// `postrider alert mail`
struct AlertMail: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "mail", abstract: "Show who gets alerts by mail, or set it.",
    discussion: """
      Alerts are gathered into one mail, at most one a minute; each is mailed once, and again when it has become an \
      error. It is sent from one of the organization's own mailboxes, whose own alerts, and those of its outgoing server, \
      are never mailed. What is not named stays.
      Examples:
        postrider alert mail --on --from alerts@example.com --to ops@example.com --to boss@example.com
        postrider alert mail --level error
        postrider alert mail --off
      """)

  @Option(help: ArgumentHelp("The mailbox that sends them, by id, address or owner's name.", valueName: "mailbox"))
  var from: String?
  @Option(help: ArgumentHelp("Who gets them; give it again for more. Replaces all.", valueName: "address"))
  var to: [String] = []
  @Option(
    help: ArgumentHelp(
      "Which: error, warning or information; give it again for more. Replaces all.",
      discussion: "Default: error and warning.", valueName: "level"))
  var level: [AlertLevel] = []
  @Flag(help: "Turn it on.") var on = false
  @Flag(help: "Turn it off.") var off = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws { if on && off { throw ValidationError("Give either --on or --off, not both.") } }

  func execute(_ session: Session) async throws {
    var change = AlertMailChange(
      isOn: on ? true : off ? false : nil, recipients: to.isEmpty ? nil : to, levels: level.isEmpty ? nil : level)
    if let from { change.mailboxID = try await Selection.mailbox(from, session.api).id }
    let settings: AlertMailSettings =
      change == AlertMailChange()
      ? try await session.api.get("/alert-mail") : try await session.api.patch("/alert-mail", change)
    if session.isJSON { return try session.printJSON(settings) }
    try session.print(Self.details(settings).rendered())
  }

  static func details(_ settings: AlertMailSettings) -> Details {
    var details = Details()
    details.add("alert mail", settings.isOn ? "on" : "off")
    details.add("from", settings.mailboxAddress ?? "nobody")
    details.add("does not send", settings.notSendingReason)
    details.add("to", settings.recipients.isEmpty ? "nobody" : settings.recipients.joined(separator: ", "))
    details.add("about", settings.levels.map(\.rawValue).joined(separator: ", "))
    details.add("last mail", Words.timeAndDistance(settings.lastMailedAt) ?? "none")
    return details
  }
}
