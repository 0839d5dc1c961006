import Logging
import Subprocess

/// A Redis server of one's own, on a Unix socket, with its data in a ``DataDirectory``. It can also be a node of a Cluster
/// or a Sentinel; those listen on loopback ports.
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
    /// What it is.
    public var role = Role.server
    /// A loopback port to listen on beside the socket; 0 takes a free one.
    public var port: Int?
    /// Certificates for a second port that speaks TLS. With them, traffic between servers is encrypted too.
    public var tls: TLS?
    /// Further configuration lines, such as `maxmemory 64mb`.
    public var settings: [String] = []

    /// Data are kept, nothing is restarted.
    public init() {}
  }

  /// What a server does.
  public enum Role: Hashable, Sendable {
    /// Holds data.
    case server
    /// Holds the data of some slots. ``PrivateRedisCluster`` puts nodes together.
    case clusterNode
    /// Watches a master and agrees with others, `quorum` of them, on its successor. A master counts as down after half a
    /// second.
    case sentinel(master: String, port: Int, quorum: Int)
  }

  /// How a server speaks TLS.
  public struct TLS: Hashable, Sendable {
    /// The authority that clients' and other servers' certificates must come from.
    public var authorityPath: String
    /// The server's certificate.
    public var leaf: TestAuthority.Leaf
    /// Whether clients must show a certificate.
    public var requiresClientCertificate: Bool

    /// Describes the certificates.
    public init(authorityPath: String, leaf: TestAuthority.Leaf, requiresClientCertificate: Bool = false) {
      self.authorityPath = authorityPath
      self.leaf = leaf
      self.requiresClientCertificate = requiresClientCertificate
    }
  }

  /// The loopback port, if it listens on one.
  public let port: Int?
  /// The loopback port that speaks TLS, if there is one.
  public let tlsPort: Int?
  /// The port on which the nodes of a Cluster talk to each other.
  let busPort: Int
  /// The socket's path.
  public let socketPath: String
  /// `unix:///…` with the socket's path.
  public var url: String { "unix://" + socketPath }
  /// Where its output goes.
  public let logPath: String
  private let directory: String
  private let server: ManagedServer

  private init(directory: String, socketPath: String, logPath: String, ports: Ports, server: ManagedServer) {
    self.directory = directory
    (port, tlsPort, busPort) = (ports.plain, ports.tls, ports.bus)
    self.socketPath = socketPath
    self.logPath = logPath
    self.server = server
  }

  private struct Ports {
    var plain: Int?
    var tls: Int?
    var bus: Int
  }

  /// Starts Redis in a data directory and waits until it answers.
  ///
  /// The program is `redis-server` of PATH, or the one that `POSTRIDER_REDIS_BIN` names.
  public static func start(
    in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivateRedis {
    let listens = options.port != nil || options.tls != nil || options.role != .server
    guard listens else { return try await start(in: data, options, Ports(plain: nil, tls: nil, bus: 0), logger) }
    return try await LoopbackPorts.retrying { _ in
      let free = try LoopbackPorts.free(3, host: "127.0.0.1", preferred: [options.port ?? 0])
      let plain = options.port != nil || options.role != .server ? free[0] : nil
      let ports = Ports(plain: plain, tls: options.tls.map { _ in free[1] }, bus: free[2])
      return try await start(in: data, options, ports, logger)
    }
  }

  private static func start(
    in data: DataDirectory, _ options: Options, _ ports: Ports, _ logger: Logger
  ) async throws -> PrivateRedis {
    let program = try Programs.find("redis-server", variable: "POSTRIDER_REDIS_BIN", package: "redis-server")
    let directory = try data.directory(for: options.name)
    let socketPath = try data.socketDirectory(for: options.name) + "/redis.sock"
    let logPath = data.logPath(options.name)
    try Files.write(
      configuration(directory: directory, socketPath: socketPath, ports: ports, options: options),
      to: directory + "/redis.conf", mode: 0o600, owner: data.user)
    var arguments = [directory + "/redis.conf"]
    if case .sentinel = options.role { arguments.append("--sentinel") }
    let server = ManagedServer(
      name: options.name, logPath: logPath, policy: options.restart, logger: logger
    ) { [user = data.user, arguments] in
      let offset = Files.status(logPath)?.size ?? 0
      let child = try await ChildProcess.start(
        ChildProcess.Launch(
          name: options.name, program: program, arguments: arguments, user: user, workingDirectory: directory),
        in: data)
      // While it loads its data it answers -LOADING. One that wants a password is up as well.
      try await ManagedServer.waitUntilReady(
        child, within: options.startTimeout, logPath: logPath, logOffset: offset
      ) {
        let answer = Probe.ask("PING\r\n", at: socketPath)
        return answer == "+PONG" || answer?.hasPrefix("-NOAUTH") == true
      }
      return child
    }
    let redis = PrivateRedis(
      directory: directory, socketPath: socketPath, logPath: logPath, ports: ports, server: server)
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

  /// Sends one command as a line of words; returns the first line of the answer, `nil` when there is none.
  public func ask(_ command: String) -> String? {
    Probe.ask(command + "\r\n", at: socketPath, limitMilliseconds: 10_000)
  }

  /// The process id while it runs.
  public var processID: Int32? { get async { await server.processID } }

  /// The error after which it stays ended, should that happen; ends with ``stop()``.
  public var failures: AsyncStream<PrivateServerError> { server.failures }

  private static func configuration(
    directory: String, socketPath: String, ports: Ports, options: Options
  ) -> String {
    var lines = [
      "port \(ports.plain ?? 0)", "bind 127.0.0.1", "unixsocket \(quoted(socketPath))", "unixsocketperm 700",
      "dir \(quoted(directory))", "daemonize no", "logfile \"\"",
    ]
    if let tls = options.tls, let port = ports.tls {
      lines += [
        "tls-port \(port)", "tls-ca-cert-file \(quoted(tls.authorityPath))",
        "tls-cert-file \(quoted(tls.leaf.certificatePath))", "tls-key-file \(quoted(tls.leaf.keyPath))",
        "tls-auth-clients \(tls.requiresClientCertificate ? "yes" : "optional")",
      ]
    }
    switch options.role {
    case .sentinel(let master, let port, let quorum):
      lines += [
        "sentinel monitor \(master) 127.0.0.1 \(port) \(quorum)", "sentinel down-after-milliseconds \(master) 500",
        "sentinel failover-timeout \(master) 3000",
      ]
    case .clusterNode:
      lines += [
        "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 2000",
        "cluster-port \(ports.bus)",
      ]
      fallthrough
    case .server:
      lines += [
        "maxmemory-policy noeviction", "save \"\"", "appendonly \(options.keepsData ? "yes" : "no")",
        "appendfsync everysec", "repl-diskless-sync-delay 0",
      ]
    }
    return (lines + options.settings).joined(separator: "\n") + "\n"
  }

  private static func quoted(_ text: String) -> String {
    "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
  }
}

extension Logger {
  /// Throws every line away.
  public static var silent: Logger { Logger(label: "postrider.private") { _ in SwiftLogNoOpLogHandler() } }
}
