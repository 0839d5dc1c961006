import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider user …`
struct UserCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "user", abstract: "Users: people who own mailboxes, sign in, or hold tokens.",
    subcommands: [
      UserCreate.self, UserList.self, UserShow.self, UserEdit.self, UserActivate.self, UserDeactivate.self,
      UserDelete.self, UserSetPassword.self, UserRoles.self,
    ])
}

/// Which users or shared queues a list shows.
struct PeopleOptions: ParsableArguments {
  @Flag(help: "Only active ones.") var active = false
  @Flag(help: "Only inactive ones.") var inactive = false
  @Option(help: ArgumentHelp("Only those with this in name or address.", valueName: "text")) var text: String?

  func validate() throws {
    if active && inactive { throw ValidationError("Give either --active or --inactive, not both.") }
  }

  var query: [(String, String?)] { [("active", active ? "true" : inactive ? "false" : nil), ("text", text)] }
}

/// The body that the API reads as Core's `UserDraft`.
private struct UserRequest: Encodable {
  var address: String
  var name: String?
  var role: Role?
}

/// The body that the API reads as Core's `UserChange`.
private struct UserChangeRequest: Encodable {
  var name: String?
  var address: String?
  var role: Role?
  var version: Int64?
}

/// `postrider user create`
struct UserCreate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Enter a user.",
    discussion: """
      A user signs in once they have a password: postrider user set-password.
      Example: postrider user create ann@example.com --name "Ann Ames" --role mailbox-manager
      """)

  @Argument(help: "The e-mail address, unique among the users.") var address: String
  @Option(help: ArgumentHelp("The display name, at most 200 characters (default: the address).", valueName: "name"))
  var name: String?
  @Option(help: ArgumentHelp("What they may do after signing in (default: owner).", valueName: "role")) var role: Role?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let user: User = try await session.api.post("/users", UserRequest(address: address, name: name, role: role))
    if session.isJSON { return try session.printJSON(user) }
    try session.print("Entered the user \(user.id), \(Terminal.safe(user.address)).")
  }
}

/// `postrider user list`
struct UserList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List users by address.",
    discussion: "Example: postrider user list --text example.com"
  )

  @OptionGroup var people: PeopleOptions
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.list(
      User.path, people.query, list, User.noun,
      [
        .number("ID"), .flexible("ADDRESS"), .flexible("NAME"), .text("ROLE"), .text("STATE"), .text("PASSWORD"),
        .text("LAST SIGN-IN"),
      ]
    ) { (user: User) in
      [
        "\(user.id)", user.address, user.name, user.role.rawValue, user.isActive ? "active" : "inactive",
        user.lockedUntil != nil ? "locked" : user.passwordSet ? "set" : "-", Words.time(user.lastSignInAt),
      ]
    }
  }
}

/// `postrider user show`
struct UserShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show users.",
    discussion: "With --json one is an object, several are an array. Example: postrider user show ann@example.com")

  @Argument(help: "Ids, addresses or names of users.") var users: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.show(users, Self.details) }

  static func details(_ user: User) -> Details {
    var details = Details()
    details.add("id", "\(user.id)")
    details.add("name", user.name)
    details.add("address", user.address)
    details.add("role", user.role.rawValue)
    details.add("active", user.isActive ? "yes" : "no: cannot sign in, and the mailboxes stand still")
    details.add("password", user.passwordSet ? "set" : "none: cannot sign in")
    details.add(
      "locked", Words.timeAndDistance(user.lockedUntil).map { "until \($0), because of wrong passwords" })
    details.add("last sign-in", Words.timeAndDistance(user.lastSignInAt))
    details.add("created", Words.timeAndDistance(user.createdAt))
    details.add("changed", Words.timeAndDistance(user.updatedAt))
    details.add("version", "\(user.version)")
    return details
  }
}

/// `postrider user edit`
struct UserEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change a user.",
    discussion: """
      What is not named stays. Another role revokes their tokens of other roles.
      Example: postrider user edit ann@example.com --role approver
      """)

  @Argument(help: "The id, address or name of a user.") var user: String
  @Option(help: ArgumentHelp("Another display name.", valueName: "name")) var name: String?
  @Option(
    help: ArgumentHelp("Another address; the addresses of their mailboxes stay.", valueName: "address"))
  var address: String?
  @Option(help: ArgumentHelp("What they may do after signing in.", valueName: "role")) var role: Role?
  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the user since this version.",
      discussion: "The version is in `user show`.", valueName: "number"))
  var ifVersion: Int64?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if name == nil && address == nil && role == nil {
      throw ValidationError("Nothing is to be changed: give an option, such as --role.")
    }
  }

  func execute(_ session: Session) async throws {
    let found = try await Selection.user(user, session.api)
    let changed: User = try await session.api.patch(
      "/users/\(found.id)", UserChangeRequest(name: name, address: address, role: role, version: ifVersion))
    if session.isJSON { return try session.printJSON(changed) }
    try session.print("Changed the user \(Terminal.safe(changed.address)).\n")
    try session.print(UserShow.details(changed).rendered())
  }
}

/// `postrider user activate`
struct UserActivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate", abstract: "Let users sign in and their mailboxes run again.",
    discussion: "Example: postrider user activate ann@example.com")

  @Argument(help: "Ids, addresses or names of users.") var users: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.activate(User.self, users, true) }
}

/// `postrider user deactivate`
struct UserDeactivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "deactivate", abstract: "Keep users from signing in; their tokens and mailboxes stand still.",
    discussion: """
      Nothing is lost: running sessions end by themselves, no new one begins until the user is activated again.
      Example: postrider user deactivate ann@example.com
      """)

  @Argument(help: "Ids, addresses or names of users.") var users: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.activate(User.self, users, false) }
}

/// `postrider user delete`
struct UserDelete: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete a user with their tokens.",
    discussion: """
      Refused as long as the user has mailboxes, or owns shared queues or server profiles; the answer names them. Asks \
      before, unless --yes is given. Example: postrider user delete ann@example.com --yes
      """)

  @Argument(help: "The id, address or name of a user.") var user: String
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.delete(User.self, user, with: " with their tokens", yes: yes)
  }
}

/// `postrider user set-password`
struct UserSetPassword: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "set-password", abstract: "Give a user a password to sign in with.",
    discussion: """
      12 to 200 characters. It comes from --password-stdin, --password-file, POSTRIDER_USER_PASSWORD or, at a terminal, a \
      question without echo; never from an argument. --no-password takes it away. Ends the user's lock and sessions.
      Changing one's own needs the present one, from POSTRIDER_CURRENT_PASSWORD or a question.
      Example: postrider user set-password ann@example.com
      """)

  @Argument(help: "The id or address of a user.") var user: String
  @OptionGroup(title: "The new password (also POSTRIDER_USER_PASSWORD)") var password: PasswordOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Request: Encodable {
    var password: SentSecret?
    var currentPassword: SentSecret?
  }

  private struct Answer: Codable {
    var passwordSet: Bool
  }

  func execute(_ session: Session) async throws {
    let own: Principal = try await session.api.get("/whoami")
    // A person without the right to see users names themselves by their number.
    let id = UserID(user) == own.userID ? own.userID : try await Selection.user(user, session.api).id
    guard
      let new = try password.read(
        variable: "POSTRIDER_USER_PASSWORD", question: "New password of \(Terminal.safe(user)): ")
    else {
      guard password.noPassword else { throw ClientError.failed("nothing was changed: the password was empty") }
      return try await send(Request(currentPassword: try current(id, own)), id, session)
    }
    try await send(
      Request(password: SentSecret(new), currentPassword: try current(id, own)), id, session)
  }

  private func current(_ id: UserID, _ own: Principal) throws -> SentSecret? {
    if id != own.userID { return nil }
    if let value = ProcessInfo.processInfo.environment["POSTRIDER_CURRENT_PASSWORD"], !value.isEmpty {
      return SentSecret(Secret(value))
    }
    guard Terminal.canAsk else { return nil }
    return try Terminal.askSecret("Present password (empty for none): ").map { SentSecret(Secret($0)) }
  }

  private func send(_ request: Request, _ id: UserID, _ session: Session) async throws {
    let answer: Answer = try await session.api.post("/users/\(id)/password", request)
    if session.isJSON { return try session.printJSON(answer) }
    try session.print(answer.passwordSet ? "The password is set." : "The password is taken away.")
  }
}

/// `postrider user roles`
struct UserRoles: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "roles", abstract: "List the roles and the rights of each.",
    discussion: "Example: postrider user roles")

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  /// The answer of `GET /roles`.
  struct Roles: Codable {
    /// One role.
    struct Row: Codable {
      var role: String
      var rights: [String]
      var seesOnlyOwn: Bool
    }
    var roles: [Row]
  }

  func execute(_ session: Session) async throws {
    let answer: Roles = try await session.api.get("/roles")
    if session.isJSON { return try session.printJSON(answer) }
    var table = Table(.text("ROLE"), .text("SEES"), .flexible("RIGHTS"))
    for row in answer.roles {
      table.add(row.role, row.seesOnlyOwn ? "the own" : "all", row.rights.joined(separator: " "))
    }
    try session.print(table)
  }
}
