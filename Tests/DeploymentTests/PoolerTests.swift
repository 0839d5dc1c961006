import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

/// PgBouncer in transaction mode between the processes and PostgreSQL.
@Suite("Behind a transaction pooler")
struct PoolerTests {
  @Test("all roles work through it, with announcements and migrations past it")
  func works() async throws {
    let directory = try await TestServers.shared.dedicatedDirectory(named: "pooled")
    var options = PrivatePostgres.Options()
    options.isDurable = false
    let postgres = try await PrivatePostgres.start(in: directory, options: options)
    let pooler = try await PrivatePgBouncer.start(before: postgres, in: directory)
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    try await postgres.createDatabase("postrider")
    let direct = postgres.url(database: "postrider")
    let installation = try Installation(
      .init(
        databaseURL: pooler.url(database: "postrider"), directURL: direct, migrateURL: direct, redisURL: redis.url,
        keys: KeyRing.generate().text.revealed), office: office)
    try await installation.command("migrate")
    let token = try await installation.initialize()
    // More clients than the server has connections for them: 4 processes with 4 each, on 3.
    let processes = try ["scheduler", "worker", "worker", "api"].map { try installation.start($0) }
    for process in processes { try await process.waitUntilReady() }
    let addresses = try await installation.furnish(token, mailboxes: 6)
    func round() async throws {
      for address in addresses {
        office.deliver(to: address)
        try await installation.send(token, from: address)
      }
      try await installation.many(token, ["mailbox", "poll"], addresses)
    }
    for _ in 0..<3 { try await round() }
    let clients = try await postgres.execute(
      "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postrider' AND pid <> pg_backend_pid()")
    // Three of the pool, and one that listens.
    #expect((1...4).contains(Int(clients) ?? 0), "\(clients)")

    // The pooler's connections are all new, and then it is a new one altogether.
    try await reconnect(pooler)
    try await round()
    try await pooler.restart()
    try await round()

    // A migration changes what kept plans return.
    try await postgres.execute(NextRelease.expansion, database: "postrider")
    try await round()

    // The doctor says so only where something is wrong.
    let well = try await doctor(installation)
    #expect(!well.contains("do not arrive") && !well.contains("pooler"), "\(well)")
    try await installation.expectNothingLostOrDoubled(token, addresses)
    for process in processes {
      await process.stop()
      #expect(process.errors.isEmpty, "\(process.role): \(process.errors)")
      process.program.forget()
    }

    // Without the direct way announcements are lost: work begins late, and the doctor finds it.
    let blind = try Installation(
      .init(
        databaseURL: pooler.url(database: "postrider"), migrateURL: direct, redisURL: redis.url,
        keys: installation.places.keys), office: office)
    let found = try await doctor(blind)
    #expect(found.contains("POSTRIDER_DATABASE_DIRECT_URL"), "\(found)")
    // And migrations refuse the pooled way, as their lock would be somebody else's connection's.
    let migrate = try RunningProgram(
      ["migrate"],
      environment: blind.environment.merging(["POSTRIDER_DATABASE_MIGRATE_URL": pooler.url(database: "postrider")]) {
        $1
      }
    )
    let code = await migrate.exit()
    #expect(code != 0 && migrate.errors.contains("pooler"), "\(code): \(migrate.errors)\(migrate.output)")
    migrate.forget()
    await office.close()
    installation.forget()
    blind.forget()
    await pooler.stop()
    await redis.stop()
    await postgres.stop()
  }

  /// What an administrator does on PgBouncer's console after a migration.
  private func reconnect(_ pooler: PrivatePgBouncer) async throws {
    let psql = try RunningProgram(
      ["-X", "-v", "ON_ERROR_STOP=1", "-d", pooler.url(database: "pgbouncer"), "-c", "RECONNECT"],
      executable: "/usr/bin/psql")
    #expect(await psql.exit() == 0, "\(psql.errors)")
    psql.forget()
  }

  private func doctor(_ installation: Installation) async throws -> String {
    let doctor = try RunningProgram(["doctor"], environment: installation.environment)
    _ = await doctor.exit()
    defer { doctor.forget() }
    return doctor.output + doctor.errors
  }
}
