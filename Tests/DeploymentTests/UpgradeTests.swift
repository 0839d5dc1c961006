import Foundation
import Logging
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import PostgresStore

/// A rolling upgrade with real processes: the releases before and after it work side by side in every combination.
///
/// The release before is this program itself, with the next release's schema; `ops/upgrade-check` names an earlier build in
/// `UPGRADE_PREVIOUS`, and then both are what they are.
@Suite("Two releases at once")
struct UpgradeTests {
  static let previous = ProcessInfo.processInfo.environment["UPGRADE_PREVIOUS"]

  private func places(_ redis: PrivateRedis) async throws -> Installation.Places {
    Installation.Places(
      databaseURL: try await TestServers.shared.freshDatabase(), redisURL: redis.url,
      keys: KeyRing.generate().text.revealed)
  }

  @discardableResult
  private func sql(_ installation: Installation, _ text: String) async throws -> String {
    let name = installation.places.databaseURL.dropFirst("postgresql:///".count).prefix { $0 != "?" }
    return try await TestServers.shared.postgres().execute(text, database: String(name))
  }

  /// New mail for everybody, a message of everybody's, and a poll of all.
  private func round(_ installation: Installation, _ token: String, _ addresses: [String]) async throws {
    for address in addresses {
      installation.office.deliver(to: address)
      try await installation.send(token, from: address)
    }
    try await installation.many(token, ["mailbox", "poll"], addresses)
  }

  /// Works until each of the workers has run a session since now.
  private func work(
    _ installation: Installation, _ token: String, _ addresses: [String], by workers: [RoleProcess], _ what: String
  ) async throws {
    let since = Date().timeIntervalSince1970
    var idle: [RoleProcess] = workers
    for _ in 0..<20 where !idle.isEmpty {
      try await round(installation, token, addresses)
      let names = try await sql(
        installation, "SELECT DISTINCT worker FROM run WHERE started_at >= to_timestamp(\(since))")
      idle = workers.filter { !names.contains("-\($0.program.processID)-") }
    }
    #expect(idle.isEmpty, "\(what): \(idle.count) workers did nothing: \(idle.map(\.program.errors))")
  }

  private func leads(_ installation: Installation, _ scheduler: RoleProcess) async throws {
    var holder = ""
    let leads = try await eventually(within: .seconds(180)) {
      holder = try await sql(installation, "SELECT holder FROM leadership WHERE expires_at > clock_timestamp()")
      return holder.contains("-\(scheduler.program.processID)-")
    }
    #expect(leads, "\(holder) leads: \(scheduler.program.errors)")
  }

  @Test("old and new workers, schedulers and schema in every combination: nothing lost, nothing doubled")
  func mixed() async throws {
    let old = Self.previous ?? Program.path
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    let installation = try Installation(try await places(redis), office: office)
    try await installation.command("migrate", program: old)
    let token = try await installation.initialize(program: old)
    let few = ["POSTRIDER_WORKER_SESSIONS": "3"]

    // The release before, alone.
    let oldAPI = try installation.start("api", program: old)
    let oldScheduler = try installation.start("scheduler", program: old)
    let oldWorker = try installation.start("worker", program: old, more: few)
    try await oldAPI.waitUntilReady()
    let addresses = try await installation.furnish(token, mailboxes: 6, program: old)
    try await round(installation, token, addresses)

    // The schema moves on while it works.
    let traffic = Task { try await work(installation, token, addresses, by: [oldWorker], "while the schema moves") }
    if Self.previous == nil {
      let next = Migration(version: Migration.newest + 1, name: "next", sql: NextRelease.expansion)
      try await Migrator(
        url: installation.places.databaseURL, migrations: Migration.all + [next], logger: .silent
      ).migrate()
    } else {
      try await installation.command("migrate")
    }
    try await traffic.value
    try await work(installation, token, addresses, by: [oldWorker], "old processes, new schema")

    // New beside old.
    let newScheduler = try installation.start("scheduler")
    let newWorker = try installation.start("worker", more: few)
    try await newWorker.waitUntilReady()
    try await work(installation, token, addresses, by: [oldWorker, newWorker], "old scheduler, both workers")
    await oldScheduler.stop()
    try await leads(installation, newScheduler)
    try await work(installation, token, addresses, by: [oldWorker, newWorker], "new scheduler, both workers")
    await oldAPI.stop()
    let newAPI = try installation.start("api")
    try await newAPI.waitUntilReady()
    try await work(installation, token, addresses, by: [oldWorker], "new API and scheduler, old worker")

    // And back: the old scheduler leads new workers.
    let again = try installation.start("scheduler", program: old)
    try await again.waitUntilReadyUnlessBeforeTheRule()
    await newScheduler.stop()
    try await leads(installation, again)
    await oldWorker.stop()
    try await work(installation, token, addresses, by: [newWorker], "old scheduler, new worker")

    try await installation.expectNothingLostOrDoubled(token, addresses)
    for process in [newAPI, again, newWorker] { await process.stop() }
    for process in [oldAPI, oldScheduler, oldWorker, newScheduler, newAPI, again, newWorker] {
      #expect(process.errors.isEmpty, "\(process.role): \(process.errors)")
      process.program.forget()
    }
    await office.close()
    installation.forget()
    await redis.stop()
  }

  @Test("processes before a schema that they do not fit say so, do nothing, and go on by themselves when it fits")
  func refusal() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    let installation = try Installation(try await places(redis), office: office)
    try await installation.command("migrate")
    let token = try await installation.initialize()
    let newest = Migration.newest
    // A schema that was never migrated to what this release needs.
    try await sql(
      installation,
      """
      CREATE TABLE kept AS SELECT * FROM schema_migration WHERE version = \(newest);
      DELETE FROM schema_migration WHERE version = \(newest);
      """)
    let processes = try ["scheduler", "worker", "api"].map { try installation.start($0) }
    for process in processes {
      let said = await eventually(within: .seconds(180)) {
        (try? await process.readiness()).map {
          !$0.ready && $0.text.contains("needs \(newest); run `postrider migrate`")
        }
          ?? false
      }
      #expect(said, "\(process.role): \(process.program.errors)")
    }
    let words = "this program needs \(newest); run `postrider migrate`"
    #expect(await eventually { processes[0].program.errors.contains(words) }, "\(processes[0].program.errors)")
    #expect(await eventually { processes[1].program.errors.contains(words) }, "\(processes[1].program.errors)")
    let refused = try await installation.admin(token, ["whoami"])
    #expect(refused.exitCode != 0 && refused.errors.contains("postrider migrate"), "\(refused)")
    #expect(try await sql(installation, "SELECT count(*) FROM leadership WHERE holder IS NOT NULL") == "0")

    // Migrated, everything goes on without a restart.
    try await sql(installation, "INSERT INTO schema_migration SELECT * FROM kept")
    for process in processes { try await process.waitUntilReady() }
    let addresses = try await installation.furnish(token, mailboxes: 2)
    office.deliver(to: addresses[0])
    try await installation.many(token, ["mailbox", "poll"], addresses)

    // A later release takes something away. What this one does not understand it leaves alone; no slot comes before.
    try await sql(installation, "UPDATE mailbox_schedule SET next_due_at = now() + interval '1 hour' WHERE kind = 'p'")
    try await sql(
      installation,
      """
      INSERT INTO schema_migration (version, name, checksum, works_with)
      VALUES (\(newest + 1), 'next', 'x', \(newest + 1))
      """)
    for process in processes.prefix(2) {
      let said = await eventually(within: .seconds(180)) { process.program.errors.contains("use the newer release") }
      #expect(said, "\(process.role): \(process.program.errors)")
    }
    let runs = try await sql(installation, "SELECT count(*) FROM run")
    try await sql(installation, "UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
    try await Task.sleep(for: .seconds(3))
    #expect(try await sql(installation, "SELECT count(*) FROM run") == runs)
    try await sql(installation, "DELETE FROM schema_migration WHERE version = \(newest + 1)")
    let goesOn = try await eventually(within: .seconds(180)) {
      try await sql(installation, "SELECT count(*) FROM run") != runs
    }
    #expect(goesOn)
    try await installation.expectNothingLostOrDoubled(token, addresses)
    for process in processes {
      await process.stop()
      process.program.forget()
    }
    await office.close()
    installation.forget()
    await redis.stop()
  }
}

extension RoleProcess {
  /// Programs of before the rule call a schema that is newer than theirs unfit and work nevertheless.
  fileprivate func waitUntilReadyUnlessBeforeTheRule() async throws {
    if UpgradeTests.previous == nil { try await waitUntilReady() }
  }
}
