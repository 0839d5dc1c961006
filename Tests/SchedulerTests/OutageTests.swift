import Foundation
import Logging
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import RedisQueue
import ServiceLifecycle
import Synchronization
import Testing

@testable import Scheduler

/// What these tests measure stands in `design.md`'s last figure: work goes on at most 3 s after PostgreSQL answers, new
/// work at most 16 s after the leader was killed. The bounds here leave room for a busy machine that stands still for
/// seconds.
@Suite("The scheduler and lost servers", .serialized, .timeLimit(.minutes(10)))
struct SchedulerOutageTests {
  static let profileDraft = ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none)

  func store(_ url: String) -> PostgresStore {
    PostgresStore(
      configuration: PostgresStoreConfiguration(
        url: url, poolSize: 3, applicationName: "outage", connectTimeout: .seconds(2)),
      logger: .init(label: "test") { _ in SwiftLogNoOpLogHandler() })
  }

  /// A leading scheduler with production's times on a store and a memory queue.
  func scheduling(
    _ store: PostgresStore, _ queue: ScriptedQueue, _ logger: Logger,
    _ body: @escaping @Sendable () async throws -> Void
  ) async throws {
    let service = SchedulerService(
      store: store, queue: queue, configuration: SchedulerConfiguration(holder: "only"), logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await service.run() }
      defer { group.cancelAll() }
      try await body()
    }
  }

  /// The next lease of a mailbox's poll, ended at once.
  func polled(_ queue: ScriptedQueue, _ mailbox: MailboxID) async throws {
    try await eventually("a poll of \(mailbox)", within: .seconds(90)) {
      guard let claim = try? await queue.claim(limit: 10, worker: "test") else { return false }
      try await queue.complete(claim.leases)
      return claim.leases.contains { $0.job == JobID(mailbox: mailbox, kind: .poll) }
    }
  }

  /// Until it works: what an API client would do.
  func repeating(_ step: () async throws -> Void) async throws {
    try await eventually("it works again", within: .seconds(90)) {
      do {
        try await step()
        return true
      } catch is StoreError { return false }
    }
  }

  func report(_ what: String, since start: ContinuousClock.Instant) {
    guard ProcessInfo.processInfo.environment["POSTRIDER_TEST_LOG"] != nil else { return }
    print("\(what): \((ContinuousClock.now - start) / .seconds(1)) s")
  }

  @Test("PostgreSQL killed and started again: announced work and work that becomes due go on")
  func restart() async throws {
    let postgres = try await TestServers.shared.dedicatedPostgres()
    let cluster = try await TestCluster.make(.init(postgres: postgres))
    let queue = ScriptedQueue()
    let ids = try await cluster.mailboxes(
      ["a@example.org", "b@example.org"], on: try await cluster.profile(incoming: Self.profileDraft))
    let store = store(cluster.databaseURL)
    try await scheduling(store, queue, cluster.logger) {
      try await cluster.enable(ids)
      try await self.polled(queue, ids[0])
      // The test's server commits without waiting for its log; what it has forgotten is not what is tested here.
      try await cluster.sql("CHECKPOINT")
      await postgres.kill9()
      try await postgres.start()
      let answers = ContinuousClock.now
      try await self.repeating { _ = try await cluster.store.requestPoll(of: [ids[0]], by: cluster.principal) }
      try await self.polled(queue, ids[0])
      self.report("announced work after a restart", since: answers)
      #expect(ContinuousClock.now - answers < .seconds(25))
      // In a moment: a row that is written late may not lie behind the watermark already.
      try await cluster.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '4 s' WHERE kind = 'p' AND mailbox_id = \(ids[1])")
      let asked = ContinuousClock.now
      try await self.polled(queue, ids[1])
      self.report("due work after a restart", since: answers)
      #expect(ContinuousClock.now - asked < .seconds(25))
    }
    await store.close()
    await cluster.close()
    await postgres.stop()
  }

  @Test("the primary is gone and the standby promoted: store, announcements and scheduler go on there")
  func failover() async throws {
    let pair = try await ServerPair.start()
    let cluster = try await TestCluster.make(.init(postgres: pair.primary))
    let queue = ScriptedQueue()
    let ids = try await cluster.mailboxes(
      ["a@example.org", "b@example.org"], on: try await cluster.profile(incoming: Self.profileDraft))
    let url = pair.url(database: "spine")
    let (store, api) = (store(url), store(url))
    try await scheduling(store, queue, cluster.logger) {
      try await cluster.enable(ids)
      try await self.polled(queue, ids[0])
      try await pair.waitForStandby()
      await pair.primary.kill9()
      await #expect(throws: StoreError.self) { try await api.checkHealth() }
      _ = try await pair.standby.execute("SELECT pg_promote(true, 60)")
      let answers = ContinuousClock.now
      try await self.repeating { _ = try await api.requestPoll(of: [ids[0]], by: cluster.principal) }
      try await self.polled(queue, ids[0])
      self.report("announced work after a fail-over", since: answers)
      #expect(ContinuousClock.now - answers < .seconds(25))
      _ = try await pair.standby.execute(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '4 s' WHERE kind = 'p' AND mailbox_id = \(ids[1])",
        database: "spine")
      try await self.polled(queue, ids[1])
      self.report("due work after a fail-over", since: answers)
      // The one that listens did so on the new primary: what is announced comes without waiting for a rescan.
      let asked = ContinuousClock.now
      _ = try await api.requestPoll(of: [ids[1]], by: cluster.principal)
      try await self.polled(queue, ids[1])
      #expect(ContinuousClock.now - asked < .seconds(25))
    }
    await store.close()
    await api.close()
    await cluster.close()
    await pair.stop()
  }

  @Test("a primary that lives on but takes no writes any more is left for the new one")
  func readOnly() async throws {
    let pair = try await ServerPair.start()
    let cluster = try await TestCluster.make(.init(postgres: pair.primary))
    let id = try await cluster.mailbox(on: try await cluster.profile(incoming: Self.profileDraft))
    let api = store(pair.url(database: "spine"))
    let listening = Task {
      var rescans = 0
      for await signal in api.signals() where signal == .rescan {
        rescans += 1
        if rescans == 2 { return }
      }
    }
    try await api.setPaused(true, .mailbox(id), by: cluster.principal)
    try await eventually("it listens") {
      try await pair.primary.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outage listen'") == "1"
    }
    try await pair.waitForStandby()
    _ = try await pair.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    _ = try await pair.primary.execute("SELECT pg_reload_conf()")
    // A new session has it only after the server told all the others.
    try await eventually("the primary takes no writes") {
      try await pair.primary.execute("SHOW default_transaction_read_only") == "on"
    }
    _ = try await pair.standby.execute("SELECT pg_promote(true, 60)")
    try await repeating { try await api.setPaused(false, .mailbox(id), by: cluster.principal) }
    #expect(
      try await pair.standby.execute("SELECT count(*) FROM mailbox WHERE paused_at IS NULL", database: "spine") == "1")
    // The listening connection moves too, though nobody ended it.
    await listening.value
    // The server takes its time to see that a connection is gone.
    try await eventually("nothing is connected to the old primary") {
      try await pair.primary.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'outage%'") == "0"
    }
    await api.close()
    await cluster.close()
    await pair.stop()
  }

  @Test("a leading scheduler process is killed: another one brings new work within 16 s")
  func leaderKilled() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    let cluster = try await TestCluster.make(.init(redis: redis))
    let queue = RedisJobQueue(
      configuration: try RedisQueueConfiguration(url: redis.url, callTimeout: .seconds(30)), logger: cluster.logger)
    let ids = try await cluster.mailboxes(
      (1...20).map { "m\($0)@example.org" },
      on: try await cluster.profile(incoming: Self.profileDraft, connections: 300))
    let keys = try await Program.run(["keys", "generate"])
    let environment = [
      "POSTRIDER_KEYS_RING": keys.output, "POSTRIDER_DATABASE_URL": cluster.databaseURL,
      "POSTRIDER_REDIS_URL": redis.url, "POSTRIDER_PROBE_PORT": "0",
    ]
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await queue.run() }
      defer { group.cancelAll() }
      let first = try Process(environment)
      let leader = try await eventually("the first leads") { try await Self.leader(cluster) }
      let second = try Process(environment)
      try await cluster.enable(ids)
      var polled: Set<MailboxID> = []
      try await eventually("the first brings work") {
        polled.formUnion(try await Self.claimAll(queue))
        return polled.count == ids.count
      }
      await first.kill9()
      let killed = ContinuousClock.now
      // What the first had read twice and brought again does not count below.
      while try await !Self.claimAll(queue).isEmpty {}
      // Becomes due while nobody leads, and is not announced to anybody.
      try await cluster.makeDue(ids)
      polled = []
      try await eventually("the second brings all of it", within: .seconds(90)) {
        polled.formUnion(try await Self.claimAll(queue))
        return polled.count == ids.count
      }
      report("new work after the leader was killed", since: killed)
      #expect(ContinuousClock.now - killed < .seconds(40))
      #expect(try await Self.leader(cluster) != leader)
      await second.kill9()
    }
    await cluster.close()
    await redis.stop()
  }

  /// A scheduler process that ends with the test, however that comes about.
  private final class Process: Sendable {
    private let program: RunningProgram
    private let ended = Mutex(false)

    init(_ environment: [String: String]) throws {
      program = try RunningProgram(["scheduler"], environment: environment)
    }

    deinit { end() }

    func kill9() async {
      end()
      _ = await program.exit()
      program.forget()
    }

    /// Once, so that the number of a process that is gone is never used.
    private func end() {
      let ends = ended.withLock { ended in
        defer { ended = true }
        return !ended
      }
      if ends { kill(program.processID, SIGKILL) }
    }
  }

  private static func leader(_ cluster: TestCluster) async throws -> String? {
    try await cluster.store.scheduleStatistics(for: cluster.principal).leader
  }

  /// Claims and ends what there is; returns whose it was.
  private static func claimAll(_ queue: RedisJobQueue) async throws -> [MailboxID] {
    guard let claim = try? await queue.claim(limit: 100, worker: "test") else { return [] }
    try await queue.complete(claim.leases)
    return claim.leases.map(\.job.mailbox)
  }
}
