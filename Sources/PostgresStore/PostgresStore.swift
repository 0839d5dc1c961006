import FoundationEssentials
import Logging
import PostriderCore

/// The only memory of Postrider, in PostgreSQL.
///
/// One value serves all three seams: ``SchedulerStore``, ``WorkerStore`` and ``AdminStore``. Calls work from
/// initialization on; ``run()`` only keeps the partitions of the history in shape.
public final class PostgresStore: Sendable {
  let configuration: PostgresStoreConfiguration
  let logger: Logger
  let pool: ConnectionPool
  let settings: SettingsCache
  let activity: ActivityRecorder
  let outcomes: OutcomeWriter
  let sending: SendWriter
  let schema: SchemaGate
  let announcer: MailAnnouncer
  /// Given when this process has made or ended a batch.
  let batchMade = WakeSignal()

  /// A store; connects when first used.
  public init(configuration: PostgresStoreConfiguration, logger: Logger) {
    self.configuration = configuration
    self.logger = logger
    pool = ConnectionPool(
      url: ConnectionURL(configuration.url.revealed),
      options: PostgresConnection.Options(
        application: configuration.applicationName, connectTimeout: configuration.connectTimeout,
        statementTimeout: configuration.statementTimeout),
      limits: ConnectionPool.Limits(connections: configuration.poolSize, wait: configuration.poolWait))
    settings = SettingsCache(capacity: configuration.settingsCacheCapacity)
    activity = ActivityRecorder(pool: pool, interval: configuration.activityInterval, logger: logger)
    outcomes = OutcomeWriter(pool: pool, settings: settings, activity: activity)
    sending = SendWriter(pool: pool, outcomes: outcomes)
    schema = SchemaGate { [pool] in
      try await pool.transaction(.worker) { db in
        var row = try db.commit([Statement(SchemaRule.question)])[0][0]
        return (try row.intOrNil().map(Int.init) ?? 0, try row.intOrNil().map(Int.init) ?? 0)
      }
    }
    announcer = MailAnnouncer(pool: pool, logger: logger)
  }

  /// Creates the coming days' partitions and drops old history, each hour, until cancelled. Run it in any number of
  /// processes; one at a time does the work.
  public func run() async throws {
    while !Task.isCancelled {
      do {
        try await maintainHistory()
      } catch is CancellationError {
        return
      } catch {
        // Rows go to the default partition meanwhile.
        logger.warning("The history's partitions could not be maintained", metadata: ["error": "\(error)"])
      }
      do { try await Task.sleep(for: .seconds(3_600)) } catch { return }
    }
  }

  /// Creates partitions for a week ahead and drops those older than the configured age. Throws ``StoreError``.
  public func maintainHistory() async throws {
    let days = Int64(configuration.historyDays)
    try await pool.transaction(.worker) { db in
      _ = try db.commit([Statement("SELECT maintain_partitions(7, $1::int)", [.int(days)])])
    }
  }

  /// Closes every connection; calls throw ``StoreError/unavailable(reason:)`` from then on.
  public func close() async {
    await activity.flush()
    await pool.close()
  }

  /// Writes of sessions that came too late and changed nothing, since the start of this process.
  public var fencedWrites: Int { outcomes.fencedWrites }

  /// Whether PostgreSQL answers and its schema fits this program. Throws ``StoreError/unavailable(reason:)`` or
  /// ``StoreError/schema(reason:)``.
  public func checkHealth() async throws { try await schema.check() }

  /// Throws ``StoreError/schema(reason:)`` while the schema does not fit this program; costs nothing between two looks
  /// at the database, each five seconds.
  public func checkSchema() async throws { try await schema.pass() }
}

extension PostgresStore: SchedulerStore, WorkerStore, AdminStore, OAuthStore, BatchQueue {}
