import ArgumentParser
import PostriderCore

/// `postrider queue pause`
struct QueuePause: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Stop work on mailboxes, on profiles, or on everything, until it is resumed.",
    discussion: """
      Running sessions end by themselves; no new one begins. A pause is kept in PostgreSQL and survives restarts; \
      pausing twice changes nothing. Pausing more than single mailboxes needs an administrator.
      Example: postrider queue pause --profile "Example mail"
      """)

  @OptionGroup var targets: PauseTargets
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await targets.set("pause", session) }
}

/// `postrider queue resume`
struct QueueResume: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "End pauses.",
    discussion: """
      Work that became due meanwhile runs once, not once for each time it was missed. A mailbox runs only when \
      neither itself nor its profile nor everything is paused.
      Example: postrider queue resume --profile "Example mail"
      """)

  @OptionGroup var targets: PauseTargets
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await targets.set("resume", session) }
}

/// What is paused or resumed.
struct PauseTargets: ParsableArguments {
  @Option(help: ArgumentHelp("A profile, by id or name; may be given several times.", valueName: "profile"))
  var profile: [String] = []

  @Option(help: ArgumentHelp("A mailbox, by id, address or owner's name; may be repeated.", valueName: "mailbox"))
  var mailbox: [String] = []

  @Flag(help: "Every mailbox of the organization.") var all = false

  func validate() throws {
    if all == !(profile.isEmpty && mailbox.isEmpty) {
      throw ValidationError("Say what: --profile and --mailbox, or --all.")
    }
  }

  /// What was done.
  struct Answer: Codable, Sendable {
    var changed: [PauseRequest]
  }

  func set(_ verb: String, _ session: Session) async throws {
    var targets: [(request: PauseRequest, name: String)] = []
    if all { targets.append((PauseRequest(scope: "organization"), "Everything")) }
    // All of them are looked up before anything is done.
    for name in profile {
      let found = try await Selection.profile(name, session.api)
      targets.append((PauseRequest(scope: "profile", id: found.id.value), "The profile \(found.name)"))
    }
    for found in try await Selection.mailboxes(mailbox, session.api) {
      targets.append((PauseRequest(scope: "mailbox", id: found.id.value), "The mailbox \(found.address)"))
    }
    try await Self.set(verb, targets, session)
  }

  /// The same for mailboxes alone.
  static func set(_ verb: String, mailboxes: [String], _ session: Session) async throws {
    let found = try await Selection.mailboxes(mailboxes, session.api)
    try await set(
      verb,
      found.map { (PauseRequest(scope: "mailbox", id: $0.id.value), "The mailbox \($0.address)") }, session)
  }

  private static func set(
    _ verb: String, _ targets: [(request: PauseRequest, name: String)], _ session: Session
  ) async throws {
    var answer = Answer(changed: [])
    for target in targets {
      answer.changed.append(try await session.api.post("/queue/\(verb)", target.request))
      if session.isJSON { continue }
      try session.print(Terminal.safe("\(target.name) is \(verb == "pause" ? "paused" : "not paused any more")."))
    }
    if session.isJSON { try session.printJSON(answer) }
  }
}

/// `postrider queue pauses`
struct QueuePauses: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "pauses", abstract: "List what is paused, since when and by whom.",
    discussion: "Example: postrider queue pauses")

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<Pause> = try await Selection.list(
      "/queue/pauses", [], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(.text("WHAT"), .number("ID"), .flexible("NAME"), .flexible("SINCE"), .flexible("BY"))
    for pause in page.items {
      table.add(
        pause.scope, pause.id.map(String.init) ?? "", pause.name, Words.timeAndDistance(pause.since) ?? "", pause.by)
    }
    try session.print(table, page, "pause")
  }
}
