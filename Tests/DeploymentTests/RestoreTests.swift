import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

/// The commands of `ops/README.md` for backup and restore, from one PostgreSQL server to a fresh one.
@Suite("Backup and restore")
struct RestoreTests {
  /// A server with the roles that an administrator makes, and its database.
  private static func server(_ name: String, in directory: DataDirectory) async throws -> PrivatePostgres {
    var options = PrivatePostgres.Options()
    options.name = name
    // As in earnest, so that the doctor has nothing to say.
    options.isDurable = true
    let postgres = try await PrivatePostgres.start(in: directory, options: options)
    try await postgres.execute(
      """
      CREATE ROLE owner LOGIN CREATEROLE;
      CREATE ROLE application LOGIN;
      CREATE ROLE backup LOGIN BYPASSRLS;
      GRANT pg_read_all_data TO backup;
      CREATE DATABASE postrider OWNER owner;
      """)
    return postgres
  }

  private static func url(_ postgres: PrivatePostgres, as user: String) -> String {
    "postgresql:///postrider?host=\(postgres.socketDirectory.replacing("/", with: "%2F"))&user=\(user)"
  }

  private static func installation(
    _ postgres: PrivatePostgres, _ redis: PrivateRedis, _ office: PostOffice, keys: String
  ) throws -> Installation {
    try Installation(
      .init(
        databaseURL: url(postgres, as: "application"), migrateURL: url(postgres, as: "owner"), redisURL: redis.url,
        keys: keys), office: office)
  }

  private func run(_ program: String, _ arguments: String...) async throws -> CommandResult {
    let running = try RunningProgram(arguments, executable: "/usr/bin/\(program)")
    let code = await running.exit()
    defer { running.forget() }
    return CommandResult(exitCode: code, output: running.output, errors: running.errors)
  }

  @Test(
    "a dump on a fresh server, with an empty Redis: schedules go on by themselves, nothing is doubled or sent twice")
  func restore() async throws {
    let directory = try await TestServers.shared.dedicatedDirectory(named: "restore")
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    let ring = KeyRing.generate().text.revealed
    let first = try await Self.server("first", in: directory)
    let before = try Self.installation(first, redis, office, keys: ring)
    try await before.command("migrate")
    let token = try await before.initialize()
    let old = try ["scheduler", "worker", "api"].map { try before.start($0) }
    try await old[2].waitUntilReady()
    let addresses = try await before.furnish(token, mailboxes: 3)
    for address in addresses {
      for _ in 0..<3 { office.deliver(to: address) }
      try await before.send(token, from: address)
    }
    try await before.many(token, ["mailbox", "poll"], addresses)
    try await before.expectNothingLostOrDoubled(token, addresses)

    // A message whose last octet is out, and no answer: nobody can know whether it arrived.
    office.swallow(true)
    try await before.send(token, from: addresses[0])
    #expect(await eventually(within: .seconds(180)) { office.swallowed.count == 1 })
    let dump = "\(before.folder)/postrider.dump"
    let dumped = try await run(
      "pg_dump", "--format", "custom", "--file", dump, Self.url(first, as: "backup"))
    #expect(dumped.exitCode == 0, "\(dumped.errors)")
    // The owner of the tables is held to row-level security and cannot dump them: the commands name a role that can.
    let owners = try await run("pg_dump", "--file", "/dev/null", Self.url(first, as: "owner"))
    #expect(owners.exitCode != 0 && owners.errors.contains("row-level security"), "\(owners)")
    try await expectNoSecrets(Self.url(first, as: "backup"), token, ring)

    // Life goes on after the dump, and then everything is gone at once.
    for address in addresses { office.deliver(to: address) }
    try await before.many(token, ["mailbox", "poll"], addresses)
    for process in old { await process.kill() }
    await first.stop()
    try redis.flushAll()

    let second = try await Self.server("second", in: directory)
    let after = try Self.installation(second, redis, office, keys: ring)
    // Groups are the server's, not the database's; then the dump, then what it may lack.
    try await second.execute("CREATE ROLE postrider_api NOLOGIN; CREATE ROLE postrider_worker NOLOGIN")
    try await second.execute("GRANT postrider_api, postrider_worker TO owner WITH ADMIN OPTION")
    let restored = try await run(
      "pg_restore", "--no-owner", "--exit-on-error", "--dbname", Self.url(second, as: "owner"), dump)
    #expect(restored.exitCode == 0, "\(restored.errors)")
    try await after.command("migrate")
    // Exit code 0: the ring opens everything that came back.
    let keys = try await after.command("keys", "status")
    #expect(keys.contains("encrypts"), "\(keys)")
    office.swallow(false)
    for address in addresses { office.deliver(to: address) }
    let since = Date().timeIntervalSince1970
    let new = try ["scheduler", "worker", "api"].map { try after.start($0) }
    for process in new { try await process.waitUntilReady() }

    // Nobody asks for anything: the slots of the schedule come by themselves, each within a minute.
    for address in addresses {
      let offered = office.offered(to: address)
      #expect(offered.count == 5)
      var stored: [String: Int] = [:]
      let complete = try await eventually(within: .seconds(300)) {
        stored = try await after.stored(token, for: address)
        return Set(stored.keys) == offered
      }
      #expect(complete && stored.values.allSatisfy { $0 == 1 }, "\(address): \(stored)")
    }
    let triggers = try await second.execute(
      "SELECT DISTINCT trigger FROM run WHERE kind = 'p' AND started_at > to_timestamp(\(since))", database: "postrider"
    )
    #expect(triggers.contains("slot"), "\(triggers)")

    // What was under way is a person's to decide; what was sent is not sent again.
    let unknown = try #require(office.swallowed.first)
    var outgoing: [OutgoingEmail] = []
    let decided = try await eventually(within: .seconds(300)) {
      outgoing = try await after.submitted(token)
      return outgoing.allSatisfy { $0.state == ($0.messageID == unknown ? .uncertain : .sent) }
    }
    #expect(decided, "\(outgoing.map { "\($0.id) \($0.state)" })")
    #expect(outgoing.count == 4 && office.taken.values.allSatisfy { $0 == 1 }, "\(office.taken)")
    #expect(office.refusals == 0)
    // The doctor finds nothing wrong.
    let doctor = try RunningProgram(["doctor"], environment: after.environment)
    #expect(await doctor.exit() == 0, "\(doctor.output)\(doctor.errors)")
    doctor.forget()
    for process in new {
      await process.stop()
      process.program.forget()
    }
    for process in old { process.program.forget() }
    await office.close()
    before.forget()
    after.forget()
    await second.stop()
    await redis.stop()
  }

  /// No password, token or key stands in a dump, neither in clear nor in an encoding of a dump.
  private func expectNoSecrets(_ url: String, _ token: String, _ ring: String) async throws {
    let plain = try await run("pg_dump", url)
    #expect(plain.exitCode == 0 && plain.output.contains("user1@example.org"), "\(plain.errors)")
    let key = try #require(ring.split(separator: ":").last).trimmingCharacters(in: .whitespacesAndNewlines)
    for secret in [PostOffice.password, token, key] {
      #expect(!plain.output.contains(secret))
      #expect(!plain.output.contains(Data(secret.utf8).base64EncodedString()))
      #expect(!plain.output.contains(Data(secret.utf8).map { String(format: "%02x", $0) }.joined()))
    }
    let octets = try #require(Data(base64Encoded: key))
    #expect(!plain.output.contains(octets.map { String(format: "%02x", $0) }.joined()))
  }
}
