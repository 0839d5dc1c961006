import FoundationEssentials
import Logging
import PostgresStore
import PostriderCore
import PrivateServers
import RedisQueue

/// A deployment of one test's own: a migrated database, keys of their own in Redis, an organization with its
/// administrator. Profiles and mailboxes are made as an administrator makes them.
public final class TestCluster: Sendable {
  /// Which servers, and how the queue behaves.
  public struct Options: Sendable {
    /// How long a lease lasts without renewal.
    public var lease: Duration = .seconds(15)
    /// How long a call of the queue may take.
    public var callTimeout: Duration = .seconds(3)
    /// How many shards the queue has.
    public var shards = 1
    /// A PostgreSQL of the test's own; `nil` for the shared one.
    public var postgres: PrivatePostgres?
    /// A Redis of the test's own; `nil` for the shared one.
    public var redis: PrivateRedis?
    /// Takes what every process logs; `nil`: printed where `POSTRIDER_TEST_LOG` is set.
    public var logger: Logger?

    /// The shared servers and production's times.
    public init(
      lease: Duration = .seconds(15), callTimeout: Duration = .seconds(3), shards: Int = 1,
      postgres: PrivatePostgres? = nil, redis: PrivateRedis? = nil, logger: Logger? = nil
    ) {
      self.logger = logger
      self.shards = shards
      self.lease = lease
      self.callTimeout = callTimeout
      self.postgres = postgres
      self.redis = redis
    }
  }

  /// libpq URI of the database.
  public let databaseURL: String
  /// The administrator.
  public let principal: Principal
  /// The administrator's store; every process of a test makes its own by ``makeStore(poolSize:)``.
  public let store: PostgresStore
  /// Prints where `POSTRIDER_TEST_LOG` is set.
  public let logger: Logger
  private let options: Options
  private let postgres: PrivatePostgres
  private let database: String
  private let redisURL: String
  private let keyPrefix: String
  private let keyRing: KeyRing

  private init(_ options: Options) async throws {
    self.options = options
    if let own = options.logger {
      logger = own
    } else if ProcessInfo.processInfo.environment["POSTRIDER_TEST_LOG"] == nil {
      logger = .silent
    } else {
      logger = Logger(label: "test")
    }
    let servers = TestServers.shared
    if let own = options.postgres {
      postgres = own
      database = "spine"
      try await own.createDatabase(database)
      databaseURL = own.url(database: database)
      try await Migrator(url: databaseURL, logger: .silent).migrate()
    } else {
      postgres = try await servers.postgres()
      databaseURL = try await servers.freshDatabase(template: "cluster") { url in
        try await Migrator(url: url, logger: .silent).migrate()
      }
      database = String(databaseURL.dropFirst("postgresql:///".count).prefix { $0 != "?" })
    }
    if let redis = options.redis { redisURL = redis.url } else { redisURL = try await servers.redisURL() }
    keyPrefix = await servers.uniquePrefix("cluster")
    keyRing = .generate()
    store = Self.store(databaseURL, keyRing, poolSize: 2, logger: logger)
    let (_, token) = try await Bootstrap(url: databaseURL, logger: .silent).createOrganization(
      name: "Test", administratorName: "Ada", administratorAddress: "ada@example.org")
    guard let principal = try await store.principal(token: token) else { throw TestFailure("the token is unknown") }
    self.principal = principal
  }

  /// Makes a cluster; ``close()`` ends it.
  public static func make(_ options: Options = Options()) async throws -> TestCluster {
    try await TestCluster(options)
  }

  /// The key ring, for processes of the test's own (`POSTRIDER_KEYS_RING`).
  public var keys: String { keyRing.text.revealed }

  /// Closes the administrator's store.
  public func close() async { await store.close() }

  /// The store of one more process.
  public func makeStore(poolSize: Int = 4) -> PostgresStore {
    Self.store(databaseURL, keyRing, poolSize: poolSize, logger: logger)
  }

  /// The queue of one more process; the caller runs it.
  public func makeQueue() throws -> RedisJobQueue {
    RedisJobQueue(
      configuration: try RedisQueueConfiguration(
        url: redisURL, keyPrefix: keyPrefix, shards: options.shards, leaseDuration: options.lease,
        callTimeout: options.callTimeout),
      logger: logger)
  }

  /// Runs SQL as the superuser; returns rows with columns separated by `|`.
  @discardableResult
  public func sql(_ text: String) async throws -> String { try await postgres.execute(text, database: database) }

  private static func store(_ url: String, _ keys: KeyRing, poolSize: Int, logger: Logger) -> PostgresStore {
    PostgresStore(
      configuration: PostgresStoreConfiguration(
        url: url, poolSize: poolSize, keyRing: keys, connectTimeout: .seconds(10), poolWait: .seconds(20)),
      logger: logger)
  }
}

/// Why a test cannot go on.
public struct TestFailure: Error, CustomStringConvertible {
  /// The reason.
  public var description: String

  /// Gives a reason.
  public init(_ description: String) { self.description = description }
}

/// Waits until a condition holds; throws ``TestFailure`` when it does not within the time, which is less than the minute
/// after which a mailbox's next slot comes by itself.
public func eventually(
  _ what: String, within time: Duration = .seconds(50), _ condition: () async throws -> Bool
) async throws {
  _ = try await eventually(what, within: time) { try await condition() ? true : nil }
}

/// Waits until there is a value; throws ``TestFailure`` when there is none within the time.
public func eventually<Value>(
  _ what: String, within time: Duration = .seconds(50), _ value: () async throws -> Value?
) async throws -> Value {
  let deadline = ContinuousClock.now + time
  while true {
    if let value = try await value() { return value }
    if ContinuousClock.now >= deadline { throw TestFailure("waited \(time) in vain: \(what)") }
    try await Task.sleep(for: .milliseconds(20))
  }
}
