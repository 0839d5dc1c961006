import ArgumentParser
import FoundationEssentials
import PostriderCore

extension ProfileType: ExpressibleByArgument {}
extension TLSMode: ExpressibleByArgument {}
extension CredentialSource: ExpressibleByArgument {}
extension AuthenticationMechanism: ExpressibleByArgument {}
extension SyncMethod: ExpressibleByArgument {}
extension OwnerKind: ExpressibleByArgument {}
extension AlertLevel: ExpressibleByArgument {}
extension RunResult: ExpressibleByArgument {}
extension ReimportChoice: ExpressibleByArgument {}
extension MailboxFilter.View: ExpressibleByArgument {}
extension MailboxSort: ExpressibleByArgument {}

extension JobKind: ExpressibleByArgument {
  /// Reads the word people use.
  public init?(argument: String) {
    guard let kind = Self.allCases.first(where: { $0.word == argument }) else { return nil }
    self = kind
  }

  /// The words people use.
  public static var allValueStrings: [String] { allCases.map(\.word) }
}

/// A day or a moment on the command line.
struct DateArgument: ExpressibleByArgument {
  let date: Date

  init?(argument: String) {
    guard let date = JSONCoding.date(argument) else { return nil }
    self.date = date
  }
}

/// How much of a list.
struct ListOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "How many rows at most, 1 to 20000.", discussion: "Example: --limit 500", valueName: "rows"))
  var limit = 50

  @Option(
    help: ArgumentHelp(
      "Where to go on: nextCursor of the JSON before.", discussion: "Default: from the start.", valueName: "cursor"))
  var cursor: String?

  func validate() throws {
    if !(1...Selection.maximumScanned).contains(limit) { throw ValidationError("--limit must be from 1 to 20000.") }
  }
}

/// Where a command reads a password from. There is no option that takes the password itself.
struct PasswordOptions: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Read the password from standard input (one line end at its end is taken off).",
      discussion: """
        A password is never an argument: every user of the machine can read arguments in the list of processes, and \
        the shell keeps them in its history. Example: pass show mail | postrider mailbox create … --password-stdin
        """))
  var passwordStdin = false

  @Option(
    help: ArgumentHelp(
      "Read the password from this file.", discussion: "Example: --password-file /run/secrets/mail",
      valueName: "file"), completion: .file())
  var passwordFile: String?

  @Flag(help: "Go without a password and do not ask for one.")
  var noPassword = false

  /// Only there to say why it is refused.
  @Option(help: .hidden)
  var password: String?

  func validate() throws {
    if password != nil { throw ValidationError(Self.neverAnArgument) }
    let given = [passwordStdin, passwordFile != nil, noPassword].filter { $0 }.count
    if given > 1 { throw ValidationError("Give one of --password-stdin, --password-file and --no-password.") }
  }

  static let neverAnArgument =
    "A password is never an argument, because every user of the machine can read arguments and the shell keeps "
    + "them. Use --password-stdin or --password-file, and change the password that was just shown."

  /// The password from where the options, the environment or a person at the terminal say; `nil` for none.
  ///
  /// Throws ``ClientError/usage(_:)`` when nobody says and nobody can be asked: going without must be meant.
  func read(variable: String, question: String?) throws -> Secret? {
    if noPassword { return nil }
    if let given = try Self.given(stdin: passwordStdin, file: passwordFile, variable: variable) { return given }
    guard let question else { return nil }
    guard Terminal.canAsk else {
      throw ClientError.usage(
        "there is no password and no terminal to ask at: give one with --password-stdin, --password-file or "
          + "\(variable), or say --no-password")
    }
    return try Terminal.askSecret(question).map { Secret($0) }
  }

  /// The password from standard input, a file or the environment; `nil` when none of them is to be read.
  static func given(stdin: Bool, file: String?, variable: String) throws -> Secret? {
    if stdin { return Secret(try SecretFile.text(try Terminal.readInput(maximum: 4_096), what: "the password")) }
    if let file {
      if let mode = SecretFile.mode(file), mode & 0o077 != 0 {
        Terminal.warn("Warning: others can read \(Terminal.safe(file)), which holds a password.")
      }
      return Secret(try SecretFile.read(file, what: "the password file"))
    }
    return ClientSettings.nonempty(ProcessInfo.processInfo.environment[variable]).map { Secret($0) }
  }
}
