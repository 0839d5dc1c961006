import Subprocess

/// Runs a short command of a server's own tools and collects what it prints.
enum Command {
  /// The environment of every child: nothing inherited, so that no `PG*` or `LC_*` of the caller reaches a server.
  ///
  /// An invalid `LC_ALL` makes initdb fail.
  static let environment: [String: String] = [
    "LC_ALL": "C.UTF-8", "HOME": "/", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  ]

  /// Runs a command; throws ``PrivateServerError/command(name:reason:output:)`` when it does not end with 0.
  ///
  /// A command that takes longer than `timeout` is killed. `input` has at most 100 kB; a line end follows it.
  @discardableResult
  static func run(
    _ program: String, _ arguments: [String], user: ServerUser? = nil, input: String = "",
    workingDirectory: String = "/", environment: [String: String] = [:], timeout: Duration = .seconds(60)
  ) async throws -> String {
    let name = program.split(separator: "/").last.map(String.init) ?? program
    var (words, variables) = ([program] + arguments, Self.environment.merging(environment) { $1 })
    if !input.isEmpty {
      // The library traps when a program ends before its input is written, such as psql without a server. The shell
      // hands it over, and becomes the program.
      words = ["/bin/sh", "-c", "exec \"$0\" \"$@\" <<END\n$COMMAND_INPUT\nEND\n"] + words
      variables["COMMAND_INPUT"] = input
    }
    let configuration = Configuration.child(
      words, user: user, deathSignal: .kill, environment: variables, workingDirectory: workingDirectory)
    return try await withThrowingTaskGroup(of: String?.self) { group in
      group.addTask { try await run(configuration, name: name) }
      group.addTask {
        try await Task.sleep(for: timeout)
        return nil
      }
      defer { group.cancelAll() }
      if case .some(.some(let output)) = try await group.next() { return output }
      throw PrivateServerError.command(name: name, reason: "did not end within \(timeout)", output: "")
    }
  }

  private static func run(_ configuration: Configuration, name: String) async throws -> String {
    do {
      let result = try await Subprocess.run(
        configuration, input: .none, output: .string(limit: 1 << 20), error: .combinedWithOutput)
      guard result.terminationStatus.isSuccess else {
        throw PrivateServerError.command(
          name: name, reason: "\(result.terminationStatus)", output: result.standardOutput)
      }
      return result.standardOutput
    } catch let error as SubprocessError {
      throw PrivateServerError.command(name: name, reason: "\(error)", output: "")
    }
  }
}

extension Configuration {
  /// A child in a session of its own, with a clean environment, that gets `deathSignal` when this process ends.
  ///
  /// The session keeps Ctrl-C of the terminal away from it. On Linux, `setpriv` asks the kernel for the signal; it
  /// fires when the thread that forked ends, which is the subprocess library's own and lives as long as the process.
  /// The shell in between closes the gap before that request: a supervisor killed meanwhile is no longer the parent.
  static func child(
    _ command: [String], user: ServerUser?, deathSignal: Signal, environment: [String: String],
    workingDirectory: String = "/"
  ) -> Configuration {
    var options = PlatformOptions()
    options.createSession = true
    var words = command
    if let setpriv = Self.setpriv {
      var identity: [String] = []
      if let user, user.isOther {
        // setpriv changes the user after exec. The library would do it between fork and exec with glibc's setgroups,
        // which waits for ever when another thread was just being created in the parent.
        identity = [
          "--reuid", String(user.userID), "--regid", String(user.groupID), "--groups",
          user.groups.map { String($0) }.joined(separator: ","),
        ]
      }
      words =
        [setpriv] + identity + [
          "--pdeathsig", deathSignal == .interrupt ? "INT" : deathSignal == .kill ? "KILL" : "TERM", "--",
          "/bin/sh", "-c",
          #"test "$PPID" = "$0" || exit 1; exec "$@""#, String(ownProcessID),
        ] + words
    } else if let user, user.isOther {
      options.userID = user.userID
      options.groupID = user.groupID
      options.supplementaryGroups = user.groups
    }
    return Configuration(
      executable: .path(.init(words[0])), arguments: Arguments(Array(words.dropFirst())),
      environment: .custom(Dictionary(uniqueKeysWithValues: environment.map { (.init(stringLiteral: $0), $1) })),
      workingDirectory: .init(workingDirectory), platformOptions: options)
  }

  private static let setpriv: String? = ["/usr/bin/setpriv", "/bin/setpriv"].first(where: Files.isProgram)
}
