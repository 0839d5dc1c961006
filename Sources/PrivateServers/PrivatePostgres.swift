import Logging
import Subprocess

/// A PostgreSQL server of one's own, on a Unix socket, with its data in a ``DataDirectory``.
///
/// Nothing listens on TCP. Everybody who can enter the socket's directory (mode 0700) is trusted: the servers' user and
/// root.
public final class PrivatePostgres: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Whether commits survive a crash of the machine. Off for tests: several times faster.
    public var isDurable = true
    /// What happens when it ends by itself.
    public var restart = RestartPolicy.never
    /// Names its folder, socket directory and log, so that several can share a data directory.
    public var name = "postgres"
    /// The database superuser, created with the data.
    public var user = "postrider"
    /// The most connections at once.
    public var maximumConnections = 100
    /// The folder of `initdb` and `postgres`; `nil` looks at `POSTRIDER_POSTGRES_BIN`, PATH and the usual folders.
    public var programs: String?
    /// How long a start may take, recovery included.
    public var startTimeout = Duration.seconds(60)
    /// Further settings: name and value.
    public var settings: [String: String] = [:]

    /// Durable, nothing is restarted.
    public init() {}
  }

  /// The socket's directory, `host` in a connection string.
  public let socketDirectory: String
  /// The folder of the data.
  public let dataPath: String
  /// Where its output goes.
  public let logPath: String
  private let options: Options
  private let programs: String
  private let server: ManagedServer

  private init(data: DataDirectory, options: Options, logger: Logger) async throws {
    self.options = options
    dataPath = data.path + "/" + options.name
    socketDirectory = try data.socketDirectory(for: options.name)
    logPath = data.logPath(options.name)
    programs = try await PostgresCluster.programs(for: dataPath, folder: options.programs)
    let launcher = PostgresCluster(
      data: data, options: options, dataPath: dataPath, socketDirectory: socketDirectory, programs: programs)
    server = ManagedServer(name: options.name, logPath: logPath, policy: options.restart, logger: logger) {
      try await launcher.launch()
    }
    try await launcher.create()
  }

  /// Starts PostgreSQL in a data directory, creating its data when there are none, and waits until it answers.
  ///
  /// Throws ``PrivateServerError/versionMismatch(server:data:program:hint:)`` for data of another major version.
  public static func start(
    in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivatePostgres {
    let postgres = try await PrivatePostgres(data: data, options: options, logger: logger)
    try await postgres.server.start()
    return postgres
  }

  /// A connection string (libpq URI) to a database.
  public func url(database: String) -> String {
    "postgresql:///\(Self.percent(database))?host=\(Self.percent(socketDirectory))&user=\(Self.percent(options.user))"
  }

  /// A connection string to the database `postgres`, which always exists.
  public var url: String { url(database: "postgres") }

  /// Creates a database, empty or as a copy of a template to which nobody may be connected.
  public func createDatabase(_ name: String, template: String? = nil) async throws {
    try await execute("CREATE DATABASE \(Self.quoted(name))" + (template.map { " TEMPLATE \(Self.quoted($0))" } ?? ""))
  }

  /// Creates a database unless it exists. Returns whether it was created.
  @discardableResult
  public func ensureDatabase(_ name: String) async throws -> Bool {
    let literal = "'" + name.replacing("'", with: "''") + "'"
    guard try await execute("SELECT 1 FROM pg_database WHERE datname = \(literal)") != "1" else { return false }
    try await createDatabase(name)
    return true
  }

  /// Removes a database, closing its connections; nothing when it is absent.
  public func dropDatabase(_ name: String) async throws {
    try await execute("DROP DATABASE IF EXISTS \(Self.quoted(name)) WITH (FORCE)")
  }

  /// Runs SQL by `psql` and returns its rows, columns separated by `|`, without the last line's end.
  @discardableResult
  public func execute(_ sql: String, database: String = "postgres") async throws -> String {
    let output = try await Command.run(
      programs + "/psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url(database: database)], input: sql)
    return output.last == "\n" ? String(output.dropLast()) : output
  }

  /// Starts it again after ``stop()`` or ``kill9()``.
  public func start() async throws { try await server.start() }

  /// Ends it in order; clients are disconnected.
  public func stop() async { await server.stop() }

  /// Stops and starts it.
  public func restart() async throws {
    await server.stop(finally: false)
    try await server.start()
  }

  /// Kills it by SIGKILL, as a crash would. It stays ended until ``start()``, which recovers the data.
  public func kill9() async { await server.kill9() }

  /// Freezes it and its backends: connections stay open and nothing answers.
  public func pause() async { await server.signalFamily(.suspend) }

  /// Ends ``pause()``.
  public func resume() async { await server.signalFamily(.resume) }

  /// The process id while it runs.
  public var processID: Int32? { get async { await server.processID } }

  /// The error after which it stays ended, should that happen; ends with ``stop()``.
  public var failures: AsyncStream<PrivateServerError> { server.failures }

  /// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
  private static func percent(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF")
    return text.utf8.reduce(into: "") { result, byte in
      switch byte {
      case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E:
        result.append(Character(UnicodeScalar(byte)))
      default:
        result.append("%")
        result.append(digits[Int(byte >> 4)])
        result.append(digits[Int(byte & 15)])
      }
    }
  }

  private static func quoted(_ name: String) -> String { "\"" + name.replacing("\"", with: "\"\"") + "\"" }
}
