import ArgumentParser
import PostriderCore

/// `postrider mailbox edit`
struct MailboxEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change mailboxes while they work.",
    discussion: """
      What is not named stays. With --json one mailbox is an object, several are an array.
      Example: postrider mailbox edit support@example.com --deactivate
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup var activation: ActivationOptions

  @Option(help: ArgumentHelp("Move them to this profile, by id or name; see `mailbox move`.", valueName: "profile"))
  var profile: String?

  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the mailbox since this version; for one mailbox.",
      discussion: "The version is in `mailbox show --json`.", valueName: "number"))
  var ifVersion: Int64?

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if activation.isActive == nil && profile == nil {
      throw ValidationError("Nothing is to be changed: give --activate, --deactivate or --profile.")
    }
    if ifVersion != nil && mailboxes.count > 1 { throw ValidationError("--if-version is for one mailbox.") }
  }

  func execute(_ session: Session) async throws {
    try await session.change(mailboxes, profile: profile, isActive: activation.isActive, version: ifVersion)
  }
}

/// `postrider mailbox move`
struct MailboxMove: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "move", abstract: "Move mailboxes to another server profile.",
    discussion: """
      They have to be tested there before they run again. A mailbox never has sessions in both profiles: none begins \
      in the new one before the last one in the old has ended.
      Example: postrider mailbox move support@example.com sales@example.com --profile "New provider"
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]

  @Option(help: ArgumentHelp("The profile they move to, by id or name.", valueName: "profile"))
  var profile: String

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.change(mailboxes, profile: profile) }
}

extension Session {
  /// Changes mailboxes one after the other; a refusal stops it and says how far it came.
  func change(
    _ names: [String], profile: String? = nil, isActive: Bool? = nil, version: Int64? = nil
  ) async throws {
    let chosen = try await Selection.mailboxes(names, api)
    var target: ServerProfile?
    if let profile { target = try await Selection.profile(profile, api) }
    var changed: [Mailbox] = []
    do {
      for mailbox in chosen {
        changed.append(
          try await api.patch(
            "/mailboxes/\(mailbox.id)",
            MailboxChange(profileID: target?.id, isActive: isActive, version: version)))
      }
    } catch {
      if chosen.count > 1 {
        let words = "\(changed.count) of \(chosen.count) mailboxes were changed"
        Terminal.warn("\(words), then \(Terminal.safe(chosen[changed.count].address)) was refused.")
      }
      throw error
    }
    if isJSON { return try show(changed) { _ in "" } }
    for mailbox in changed {
      let moved = target.map { " is now with \($0.name)" }
      let switched = isActive.map { $0 ? " is active" : " is inactive" }
      let what = [moved, switched].compactMap { $0 }.joined(separator: " and")
      try print(Terminal.safe("\(mailbox.address)\(what)."))
    }
    if target != nil {
      let ids = changed.map { "\($0.id)" }.joined(separator: " ")
      try print("\nNext: postrider mailbox test \(ids)")
    }
  }
}
