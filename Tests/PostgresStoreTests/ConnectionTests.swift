import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Connections: values, pool, loss")
struct ConnectionTests {
  @Test("every kind of value comes back as it was sent")
  func values() async throws {
    let server = try await TestServer.shared.value
    let connection = PostgresConnection(url: ConnectionURL(server.url("pr_app", "postgres")), options: .test)
    let moment = Date(timeIntervalSince1970: 1_234_567_890.123456)
    try await connection.run { db in
      var row = try db.query(
        "SELECT $1, $2, $3, $4, $5, $6, $7::int, $8::smallint, $9::jsonb, $10::text",
        [
          .int(.min), .double(-0.5), .bool(true), .text("Grüße 🎉 '\"\\"), .bytes([0, 255]), .time(moment), .int(-7),
          .int(-3), .text(#"{"a": [1]}"#), .text(nil),
        ])[0]
      #expect(try row.int() == .min)
      #expect(try row.double() == -0.5)
      #expect(try row.bool())
      #expect(try row.text() == "Grüße 🎉 '\"\\")
      #expect(try row.bytes() == [0, 255])
      #expect(abs(try row.date().timeIntervalSince(moment)) < 0.000_001)
      #expect(try row.int() == -7)
      #expect(try row.int() == -3)
      #expect(try row.json() == ["a": [1]])
      #expect(try row.textOrNil() == nil)
      #expect(throws: StoreError.self) { try row.text() }

      let unnested = try db.query(
        "SELECT * FROM unnest($1, $2, $3, $4, $5, $6)",
        [
          .ints([1, nil]), .texts(["", nil]), .bools([false, nil]), .bytesArray([[], nil]), .times([moment, nil]),
          .doubles([1.5, nil]),
        ])
      #expect(unnested.count == 2)
      var first = unnested[0]
      #expect(try first.int() == 1)
      #expect(try first.text() == "")
      #expect(try !first.bool())
      #expect(try first.bytes() == [])
      var second = unnested[1]
      #expect(try second.intOrNil() == nil)
      #expect(try second.textOrNil() == nil)
      #expect(try db.query("SELECT cardinality($1::text[])", [.texts([])]).map { try $0.int() } == [0])
      #expect(
        try db.query("SELECT octet_length($1), octet_length($2)", [.text(""), .bytes([])]).map { try $0.int() } == [0])
    }
    await connection.close()
  }

  @Test("an error in a pipeline skips the rest, and the connection goes on")
  func pipelineError() async throws {
    let server = try await TestServer.shared.value
    let connection = PostgresConnection(url: ConnectionURL(server.url("pr_app", "postgres")), options: .test)
    try await connection.run { (db: isolated PostgresConnection) throws in
      let error = #expect(throws: PostgresError.self) {
        try db.pipeline([Statement("SELECT 1"), Statement("SELECT 1/0"), Statement("SELECT 2")])
      }
      #expect(error?.sqlState == "22012")
      #expect(try db.query("SELECT 3").map { try $0.int() } == [3])
    }
    await connection.close()
  }

  @Test("a kept statement is planned once, and a connection that meets another server's connection plans again")
  func keptPlans() async throws {
    let server = try await TestServer.shared.value
    let connection = PostgresConnection(url: ConnectionURL(server.url("pr_app", "postgres")), options: .test)
    try await connection.run { (db: isolated PostgresConnection) throws in
      for _ in 1...3 { #expect(try db.transaction(.worker) { try Kept.sum($0) } == 42) }
      #expect(try Kept.plans(db) == 1)
      // As behind a transaction pooler: the plans are on another connection.
      try db.query("DEALLOCATE ALL")
      #expect(try db.transaction(.worker) { try Kept.sum($0) } == 42)
      #expect(try Kept.plans(db) == 0)
      let keepsPlans = db.keepsPlans
      #expect(!keepsPlans)
      // A statement that fails beside a new one leaves the connection usable.
      db.keepsPlans = true
      db.close()
      #expect(throws: PostgresError.self) {
        try db.pipeline([Statement("SELECT 1/0"), Kept.statement])
      }
      #expect(try db.transaction(.worker) { try Kept.sum($0) } == 42)
      #expect(try Kept.plans(db) == 1)
    }
    await connection.close()
  }

  @Test("a kept statement that stands more than once in its first pipeline is prepared once")
  func keptTwice() async throws {
    let server = try await TestServer.shared.value
    let connection = PostgresConnection(url: ConnectionURL(server.url("pr_app", "postgres")), options: .test)
    try await connection.run { (db: isolated PostgresConnection) throws in
      let results = try db.transaction(.worker) { db in
        try db.pipeline([Kept.statement, Statement("SELECT 1"), Kept.statement, Kept.statement])
      }
      #expect(results.count == 4)
      let keepsPlans = db.keepsPlans
      #expect(try keepsPlans && Kept.plans(db) == 1)
    }
    await connection.close()
  }

  @Test("who finds no free connection waits in line, up to the deadline")
  func waiting() async throws {
    let server = try await TestServer.shared.value
    // A short deadline where it is to pass, and a long one where nobody is to be late.
    for wait in [Duration.milliseconds(200), .seconds(300)] {
      let pool = ConnectionPool(
        url: ConnectionURL(server.url("pr_app", "postgres")), options: .test,
        limits: ConnectionPool.Limits(connections: 1, wait: wait))
      let (gate, open) = AsyncStream.makeStream(of: Void.self)
      let (started, start) = AsyncStream.makeStream(of: Void.self)
      let holder = Task {
        try await pool.withConnection { _ in
          start.finish()
          for await _ in gate {}
        }
      }
      for await _ in started {}
      if wait < .seconds(1) {
        let error = await #expect(throws: StoreError.self) { try await pool.withConnection { _ in } }
        #expect(error?.description.contains("no database connection became free") == true)
        open.finish()
        try await holder.value
      } else {
        let cancelled = Task { try await pool.withConnection { _ in } }
        cancelled.cancel()
        await #expect(throws: (any Error).self) { try await cancelled.value }
        let patient = Task { try await pool.withConnection { try await $0.run { try $0.query("SELECT 1").count } } }
        open.finish()
        try await holder.value
        #expect(try await patient.value == 1)
      }
      await pool.close()
      await #expect(throws: StoreError.self) { try await pool.withConnection { _ in } }
    }
  }

  @Test("a hundred callers share two connections")
  func sharing() async throws {
    let server = try await TestServer.shared.value
    let pool = ConnectionPool(
      url: ConnectionURL(server.url("pr_app", "postgres")), options: .test,
      limits: ConnectionPool.Limits(connections: 2, wait: .seconds(60)))
    let backends = try await withThrowingTaskGroup(of: Int64.self) { group in
      for _ in 0..<100 {
        group.addTask {
          try await pool.withConnection { connection in
            try await connection.run { db in
              var row = try db.query("SELECT pg_backend_pid()")[0]
              return try row.int()
            }
          }
        }
      }
      return try await group.reduce(into: []) { $0.insert($1) } as Set<Int64>
    }
    #expect(backends.count <= 2)
    await pool.close()
  }

  @Test("an idle connection that died is replaced unseen; one that dies in a transaction is unavailable")
  func loss() async throws {
    try await TestDatabase.with(poolSize: 1) { database in
      let killed = try await database.sql(
        "SELECT pid::bigint, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'pr_app'",
        [.text(database.name)]
      ).map { row in try row.int() }
      #expect(!killed.isEmpty)
      // It leaves pg_stat_activity before its socket is closed.
      try await eventually("the server closed the connection") {
        killed.allSatisfy { !FileManager.default.fileExists(atPath: "/proc/\($0)") }
      }
      try await database.store.checkHealth()
      let error = await #expect(throws: StoreError.self) {
        try await database.store.pool.transaction(.worker) { db in
          try db.query("SELECT set_config('idle_in_transaction_session_timeout', '1', true)")
          // The server ends the session meanwhile.
          _ = db.wait(try db.openHandle(), for: 1, timeout: .seconds(60))
          _ = try db.query("SELECT 1")
        }
      }
      guard case .unavailable = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      try await database.store.checkHealth()
    }
  }

  @Test(
    "a URL that is none, or leads nowhere, is refused without repeating its password",
    arguments: [
      "postgres:/u:hunter2@h/db", "host=h password=hunter2 x", "hunter2", "postgresql://u:hunter%2@h/db",
      "postgresql://u:hunter2@/db?host=/nonexistent", "postgresql://u@/db?hunter2=1", "",
    ])
  func badURL(_ url: String) async throws {
    let store = PostgresStore(configuration: PostgresStoreConfiguration(url: url), logger: .test)
    let error = await #expect(throws: StoreError.self) { try await store.checkHealth() }
    guard case .unavailable(let reason) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(!reason.contains("hunter"))
    await store.close()
  }

  @Test("a migrating role that may not create roles is told the statements to run")
  func missingRights() async throws {
    let server = try await TestServer()
    try await server.sql("postgres", "CREATE ROLE modest LOGIN")
    try await server.sql("postgres", "CREATE DATABASE modest OWNER modest")
    let migrator = { @Sendable in Migrator(url: server.url("modest", "modest"), logger: .test) }
    let roles = await #expect(throws: StoreError.self) { try await migrator().migrate() }
    #expect(roles?.description.contains("CREATE ROLE postrider_api NOLOGIN") == true)
    try await server.sql("postgres", "CREATE ROLE postrider_api NOLOGIN")
    try await server.sql("postgres", "CREATE ROLE postrider_worker NOLOGIN")
    let grants = await #expect(throws: StoreError.self) { try await migrator().migrate() }
    #expect(grants?.description.contains(#"GRANT postrider_api, postrider_worker TO "modest""#) == true)
    try await server.sql("postgres", "GRANT postrider_api, postrider_worker TO modest")
    // One role for everything works too, as in a small installation.
    _ = try await migrator().migrate()
    let made = try await Bootstrap(url: server.url("modest", "modest"), logger: .test).createOrganization(
      name: "Small", administratorName: "Ada", administratorAddress: "ada@example.com")
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: server.url("modest", "modest")), logger: .test)
    #expect(try await store.principal(token: made.token)?.organizationID == made.0)
    await store.close()
    try await server.stop()
  }

  @Test("PostgreSQL restarts in the middle: unavailable, then all is well and nothing is lost")
  func restart() async throws {
    let server = try await TestServer()
    try await server.prepareTemplate()
    let database = try await TestDatabase(server: server, template: "template_postrider", poolSize: 3)
    _ = try await database.profile()
    let mailbox = try await database.runningMailbox("a@example.com")
    let (lease, assignment) = try await database.assignment(mailbox, .poll)
    var signals = database.store.signals().makeAsyncIterator()
    #expect(await signals.next() == .rescan)

    try await server.stop(keepsData: true)
    let outcome = database.outcome(lease, assignment)
    for _ in 0..<3 {
      let error = await #expect(throws: StoreError.self) { try await database.store.commit(outcome) }
      guard case .unavailable = error else {
        Issue.record("\(String(describing: error))")
        return
      }
    }
    await #expect(throws: StoreError.self) { try await database.store.checkHealth() }
    try await server.start()
    try await database.store.checkHealth()
    #expect(await signals.next() == .rescan)
    guard case .written = try await database.store.commit(outcome) else {
      Issue.record("the outcome was lost")
      return
    }
    #expect(try await database.store.mailbox(mailbox.id, for: database.principal).lastPollRunID != nil)
    await database.store.close()
    try await server.stop()
  }
}

/// A statement whose plan is kept.
private enum Kept {
  static let statement = Statement.kept("SELECT $1 + $2", [.int(40), .int(2)])

  static func sum(_ db: isolated PostgresConnection) throws -> Int64 {
    var row = try db.commit([statement])[0][0]
    return try row.int()
  }

  /// How many plans of it the server's connection keeps.
  static func plans(_ db: isolated PostgresConnection) throws -> Int64 {
    var row = try db.query("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1 + $2'")[0]
    return try row.int()
  }
}
