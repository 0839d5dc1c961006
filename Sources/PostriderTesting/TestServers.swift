import FoundationEssentials
import Logging
import PrivateServers
import Synchronization

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// Real servers for tests: one PostgreSQL and one Redis per test process, started at first use, gone at its end.
///
/// Their data are in a folder of their own in `/tmp`, not durable, removed at exit. A crashed test process takes its
/// servers with it; its folder is removed by the next one.
public actor TestServers {
  /// The servers of this process.
  public static let shared = TestServers()

  private var opening: Task<DataDirectory, any Error>?
  private var startingPostgres: Task<PrivatePostgres, any Error>?
  private var startingRedis: Task<PrivateRedis, any Error>?
  private var templates: [String: Task<String, any Error>] = [:]
  private var count = 0

  private init() {}

  /// The shared PostgreSQL. Never stop or kill it: ``dedicatedPostgres()`` is for that.
  public func postgres() async throws -> PrivatePostgres {
    let task =
      startingPostgres ?? Task { try await Self.startPostgres(in: try await dataDirectory(), name: "postgres") }
    startingPostgres = task
    return try await task.value
  }

  /// The shared Redis, at ``redisURL()``. Never stop, kill or flush it: ``dedicatedRedis(keepsData:)`` is for that.
  public func redis() async throws -> PrivateRedis {
    let task =
      startingRedis
      ?? Task { try await Self.startRedis(in: try await dataDirectory(), name: "redis", keepsData: false) }
    startingRedis = task
    return try await task.value
  }

  /// `unix:///…` of the shared Redis. Use keys below ``uniquePrefix(_:)`` only.
  public func redisURL() async throws -> String { try await redis().url }

  /// A word that no other call returns in this process: `test7-`, as a prefix of Redis keys or of names.
  public func uniquePrefix(_ word: String = "test") -> String {
    "\(word)\(nextNumber())-"
  }

  /// A new empty database; returns its connection string (libpq URI).
  public func freshDatabase() async throws -> String { try await database(template: nil) }

  /// A new database, a copy of a template that `prepare` fills once per process and name.
  ///
  /// `prepare` gets the template's connection string and closes its connections before it returns: a database with
  /// clients cannot be copied.
  /// - Parameters:
  ///   - template: Names the content, such as `schema`. The same name means the same content.
  ///   - prepare: Fills the template: migrations, rows.
  public func freshDatabase(
    template: String, prepare: @escaping @Sendable (_ url: String) async throws -> Void
  ) async throws -> String {
    let task =
      templates[template]
      ?? Task {
        let postgres = try await postgres()
        try await postgres.createDatabase("template-\(template)")
        try await prepare(postgres.url(database: "template-\(template)"))
        return "template-\(template)"
      }
    templates[template] = task
    return try await database(template: try await task.value)
  }

  /// Removes a database made by ``freshDatabase()``, closing its connections. Only for tests that make many or big ones.
  public func drop(databaseURL url: String) async throws {
    guard let name = url.dropFirst("postgresql:///".count).split(separator: "?").first else { return }
    try await postgres().dropDatabase(String(name))
  }

  /// A PostgreSQL of the caller's own, to be stopped, killed or paused.
  public func dedicatedPostgres() async throws -> PrivatePostgres {
    let name = "postgres-\(nextNumber())"
    return try await Self.startPostgres(in: try await dataDirectory(), name: name)
  }

  /// A Redis of the caller's own, to be stopped, killed, flushed or paused.
  public func dedicatedRedis(keepsData: Bool = false) async throws -> PrivateRedis {
    let name = "redis-\(nextNumber())"
    return try await Self.startRedis(in: try await dataDirectory(), name: name, keepsData: keepsData)
  }

  /// A data directory for other private servers, removed at exit with everything that runs in it.
  public func dedicatedDirectory(named word: String = "data") async throws -> DataDirectory {
    let name = "\(word)-\(nextNumber())"
    let data = try await DataDirectory.open("\(try await dataDirectory().path)/\(name)")
    directoriesAtExit.withLock { $0.append(data) }
    return data
  }

  /// Taken before the first suspension of each call, so that no two calls get the same.
  private func nextNumber() -> Int {
    count += 1
    return count
  }

  private func database(template: String?) async throws -> String {
    let postgres = try await postgres()
    let name = "test\(nextNumber())"
    try await postgres.createDatabase(name, template: template)
    return postgres.url(database: name)
  }

  private func dataDirectory() async throws -> DataDirectory {
    let task =
      opening
      ?? Task {
        await Self.removeLeftovers()
        let data = try await DataDirectory.open("\(Self.folderPrefix)\(getpid())-\(UInt32.random(in: 0 ... .max))")
        directoriesAtExit.withLock { $0.append(data) }
        atexit(stopEverything)
        return data
      }
    opening = task
    return try await task.value
  }

  private static func startPostgres(in data: DataDirectory, name: String) async throws -> PrivatePostgres {
    var options = PrivatePostgres.Options()
    options.name = name
    options.isDurable = false
    options.maximumConnections = 200
    options.settings = ["wal_level": "minimal", "max_wal_senders": "0"]
    return try await PrivatePostgres.start(in: data, options: options)
  }

  private static func startRedis(in data: DataDirectory, name: String, keepsData: Bool) async throws -> PrivateRedis {
    var options = PrivateRedis.Options()
    options.name = name
    options.keepsData = keepsData
    return try await PrivateRedis.start(in: data, options: options)
  }

  private static let folderPrefix = "/tmp/postrider-tests-"

  /// Removes the folders of test processes that ended without doing so.
  private static func removeLeftovers() async {
    // Best effort: a folder that cannot be listed, opened or removed belongs to somebody else.
    for name in (try? FileManager.default.contentsOfDirectory(atPath: "/tmp")) ?? [] {
      let path = "/tmp/" + name
      guard path.hasPrefix(folderPrefix), let pid = Int32(path.dropFirst(folderPrefix.count).prefix { $0.isNumber }),
        kill(pid, 0) != 0 && errno == ESRCH
      else { continue }
      await DataDirectory.removeAbandoned(path)
    }
  }
}

/// The folders to empty and remove when this process exits, in the order of their creation.
private let directoriesAtExit = Mutex<[DataDirectory]>([])

/// Runs at exit. Dedicated folders are inside the first one and come first.
private func stopEverything() {
  for data in directoriesAtExit.withLock({ $0 }).reversed() {
    data.stopChildrenNow()
    data.close()
    // What cannot be removed is left to the next test process.
    try? FileManager.default.removeItem(atPath: data.path)
  }
}
