import ArgumentParser

/// The commands that talk to a running installation over its HTTP API.
enum Administration {
  /// In the order of the help.
  static let commands: [any ParsableCommand.Type] = [
    ProfileCommand.self, MailboxCommand.self, BatchCommand.self, AlertCommand.self, RunCommand.self, EmailCommand.self,
    QuarantineCommand.self, WebhookCommand.self, QueueCommand.self, EmailSettingsCommand.self, UserCommand.self,
    SharedQueueCommand.self, AuditCommand.self, LoginCommand.self, LogoutCommand.self, WhoAmICommand.self,
  ]
}

/// A command of the administration: needs the API, prints for people or, with `--json`, for programs.
protocol AdministrationCommand: AsyncParsableCommand {
  /// Where the API is, and how to print.
  var options: ClientOptions { get }
  /// Does the work. Throws ``ClientError`` for what people should read, `ExitCode` when all is said already.
  func execute(_ session: Session) async throws
}

extension AdministrationCommand {
  func run() async throws {
    try await Session.open(options) { session in try await execute(session) }
  }
}

extension ClientError {
  /// Runs a command's body; says what stopped it and ends with the exit code for that.
  static func told(_ body: () async throws -> Void) async throws {
    do {
      try await body()
    } catch let error as ClientError {
      if let words = error.words { Terminal.warn("Error: \(words)") }
      throw ExitCode(error.exitCode)
    }
  }
}

/// What a command works with: the API and the terminal.
struct Session: Sendable {
  let api: APIClient
  let isJSON: Bool

  /// Finds and opens the API, runs the body, and turns errors into words on standard error and an exit code.
  static func open(_ options: ClientOptions, _ body: (Session) async throws -> Void) async throws {
    try await ClientError.told {
      let settings = try ClientSettings.find(options)
      for warning in settings.warnings { Terminal.warn(warning) }
      try await APIClient.with(settings) { try await body(Session(api: $0, isJSON: options.json)) }
    }
  }

  /// Prints text for people.
  func print(_ text: String) throws { try Terminal.print(text) }

  /// Prints a table for people, cut to the terminal's width when there is one.
  func print(_ table: Table) throws { try Terminal.print(table.rendered(width: Terminal.width)) }

  /// Prints a value for programs.
  func printJSON(_ value: some Encodable) throws { try Terminal.print(try JSONCoding.text(value)) }
}
