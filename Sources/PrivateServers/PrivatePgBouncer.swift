import Logging

/// A PgBouncer of one's own before a ``PrivatePostgres``, in transaction mode: each transaction of a client gets whichever
/// connection of the server is free.
///
/// It listens on a Unix socket alone; everybody who can enter its directory (mode 0700) is trusted.
public final class PrivatePgBouncer: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder, socket directory and log.
    public var name = "pgbouncer"
    /// The roles that may log in.
    public var users = ["postrider"]
    /// Connections to the server for each database and role.
    public var serverConnections = 3
    /// Further settings: name and value.
    public var settings: [String: String] = [:]

    /// Few server connections, so that clients share them.
    public init() {}
  }

  /// The socket's directory, `host` in a connection string.
  public let socketDirectory: String
  /// `port` in a connection string: it names the socket.
  public static let port = 6432
  private let server: ManagedServer

  private init(socketDirectory: String, server: ManagedServer) {
    self.socketDirectory = socketDirectory
    self.server = server
  }

  /// Starts it before a server and waits until it answers. The program is `pgbouncer` of PATH.
  public static func start(
    before postgres: PrivatePostgres, in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivatePgBouncer {
    let program = try Programs.find("pgbouncer", variable: "POSTRIDER_PGBOUNCER_BIN", package: "pgbouncer")
    let directory = try data.directory(for: options.name)
    let socketDirectory = try data.socketDirectory(for: options.name)
    let logPath = data.logPath(options.name)
    let users = directory + "/users.txt"
    try Files.write(
      options.users.map { "\"\($0)\" \"\"\n" }.joined(), to: users, mode: 0o600, owner: data.user)
    let settings = [
      "listen_addr": "", "listen_port": String(port), "unix_socket_dir": socketDirectory, "unix_socket_mode": "0700",
      "auth_type": "trust", "auth_file": users, "pool_mode": "transaction", "max_client_conn": "500",
      "default_pool_size": String(options.serverConnections), "admin_users": options.users.joined(separator: ","),
    ].merging(options.settings) { $1 }
    let lines =
      ["[databases]", "* = host=\(postgres.socketDirectory)", "[pgbouncer]"]
      + settings.sorted { $0.key < $1.key }.map { "\($0.key) = \($0.value)" }
    try Files.write(
      lines.joined(separator: "\n") + "\n", to: directory + "/pgbouncer.ini", mode: 0o600, owner: data.user)
    let server = ManagedServer(
      name: options.name, logPath: logPath, policy: .never, logger: logger
    ) { [user = data.user] in
      let offset = Files.status(logPath)?.size ?? 0
      let child = try await ChildProcess.start(
        ChildProcess.Launch(
          name: options.name, program: program, arguments: [directory + "/pgbouncer.ini"], user: user,
          // SIGINT would wait for its clients.
          stopSignal: .terminate, workingDirectory: directory),
        in: data)
      try await ManagedServer.waitUntilReady(child, within: .seconds(20), logPath: logPath, logOffset: offset) {
        Files.exists("\(socketDirectory)/.s.PGSQL.\(port)")
      }
      return child
    }
    let bouncer = PrivatePgBouncer(socketDirectory: socketDirectory, server: server)
    try await server.start()
    return bouncer
  }

  /// A connection string (libpq URI) to a database through it.
  public func url(database: String, user: String = "postrider") -> String {
    let host = socketDirectory.replacing("/", with: "%2F")
    return "postgresql:///\(database)?host=\(host)&port=\(Self.port)&user=\(user)"
  }

  /// Ends it.
  public func stop() async { await server.stop() }

  /// Stops and starts it: every client loses its connection.
  public func restart() async throws {
    await server.stop(finally: false)
    try await server.start()
  }
}
