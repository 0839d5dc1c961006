import FoundationEssentials
import PostriderCore

/// Looks at a database as `postrider doctor` does: settings, rights, clock and stored secrets. Changes nothing.
///
/// Calls throw ``StoreError``. Close it in the end.
public struct DatabaseExamination: Sendable {
  private let connection: PostgresConnection
  /// Over one connection, by a libpq URI; connects when first used.
  public init(url: String) {
    connection = PostgresConnection(
      url: ConnectionURL(url),
      options: PostgresConnection.Options(
        application: "postrider doctor", connectTimeout: .seconds(5), statementTimeout: .seconds(30)))
  }

  /// Closes the connection.
  public func close() async { await connection.close() }

  /// What the server says of itself, and how far its clock and it are away.
  public func facts() async throws -> DatabaseFacts {
    try await run { db in
      let rows = try db.query(
        """
        SELECT current_setting('server_version'), current_setting('server_version_num')::bigint / 10000,
          current_user::text, r.rolsuper, r.rolbypassrls,
          current_setting('transaction_read_only')::boolean OR pg_is_in_recovery(),
          (SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()),
          (SELECT sum(numbackends)::bigint FROM pg_stat_database),
          current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
        FROM pg_roles r WHERE r.rolname = current_user
        """)
      guard var row = rows.first else { throw StoreError.unavailable(reason: "the server does not know our role") }
      var facts = DatabaseFacts(
        version: try row.text(), majorVersion: Int(try row.int()), user: try row.text(), isSuperuser: try row.bool(),
        bypassesRowSecurity: try row.bool(), isReadOnly: try row.bool(), encoding: try row.text(), settings: [:],
        connections: Int(try row.int()), maximumConnections: Int(try row.int()), roundTrips: [], clockOffset: 0)
      for name in DatabaseFacts.settingNames {
        var value = try db.query("SELECT current_setting($1, true)", [.text(name)])[0]
        facts.settings[name] = try value.textOrNil()
      }
      try db.measure(&facts)
      return facts
    }
  }

  /// The rights that the group roles should have by the migrations and do not have, in words.
  ///
  /// Objects that are not there are left out: that the schema is up to date is asked elsewhere
  /// (``PostgresStore/checkHealth()``).
  public func missingRights() async throws -> [String] {
    try await run { db in
      let results = try db.pipeline(Grant.all.map(\.question))
      return try zip(Grant.all, results).filter { _, answer in
        try answer.map { try $0.boolOrNil() }.first == .some(false)
      }.map { grant, _ in "\(grant)" }
    }
  }

  /// Tables with rows of organizations that are not kept apart by row-level security.
  public func unprotectedTables() async throws -> [String] {
    try await run { db in
      try db.query(
        """
        SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND NOT a.attisdropped AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        ORDER BY 1
        """
      ).map { try $0.text() }
    }
  }

  /// Whether the role may create tables, which migrations need.
  public func mayMigrate() async throws -> Bool {
    try await run { db in
      try db.query("SELECT has_schema_privilege(current_user, current_schema(), 'CREATE')").map { try $0.bool() }
        == [true]
    }
  }

  /// Whether an announcement over `other` arrives here, as it does not behind a transaction pooler.
  public func hears(_ other: DatabaseExamination, within time: Duration = .seconds(3)) async throws -> Bool {
    let channel = "postrider_doctor_" + String(UInt32.random(in: .min ... .max), radix: 36)
    try await run { db in _ = try db.query("LISTEN \(channel)") }
    try await other.run { db in _ = try db.query("SELECT pg_notify($1, 'doctor')", [.text(channel)]) }
    return try await run { db in !(try db.notifications(timeout: time).isEmpty) }
  }

  /// The stored secrets by column and key, and whether the ring opens them: one value of each is tried.
  public func sealedGroups(_ ring: KeyRing) async throws -> [SealedGroup] {
    let union = SealedColumn.all.enumerated().map { index, sealed in
      """
      SELECT \(index)::bigint AS place, \(sealed.key) AS row, \(sealed.keyID) AS key
      FROM \(sealed.table) WHERE \(sealed.column) IS NOT NULL
      """
    }.joined(separator: " UNION ALL ")
    return try await transaction { db in
      let groups = try db.query(
        """
        SELECT place, key, count(*), min(row) FROM (\(union)) AS sealed GROUP BY 1, 2 ORDER BY 1, 2
        """
      ).map { row in
        (
          column: SealedColumn.all[Int(try row.int())], key: try row.bytesOrNil(), count: Int(try row.int()),
          row: try row.int()
        )
      }
      return try groups.map { group in
        let sample =
          try db.query(
            "SELECT \(group.column.column) FROM \(group.column.table) WHERE \(group.column.key) = $1", [.int(group.row)]
          )
          .map { try $0.bytesOrNil() }.first ?? nil
        let place = group.column.place(group.row)
        return SealedGroup(
          place: "\(group.column.table).\(group.column.column)",
          keyID: group.key.map { String(decoding: $0, as: UTF8.self) } ?? "",
          count: group.count, state: ring.state(of: sample ?? [], at: place))
      }
    }
  }

  private func run<T: Sendable>(_ body: @Sendable (isolated PostgresConnection) throws -> T) async throws -> T {
    do { return try await connection.run(body) } catch { throw PostgresError.storeError(error) }
  }

  private func transaction<T: Sendable>(
    _ body: @Sendable (isolated PostgresConnection) throws -> T
  ) async throws -> T {
    do { return try await connection.transaction(.worker, body) } catch { throw PostgresError.storeError(error) }
  }
}

extension KeyRing {
  fileprivate func state(of sealed: [UInt8], at place: SealedPlace) -> SealedGroup.State {
    guard KeyRing.keyID(of: sealed) != nil else { return .unknown }
    do throws(StoreError) {
      _ = try open(sealed, for: place)
      return .readable
    } catch {
      if case .missingKey = error { return .missingKey }
      return .wrongKey
    }
  }
}

extension PostgresConnection {
  /// Twenty round trips; the quickest tells the clock best.
  fileprivate func measure(_ facts: inout DatabaseFacts) throws {
    var quickest = Double.infinity
    for _ in 0..<20 {
      let start = ContinuousClock.now
      var answer = try query("SELECT extract(epoch FROM clock_timestamp())::double precision")[0]
      let seconds = (ContinuousClock.now - start) / .seconds(1)
      let now = Date().timeIntervalSince1970
      let theirs = try answer.double()
      facts.roundTrips.append(seconds)
      if seconds < quickest {
        quickest = seconds
        facts.clockOffset = theirs - (now - seconds / 2)
      }
    }
    facts.roundTrips.sort()
  }
}

extension Grant {
  /// Asks whether it is there; NULL when its object is not.
  fileprivate var question: Statement {
    let found = kind == .function ? "to_regproc($2::text)" : "to_regclass($2::text)"
    let check =
      column == nil
      ? "has_\(kind.rawValue)_privilege($1::name, \(found)::oid, $3::text)"
      : "has_column_privilege($1::name, \(found)::oid, $4::text, $3::text)"
    return Statement(
      "SELECT CASE WHEN \(found) IS NOT NULL THEN \(check) END",
      ([role, object, privilege] + [column].compactMap { $0 }).map { .text($0) })
  }
}
