import PostriderCore
import Synchronization
import Telemetry
import Testing

/// Answers `statistics` alone.
final class StatisticsQueue: JobQueue {
  let result: Mutex<Result<QueueStatistics, JobQueueError>>
  let calls = Mutex(0)
  let gate: AsyncStream<Void>?

  init(_ statistics: QueueStatistics, gate: AsyncStream<Void>? = nil) {
    result = Mutex(.success(statistics))
    self.gate = gate
  }

  func statistics() async throws -> QueueStatistics {
    calls.withLock { $0 += 1 }
    if let gate { for await _ in gate { break } }
    return try result.withLock { $0 }.get()
  }

  let leaseDuration = Duration.seconds(15)
  func open(epoch: Int64, delay: Duration) async throws {}
  func currentEpoch() async throws -> Int64? { 1 }
  func update(profiles: [QueueProfile]) async throws {}
  func enqueue(_ jobs: [Job]) async throws -> Int { 0 }
  func claim(limit: Int, worker: String) async throws -> Claim { Claim(leases: []) }
  func renew(_ leases: [Lease]) async throws -> [Lease] { [] }
  func complete(_ leases: [Lease]) async throws -> [LeaseEnd] { [] }
  func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] { [] }
  func withdraw(_ jobs: [Job]) async throws -> [JobID] { [] }
  func inspect(_ jobs: [Job]) async throws -> [JobLocation] { [] }
  func waitForWork(timeout: Duration) async throws {}
  func hold(_ holds: [LaneHold]) async throws {}
  func announce(worker: String, slots: Int) async throws {}
  func poisoned(limit: Int) async throws -> [PoisonedJob] { [] }
  func profiles(limit: Int) async throws -> [ProfileQueueStatistics] { [] }
  func repair(limit: Int) async throws -> RepairReport { RepairReport(isComplete: true) }
}

@Suite("Queue collector")
struct QueueCollectorTests {
  let statistics = QueueStatistics(
    ready: ["poll": 7, "send": 1], inFlight: 3, blocked: ["limit": 2],
    oldestDueMilliseconds: ["poll": 1_000_000, "send": 1_003_000], finished: 41, poisoned: 2, workers: 3,
    workerSlots: 192, serverMilliseconds: 1_002_500)

  @Test("depth, in-flight, blocked and age; 0 where nothing waits")
  func gauges() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    QueueCollector(queue: StatisticsQueue(statistics)).register(in: registry)
    let page = try Exposition(await registry.scrape())
    #expect(page.value("postrider_queue_ready", ["class": "poll"]) == 7)
    #expect(page.value("postrider_queue_ready", ["class": "interactive"]) == 0)
    #expect(page.value("postrider_queue_inflight") == 3)
    #expect(page.value("postrider_queue_blocked", ["reason": "limit"]) == 2)
    #expect(page.value("postrider_queue_blocked", ["reason": "busy-mailbox"]) == 0)
    #expect(page.value("postrider_queue_oldest_due_seconds", ["class": "poll"]) == 2.5)
    #expect(page.value("postrider_queue_oldest_due_seconds", ["class": "send"]) == 0, "due a moment later")
    #expect(page.value("postrider_queue_oldest_due_seconds", ["class": "batch-test"]) == 0)
  }

  @Test("workers, slots, poison, what is finished, and the workers wanted")
  func operators() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    var statistics = statistics
    statistics.blocked["login-budget"] = 1
    statistics.blocked["quota"] = 4
    QueueCollector(queue: StatisticsQueue(statistics), scale: ScaleRule(slotsPerWorker: 1)).register(in: registry)
    let page = try Exposition(await registry.scrape())
    #expect(page.value("postrider_queue_workers") == 3)
    #expect(page.value("postrider_queue_worker_slots") == 192)
    #expect(page.value("postrider_queue_poisoned") == 2)
    #expect(page.value("postrider_queue_finished_total") == 41)
    #expect(page.value("postrider_queue_blocked", ["reason": "breaker"]) == 0)
    #expect(page.value("postrider_queue_blocked", ["reason": "login-budget"]) == 1)
    #expect(page.value("postrider_queue_blocked", ["reason": "quota"]) == 4, "a reason this version does not know")
    #expect(page.value("postrider_workers_wanted") == 4, "(3 + 1 × 2 s ÷ 10 s) ÷ 0.8")
  }

  @Test("an unreachable queue shows no numbers at all")
  func unreachable() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    let queue = StatisticsQueue(statistics)
    QueueCollector(queue: queue, lifetime: .zero).register(in: registry)
    #expect(try Exposition(await registry.scrape()).value("postrider_queue_inflight") == 3)
    queue.result.withLock { $0 = .failure(.unavailable(reason: "connection refused")) }
    let page = try Exposition(await registry.scrape())
    for name in ["ready", "inflight", "blocked", "oldest_due_seconds", "workers", "finished_total"] {
      #expect(page["postrider_queue_\(name)"] == nil)
    }
    #expect(page.value("postrider_collect_errors_total", ["collector": "queue"]) == 1)
  }

  @Test("many at once ask the queue once, and again only after the lifetime")
  func singleFlight() async throws {
    let (gate, opening) = AsyncStream<Void>.makeStream()
    let queue = StatisticsQueue(statistics, gate: gate)
    let collector = QueueCollector(queue: queue, lifetime: .seconds(60))
    try await withThrowingTaskGroup(of: QueueStatistics.self) { group in
      for _ in 0..<20 { group.addTask { try await collector.statistics() } }
      opening.finish()
      for try await one in group { #expect(one == statistics) }
    }
    _ = try await collector.statistics()
    #expect(queue.calls.withLock { $0 } == 1)
    let impatient = QueueCollector(queue: queue, lifetime: .zero)
    _ = try await impatient.statistics()
    _ = try await impatient.statistics()
    #expect(queue.calls.withLock { $0 } == 3)
  }
}

@Suite("Time limit")
struct TimeLimitTests {
  @Test("an operation deaf to cancellation is left behind")
  func deaf() async throws {
    let (gate, opening) = AsyncStream<Void>.makeStream()
    await #expect(throws: TimeLimitExceeded.self) {
      try await withTimeLimit(.milliseconds(20)) {
        await Task.detached { for await _ in gate { break } }.value
      }
    }
    opening.finish()
  }

  @Test("results and errors pass through")
  func passing() async throws {
    #expect(try await withTimeLimit(.seconds(60)) { 7 } == 7)
    await #expect(throws: JobQueueError.self) {
      try await withTimeLimit(.seconds(60)) { throw JobQueueError.unavailable(reason: "x") }
    }
  }

  @Test("the caller's cancellation ends the wait and reaches the operation")
  func cancellation() async throws {
    let (cancelled, sawCancellation) = AsyncStream<Void>.makeStream()
    let task = Task {
      try await withTimeLimit(.seconds(600)) {
        do { try await Task.sleep(for: .seconds(600)) } catch { sawCancellation.finish() }
      }
    }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    for await _ in cancelled {}
  }
}
