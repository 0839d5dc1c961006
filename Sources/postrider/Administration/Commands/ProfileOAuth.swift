import ArgumentParser
import FoundationEssentials
import PostriderCore

extension OAuthFlow: ExpressibleByArgument {}

/// `postrider profile oauth …`
struct ProfileOAuth: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "oauth", abstract: "The application by which a profile's provider knows this installation.",
    subcommands: [ProfileOAuthSet.self, ProfileOAuthShow.self, ProfileOAuthRemove.self])
}

/// `postrider profile oauth set`
struct ProfileOAuthSet: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Set the application of a profile.",
    discussion: """
      Register an application at the provider; for consents with the redirect address that \
      `api.publicUrl` and /oauth/callback make. Gmail and Microsoft 365 fill in their own addresses and scopes.
      Example: postrider profile oauth set Gmail --client-id 123.apps.googleusercontent.com --secret-file secret.txt
      Example: postrider profile oauth set Gmail --service-account key.json
      Example: postrider profile oauth set "Microsoft 365" --flow client-credentials --tenant example.com \
      --client-id 1b2c… --secret-stdin < secret.txt
      """)

  @Argument(help: "The profile's id or name.") var profile: String

  @Option(
    help: ArgumentHelp(
      "How tokens come about: authorization-code, service-account or client-credentials.",
      discussion: """
        authorization-code: the owner of each mailbox consents (`postrider mailbox connect`). service-account: Google's \
        domain-wide delegation. client-credentials: Microsoft's app-only access. Default: authorization-code.
        """, valueName: "flow"))
  var flow: OAuthFlow?

  @Option(help: ArgumentHelp("The application's client id.", valueName: "id")) var clientID: String?

  @Option(
    help: ArgumentHelp(
      "A service account's key file (JSON) as Google hands it out: sets flow, client id and key.", valueName: "file"),
    completion: .file())
  var serviceAccount: String?

  @Option(
    help: ArgumentHelp(
      "Microsoft's directory: a GUID or a domain.", discussion: "Default: organizations.", valueName: "tenant"))
  var tenant: String?

  @Option(help: ArgumentHelp("Where owners consent.", valueName: "url")) var authorizationURL: String?
  @Option(help: ArgumentHelp("Where tokens come from.", valueName: "url")) var tokenURL: String?
  @Option(help: ArgumentHelp("Where tokens are taken back.", valueName: "url")) var revocationURL: String?
  @Option(
    help: ArgumentHelp(
      "A right to ask for; may be repeated.", discussion: "Default: the provider's for POP3 and SMTP.",
      valueName: "scope"))
  var scope: [String] = []

  @Flag(help: "Read the client secret from standard input.") var secretStdin = false
  @Option(
    help: ArgumentHelp(
      "Read the client secret from this file (also POSTRIDER_OAUTH_SECRET).",
      discussion: "Without any the stored secret stays.", valueName: "file"), completion: .file())
  var secretFile: String?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if secretStdin && secretFile != nil { throw ValidationError("Give either --secret-stdin or --secret-file.") }
    if serviceAccount != nil && (secretStdin || secretFile != nil) {
      throw ValidationError("A service account has a key, no secret: leave --secret-… out.")
    }
    if serviceAccount == nil && clientID == nil { throw ValidationError("Give --client-id or --service-account.") }
  }

  private struct KeyFile: Decodable {
    var clientEmail: String
    var privateKey: String

    enum CodingKeys: String, CodingKey {
      case clientEmail = "client_email"
      case privateKey = "private_key"
    }
  }

  private struct Request: Encodable {
    var flow: OAuthFlow?
    var clientID: String
    var clientSecret: SentSecret?
    var privateKey: SentSecret?
    var tenant: String?
    var authorizationURL: String?
    var tokenURL: String?
    var revocationURL: String?
    var scopes: [String]?
  }

  func execute(_ session: Session) async throws {
    let profile = try await Selection.profile(profile, session.api)
    let client: OAuthClient = try await session.api.post("/server-profiles/\(profile.id)/oauth-client", try request())
    if session.isJSON { return try session.printJSON(client) }
    try session.print("The profile \(Terminal.safe(profile.name)) has this application now.\n")
    try session.print(ProfileOAuthShow.details(client).rendered())
    if client.flow == .authorizationCode && !client.secretSet {
      Terminal.warn("Warning: no client secret is stored; most providers want one.")
    }
  }

  private func request() throws -> Request {
    var request = Request(
      flow: flow, clientID: clientID ?? "", tenant: tenant, authorizationURL: authorizationURL, tokenURL: tokenURL,
      revocationURL: revocationURL, scopes: scope.isEmpty ? nil : scope)
    if let serviceAccount {
      let text = try SecretFile.read(serviceAccount, what: "the key file")
      guard let key = try? JSONDecoder().decode(KeyFile.self, from: Data(text.utf8)) else {
        throw ClientError.failed(
          "\(Terminal.safe(serviceAccount)) is no key file of a service account: it lacks client_email or private_key")
      }
      request.flow = flow ?? .serviceAccount
      request.clientID = clientID ?? key.clientEmail
      request.privateKey = SentSecret(Secret(key.privateKey))
    } else {
      request.clientSecret = try secret().map { SentSecret($0) }
    }
    return request
  }

  private func secret() throws -> Secret? {
    if secretStdin { return Secret(try SecretFile.text(try Terminal.readInput(maximum: 4_096), what: "the secret")) }
    if let secretFile { return Secret(try SecretFile.read(secretFile, what: "the secret file")) }
    let value = ProcessInfo.processInfo.environment["POSTRIDER_OAUTH_SECRET"] ?? ""
    return value.isEmpty ? nil : Secret(value)
  }
}

/// `postrider profile oauth show`
struct ProfileOAuthShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show the application of a profile; its secret is never shown.",
    discussion: "Example: postrider profile oauth show Gmail")

  @Argument(help: "The profile's id or name.") var profile: String
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let profile = try await Selection.profile(profile, session.api)
    let client: OAuthClient = try await Selection.orNotFound(
      "the profile \(Terminal.safe(profile.name)) has no OAuth application"
    ) { try await session.api.get("/server-profiles/\(profile.id)/oauth-client") }
    if session.isJSON { return try session.printJSON(client) }
    try session.print(Self.details(client).rendered())
  }

  static func details(_ client: OAuthClient) -> Details {
    var details = Details()
    details.add("flow", client.flow.rawValue)
    details.add("client id", client.clientID)
    details.add(client.flow == .serviceAccount ? "private key" : "client secret", client.secretSet ? "stored" : "none")
    details.add("consent at", client.authorizationURL)
    details.add("tokens from", client.tokenURL)
    details.add("taken back at", client.revocationURL)
    details.add("asks for", client.scopes.joined(separator: " "))
    return details
  }
}

/// `postrider profile oauth remove`
struct ProfileOAuthRemove: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove", abstract: "Remove the application of a profile; its mailboxes get no more tokens.",
    discussion: "Asks before, unless --yes is given. Example: postrider profile oauth remove Gmail --yes")

  @Argument(help: "The profile's id or name.") var profile: String
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Removed: Codable {
    var removed: Bool
  }

  func execute(_ session: Session) async throws {
    let profile = try await Selection.profile(profile, session.api)
    let words = "the OAuth application of \(Terminal.safe(profile.name)), used by \(profile.mailboxCount) mailboxes"
    try Confirmation.ask("Remove \(words)?", yes: yes, refusal: "\(words) would be removed: say --yes")
    let removed: Removed = try await session.api.post(
      "/server-profiles/\(profile.id)/oauth-client/remove", [String: String]())
    if session.isJSON { return try session.printJSON(removed) }
    try session.print("Removed.")
  }
}

/// A question before something that cannot be undone.
enum Confirmation {
  /// Throws ``ClientError`` unless somebody said yes.
  static func ask(_ question: String, yes: Bool, refusal: String) throws {
    if yes { return }
    guard Terminal.canAsk else { throw ClientError.usage(refusal) }
    guard Terminal.confirm(question) else { throw ClientError.failed("nothing was changed") }
  }
}
