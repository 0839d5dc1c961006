import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import RedisQueue
import Testing

@testable import PostgresStore
@testable import postrider

/// A durable PostgreSQL, a Redis and an installation on them, of these tests alone.
private struct Installation: Sendable {
  let cluster: TestCluster
  let postgres: PrivatePostgres
  let redis: PrivateRedis
  /// A login role that is no superuser, as `postrider migrate` makes it.
  let applicationURL: String

  private static let starting = Task { try await Installation() }

  static func shared() async throws -> Installation { try await starting.value }

  private init() async throws {
    let data = try await TestServers.shared.dedicatedDirectory(named: "doctor")
    postgres = try await PrivatePostgres.start(in: data)
    redis = try await TestServers.shared.dedicatedRedis()
    cluster = try await TestCluster.make(.init(postgres: postgres, redis: redis))
    applicationURL =
      "postgresql://app:secret-word@/spine?host=\(postgres.socketDirectory)"
    try await Migrator(url: cluster.databaseURL, applicationURL: applicationURL, logger: .silent).migrate()
    let profile = try await cluster.profile(incoming: ServerDraft(host: "127.0.0.1", port: 995))
    let mailboxes = try await cluster.mailboxes(
      ["a@example.org", "b@example.org"], on: profile, password: "stored-word")
    // Its table has another key than the others.
    try await cluster.store.storeAccessToken(
      Secret("stored-token"), expiresAt: .distantFuture, mailbox: mailboxes[1], by: cluster.principal)
  }

  func variables(_ changes: [String: String?] = [:]) -> [String: String] {
    var variables: [String: String?] = [
      "POSTRIDER_DATABASE_URL": applicationURL, "POSTRIDER_DATABASE_MIGRATE_URL": cluster.databaseURL,
      "POSTRIDER_REDIS_URL": redis.url, "POSTRIDER_KEYS_RING": cluster.keys,
    ]
    variables.merge(changes) { _, new in new }
    return variables.compactMapValues { $0 }
  }

  func doctor(_ changes: [String: String?] = [:], _ arguments: String...) async throws -> Diagnosis {
    let result = try await Program.run(["doctor", "--json"] + arguments, environment: variables(changes))
    // No secret in any of it.
    for secret in ["secret-word", "stored-word", "stored-token", "pass-word"] {
      #expect(!(result.output + result.errors).contains(secret))
    }
    return try Diagnosis(result)
  }
}

/// What a run of the doctor said.
private struct Diagnosis {
  private struct Report: Decodable {
    var passed: Bool
    var errors: Int
    var warnings: Int
    var findings: [Finding]
  }

  let exitCode: Int
  let findings: [Finding]
  let text: String

  init(_ result: Program.Result) throws {
    let report = try JSONDecoder().decode(Report.self, from: Data(result.output.utf8))
    (exitCode, findings, text) = (result.exitCode, report.findings, result.output + result.errors)
    #expect(report.passed == (exitCode == 0))
    #expect(report.errors == findings.count { $0.level == .error })
    #expect(report.warnings == findings.count { $0.level == .warning })
    #expect(findings.allSatisfy { $0.remedy != nil || $0.level == .ok || $0.level == .skipped }, "each says what to do")
  }

  /// The areas with errors.
  var wrong: [Finding.Area] {
    Finding.Area.allCases.filter { area in findings.contains { $0.area == area && $0.level == .error } }
  }

  func has(_ level: Finding.Level, _ area: Finding.Area, _ words: String, remedy: String = "") -> Bool {
    findings.contains {
      $0.level == level && $0.area == area && $0.text.contains(words)
        && (remedy.isEmpty || $0.remedy?.contains(remedy) == true)
    }
  }
}

@Suite("postrider doctor", .serialized, .timeLimit(.minutes(10)))
struct DoctorTests {
  @Test("a healthy installation: exit code 0, every area is looked at")
  func healthy() async throws {
    let site = try await Installation.shared()
    let server = try await ScriptedMailServer.start([])
    let diagnosis = try await site.doctor(
      ["POSTRIDER_EGRESS_ALLOW": "127.0.0.1/32:*"], "--host", "127.0.0.1:\(server.port)")
    #expect(diagnosis.exitCode == 0, "\(diagnosis.text)")
    // How long a round trip takes is the machine's affair; a crowded one is warned of it.
    let latency = diagnosis.findings.filter { $0.text.contains("a round trip takes") }
    #expect(latency.map(\.area).sorted { $0.rawValue < $1.rawValue } == [.postgresql, .redis], "\(diagnosis.text)")
    #expect(diagnosis.findings.allSatisfy { $0.level == .ok || latency.contains($0) }, "\(diagnosis.text)")
    #expect(Set(diagnosis.findings.map(\.area)) == Set(Finding.Area.allCases))
    for (area, words) in [
      (Finding.Area.versions, "PostgreSQL 1"), (.versions, "Redis 7"), (.redis, "eviction policy, role and rights"),
      (.postgresql, "the schema fits"), (.postgresql, "every right"),
      (.postgresql, "announcements (LISTEN, NOTIFY) arrive"), (.postgresql, "the migrating role may"),
      (.keys, "the ring opens the 3 stored secrets"), (.clock, "and PostgreSQL's agree"),
      (.clock, "that of Redis"), (.egress, "127.0.0.1:\(server.port) can be reached"),
    ] { #expect(diagnosis.has(.ok, area, words), "\(words) is not in\n\(diagnosis.text)") }
    // It has changed nothing.
    #expect(site.redis.ask("DBSIZE") == ":0")
  }

  @Test("for people: areas, what is wrong, what to do, a last line")
  func text() async throws {
    let site = try await Installation.shared()
    // A busy machine may answer slowly for a moment, which is a warning.
    var good = try await Program.run(["doctor"], environment: site.variables())
    _ = try await eventually(within: .seconds(120)) {
      if good.output.hasSuffix("Everything looks well.\n") { return true }
      good = try await Program.run(["doctor"], environment: site.variables())
      return false
    }
    #expect(good.exitCode == 0 && good.output.hasSuffix("Everything looks well.\n"), "\(good.output)")
    let variables = site.variables(["POSTRIDER_REDIS_URL": "redis://127.0.0.1:1"])
    var bad = try await Program.run(["doctor"], environment: variables)
    _ = try await eventually(within: .seconds(120)) {
      if bad.output.hasSuffix("1 error, 0 warnings.\n") { return true }
      bad = try await Program.run(["doctor"], environment: variables)
      return false
    }
    #expect(bad.exitCode == 1)
    #expect(bad.output.contains("redis\n  ERROR    127.0.0.1:1: the queue cannot be reached"))
    #expect(bad.output.contains("           What to do: Check that the server runs"))
    #expect(bad.output.hasSuffix("1 error, 0 warnings.\n"))
  }

  @Test("keys that are wrong, unknown or missing are told all at once, and the rest is examined")
  func configuration() async throws {
    let site = try await Installation.shared()
    let diagnosis = try await site.doctor([
      "POSTRIDER_QUEUE_SHARDS": "65", "POSTRIDER_TYPO": "1", "POSTRIDER_DATABASE_URL": nil,
      "POSTRIDER_EGRESS_PORTS": "many", "POSTRIDER_WORKER_SPOOL": "/nonexistent",
    ])
    #expect(diagnosis.exitCode == 1)
    for words in [
      "POSTRIDER_QUEUE_SHARDS: `65` must be", "POSTRIDER_TYPO: there is no such key",
      "POSTRIDER_DATABASE_URL is not set",
      "cannot be kept in /nonexistent",
    ] { #expect(diagnosis.has(.error, .configuration, words), "\(words) is not in\n\(diagnosis.text)") }
    #expect(diagnosis.has(.error, .egress, "`many` is not a port"))
    #expect(diagnosis.has(.skipped, .postgresql, "not configured"))
    #expect(diagnosis.has(.ok, .versions, "Redis 7"))
  }

  @Test("Redis: an eviction policy that drops jobs, and a full memory")
  func eviction() async throws {
    let site = try await Installation.shared()
    #expect(site.redis.ask("CONFIG SET maxmemory-policy allkeys-lru") == "+OK")
    #expect(site.redis.ask("CONFIG SET maxmemory 1mb") == "+OK")
    let diagnosis = try await site.doctor()
    #expect(site.redis.ask("CONFIG SET maxmemory-policy noeviction") == "+OK")
    #expect(site.redis.ask("CONFIG SET maxmemory 0") == "+OK")
    #expect(diagnosis.exitCode == 1 && diagnosis.wrong == [.redis], "\(diagnosis.text)")
    #expect(diagnosis.has(.error, .redis, "maxmemory-policy is allkeys-lru"))
    #expect(diagnosis.has(.error, .redis, "CONFIG SET maxmemory-policy noeviction"))
    #expect(diagnosis.has(.warning, .redis, "are in use", remedy: "maxmemory"))
  }

  @Test("Redis: a user without the rights is told the rule; one with the rule is well; a wrong password")
  func redisRights() async throws {
    let site = try await Installation.shared()
    func url(_ user: String, _ password: String = "pass-word") -> String {
      "unix://\(user):\(password)@\(site.redis.socketPath)"
    }
    #expect(site.redis.ask("ACL SETUSER weak on >pass-word ~pr:* &pr:* +@all -publish -zadd") == "+OK")
    let weak = try await site.doctor(["POSTRIDER_REDIS_URL": url("weak")])
    #expect(weak.wrong == [.redis], "\(weak.text)")
    #expect(weak.has(.error, .redis, "ACL SETUSER name on >password resetkeys ~pr:*"))
    let rule = try #require(
      weak.findings.first { $0.level == .error }?.text.components(separatedBy: "ACL SETUSER name on >password ").last)
    #expect(site.redis.ask("ACL SETUSER right on >pass-word \(rule)") == "+OK", "\(rule)")
    let right = try await site.doctor(["POSTRIDER_REDIS_URL": url("right")])
    #expect(right.exitCode == 0, "\(right.text)")
    let wrong = try await site.doctor(["POSTRIDER_REDIS_URL": url("right", "other")])
    #expect(wrong.wrong == [.redis] && wrong.has(.error, .redis, "WRONGPASS"), "\(wrong.text)")
  }

  @Test("PostgreSQL: rights that were taken away, organizations that are not kept apart")
  func databaseRights() async throws {
    let site = try await Installation.shared()
    try await site.cluster.sql(
      """
      REVOKE INSERT ON ledger FROM postrider_worker; REVOKE UPDATE (incoming_status) ON mailbox FROM postrider_worker;
      ALTER TABLE email NO FORCE ROW LEVEL SECURITY
      """)
    let diagnosis = try await site.doctor()
    try await site.cluster.sql(
      """
      GRANT INSERT ON ledger TO postrider_worker; GRANT UPDATE (incoming_status) ON mailbox TO postrider_worker;
      ALTER TABLE email FORCE ROW LEVEL SECURITY
      """)
    #expect(diagnosis.exitCode == 1 && diagnosis.wrong == [.postgresql], "\(diagnosis.text)")
    #expect(
      diagnosis.has(
        .error, .postgresql,
        "2 rights missing: INSERT on ledger for postrider_worker, UPDATE on mailbox (incoming_status) for postrider_worker"
      ),
      "\(diagnosis.text)")
    #expect(diagnosis.has(.error, .postgresql, "organizations are not kept apart in email"))
  }

  @Test("PostgreSQL: a login role that is nobody's member, a superuser, one that may not migrate")
  func databaseRoles() async throws {
    let site = try await Installation.shared()
    try await site.cluster.sql("CREATE ROLE stranger LOGIN")
    let stranger = "postgresql://stranger@/spine?host=\(site.postgres.socketDirectory)"
    let alone = try await site.doctor(["POSTRIDER_DATABASE_URL": stranger])
    #expect(alone.exitCode == 1)
    #expect(
      alone.has(
        .error, .postgresql, "the login role may not act as the database roles", remedy: "postrider migrate"),
      "\(alone.text)")
    #expect(alone.has(.skipped, .keys, "could not be looked at"))
    let migrating = try await site.doctor(["POSTRIDER_DATABASE_MIGRATE_URL": stranger])
    #expect(migrating.has(.error, .postgresql, "may not create tables"), "\(migrating.text)")
    let superuser = try await site.doctor(["POSTRIDER_DATABASE_URL": site.cluster.databaseURL])
    #expect(superuser.exitCode == 0 && superuser.has(.warning, .postgresql, "a superuser"), "\(superuser.text)")
  }

  @Test("PostgreSQL: settings that lose data, a schema that is not there")
  func databaseSettings() async throws {
    let site = try await Installation.shared()
    try await site.cluster.sql("ALTER ROLE app SET synchronous_commit = off")
    let lossy = try await site.doctor()
    try await site.cluster.sql("ALTER ROLE app RESET synchronous_commit")
    #expect(lossy.wrong == [.postgresql], "\(lossy.text)")
    #expect(lossy.has(.error, .postgresql, "synchronous_commit off: a crash", remedy: "Switch synchronous_commit on"))
    try await site.postgres.createDatabase("empty")
    let empty = try await site.doctor(["POSTRIDER_DATABASE_URL": site.postgres.url(database: "empty")])
    #expect(empty.has(.error, .postgresql, "run `postrider migrate`", remedy: "postrider migrate"), "\(empty.text)")
    #expect(empty.has(.error, .postgresql, "announcements") == false)
  }

  @Test("PostgreSQL: the direct URL leads to another database, where nothing is announced")
  func announcements() async throws {
    let site = try await Installation.shared()
    let diagnosis = try await site.doctor(["POSTRIDER_DATABASE_DIRECT_URL": site.postgres.url])
    #expect(diagnosis.wrong == [.postgresql], "\(diagnosis.text)")
    #expect(
      diagnosis.has(
        .error, .postgresql, "announcements (LISTEN, NOTIFY) do not arrive over POSTRIDER_DATABASE_DIRECT_URL"))
  }

  @Test("the key ring: missing, another one, another key under the same id, open to all")
  func keys() async throws {
    let site = try await Installation.shared()
    let none = try await site.doctor(["POSTRIDER_KEYS_RING": nil])
    #expect(none.wrong == [.keys] && none.has(.error, .keys, "POSTRIDER_KEYS_FILE: is required"), "\(none.text)")

    let id = String(site.cluster.keys.prefix { $0 != ":" })
    let other = try await site.doctor(["POSTRIDER_KEYS_RING": KeyRing.generate(id: "other").text.revealed])
    #expect(other.wrong == [.keys], "\(other.text)")
    #expect(
      other.has(
        .error, .keys, "2 secrets in mailbox.password cannot be read: their key \(id) is not in the ring",
        remedy: "Put the line of the key \(id) back"), "\(other.text)")
    #expect(other.has(.error, .keys, "1 secret in oauth_grant.access_token cannot be read"), "\(other.text)")
    let same = try await site.doctor(["POSTRIDER_KEYS_RING": KeyRing.generate(id: id).text.revealed])
    #expect(same.wrong == [.keys] && same.has(.error, .keys, "the ring's key \(id) is not the one"), "\(same.text)")

    let modes: [(Int, String?)] = [
      (0o644, "others can read"), (0o660, "its group can change"), (0o640, nil), (0o440, nil), (0o600, nil),
    ]
    try await withFolder { folder in
      let file = "\(folder)/keys"
      #expect(FileManager.default.createFile(atPath: file, contents: Data(site.cluster.keys.utf8)))
      for (mode, words) in modes {
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        let found = try await site.doctor(["POSTRIDER_KEYS_RING": nil, "POSTRIDER_KEYS_FILE": file])
        #expect(found.exitCode == 0, "\(found.text)")
        if let words {
          #expect(found.has(.warning, .keys, words, remedy: "chmod 600"), "\(found.text)")
        } else {
          #expect(!found.findings.contains { $0.area == .keys && $0.level == .warning }, "\(found.text)")
        }
      }
    }
  }

  @Test("dead hosts: Redis, PostgreSQL and a mail server")
  func deadHosts() async throws {
    let site = try await Installation.shared()
    let diagnosis = try await site.doctor(
      [
        "POSTRIDER_REDIS_URL": "redis://127.0.0.1:1", "POSTRIDER_DATABASE_URL": "postgresql://app@127.0.0.1:1/x",
        "POSTRIDER_EGRESS_ALLOW": "127.0.0.1/32:*",
      ], "--host", "127.0.0.1:1", "--host", "10.1.2.3")
    #expect(diagnosis.exitCode == 1)
    #expect(diagnosis.has(.error, .redis, "127.0.0.1:1: the queue cannot be reached", remedy: "POSTRIDER_REDIS_URL"))
    #expect(
      diagnosis.has(.error, .postgresql, "PostgreSQL cannot be reached", remedy: "POSTRIDER_DATABASE_URL"),
      "\(diagnosis.text)")
    #expect(diagnosis.has(.skipped, .clock, "no server's clock"))
    #expect(diagnosis.has(.error, .egress, "127.0.0.1:1 cannot be reached: tcp.refused", remedy: "Check host and port"))
    #expect(
      diagnosis.has(
        .error, .egress, "10.1.2.3:995 cannot be reached: egress.denied", remedy: "POSTRIDER_EGRESS_ALLOW"))
  }

  @Test(
    "clocks",
    arguments: [(0.5, Finding.Level.ok), (-1.9, .ok), (3, .warning), (-59, .warning), (61, .error), (-9e5, .error)])
  func clocks(offset: Double, level: Finding.Level) throws {
    let finding = try #require(Doctor.clocks([("PostgreSQL's", offset)]).first)
    #expect(finding.level == level && (finding.remedy?.contains("NTP") == true) == (level != .ok))
    if level != .ok { #expect(finding.text.contains(offset > 0 ? "behind" : "ahead")) }
  }

  @Test("slow servers")
  func slow() {
    #expect(Doctor.median([]) == nil && Doctor.median([1, 2, 9]) == 2)
    #expect(Doctor.milliseconds(0.00123) == "1.23 ms" && Doctor.milliseconds(0.000_05) == "0.05 ms")
    var facts = DatabaseFacts(
      version: "15.1", majorVersion: 15, user: "app", isSuperuser: false, bypassesRowSecurity: false, isReadOnly: false,
      encoding: "UTF8", settings: [:], connections: 5, maximumConnections: 97, roundTrips: [0.001], clockOffset: 0)
    func levels() -> Set<Finding.Level> { Set(Doctor.findings(facts, poolSize: 4).map(\.level)) }
    #expect(levels() == [.ok])
    facts.roundTrips = [0.03]
    #expect(levels() == [.ok, .warning])
    facts.roundTrips = []
    facts.connections = 93
    #expect(levels() == [.ok, .warning])
    facts.isReadOnly = true
    #expect(levels().contains(.error))
  }

  @Test func help() async throws {
    let result = try await Program.run(["doctor", "--help"])
    #expect(result.exitCode == 0)
    for words in ["postrider doctor --host pop.example.com:995", "--json", "Exit code 0"] {
      #expect(result.output.contains(words))
    }
  }
}
