import CLibPQ
import FoundationEssentials
import Logging
import PostriderCore

/// A migration and whether the database has it.
public struct MigrationStatus: Hashable, Sendable, Codable {
  /// 1 and up.
  public var version: Int
  /// What it is called.
  public var name: String
  /// When it was applied; `nil` when it was not.
  public var appliedAt: Date?
  /// Whether this program has it; else it is of a newer release.
  public var isKnown = true
}

/// Brings a database's schema up to this program's, forward only.
///
/// Safe to run from several processes at once (an advisory lock lets one pass) and while the previous release still
/// runs. Needs a direct connection, not one through a transaction pooler.
public struct Migrator: Sendable {
  private let connection: PostgresConnection
  private let applicationURL: ConnectionURL
  private let logger: Logger
  private let migrations: [Migration]

  /// A migrator for one database.
  ///
  /// - Parameters:
  ///   - url: libpq URI of a role that may create tables and, the first time, roles.
  ///   - applicationURL: libpq URI that the other processes use; its role is created, with the URI's password, where it
  ///     is missing, and granted what they need. `nil`: the same.
  ///   - logger: Told of each migration.
  public init(url: String, applicationURL: String? = nil, logger: Logger) {
    self.init(url: url, applicationURL: applicationURL, migrations: Migration.all, logger: logger)
  }

  /// The same with the migrations of another release.
  init(url: String, applicationURL: String? = nil, migrations: [Migration], logger: Logger) {
    self.migrations = migrations
    connection = PostgresConnection(
      url: ConnectionURL(url),
      options: PostgresConnection.Options(
        application: "postrider migrate", connectTimeout: .seconds(10), statementTimeout: .seconds(600)))
    self.applicationURL = ConnectionURL(applicationURL ?? url)
    self.logger = logger
  }

  /// Applies what is missing; returns the versions applied now. Throws ``StoreError``.
  @discardableResult
  public func migrate() async throws -> [Int] {
    let user = try applicationURL.userName()
    let password = try applicationURL.password()
    do {
      return try await connection.run { [logger, migrations] db in
        try db.migrate(user, password: password, migrations, logger)
      }
    } catch {
      await connection.close()
      throw Self.explain(error)
    }
  }

  /// What the database has and lacks. Throws ``StoreError``.
  public func status() async throws -> [MigrationStatus] {
    do {
      return try await connection.run { [migrations] db in
        let applied = try db.appliedMigrations()
        let known = migrations.map { migration in
          MigrationStatus(
            version: migration.version, name: migration.name, appliedAt: applied[migration.version]?.appliedAt)
        }
        let newer = applied.filter { version, _ in !migrations.contains { $0.version == version } }
          .map { MigrationStatus(version: $0, name: $1.name, appliedAt: $1.appliedAt, isKnown: false) }
        return (known + newer).sorted { $0.version < $1.version }
      }
    } catch {
      throw Self.explain(error)
    }
  }

  private static func explain(_ error: any Error) -> any Error {
    guard let error = error as? PostgresError else { return error }
    switch error.sqlState {
    // A migration's own errors are bugs to be seen as they are, not "run postrider migrate".
    case "42501": return StoreError.schema(reason: "the migrating role lacks a right: \(error.message)")
    case "42P01", "42703", "42883": return StoreError.statement(sqlState: error.sqlState, message: error.message)
    default: return error.storeError
    }
  }
}

struct AppliedMigration {
  var name: String
  var checksum: String
  /// What it demands of programs; see ``Migration/worksWith``.
  var worksWith: Int?
  var appliedAt: Date
}

extension PostgresConnection {
  fileprivate func migrate(
    _ applicationUser: String?, password: Secret?, _ migrations: [Migration], _ logger: Logger
  ) throws -> [Int] {
    try requireDirectConnection()
    // Session lock of this database; waits for another migrator, not for ever.
    try query("SELECT set_config('lock_timeout', '120000', false)")
    try query("SELECT pg_advisory_lock(7406100, 0)")
    defer { close() }
    try query(
      """
      CREATE TABLE IF NOT EXISTS schema_migration (
        version int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(), works_with int)
      """)
    try ensureRuleColumn()
    try ensureRoles()
    if let applicationUser { try ensureLoginRole(applicationUser, password: password, logger) }
    let applied = try appliedMigrations()
    try check(applied, migrations, logger)
    var done: [Int] = []
    for migration in migrations where applied[migration.version] == nil {
      try apply(migration, logger)
      done.append(migration.version)
      logger.notice(
        "Applied a migration",
        metadata: ["schema.version": "\(migration.version)", "schema.name": "\(migration.name)"])
    }
    try query("GRANT SELECT ON schema_migration TO postrider_api, postrider_worker")
    try grantRoles(to: applicationUser)
    return done
  }

  fileprivate func appliedMigrations() throws -> [Int: AppliedMigration] {
    guard try query("SELECT to_regclass('schema_migration') IS NOT NULL").first?.isTrue == true else { return [:] }
    let rows = try query(
      "SELECT version, name, checksum, applied_at, (to_jsonb(m) ->> 'works_with')::int FROM schema_migration m"
    ).map { (row: inout Row) -> (Int, AppliedMigration) in
      let version = Int(try row.int())
      var applied = AppliedMigration(
        name: try row.text(), checksum: try row.text(), appliedAt: try row.date())
      applied.worksWith = try row.intOrNil().map(Int.init)
      return (version, applied)
    }
    return Dictionary(uniqueKeysWithValues: rows)
  }

  /// A pooler tells its clients a process number of its own. Behind one in transaction mode the lock would be taken on
  /// whichever connection is free and stay there.
  private func requireDirectConnection() throws {
    let told = Int64(PQbackendPID(try open()))
    if try query("SELECT pg_backend_pid()::bigint").map({ try $0.int() }) == [told] { return }
    throw StoreError.schema(
      reason:
        "migrations need a direct connection, and this URL leads through a pooler, which lends another connection for"
        + " each transaction; give a direct URL in POSTRIDER_DATABASE_MIGRATE_URL")
  }

  /// Databases of releases before the rule (D150) lack its column.
  private func ensureRuleColumn() throws {
    let column = "SELECT FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'works_with'"
    if try query(column).count == 0 { try query("ALTER TABLE schema_migration ADD COLUMN works_with int") }
  }

  /// Refuses a database of another build, or of a newer release that this program does not fit. One that it fits is left
  /// as it is, so that going back to the release before needs nothing undone.
  private func check(_ applied: [Int: AppliedMigration], _ migrations: [Migration], _ logger: Logger) throws {
    let known = Dictionary(uniqueKeysWithValues: migrations.map { ($0.version, $0.checksum) })
    for (version, migration) in applied {
      if let checksum = known[version], checksum != migration.checksum {
        throw StoreError.schema(
          reason: "migration \(version) was applied with other contents than this program holds; the database belongs"
            + " to another build")
      }
    }
    guard let newest = applied.keys.max(), known[newest] == nil else { return }
    let rule = SchemaRule(needed: 0, newest: migrations.last?.version ?? 0)
    if let refusal = rule.refusal(version: newest, worksWith: applied.values.compactMap(\.worksWith).max() ?? 0) {
      throw refusal
    }
    logger.notice(
      "The schema is of a newer release that works with this one; nothing is changed",
      metadata: ["schema.version": "\(newest)"])
  }

  /// Applies one migration in a transaction. It gives up a lock it cannot get within 5 s, so that it never stands in
  /// front of everyday work for long, and tries again.
  private func apply(_ migration: Migration, _ logger: Logger) throws {
    var attempt = 1
    while true {
      do {
        try script("BEGIN; SET LOCAL lock_timeout = '5s'")
        try script(migration.sql)
        try query(
          "INSERT INTO schema_migration (version, name, checksum, works_with) VALUES ($1, $2, $3, $4)",
          [
            .int(Int64(migration.version)), .text(migration.name), .text(migration.checksum),
            .int(migration.worksWith.map(Int64.init)),
          ])
        try script("COMMIT")
        return
      } catch let error as PostgresError {
        try script("ROLLBACK")
        guard error.sqlState == "55P03" || error.isRetryable, attempt < 10 else { throw error }
        logger.warning(
          "A migration could not get its lock and is tried again",
          metadata: ["schema.version": "\(migration.version)", "attempt": "\(attempt)"])
        attempt += 1
      }
    }
  }

  /// The group roles are shared by all databases of a server, so another database's migration may create them now.
  private func ensureRoles() throws {
    for role in ["postrider_api", "postrider_worker"] {
      let exists = try query("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", [.text(role)])
      if exists.first?.isTrue == true { continue }
      do {
        try query("CREATE ROLE \(role) NOLOGIN")
      } catch let error as PostgresError where ["42710", "23505"].contains(error.sqlState) {
        continue
      } catch let error as PostgresError where error.sqlState == "42501" {
        throw StoreError.schema(
          reason: "the migrating role may not create roles; have an administrator of the server run:"
            + " CREATE ROLE postrider_api NOLOGIN; CREATE ROLE postrider_worker NOLOGIN;")
      }
    }
  }

  /// Lets the application's role and the migrating one act as the group roles.
  private func grantRoles(to applicationUser: String?) throws {
    var row = try query("SELECT current_user::text, current_setting('server_version_num')::bigint")[0]
    let migratingUser = try row.text()
    let version = try row.int()
    for user in Set([migratingUser, applicationUser ?? migratingUser]) {
      let rights = Migrator.groupRights(serverVersion: version, migrates: user == migratingUser)
      for role in ["postrider_api", "postrider_worker"] {
        let held = try query(
          "SELECT bool_and(pg_has_role($1::name, $2::name, r.word)) FROM unnest($3) AS r (word)",
          [.text(user), .text(role), .texts(rights)])
        if held.first?.isTrue == true { continue }
        try grant(role, to: user, serverVersion: version)
      }
    }
  }

  private func grant(_ role: String, to user: String, serverVersion: Int64) throws {
    let quoted = "\"" + user.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    // Said expressly: what is left out stays as it was granted before, or is as the role was made (NOINHERIT).
    let options = serverVersion >= Migrator.splitMembership ? " WITH INHERIT TRUE, SET TRUE" : ""
    var attempt = 1
    while true {
      do {
        try query("GRANT \(role) TO \(quoted)\(options)")
        return
      } catch let error as PostgresError where error.sqlState == "XX000" && attempt < 20 {
        // "tuple concurrently updated": another database's migration grants the same.
        attempt += 1
      } catch let error as PostgresError where error.sqlState == "42501" {
        throw StoreError.schema(
          reason: "the migrating role may not grant roles; have an administrator of the server run:"
            + " GRANT postrider_api, postrider_worker TO \(quoted)\(options);")
      }
    }
  }
}

extension Migrator {
  /// The first server, as `server_version_num`, on which a member need not have the rights of its group, nor be able to
  /// become it. Whoever creates a role is such a member of it there.
  static let splitMembership: Int64 = 160_000

  /// What a role must hold of a group role, in the words of `pg_has_role`.
  ///
  /// The application becomes the group role, for each transaction. The migrating role needs its rights besides: as the
  /// owner of the tables it is held to their policies, and those are the group roles' (`postrider init`).
  static func groupRights(serverVersion: Int64, migrates: Bool) -> [String] {
    // Older servers do not know the word SET: there every member may become the group.
    guard serverVersion >= splitMembership else { return ["MEMBER"] }
    return migrates ? ["SET", "USAGE"] : ["SET"]
  }
}

extension Row {
  /// Whether the first column is true.
  fileprivate var isTrue: Bool {
    var row = self
    return (try? row.bool()) ?? false
  }
}
