/// Another program of one's own beside the private servers: it ends when they do, however this process ends.
public final class PrivateProgram: Sendable {
  /// Its process id.
  public let processID: Int32
  private let child: ChildProcess

  private init(_ child: ChildProcess) {
    self.child = child
    processID = child.processID
  }

  /// Starts a program by its path, as this process's user, with a clean environment and these variables.
  ///
  /// Its output goes to the log `name` of the data directory. Throws
  /// ``PrivateServerError/notStarted(server:reason:log:)``.
  public static func start(
    _ name: String, program: String, arguments: [String], environment: [String: String] = [:], in data: DataDirectory
  ) async throws -> PrivateProgram {
    PrivateProgram(
      try await ChildProcess.start(
        ChildProcess.Launch(name: name, program: program, arguments: arguments, environment: environment), in: data))
  }

  /// Whether it has not ended yet.
  public var isRunning: Bool { child.isRunning }

  /// Ends it in order, by SIGKILL when it takes longer than ten seconds.
  public func stop() async { await child.stop() }

  /// Runs a program of PATH to its end and returns what it prints.
  ///
  /// Throws ``PrivateServerError/missingProgram(name:looked:install:)`` and
  /// ``PrivateServerError/command(name:reason:output:)``.
  public static func output(of name: String, _ arguments: [String], package: String) async throws -> String {
    try await Command.run(try Programs.find(name, package: package), arguments)
  }
}
