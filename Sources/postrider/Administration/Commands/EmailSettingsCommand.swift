import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider settings …`
struct EmailSettingsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "settings", abstract: "The organization's email settings: defaults, approval, alerts, limits.",
    subcommands: [EmailSettingsShow.self, EmailSettingsEdit.self])
}

/// `postrider settings show`
struct EmailSettingsShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show the organization's email settings.",
    discussion: "Example: postrider settings show")

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let settings: EmailSettings = try await session.api.get("/email-settings")
    try session.show([settings]) { Self.details($0).rendered() }
  }

  static func details(_ settings: EmailSettings) -> Details {
    var details = Details()
    details.heading("for new mailboxes")
    details.add("  profile", settings.defaultProfileID.map { "\(settings.defaultProfileName ?? "") (\($0))" } ?? "none")
    details.add("  incoming", settings.incomingMethod.rawValue)
    details.add("  outgoing", settings.outgoingMethod.rawValue)
    details.add("  act", Words.act(settings.act))
    details.heading("polling")
    details.add("  interval", "\(Words.count(settings.pollingIntervalMinutes, "minute")), where the profile names none")
    details.heading("mail is processed")
    details.add("  of users", settings.approvedUsersOnly ? "only when approved" : "approved or not")
    details.add("  of queues", settings.approvedQueuesOnly ? "only when approved" : "approved or not")
    details.heading("alerts")
    let levels = settings.alertLevels.map(\.rawValue)
    details.add("  raised", levels.isEmpty ? "none" : levels.joined(separator: ", "))
    details.add(
      "  of profiles",
      settings.notifiesMailboxOwners ? "errors also on the walls of mailboxes' owners" : "on their own walls")
    details.heading("limits")
    details.add("  message", Words.size(settings.maximumMessageOctets))
    details.add("  attachment", "\(Words.size(settings.maximumAttachmentOctets)), larger ones are left out and marked")
    details.add("  a poll", "at most \(Words.count(settings.messagesPerPoll, "message"))")
    details.add("  a session", "at most \(Words.count(settings.sessionDeadlineSeconds, "second"))")
    details.heading("")
    details.add("changed", Words.timeAndDistance(settings.updatedAt))
    return details
  }
}

/// `postrider settings edit`
struct EmailSettingsEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change the organization's email settings.",
    discussion: """
      What is not named stays. Defaults count for mailboxes made afterwards; others get them with `mailbox \
      apply-defaults`. Limits count from the next session of each mailbox. An alert level that is off raises no alert, \
      which is not made up for when it is on again.
      Example: postrider settings edit --default-profile "Example mail" --interval 10
      Example: postrider settings edit --no-approved-users-only --alert-level error --alert-level warning
      Example: postrider settings edit --max-attachment-size 10MiB --messages-per-poll 500
      """)

  @Option(help: ArgumentHelp("The profile of new mailboxes, by id or name.", valueName: "profile"))
  var defaultProfile: String?
  @Flag(help: "New mailboxes have no profile.") var withoutDefaultProfile = false
  @Option(
    help: ArgumentHelp("Minutes from poll to poll where the profile names none, 1 to 1440.", valueName: "minutes"))
  var interval: Int?
  @Option(help: ArgumentHelp("How new mailboxes receive: none or server-side-sync.", valueName: "method"))
  var incoming: SyncMethod?
  @Option(help: ArgumentHelp("How new mailboxes send: none or server-side-sync.", valueName: "method"))
  var outgoing: SyncMethod?
  @Option(
    help: ArgumentHelp(
      "Appointments, contacts and tasks of new mailboxes: none or server-side-sync.",
      discussion: "Has no effect on profiles that do not carry them.", valueName: "method"))
  var act: SyncMethod?
  @Flag(inversion: .prefixedNo, help: "Whether mail of users is processed only when they are approved.")
  var approvedUsersOnly: Bool?
  @Flag(inversion: .prefixedNo, help: "Whether mail of shared queues is processed only when they are approved.")
  var approvedQueuesOnly: Bool?
  @Option(
    help: ArgumentHelp(
      "Which alerts are raised: error, warning or information; give it again for more. Replaces all.",
      valueName: "level"))
  var alertLevel: [AlertLevel] = []
  @Flag(help: "Raise no alerts at all.") var withoutAlerts = false
  @Flag(inversion: .prefixedNo, help: "Whether errors of a profile stand on the walls of its mailboxes' owners too.")
  var notifyOwners: Bool?
  @Option(
    help: ArgumentHelp(
      "Larger messages are not fetched, 1KiB to 1GiB.", discussion: "Example: --max-message-size 25MiB",
      valueName: "size"))
  var maxMessageSize: SizeArgument?
  @Option(help: ArgumentHelp("Larger attachments are left out and marked, 1B to 1GiB.", valueName: "size"))
  var maxAttachmentSize: SizeArgument?
  @Option(help: ArgumentHelp("Messages fetched in one poll, 1 to 100000.", valueName: "count"))
  var messagesPerPoll: Int?
  @Option(help: ArgumentHelp("Seconds that a session may take, 10 to 86400.", valueName: "seconds"))
  var sessionDeadline: Int?
  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the settings since this version.",
      discussion: "The version is in `settings show --json`.", valueName: "number"))
  var ifVersion: Int64?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if defaultProfile != nil && withoutDefaultProfile {
      throw ValidationError("Give either --default-profile or --without-default-profile, not both.")
    }
    if !alertLevel.isEmpty && withoutAlerts {
      throw ValidationError("Give either --alert-level or --without-alerts, not both.")
    }
    if defaultProfile == nil && change == EmailSettingsChange() {
      throw ValidationError("Nothing is to be changed: give an option, such as --interval.")
    }
  }

  func execute(_ session: Session) async throws {
    var change = change
    change.version = ifVersion
    if let defaultProfile { change.defaultProfileID = try await Selection.profile(defaultProfile, session.api).id }
    let settings: EmailSettings = try await session.api.patch("/email-settings", change)
    try session.show([settings]) { EmailSettingsShow.details($0).rendered() }
  }

  /// Without the profile and the version.
  private var change: EmailSettingsChange {
    var change = EmailSettingsChange()
    if withoutDefaultProfile { change.clears = [.defaultProfileID] }
    change.pollingIntervalMinutes = interval
    change.incomingMethod = incoming
    change.outgoingMethod = outgoing
    change.actMethod = act
    change.approvedUsersOnly = approvedUsersOnly
    change.approvedQueuesOnly = approvedQueuesOnly
    change.alertLevels = withoutAlerts ? [] : alertLevel.isEmpty ? nil : alertLevel
    change.notifiesMailboxOwners = notifyOwners
    change.maximumMessageOctets = maxMessageSize?.octets
    change.maximumAttachmentOctets = maxAttachmentSize?.octets
    change.messagesPerPoll = messagesPerPoll
    change.sessionDeadlineSeconds = sessionDeadline
    return change
  }
}

/// A size on the command line: `5MiB`, `300kB`, `1000`.
struct SizeArgument: ExpressibleByArgument {
  let octets: Int64

  private static let units: [(String, Int64)] = [
    ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000),
    ("B", 1), ("", 1),
  ]

  init?(argument: String) {
    guard let (unit, factor) = Self.units.first(where: { argument.hasSuffix($0.0) }),
      let number = Int64(argument.dropLast(unit.count)), number > 0
    else { return nil }
    let (octets, overflows) = number.multipliedReportingOverflow(by: factor)
    if overflows { return nil }
    self.octets = octets
  }
}
