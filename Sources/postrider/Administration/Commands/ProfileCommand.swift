import ArgumentParser
import PostriderCore

/// `postrider profile …`
struct ProfileCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "profile", abstract: "Server profiles: how mail providers are reached.",
    subcommands: [
      ProfileCreate.self, ProfileList.self, ProfileShow.self, ProfileEdit.self, ProfileActivate.self,
      ProfileDeactivate.self, ProfileDelete.self, ProfileOAuth.self,
    ])
}

/// `postrider profile list`
struct ProfileList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the server profiles by name.", discussion: "Example: postrider profile list")

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<ServerProfile> = try await Selection.list(
      "/server-profiles", [], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .flexible("NAME"), .text("TYPE"), .flexible("INCOMING"), .flexible("OUTGOING"),
      .text("CREDENTIALS"), .number("MAILBOXES"), .text("DEFAULT"))
    for profile in page.items {
      table.add(
        "\(profile.id)", profile.name, profile.type.rawValue, ProfileShow.server(profile.incoming),
        ProfileShow.server(profile.outgoing), profile.incoming.credentials.rawValue, "\(profile.mailboxCount)",
        profile.isDefault ? "default" : profile.isActive ? "" : "inactive")
    }
    try session.print(table, page, "server profile")
  }
}

/// `postrider profile show`
struct ProfileShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show server profiles.",
    discussion: """
      With --json one profile is an object, several are an array.
      Example: postrider profile show "Example mail"
      """)

  @Argument(help: "Ids or names of profiles.") var profiles: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [ServerProfile] = []
    for name in profiles { found.append(try await Selection.profile(name, session.api)) }
    try session.show(found) { Self.details($0).rendered() }
  }

  /// `pop.example.com:995 implicit`
  static func server(_ settings: ServerSettings) -> String {
    "\(settings.host):\(settings.port) \(settings.tls == .none ? "no TLS" : settings.tls.rawValue)"
  }

  static func details(_ profile: ServerProfile) -> Details {
    var details = Details()
    details.add("id", "\(profile.id)")
    details.add("name", profile.name)
    details.add("description", profile.description.isEmpty ? nil : profile.description)
    details.add("type", profile.type.rawValue)
    details.add("owner", profile.ownerID.map { "\(profile.ownerName ?? "") (user \($0))" })
    details.add("active", profile.isActive ? "yes" : "no: its mailboxes stand still")
    details.add(
      "paused", profile.pausedAt.flatMap { Words.timeAndDistance($0) }.map { "since \($0): its mailboxes stand still" })
    details.add(
      "being deleted", profile.deletingSince.flatMap { Words.timeAndDistance($0) }.map { "since \($0)" })
    details.add("default", profile.isDefault ? "yes" : "no")
    for (name, settings) in [("incoming", profile.incoming), ("outgoing", profile.outgoing)] {
      details.add(name, server(settings))
      details.add("\(name) login", login(settings))
    }
    let minutes = profile.minimumPollingIntervalMinutes
    details.add("polling interval", minutes == 0 ? "the organization's default" : Words.count(minutes, "minute"))
    details.add(
      "connections",
      "at most \(profile.maximumConcurrentConnections) at once "
        + (profile.limitIsPerProfile ? "for all its mailboxes together" : "for each mailbox"))
    details.add("each may send", Words.quota(profile.sendQuota ?? profile.type.sendQuota))
    details.add("all may send", profile.sharedSendQuota.map { Words.quota($0) })
    details.add("told of failures", profile.failureNoticeTo)
    details.add("weight", "\(profile.weight)")
    details.add("timeout", "\(profile.connectionTimeoutSeconds) s")
    details.add("failed logins", "at most \(profile.maximumFailedLogins) at a server within 10 minutes, then they wait")
    details.add("certificates", profile.caCertificatesPEM == nil ? "the system's" : "the profile's own")
    details.add("process email from", profile.processEmailFrom.map { Words.time($0) })
    details.add("mailboxes", "\(profile.mailboxCount)")
    details.add("created", Words.timeAndDistance(profile.createdAt))
    details.add("changed", Words.timeAndDistance(profile.updatedAt))
    return details
  }

  private static func login(_ settings: ServerSettings) -> String {
    var text = "credentials: \(settings.credentials.rawValue), mechanism: \(settings.mechanism.rawValue)"
    if let name = settings.userName { text += ", user name: \(name)" }
    if let loginAs = settings.loginAs { text += ", login as: \(loginAs.rawValue)" }
    if settings.credentials == .profile { text += ", password: \(settings.passwordSet ? "set" : "missing")" }
    return text
  }
}
