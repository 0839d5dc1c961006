import FoundationEssentials
import Logging
import MailMessage
import MailProtocols
import Metrics
import PostriderCore
import ServiceLifecycle

/// Runs a claimed job in the place of the mail protocols and says what to write of it: for measuring everything around
/// a session.
public typealias SessionStandIn = @Sendable (Lease, Assignment) async throws -> SessionOutcome

/// Takes jobs from the queue and runs them as sessions; any number of these processes work side by side.
public struct WorkerService: Service {
  let store: any WorkerStore
  let queue: any JobQueue
  let configuration: WorkerConfiguration
  let logger: Logger
  let context: SessionContext
  let keeper: LeaseKeeper
  let finisher: JobFinisher
  let servers: ServerDesk
  let slots: SessionSlots
  let metrics: WorkerMetrics
  let standIn: SessionStandIn?
  /// Beats while jobs are claimed; rests while every slot is taken and while the worker drains.
  public let pulse = Pulse()

  /// A worker over the given store, queue and mail client; without a server guard it knows neither breakers nor login
  /// budgets, without `tokens` no OAuth, with `standIn` no mail server is ever spoken to. `parser` reads the messages.
  public init(
    store: any WorkerStore, queue: any JobQueue, client: MailClient, serverGuard: (any ServerGuard)? = nil,
    haltGuard: (any ServerGuard)? = nil, tokens: (any AccessTokenSource)? = nil, configuration: WorkerConfiguration,
    logger: Logger,
    parser: @escaping MessageParser = MessageReader.parse(content:limits:),
    standIn: SessionStandIn? = nil
  ) {
    self.store = store
    self.queue = queue
    self.configuration = configuration
    self.logger = logger
    metrics = WorkerMetrics()
    servers = ServerDesk(
      guards: serverGuard, halts: haltGuard, queue: queue, store: store, configuration: configuration, metrics: metrics,
      logger: logger)
    keeper = LeaseKeeper(queue: queue, renewal: configuration.renewal, logger: logger)
    context = SessionContext(
      store: store, queue: queue, client: client, servers: servers, keeper: keeper, configuration: configuration,
      logger: logger, parser: parser, tokens: tokens)
    finisher = JobFinisher(queue: queue, logger: logger)
    slots = SessionSlots(capacity: configuration.sessions)
    self.standIn = standIn
  }

  /// How many sessions run now.
  public var sessionsRunning: Int { slots.busy }

  /// Works until the service is stopped, then drains: sessions go on for the grace period, the rest is given back.
  public func run() async throws {
    logger.info("Working", metadata: ["worker": "\(configuration.name)", "sessions": "\(configuration.sessions)"])
    async let _: Void = keeper.run()
    async let _: Void = servers.run()
    async let telling: Void = finisher.run()
    await workAndDrain()
    finisher.stop()
    await telling
    // When the task was cancelled, telling ended before the sessions did.
    await finisher.tell()
    // Renewing is cancelled by leaving the scope: nothing is held any more.
  }

  /// Says every few seconds that this worker lives and how much it can do.
  private func announceForEver() async {
    var trouble = Trouble()
    while !Task.isCancelled {
      do {
        try await queue.announce(worker: configuration.name, slots: slots.capacity)
        _ = trouble.ended()
      } catch {
        _ = trouble.wait(after: error)
        if trouble.isNew { logger.info("Cannot announce the worker", metadata: ["error": "\(error)"]) }
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: configuration.announcement)
    }
  }

  /// Nothing more is taken: who waits for a worker waits for another one.
  private func announceEnd() async {
    // Unheard, the worker is forgotten in 15 s.
    try? await queue.announce(worker: configuration.name, slots: 0)
  }

  private func workAndDrain() async {
    let (tasks, continuation) = AsyncStream<SessionTask>.makeStream()
    await withDiscardingTaskGroup { sessions in
      sessions.addTask {
        await cancelWhenGracefulShutdown {
          async let _: Void = announceForEver()
          await claimForEver { continuation.yield($0) }
        }
        pulse.rest()
        continuation.finish()
        // Beside the draining: a queue that hangs must not delay it.
        async let _: Void = announceEnd()
        guard slots.busy > 0 else { return }
        logger.info("Draining", metadata: ["sessions": "\(slots.busy)"])
        await slots.waitUntilIdle(timeout: configuration.grace)
        keeper.stopAll()
      }
      // Never holds more tasks than there are slots: each takes one before it is claimed.
      for await task in tasks {
        sessions.addTask(executorPreference: context.client.executor) {
          await run(task)
          slots.release()
          metrics.slots(busy: slots.busy, total: slots.capacity)
        }
      }
    }
  }
}
