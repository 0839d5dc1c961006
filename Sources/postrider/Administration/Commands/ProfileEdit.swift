import ArgumentParser
import PostriderCore

/// Turns something on or off; neither leaves it as it is.
struct ActivationOptions: ParsableArguments {
  @Flag(help: "Turn it on.") var activate = false
  @Flag(help: "Turn it off: running sessions end by themselves, no new one begins.") var deactivate = false

  func validate() throws {
    if activate && deactivate { throw ValidationError("Give either --activate or --deactivate, not both.") }
  }

  /// `nil` to leave it.
  var isActive: Bool? { activate ? true : deactivate ? false : nil }
}

/// `postrider profile edit`
struct ProfileEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change a server profile while it works.",
    discussion: """
      What is not named stays. A lower limit ends no session and stops new ones; a higher one counts at once.
      A quota counts from the next session of each mailbox.
      Examples:
        postrider profile edit "Example mail" --max-connections 20 --interval 10
        postrider profile edit "Example mail" --messages-per-minute 30 --all-messages-per-day 5000
      """)

  @Argument(help: "The id or name of a profile.") var profile: String

  @Option(
    help: ArgumentHelp(
      "Connections at once, 1 to 300.",
      discussion: "For each mailbox, or for all of them where one account opens their sessions.", valueName: "count"))
  var maxConnections: Int?

  @Option(
    help: ArgumentHelp(
      "Minutes from one poll of a mailbox to the next, 0 to 1440.", discussion: "0: the organization's default.",
      valueName: "minutes"))
  var interval: Int?

  @Option(
    help: ArgumentHelp("Its share of the workers relative to other profiles, 1 to 100.", valueName: "number"))
  var weight: Int?

  @OptionGroup(title: "What each mailbox may send") var quota: QuotaOptions
  @OptionGroup(title: "What all mailboxes together may send") var sharedQuota: SharedQuotaOptions
  @Option(
    help: ArgumentHelp(
      "Tell this address by mail when more than half of its mailboxes fail within an hour; '' for nobody.",
      discussion: "The mail is sent from the mailbox that `alert mail` names.", valueName: "address"))
  var failureNoticeTo: String?

  @OptionGroup var activation: ActivationOptions

  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the profile since this version.",
      discussion: "The version is in `profile show --json`.", valueName: "number"))
  var ifVersion: Int64?

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    func check(_ value: Int?, _ range: ClosedRange<Int>, _ option: String) throws {
      if let value, !range.contains(value) {
        throw ValidationError("\(option) must be from \(range.lowerBound) to \(range.upperBound).")
      }
    }
    try check(maxConnections, 1...300, "--max-connections")
    try check(interval, 0...1_440, "--interval")
    try check(weight, 1...100, "--weight")
    if maxConnections == nil && interval == nil && weight == nil && activation.isActive == nil, quota.isEmpty,
      sharedQuota.isEmpty, failureNoticeTo == nil
    {
      throw ValidationError(
        "Nothing is to be changed: give --max-connections, --interval, --weight, a quota or --deactivate.")
    }
  }

  func execute(_ session: Session) async throws {
    let found = try await Selection.profile(profile, session.api)
    let changed: ServerProfile = try await session.api.patch(
      "/server-profiles/\(found.id)",
      ProfileChange(
        maximumConcurrentConnections: maxConnections, minimumPollingIntervalMinutes: interval, weight: weight,
        isActive: activation.isActive,
        sendQuota: quota.isEmpty ? nil : quota.applied(to: found.sendQuota ?? found.type.sendQuota),
        sharedSendQuota: sharedQuota.isEmpty ? nil : sharedQuota.applied(to: found.sharedSendQuota ?? .none),
        failureNoticeTo: failureNoticeTo, version: ifVersion))
    if session.isJSON { return try session.printJSON(changed) }
    try session.print("Changed the profile \(Terminal.safe(changed.name)).\n")
    try session.print(ProfileShow.details(changed).rendered())
  }
}
