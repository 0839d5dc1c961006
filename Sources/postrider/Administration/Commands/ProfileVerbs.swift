import ArgumentParser
import PostriderCore

/// `postrider profile activate`
struct ProfileActivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate", abstract: "Let the mailboxes of server profiles run.",
    discussion: "Example: postrider profile activate \"Example mail\"")

  @Argument(help: "Ids or names of profiles.") var profiles: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.setActive(true, profiles: profiles) }
}

/// `postrider profile deactivate`
struct ProfileDeactivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "deactivate", abstract: "Stop the mailboxes of server profiles.",
    discussion: """
      Running sessions end by themselves, no new one begins; the mailboxes say profile-inactive. They go on when the \
      profile is activated again.
      Example: postrider profile deactivate "Example mail"
      """)

  @Argument(help: "Ids or names of profiles.") var profiles: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.setActive(false, profiles: profiles) }
}

/// `postrider profile delete`
struct ProfileDelete: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete a server profile; its mailboxes stay.",
    discussion: """
      Its mailboxes are left without a profile and stand still, with the reason no-profile, until they get another one \
      and are tested. The command says how many there are and asks first. With very many of them the profile is inactive \
      at once, and gone when the last one was taken from it.
      Example: postrider profile delete "Old provider" --dry-run
      Example: postrider profile delete "Old provider" --yes
      """)

  @Argument(help: "The id or name of a profile.") var profile: String
  @Flag(help: "Only say what would be done.") var dryRun = false
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let found = try await Selection.profile(profile, session.api)
    let path = "/server-profiles/\(found.id)/delete"
    let planned: ProfileDeletion = try await session.api.post(path, ProfileDeletionRequest(dryRun: true))
    if dryRun {
      if session.isJSON { return try session.printJSON(planned) }
      return try session.print("\(Self.words(planned, "would be deleted")) Nothing was changed.")
    }
    if !yes {
      let words = Self.words(planned, "will be deleted")
      guard Terminal.canAsk else { throw ClientError.usage("\(words) Say --yes, or look first with --dry-run") }
      Terminal.warn(words)
      guard Terminal.confirm("Delete it?") else { throw ClientError.failed("nothing was deleted") }
    }
    let deletion: ProfileDeletion = try await session.api.post(path, ProfileDeletionRequest(confirmsUnlinking: true))
    if session.isJSON { return try session.printJSON(deletion) }
    try session.print(Self.words(deletion, deletion.isDone ? "is deleted" : "is inactive and being deleted"))
  }

  private static func words(_ deletion: ProfileDeletion, _ what: String) -> String {
    let stay =
      deletion.mailboxes == 0
      ? "It has no mailboxes." : "Without a profile by it, and standing still: \(Words.mailboxes(deletion.mailboxes))."
    return Terminal.safe("The profile \(deletion.name) \(what). \(stay)")
  }
}

extension Session {
  /// Switches profiles; all of them are looked up before anything is done.
  fileprivate func setActive(_ isActive: Bool, profiles names: [String]) async throws {
    var found: [ServerProfile] = []
    for name in names { found.append(try await Selection.profile(name, api)) }
    var changed: [ServerProfile] = []
    for profile in found {
      changed.append(
        try await api.post("/server-profiles/\(profile.id)/\(isActive ? "activate" : "deactivate")", NoBody()))
    }
    if isJSON { return try show(changed) { _ in "" } }
    for profile in changed {
      try print(
        Terminal.safe(
          "The profile \(profile.name) is \(isActive ? "active" : "inactive"); "
            + "it has \(Words.mailboxes(profile.mailboxCount))."))
    }
  }
}

/// The body of `POST /server-profiles/{id}/delete`.
struct ProfileDeletionRequest: Encodable, Sendable {
  var confirmsUnlinking: Bool?
  var dryRun: Bool?
}
