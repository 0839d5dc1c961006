import Logging
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import PostgresStore

@Suite("Examination: what a database is asked by the doctor")
struct ExaminationTests {
  @Test("the migrations' grants are read, and a migrated database has them all")
  func grants() async throws {
    #expect(Grant.all.contains(Grant(role: "postrider_worker", privilege: "INSERT", kind: .table, object: "ledger")))
    #expect(
      Grant.all.contains(
        Grant(
          role: "postrider_worker", privilege: "UPDATE", kind: .table, object: "mailbox", column: "outgoing_failed_at"))
    )
    #expect(
      Grant.all.contains(Grant(role: "postrider_api", privilege: "USAGE", kind: .sequence, object: "mailbox_id_seq")))
    #expect(
      Grant.all.contains(
        Grant(role: "postrider_worker", privilege: "EXECUTE", kind: .function, object: "maintain_partitions")))
    // As many as the server itself knows of its tables, without the owner's: nothing was overlooked.
    let postgres = try await TestServers.shared.postgres()
    let database = "\(await TestServers.shared.uniquePrefix("examined"))rights"
    try await postgres.createDatabase(database)
    let url = postgres.url(database: database)
    try await Migrator(url: url, logger: .silent).migrate()
    let counted = try await postgres.execute(
      """
      SELECT count(*) FROM information_schema.table_privileges
      WHERE grantee IN ('postrider_api', 'postrider_worker') AND table_schema = 'public'
        AND table_name <> 'schema_migration'
      """, database: database)
    #expect(Int(counted) == Set(Grant.all.filter { $0.kind == .table && $0.column == nil }).count)

    let examination = DatabaseExamination(url: url)
    #expect(try await examination.missingRights().isEmpty)
    #expect(try await examination.unprotectedTables().isEmpty)
    #expect(try await examination.mayMigrate())
    try await postgres.execute("REVOKE USAGE ON SEQUENCE run_block FROM postrider_worker", database: database)
    try await postgres.execute(
      "REVOKE EXECUTE ON FUNCTION maintain_partitions FROM postrider_worker", database: database)
    #expect(
      Set(try await examination.missingRights()) == [
        "USAGE on run_block for postrider_worker", "EXECUTE on maintain_partitions for postrider_worker",
      ])
    await examination.close()
  }

  @Test("an empty database lacks no right: the schema is asked elsewhere")
  func empty() async throws {
    let examination = DatabaseExamination(url: try await TestServers.shared.freshDatabase())
    #expect(try await examination.missingRights().isEmpty)
    let facts = try await examination.facts()
    #expect(facts.majorVersion >= 15 && facts.encoding == "UTF8" && !facts.isReadOnly && facts.isSuperuser)
    #expect(facts.roundTrips.count == 20 && abs(facts.clockOffset) < 2)
    #expect(facts.settings["fsync"] == "off", "as these servers run")
    await examination.close()
  }

  @Test("a server that is not there")
  func unreachable() async throws {
    let examination = DatabaseExamination(url: "postgresql:///x?host=/nonexistent")
    await #expect(throws: StoreError.self) { try await examination.facts() }
  }
}
