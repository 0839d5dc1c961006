import PostriderCore

/// How the store reaches PostgreSQL.
public struct PostgresStoreConfiguration: Sendable {
  /// A libpq URI; may go through a transaction pooler. May hold a password.
  public var url: Secret
  /// A libpq URI of a direct connection for LISTEN; the same as ``url`` when there is no pooler.
  public var directURL: Secret
  /// Connections at most, 1 and up.
  public var poolSize: Int
  /// Decrypts and encrypts passwords; `nil` for processes that never need them (the scheduler).
  public var keyRing: KeyRing?
  /// Shown in `pg_stat_activity`.
  public var applicationName: String
  /// To establish a connection; at least 2 s.
  public var connectTimeout: Duration
  /// For each statement.
  public var statementTimeout: Duration
  /// Longest wait for a free connection.
  public var poolWait: Duration
  /// Settings of mailboxes kept in memory at most.
  public var settingsCacheCapacity: Int
  /// Runs, steps and audit rows older than this many days are dropped.
  public var historyDays: Int
  /// How often the counts of sessions by profile are written.
  public var activityInterval: Duration = .seconds(5)

  /// The defaults fit a worker of 50 slots.
  public init(
    url: String, directURL: String? = nil, poolSize: Int = 8, keyRing: KeyRing? = nil,
    applicationName: String = "postrider", connectTimeout: Duration = .seconds(5),
    statementTimeout: Duration = .seconds(30), poolWait: Duration = .seconds(30), settingsCacheCapacity: Int = 10_000,
    historyDays: Int = 30
  ) {
    self.url = Secret(url)
    self.directURL = Secret(directURL ?? url)
    self.poolSize = max(1, poolSize)
    self.keyRing = keyRing
    self.applicationName = applicationName
    self.connectTimeout = connectTimeout
    self.statementTimeout = statementTimeout
    self.poolWait = poolWait
    self.settingsCacheCapacity = settingsCacheCapacity
    self.historyDays = historyDays
  }
}
