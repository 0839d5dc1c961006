import ArgumentParser
import Foundation
import PostriderCore

/// `postrider login`
struct LoginCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "login", abstract: "Sign in with a password; other commands use the session from then on.",
    discussion: """
      The password is asked for without echo, or comes from --password-stdin, --password-file or POSTRIDER_PASSWORD; never \
      from an argument. The session is kept in session.json in the user's configuration folder (XDG_CONFIG_HOME, or \
      ~/.config, and postrider in it), readable by the user alone. It is used where no token is given otherwise, and only \
      for the API that was signed in to. It ends after 12 hours, after 30 minutes without a command, or with \
      `postrider logout`.
      Example: postrider login ann@example.com --organization Example --api https://mail.example.com
      """)

  @Argument(help: "The address of a user.") var address: String
  @Option(help: ArgumentHelp("The name of the user's organization.", valueName: "name")) var organization: String
  @Flag(help: "Send the password over plain HTTP to another machine. Everybody on the way can read it.")
  var insecure = false
  @OptionGroup(title: "The password (also POSTRIDER_PASSWORD)") var password: SignInPassword
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Request: Encodable {
    var organization: String
    var address: String
    var password: SentSecret
  }

  private struct Answer: Decodable {
    var token: String
    var principal: Principal
    var expiresAt: Date
  }

  /// What `--json` prints: no token.
  private struct Shown: Encodable {
    var principal: Principal
    var expiresAt: Date
    var url: String
    var file: String
  }

  func validate() throws {
    if options.token != nil || options.tokenFile != nil {
      throw ValidationError("Signing in takes a password; a token is of no use for it.")
    }
  }

  func run() async throws { try await ClientError.told(execute) }

  private func execute() async throws {
    let environment = ProcessInfo.processInfo.environment
    guard let path = SessionFile.path(environment) else {
      throw ClientError.usage("there is no place for the session: set HOME or XDG_CONFIG_HOME")
    }
    let settings = try ClientSettings.address(options, environment)
    if !insecure && ClientSettings.isReadable(settings.url) {
      throw ClientError.usage(
        "\(settings.url) is plain HTTP: everybody on the way could read the password. Use https://, or --insecure")
    }
    let secret = try password.read(question: "Password of \(Terminal.safe(address)): ")
    var ignored: [String] = []
    let former = SessionFile.read(path, &ignored)
    let answer: Answer = try await APIClient.with(settings) { api in
      try await api.post(
        "/sessions", Request(organization: organization, address: address, password: SentSecret(secret)))
    }
    try SessionFile(
      url: settings.url, token: answer.token, address: address, organization: organization, expiresAt: answer.expiresAt
    ).write(path)
    // Nobody has it any more. It ends by itself where the server cannot be asked.
    if let former { try? await former.end() }
    if options.json {
      return try Terminal.print(
        try JSONCoding.text(
          Shown(principal: answer.principal, expiresAt: answer.expiresAt, url: settings.url, file: path)))
    }
    try Terminal.print(
      "Signed in at \(settings.url) as \(Terminal.safe(answer.principal.name)) (\(answer.principal.role.rawValue)) until "
        + "\(Words.time(answer.expiresAt)), or 30 minutes after the last command.")
    for name in ["POSTRIDER_TOKEN", "POSTRIDER_TOKEN_FILE"] where environment[name]?.isEmpty == false {
      Terminal.warn("Warning: \(name) is set; commands use that token and not this session.")
    }
  }
}

/// `postrider logout`
struct LogoutCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logout", abstract: "End the session of `postrider login`, and forget it.",
    discussion: """
      Forgets it also when the API cannot be reached; then it ends there by itself, and the exit code is 69.
      Example: postrider logout
      """)

  func run() async throws { try await ClientError.told(execute) }

  private func execute() async throws {
    var warnings: [String] = []
    guard let path = SessionFile.path(ProcessInfo.processInfo.environment),
      FileManager.default.fileExists(atPath: path)
    else { return try Terminal.print("Nobody is signed in.") }
    let session = SessionFile.read(path, &warnings)
    try SessionFile.remove(path)
    guard let session else { return try Terminal.print("The session could not be read and is forgotten.") }
    do {
      try await session.end()
    } catch ClientError.unreachable(let reason, _) {
      Terminal.warn(
        "The session is forgotten here, but could not be ended at \(session.url): \(reason). It ends by itself after 30 "
          + "minutes without a request.")
      throw ExitCode(69)
    }
    try Terminal.print("Signed out at \(session.url).")
  }
}

/// Where the password to sign in with comes from.
struct SignInPassword: ParsableArguments {
  @Flag(help: "Read the password from standard input (one line end at its end is taken off).")
  var passwordStdin = false

  @Option(
    help: ArgumentHelp("Read the password from this file.", valueName: "file"), completion: .file())
  var passwordFile: String?

  /// Only there to say why it is refused.
  @Option(help: .hidden)
  var password: String?

  func validate() throws {
    if password != nil { throw ValidationError(PasswordOptions.neverAnArgument) }
    if passwordStdin && passwordFile != nil {
      throw ValidationError("Give either --password-stdin or --password-file, not both.")
    }
  }

  func read(question: String) throws -> Secret {
    let given = try PasswordOptions.given(stdin: passwordStdin, file: passwordFile, variable: "POSTRIDER_PASSWORD")
    if let given { return given }
    guard Terminal.canAsk else {
      throw ClientError.usage(
        "there is no password and no terminal to ask at: give one with --password-stdin, --password-file or "
          + "POSTRIDER_PASSWORD")
    }
    guard let typed = try Terminal.askSecret(question) else { throw ClientError.usage("the password was empty") }
    return Secret(typed)
  }
}

extension SessionFile {
  /// Ends it on the server. One that has ended already is as good.
  func end() async throws {
    struct Answer: Decodable { var signedOut: Bool }
    let settings = ClientSettings(url: url, token: Secret(token), source: "postrider login")
    do {
      let _: Answer = try await APIClient.with(settings) { try await $0.delete("/sessions/current") }
    } catch ClientError.refused(_, status: 401) {
      // It had ended.
    }
  }
}

extension ClientSettings {
  /// Where to sign in: as ``find(_:environment:)`` would look for the API, without a token.
  static func address(_ options: ClientOptions, _ environment: [String: String]) throws -> ClientSettings {
    var options = options
    // Any token will do to get past the question for one; it is not sent.
    options.token = "none"
    var settings = try find(options, environment: environment)
    settings.token = Secret("")
    return settings
  }

  /// Whether others can read what is sent there: plain HTTP to another machine.
  static func isReadable(_ url: String) -> Bool {
    guard url.lowercased().hasPrefix("http://") else { return false }
    let host = url.dropFirst("http://".count).prefix { $0 != "/" }.lowercased()
    let local = ["localhost", "127.0.0.1", "[::1]"]
    return !local.contains { host == $0 || host.hasPrefix("\($0):") }
  }
}

extension APIClient {
  /// Opens a client for one piece of work.
  static func with<Value>(_ settings: ClientSettings, _ body: (APIClient) async throws -> Value) async throws -> Value {
    let api = APIClient(settings)
    do {
      let value = try await body(api)
      await api.close()
      return value
    } catch {
      await api.close()
      throw error
    }
  }
}
