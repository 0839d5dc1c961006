import ArgumentParser
import PostriderCore

/// `postrider alert show`
struct AlertShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show alerts with what to do about them.",
    discussion: """
      With --json one alert is an object, several are an array.
      Example: postrider alert show 17
      """)

  @Argument(help: "Ids of alerts.") var alerts: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [Alert] = []
    for id in alerts {
      found.append(
        try await Selection.orNotFound("there is no alert \(id)") { try await session.api.get("/alerts/\(id)") })
    }
    try session.show(found) { Self.details($0).rendered() }
  }

  /// `open`, `resolved` or `dismissed`.
  static func state(_ alert: Alert) -> String {
    alert.resolvedAt == nil ? "open" : alert.dismissedBy == nil ? "resolved" : "dismissed"
  }

  static func details(_ alert: Alert) -> Details {
    var details = Details()
    details.add("id", "\(alert.id)")
    details.add("level", alert.level.rawValue)
    details.add("code", alert.code)
    details.add("mailbox", alert.mailboxID.map { "\(alert.mailboxAddress ?? "") (\($0))" })
    details.add("profile", alert.profileID.map { "\($0)" })
    details.add("text", alert.text)
    details.add("what to do", alert.remedy)
    for (name, value) in alert.parameters.sorted(by: { $0.key < $1.key }) { details.add("  \(name)", value) }
    details.add("count", "\(alert.count)")
    details.add("first seen", Words.timeAndDistance(alert.firstSeen))
    details.add("last seen", Words.timeAndDistance(alert.lastSeen))
    details.add("run", alert.runID.map { "\($0)" })
    details.add("state", state(alert))
    details.add("closed", Words.timeAndDistance(alert.resolvedAt))
    details.add("dismissed by", alert.dismissedBy)
    return details
  }
}

/// `postrider alert dismiss`
struct AlertDismiss: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "dismiss", abstract: "Close alerts that somebody has seen to.",
    discussion: """
      They stay among the resolved ones, with who dismissed them; what happens again raises a new alert. Exit code 1 when \
      there is no such alert.
      Example: postrider alert dismiss 17 18
      """)

  @Argument(help: "Ids of alerts.") var alerts: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if alerts.count > BulkRequest.maximumIDs { throw ValidationError("At most \(BulkRequest.maximumIDs) at once.") }
    if let wrong = alerts.first(where: { $0 < 1 }) { throw ValidationError("\(wrong) is not an id.") }
  }

  func execute(_ session: Session) async throws {
    let answer: AlertAnswer = try await session.api.post(
      "/alerts/dismiss", AlertIDs(ids: alerts.map { AlertID($0) }))
    let refused = answer.results.filter { !$0.ok }
    if session.isJSON {
      try session.printJSON(answer)
    } else {
      for result in refused { try session.print("\(result.id): \(Terminal.safe(result.message ?? "refused"))") }
      try session.print("\(Words.count(answer.results.count - refused.count, "alert")) dismissed.")
    }
    if !refused.isEmpty { throw ExitCode(1) }
  }
}

/// `postrider alert delete-all`
struct AlertDeleteAll: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete-all", abstract: "Delete alerts for good: all that are open, or those that the options leave.",
    discussion: """
      A fault that goes on raises a new alert. Asks before, unless --yes is given.
      Example: postrider alert delete-all --level information --resolved --dry-run
      Example: postrider alert delete-all --mailbox support@example.com --yes
      """)

  @OptionGroup var filter: AlertFilterOptions
  @Flag(help: "Only say how many there are.") var dryRun = false
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var body = try await filter.body(session.api)
    body.dryRun = true
    let planned: DeletedAlerts = try await session.api.post("/alerts/delete-all", body)
    let words = Words.count(planned.count, "alert")
    if dryRun || planned.count == 0 {
      if session.isJSON { return try session.printJSON(planned) }
      return try session.print(planned.count == 0 ? "There are no such alerts." : "\(words) would be deleted.")
    }
    if !yes {
      guard Terminal.canAsk else {
        throw ClientError.usage("\(words) would be deleted for good: say --yes, or look first with --dry-run")
      }
      guard Terminal.confirm("Delete \(words) for good?") else { throw ClientError.failed("nothing was deleted") }
    }
    (body.dryRun, body.confirms) = (nil, true)
    let deleted: DeletedAlerts = try await session.api.post("/alerts/delete-all", body)
    if session.isJSON { return try session.printJSON(deleted) }
    try session.print("\(Words.count(deleted.count, "alert")) deleted.")
  }
}

/// Which alerts.
struct AlertFilterOptions: ParsableArguments {
  /// Whose wall.
  enum Wall: String, ExpressibleByArgument, CaseIterable {
    case mine
    case mailbox
    case profile
  }

  @Option(
    help: ArgumentHelp(
      "Those on a wall: mine, mailbox (with --mailbox) or profile (with --profile).",
      discussion: """
        A profile's wall has the errors of its mailboxes too; a mailbox's and its owner's have the errors of the profile \
        where `settings edit --notify-owners` says so. Example: --wall profile --profile "Example mail"
        """, valueName: "wall"))
  var wall: Wall?

  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?

  @Option(help: ArgumentHelp("Only those of this server profile itself, by id or name.", valueName: "profile"))
  var profile: String?

  @Option(
    help: ArgumentHelp(
      "Only these: information, warning or error.", discussion: "Default: all.", valueName: "level"))
  var level: AlertLevel?

  @Option(help: ArgumentHelp("Only those with this code, such as auth.rejected.", valueName: "code"))
  var code: String?

  @Flag(help: "Also those that went away by themselves or were dismissed.") var resolved = false

  func validate() throws {
    if wall == .mailbox && mailbox == nil { throw ValidationError("--wall mailbox needs --mailbox.") }
    if wall == .profile && profile == nil { throw ValidationError("--wall profile needs --profile.") }
  }

  func body(_ api: APIClient) async throws -> AlertDeletionBody {
    var body = AlertDeletionBody(
      wall: wall?.rawValue, level: level, code: code, includeResolved: resolved ? true : nil)
    if let mailbox { body.mailboxID = try await Selection.mailbox(mailbox, api).id }
    if let profile { body.profileID = try await Selection.profile(profile, api).id }
    return body
  }

  func query(_ api: APIClient) async throws -> [(String, String?)] {
    let body = try await body(api)
    return [
      ("wall", body.wall), ("mailbox", body.mailboxID?.description), ("profile", body.profileID?.description),
      ("level", level?.rawValue), ("code", code), ("resolved", resolved ? "true" : nil),
    ]
  }
}

/// The body of `POST /alerts/delete-all`.
struct AlertDeletionBody: Encodable, Sendable {
  var wall: String?
  var mailboxID: MailboxID?
  var profileID: ProfileID?
  var level: AlertLevel?
  var code: String?
  var includeResolved: Bool?
  var confirms: Bool?
  var dryRun: Bool?
}

/// The answer of `POST /alerts/delete-all`.
struct DeletedAlerts: Codable, Sendable {
  var count: Int
  var dryRun: Bool
}

/// The body of `POST /alerts/dismiss`.
private struct AlertIDs: Encodable, Sendable {
  var ids: [AlertID]
}

/// The answer of `POST /alerts/dismiss`.
private struct AlertAnswer: Codable, Sendable {
  var results: [AlertResult]
}
