import ArgumentParser
import FoundationEssentials
import PostriderCore

extension APIToken.Kind: ExpressibleByArgument {}

/// `postrider token issue`
struct TokenIssue: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "issue", abstract: "Make a further token over the API and print it.",
    discussion: """
      For yourself, or with the right to manage users for anybody; of your own role or one that may do less. The token is \
      shown once; only its hash is stored.
      Example: postrider token issue --name nightly-report --role reader --expires 2027-01-31
      """)

  @Option(help: ArgumentHelp("What it is for, at most 100 characters.", valueName: "name")) var name: String
  @Option(help: ArgumentHelp("What whoever has it may do (default: what you may).", valueName: "role")) var role: Role?
  @Option(help: ArgumentHelp("Whose it is: a user by id, address or name (default: you).", valueName: "user"))
  var user: String?
  @Option(
    help: ArgumentHelp(
      "When it ends by itself: a day or a moment, UTC.", discussion: "Default: never. Example: --expires 2027-01-31",
      valueName: "date"))
  var expires: DateArgument?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Request: Encodable {
    var name: String
    var role: Role?
    var userID: UserID?
    var expiresAt: Date?
  }

  /// A token with the secret itself.
  struct Issued: Codable {
    var made: APIToken
    var token: String

    private enum Key: CodingKey { case token }

    init(from decoder: any Decoder) throws {
      made = try APIToken(from: decoder)
      token = try decoder.container(keyedBy: Key.self).decode(String.self, forKey: .token)
    }

    func encode(to encoder: any Encoder) throws {
      try made.encode(to: encoder)
      var container = encoder.container(keyedBy: Key.self)
      try container.encode(token, forKey: .token)
    }
  }

  func execute(_ session: Session) async throws {
    var request = Request(name: name, role: role, expiresAt: expires?.date)
    if let user { request.userID = try await Selection.user(user, session.api).id }
    let issued: Issued = try await session.api.post("/tokens", request)
    if session.isJSON { return try session.printJSON(issued) }
    // Alone on standard output, so that it can go straight into a file.
    Terminal.warn("Made the token \(issued.made.id), shown this once:")
    try session.print(issued.token)
  }
}

/// `postrider token list`
struct TokenList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List tokens and sessions, newest first.",
    discussion: """
      Your own, or with the right to manage users everybody's. The tokens themselves are never shown.
      Example: postrider token list --user ann@example.com --ended
      """)

  @Option(help: ArgumentHelp("Only this user's, by id, address or name.", valueName: "user")) var user: String?
  @Option(help: ArgumentHelp("Only these: token or session.", valueName: "kind")) var kind: APIToken.Kind?
  @Flag(help: "Also revoked and expired ones.") var ended = false
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var id: UserID?
    if let user { id = try await Selection.user(user, session.api).id }
    try await session.list(
      "/tokens", [("user", id?.description), ("kind", kind?.rawValue), ("ended", ended ? "true" : nil)], list, "token",
      [
        .number("ID"), .text("KIND"), .flexible("NAME"), .flexible("USER"), .text("ROLE"), .text("CREATED"),
        .text("LAST USED"), .text("ENDS"),
      ]
    ) { (token: APIToken) in
      let end = token.revokedAt.map { "revoked \(Words.time($0))" } ?? token.expiresAt.map { Words.time($0) } ?? "never"
      return [
        "\(token.id)", token.kind.rawValue, token.name, token.user.address, token.role.rawValue,
        Words.time(token.createdAt), Words.time(token.lastUsedAt), end,
      ]
    }
  }
}

/// `postrider token revoke`
struct TokenRevoke: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke", abstract: "Revoke tokens or end sessions.",
    discussion: """
      Processes of the API let one in for some seconds more. Revoking it twice changes nothing.
      Example: postrider token revoke 12 13
      """)

  @Argument(help: "Ids of tokens.") var tokens: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var revoked: [APIToken] = []
    for id in tokens {
      revoked.append(
        try await Selection.orNotFound("there is no token \(id)") {
          try await session.api.post("/tokens/\(id)/revoke", NoBody())
        })
    }
    try session.show(revoked) { "Revoked the \($0.kind.rawValue) \($0.id) of \(Terminal.safe($0.user.address))." }
  }
}
