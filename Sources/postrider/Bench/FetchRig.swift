import Foundation
import Logging
import MailProtocols
import NIOPosix
import PostgresStore
import PostriderCore
import PrivateServers
import RedisQueue
import Scheduler
import Worker

/// A scheduler and a worker with everything that belongs to them, over an organization of their own.
struct FetchRig: Sendable {
  let url: String
  let redisURL: String
  let spool: String
  private let keyRing = KeyRing.generate()
  private let principal: Principal

  init(url: String, redisURL: String, directory: DataDirectory) async throws {
    self.url = url
    self.redisURL = redisURL
    spool = directory.path + "/spool"
    try FileManager.default.createDirectory(atPath: spool, withIntermediateDirectories: true)
    let logger = Logger(label: "postrider.bench")
    _ = try await Migrator(url: url, applicationURL: url, logger: logger).migrate()
    let (_, token) = try await Bootstrap(url: url, logger: logger).ensureOrganization(
      name: "Benchmark", administratorName: "Administrator", administratorAddress: "admin@bench.test")
    let store = Self.store(url, keyRing)
    let found = try await store.principal(token: token)
    await store.close()
    guard let found else { throw BenchFailure(description: "the benchmark's administrator is unknown") }
    principal = found
  }

  private static func store(_ url: String, _ keyRing: KeyRing) -> PostgresStore {
    PostgresStore(
      configuration: PostgresStoreConfiguration(url: url, keyRing: keyRing), logger: Logger(label: "postrider.bench"))
  }

  /// Makes a profile of a server on this machine with approved mailboxes; nothing is enabled.
  func mailboxes(_ addresses: [String], profile name: String, port: Int, password: String) async throws -> [MailboxID] {
    let store = Self.store(url, keyRing)
    let draft = ProfileDraft(
      name: name, type: .pop3SMTP,
      incoming: ServerDraft(host: "127.0.0.1", port: port, tls: TLSMode.none, mechanism: .plain),
      outgoing: ServerDraft(host: "127.0.0.1", port: 1))
    let profile = try await store.createProfile(try ProfileRules(allowsNonTLSMail: true).resolve(draft), by: principal)
    var ids: [MailboxID] = []
    for address in addresses {
      let draft = MailboxDraft(
        address: address, owner: OwnerDraft(kind: .user), profileID: profile.id, outgoingMethod: SyncMethod.none,
        password: Secret(password))
      ids.append(try await store.createMailbox(draft, by: principal).id)
    }
    _ = try await store.setApproval(.approved, of: ids, by: principal)
    await store.close()
    return ids
  }

  /// What a run found.
  struct Result: Sendable {
    var seconds: Double
    var cpuSeconds: Double
    var residentBefore: Int
    var peakResident: Int
  }

  /// Enables mailboxes and lets a scheduler and a worker fetch until so many messages are stored.
  func fetch(_ ids: [MailboxID], until messages: Int, sessions: Int) async throws -> Result {
    let probe = try PostgresProbe(url: url)
    let list = ids.map(\.description).joined(separator: ",")
    let (store, queue) = (Self.store(url, keyRing), try Self.queue(redisURL))
    let (schedulerStore, schedulerQueue) = (Self.store(url, keyRing), try Self.queue(redisURL))
    var configuration = WorkerConfiguration(name: "bench")
    configuration.sessions = sessions
    configuration.spoolDirectory = spool
    configuration.grace = .seconds(1)
    let logger = Logger(label: "postrider.bench")
    let client = MailClient(
      group: MultiThreadedEventLoopGroup.singleton, egress: try EgressPolicy(allow: "127.0.0.0/8:*"))
    let worker = WorkerService(
      store: store, queue: queue, client: client, configuration: configuration, logger: logger)
    let scheduler = SchedulerService(
      store: schedulerStore, queue: schedulerQueue, configuration: SchedulerConfiguration(holder: "bench"),
      logger: logger)
    let result = try await withThrowingTaskGroup(of: Void.self) { group in
      for connection in [queue, schedulerQueue] { group.addTask { try await connection.run() } }
      group.addTask { try await scheduler.run() }
      group.addTask { try await worker.run() }
      defer { group.cancelAll() }
      // Everything is up once the queue has an epoch and claims may start.
      try await wait("the scheduler leads") { try await queue.currentEpoch() != nil }
      try await Task.sleep(for: .seconds(1))
      Machine.forgetPeak()
      let before = (at: ContinuousClock.now, cpu: Machine.ownCPUSeconds, resident: Machine.residentOctets)
      try probe.run(
        """
        BEGIN;
        UPDATE mailbox SET incoming_status = 'success', incoming_enabled = true WHERE id IN (\(list));
        SELECT announce_jobs(array(SELECT refresh_may_run(ARRAY[\(list)]::bigint[])));
        COMMIT;
        """)
      try await wait("\(messages) messages are stored") {
        let stored = "SELECT coalesce(sum(email_count), 0) FROM mailbox_counter WHERE mailbox_id IN (\(list))"
        return try probe.number(stored) >= Double(messages)
      }
      return Result(
        seconds: (ContinuousClock.now - before.at).inSeconds, cpuSeconds: Machine.ownCPUSeconds - before.cpu,
        residentBefore: before.resident, peakResident: Machine.peakResidentOctets)
    }
    // What is done is not polled again beside the next measurement.
    try probe.run(
      "UPDATE mailbox SET incoming_enabled = false WHERE id IN (\(list)); SELECT refresh_may_run(ARRAY[\(list)]::bigint[])"
    )
    await store.close()
    await schedulerStore.close()
    return result
  }

  private static func queue(_ url: String) throws -> RedisJobQueue {
    RedisJobQueue(configuration: try RedisQueueConfiguration(url: url), logger: Logger(label: "postrider.bench"))
  }

  private func wait(_ what: String, _ condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(600)
    while try await !condition() {
      guard ContinuousClock.now < deadline else {
        throw BenchFailure(description: "waited ten minutes in vain until \(what)")
      }
      try await Task.sleep(for: .milliseconds(50))
    }
  }
}
