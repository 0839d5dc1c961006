import Logging
import Subprocess

/// A Redis server of one's own, on a Unix socket, with its data in a ``DataDirectory``.
public final class PrivateRedis: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Whether data survive a restart (append-only file). Off for tests.
    public var keepsData = true
    /// What happens when it ends by itself.
    public var restart = RestartPolicy.never
    /// Names its folder, socket and log, so that several can share a data directory.
    public var name = "redis"
    /// How long a start may take, loading of the data included.
    public var startTimeout = Duration.seconds(60)
    /// Further configuration lines, such as `maxmemory 64mb`.
    public var settings: [String] = []

    /// Data are kept, nothing is restarted.
    public init() {}
  }

  /// The socket's path.
  public let socketPath: String
  /// `unix:///…` with the socket's path.
  public var url: String { "unix://" + socketPath }
  /// Where its output goes.
  public let logPath: String
  private let directory: String
  private let server: ManagedServer

  private init(directory: String, socketPath: String, logPath: String, server: ManagedServer) {
    self.directory = directory
    self.socketPath = socketPath
    self.logPath = logPath
    self.server = server
  }

  /// Starts Redis in a data directory and waits until it answers.
  ///
  /// The program is `redis-server` of PATH, or the one that `POSTRIDER_REDIS_BIN` names.
  public static func start(
    in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivateRedis {
    let program = try Programs.find("redis-server", variable: "POSTRIDER_REDIS_BIN", package: "redis-server")
    let directory = try data.directory(for: options.name)
    let socketPath = try data.socketDirectory(for: options.name) + "/redis.sock"
    let logPath = data.logPath(options.name)
    try Files.write(
      configuration(directory: directory, socketPath: socketPath, options: options),
      to: directory + "/redis.conf", mode: 0o600, owner: data.user)
    let server = ManagedServer(
      name: options.name, logPath: logPath, policy: options.restart, logger: logger
    ) { [user = data.user] in
      let offset = Files.status(logPath)?.size ?? 0
      let child = try await ChildProcess.start(
        ChildProcess.Launch(
          name: options.name, program: program, arguments: [directory + "/redis.conf"], user: user,
          workingDirectory: directory),
        in: data)
      // While it loads its data it answers -LOADING.
      try await ManagedServer.waitUntilReady(
        child, within: options.startTimeout, logPath: logPath, logOffset: offset
      ) { Probe.ask("PING\r\n", at: socketPath) == "+PONG" }
      return child
    }
    let redis = PrivateRedis(directory: directory, socketPath: socketPath, logPath: logPath, server: server)
    try await server.start()
    return redis
  }

  /// Starts it again after ``stop()`` or ``kill9()``.
  public func start() async throws { try await server.start() }

  /// Ends it in order; with ``Options/keepsData`` everything written is on disk.
  public func stop() async { await server.stop() }

  /// Stops and starts it, with its data or as an empty server. The run id is a new one.
  public func restart(withData: Bool = true) async throws {
    await server.stop(finally: false)
    if !withData {
      for name in ["appendonlydir", "appendonly.aof", "dump.rdb"] { Files.remove(directory + "/" + name) }
    }
    try await server.start()
  }

  /// Kills it by SIGKILL. It stays ended until ``start()``.
  public func kill9() async { await server.kill9() }

  /// Freezes it: connections stay open and nothing answers.
  public func pause() async { await server.signal(.suspend) }

  /// Ends ``pause()``.
  public func resume() async { await server.signal(.resume) }

  /// Removes every key. Throws ``PrivateServerError/command(name:reason:output:)`` when Redis does not answer.
  public func flushAll() throws {
    let answer = Probe.ask("FLUSHALL\r\n", at: socketPath, limitMilliseconds: 10_000)
    guard answer == "+OK" else {
      throw PrivateServerError.command(name: "FLUSHALL", reason: answer ?? "Redis does not answer", output: "")
    }
  }

  /// The process id while it runs.
  public var processID: Int32? { get async { await server.processID } }

  /// The error after which it stays ended, should that happen; ends with ``stop()``.
  public var failures: AsyncStream<PrivateServerError> { server.failures }

  private static func configuration(directory: String, socketPath: String, options: Options) -> String {
    """
    port 0
    unixsocket \(quoted(socketPath))
    unixsocketperm 700
    dir \(quoted(directory))
    daemonize no
    logfile ""
    maxmemory-policy noeviction
    save ""
    appendonly \(options.keepsData ? "yes" : "no")
    appendfsync everysec
    \(options.settings.joined(separator: "\n"))

    """
  }

  private static func quoted(_ text: String) -> String {
    "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
  }
}

extension Logger {
  /// Throws every line away.
  public static var silent: Logger { Logger(label: "postrider.private") { _ in SwiftLogNoOpLogHandler() } }
}
