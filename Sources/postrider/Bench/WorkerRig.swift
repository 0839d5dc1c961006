import Foundation
import Logging
import MailProtocols
import NIOPosix
import PostgresStore
import PostriderCore
import RedisQueue
import Worker

/// Real workers over real PostgreSQL and Redis; with a stand-in their sessions speak to nobody.
struct WorkerRig: Sendable {
  let store: PostgresStore
  /// The queue of whoever enqueues. Each worker has a store and a queue of its own, as a process would.
  let queue: RedisJobQueue
  private let workers: [(service: WorkerService, queue: RedisJobQueue, store: PostgresStore)]

  /// How the workers are.
  struct Options: Sendable {
    var workers = 1
    var sessions = 64
    var claimBatch = 32
  }

  /// Makes workers that run `session`, or a real session, for each claimed job; nothing runs before ``run(_:)``. Real
  /// sessions ask the guards of servers and profiles as those of a worker process do.
  init(
    databaseURL: String, redisURL: String, options: Options, settingsCache: Int, keyRing: KeyRing? = nil,
    egress: EgressPolicy = EgressPolicy(), session: SessionStandIn? = nil
  ) throws {
    let logger = Logger(label: "postrider.bench")
    store = PostgresStore(configuration: PostgresStoreConfiguration(url: databaseURL), logger: logger)
    queue = RedisJobQueue(configuration: try RedisQueueConfiguration(url: redisURL), logger: logger)
    let client = MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: egress)
    workers = try (0..<options.workers).map { number in
      let store = PostgresStore(
        configuration: PostgresStoreConfiguration(
          url: databaseURL, keyRing: keyRing, settingsCacheCapacity: settingsCache),
        logger: logger)
      let queue = RedisJobQueue(configuration: try RedisQueueConfiguration(url: redisURL), logger: logger)
      var configuration = WorkerConfiguration(name: "bench-\(number)")
      configuration.sessions = options.sessions
      configuration.claimBatch = options.claimBatch
      configuration.grace = .seconds(2)
      return (
        WorkerService(
          store: store, queue: queue, client: client,
          serverGuard: session == nil ? RedisServerGuard(queue: queue, rules: BreakerRules()) : nil,
          haltGuard: session == nil ? RedisServerGuard(queue: queue, rules: .halts) : nil,
          configuration: configuration, logger: logger, standIn: session),
        queue, store
      )
    }
  }

  /// Opens an epoch greater than every one before, tells the queue the profiles of the database and runs the workers
  /// while the closure works; with `working` false only the queues' connections are kept.
  func run(working: Bool = true, _ body: @Sendable (WorkerRig) async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await queue.run() }
      for worker in workers { group.addTask { try await worker.queue.run() } }
      try await queue.open(epoch: try await store.nextEpoch(), delay: .zero)
      try await queue.update(profiles: try await store.queueProfiles())
      try await withThrowingTaskGroup(of: Void.self) { running in
        if working { for worker in workers { running.addTask { try await worker.service.run() } } }
        defer { running.cancelAll() }
        try await body(self)
      }
      group.cancelAll()
    }
    await store.close()
    for worker in workers { await worker.store.close() }
  }

  /// The outcome of a session that did nothing and is due again at `next`.
  static func outcome(_ lease: Lease, _ assignment: Assignment, startedAt: Date, next: Date) -> SessionOutcome {
    SessionOutcome(
      writer: SessionGuard(
        job: lease.job, organizationID: assignment.settings.organizationID, generation: assignment.generation,
        fence: lease.fence),
      profileID: lease.profile, served: assignment.requested, next: NextDue(at: next, reason: "slot"), failures: 0,
      run: RunRecord(
        mailboxID: lease.job.mailbox, kind: lease.job.kind, trigger: assignment.trigger, worker: "bench",
        fence: lease.fence, dueAt: assignment.dueAt, startedAt: startedAt, finishedAt: Date(), result: .success))
  }
}
