import PostriderCore
import enum PostriderTesting.NextRelease
import Synchronization
import Testing

@testable import PostgresStore

/// The schema of another release than the program's.
@Suite("Schema: older and newer than the program")
struct UpgradeTests {
  @Test("a program works with what it needs, and with what is newer as long as that says so")
  func rule() {
    let rule = SchemaRule(needed: 7, newest: 8)
    #expect(rule.refusal(version: 7, worksWith: 0) == nil)
    #expect(rule.refusal(version: 8, worksWith: 8) == nil)
    // Newer ones that only add, and one that demands no more than this program knows.
    #expect(rule.refusal(version: 12, worksWith: 0) == nil)
    #expect(rule.refusal(version: 12, worksWith: 8) == nil)
    let old = rule.refusal(version: 6, worksWith: 0)?.description
    #expect(old?.contains("version 6") == true && old?.contains("needs 7; run `postrider migrate`") == true)
    let new = rule.refusal(version: 12, worksWith: 9)?.description
    #expect(new?.contains("know migration 9, this one knows 8; use the newer release") == true)
    // What an applied migration demands is never more than itself.
    for migration in Migration.all { #expect((migration.worksWith ?? 0) <= migration.version, "\(migration.name)") }
    // What stands in another order since it was published has not been edited again.
    #expect(
      Migration.all.filter { $0.published != nil }.map { "\($0.version) \($0.contentsChecksum)" } == [
        "16 35f7a14b174bf6bfa4ca3bb00028ef205e712b42c084b4abc88a3c74b93717b1"
      ])
    #expect(SchemaRule.program.newest == Migration.all.last?.version)
    #expect(SchemaRule.program.needed <= SchemaRule.program.newest)
  }

  private func migrator(_ database: TestDatabase, _ migrations: [Migration]) -> Migrator {
    Migrator(
      url: database.server.url("pr_owner", database.name), applicationURL: database.server.url("pr_app", database.name),
      migrations: migrations, logger: .test)
  }

  private var next: Int { Migration.newest + 1 }

  /// What a worker does with one mailbox, over plans that the connections have kept.
  private func work(_ database: TestDatabase, _ mailbox: Mailbox, message: String) async throws {
    _ = try await database.store.requestPoll(of: [mailbox.id], by: database.principal)
    let (lease, assignment) = try await database.assignment(mailbox, .poll)
    let writer = database.guardian(lease, assignment)
    #expect(try await database.store.store([.sample(message)], writer: writer).count == 1)
    let step = TraceStep(
      direction: .incoming, name: .connect, tried: "x", result: .ok, startedAt: .init(), milliseconds: 1)
    let alert = AlertChange.raise(AlertDraft(level: .error, code: "tcp.closed", text: "x"))
    let result = try await database.store.commit(
      database.outcome(lease, assignment, alerts: [alert], steps: [step]))
    guard case .written = result else { throw TimedOut(what: "a written outcome") }
  }

  @Test("a migration that only adds passes under the feet of a working program; to go back nothing has to be undone")
  func expansion() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      try await work(database, mailbox, message: "1")
      let later = Migration.all + [Migration(version: next, name: "next", sql: NextRelease.expansion)]
      #expect(try await migrator(database, later).migrate() == [next])

      // The same store goes on, on the same connections, and so does one that is new.
      try await work(database, mailbox, message: "2")
      try await database.store.checkHealth()
      _ = try await database.runningMailbox("b@example.com")
      _ = try await database.store.submit(
        OutgoingSubmission(
          mailboxID: mailbox.id, recipients: ["b@example.com"], subject: "x", messageID: "1@example.com",
          raw: .bytes([1])), by: database.principal)
      try await database.store.maintainHistory()
      #expect(
        try await database.store.emails(mailbox: mailbox.id, PageRequest(limit: 10), for: database.principal).total == 2
      )
      #expect(try await database.store.lead(holder: "old", duration: .seconds(10)) != nil)

      // This release's own `migrate` leaves the newer schema alone.
      #expect(try await migrator(database, Migration.all).migrate().isEmpty)
      #expect(try await database.int("SELECT max(version) FROM schema_migration") == Int64(next))
      let status = try await migrator(database, Migration.all).status()
      #expect(status.last?.version == next && status.last?.isKnown == false)
      #expect(status.count == Migration.all.count + 1)
    }
  }

  @Test("a migration that takes something away stops the programs that it names, and no others")
  func contraction() async throws {
    try await TestDatabase.with { database in
      try await database.store.checkSchema()
      let later =
        Migration.all + [Migration(version: next, name: "next", sql: NextRelease.contraction, worksWith: next)]
      try await migrator(database, later).migrate()
      let refused = { @Sendable (_ what: String, _ body: @Sendable () async throws -> Void) async in
        let error = await #expect(throws: StoreError.self, "\(what)") { try await body() }
        #expect(error?.description.contains("use the newer release") == true, "\(what): \(String(describing: error))")
      }
      await refused("readiness") { try await database.store.checkHealth() }
      await refused("a worker") { try await database.store.checkSchema() }
      await refused("a scheduler") { _ = try await database.store.lead(holder: "old", duration: .seconds(10)) }
      await refused("the API") { _ = try await database.store.principal(token: database.token) }
      await refused("its own migrate") { try await self.migrator(database, Migration.all).migrate() }
      // The later release works.
      #expect(try await migrator(database, later).migrate().isEmpty)
    }
  }

  @Test("a program waits for the migrations that it needs and goes on by itself")
  func tooOld() async throws {
    try await TestDatabase.with { database in
      let needed = SchemaRule.program.needed
      let row = try await database.sql("SELECT name, checksum FROM schema_migration WHERE version = \(needed)")
      let (name, checksum) = try row.map { (try $0.text(), try $0.text()) }[0]
      try await database.sql("DELETE FROM schema_migration WHERE version >= \(needed)")
      let error = await #expect(throws: StoreError.self) { try await database.store.checkHealth() }
      #expect(error?.description.contains("this program needs \(needed); run `postrider migrate`") == true)
      await #expect(throws: StoreError.self) { try await database.store.checkSchema() }
      try await database.sql(
        "INSERT INTO schema_migration (version, name, checksum) VALUES (\(needed), $1, $2)",
        [.text(name), .text(checksum)])
      // Looked at again without being asked to, within some seconds.
      try await eventually("the gate opens", within: .seconds(60)) {
        do {
          try await database.store.checkSchema()
          return true
        } catch StoreError.schema { return false }
      }
    }
  }

  @Test("a database of a release before the rule gets its column, and is looked at without it")
  func beforeTheRule() async throws {
    try await TestDatabase.with { database in
      try await database.sql("ALTER TABLE schema_migration DROP COLUMN works_with")
      try await database.store.checkHealth()
      #expect(try await migrator(database, Migration.all).status().allSatisfy { $0.appliedAt != nil })
      #expect(try await migrator(database, Migration.all).migrate().isEmpty)
      #expect(try await database.int("SELECT count(works_with) FROM schema_migration") == 0)
    }
  }

  @Test("while PostgreSQL cannot be asked the gate stays as it was; only the first look is waited for")
  func gate() async throws {
    let answers = Answers()
    let gate = SchemaGate(rule: SchemaRule(needed: 2, newest: 2), interval: .zero) { try answers.next() }
    // Unknown is open: who needs the database finds out by itself.
    try await gate.pass()
    answers.set(.success(1))
    await #expect(throws: StoreError.self) { try await gate.pass() }
    answers.set(.failure(StoreError.unavailable(reason: "away")))
    await #expect(throws: StoreError.self) { try await gate.check() }
    await #expect(throws: StoreError.self) { try await gate.pass() }
    answers.set(.success(2))
    try await gate.check()
    try await gate.pass()
  }

  private final class Answers: Sendable {
    private let value = Mutex<Result<Int, StoreError>>(.failure(.unavailable(reason: "not yet")))

    func set(_ new: Result<Int, StoreError>) { value.withLock { $0 = new } }
    func next() throws -> (version: Int, worksWith: Int) { (try value.withLock { $0 }.get(), 0) }
  }
}
