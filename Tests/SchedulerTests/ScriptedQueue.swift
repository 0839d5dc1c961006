import PostriderCore
import PostriderTesting
import Synchronization

@testable import Scheduler

/// A memory queue that notes what the scheduler does to it and answers what the test says for poison, repairs and profiles.
final class ScriptedQueue: JobQueue {
  struct Script {
    /// The enqueue calls in order, since the last ``ScriptedQueue/forget()``.
    var enqueued: [[Job]] = []
    var withdrawn: [Job] = []
    /// Enqueuing never returns, until its task is cancelled.
    var isStuck = false
    var profiles: [QueueProfile] = []
    var updateCalls = 0
    var repairSizes: [Int] = []
    /// The answers of repair, one after the other; the last one repeats.
    var repairs: [RepairReport] = [RepairReport(isComplete: true)]
    var poisoned: [PoisonedJob] = []
    var numbers: [ProfileQueueStatistics] = []
  }

  let memory: MemoryJobQueue
  let script = Mutex(Script())
  var leaseDuration: Duration { memory.leaseDuration }

  init(lease: Duration = .seconds(15)) { memory = MemoryJobQueue(leaseDuration: lease) }

  func forget() { script.withLock { $0.enqueued = [] } }

  var enqueuedJobs: [Job] { script.withLock { $0.enqueued.flatMap { $0 } } }

  func open(epoch: Int64, delay: Duration) async throws { try await memory.open(epoch: epoch, delay: delay) }
  func currentEpoch() async throws -> Int64? { try await memory.currentEpoch() }
  func update(profiles: [QueueProfile]) async throws {
    try await memory.update(profiles: profiles)
    script.withLock {
      $0.profiles += profiles
      $0.updateCalls += 1
    }
  }
  @discardableResult
  func enqueue(_ jobs: [Job]) async throws -> Int {
    if script.withLock({ $0.isStuck }) { try await Task.sleep(for: .seconds(86_400)) }
    let added = try await memory.enqueue(jobs)
    script.withLock { $0.enqueued.append(jobs) }
    return added
  }
  func claim(limit: Int, worker: String) async throws -> Claim { try await memory.claim(limit: limit, worker: worker) }
  func renew(_ leases: [Lease]) async throws -> [Lease] { try await memory.renew(leases) }
  @discardableResult
  func complete(_ leases: [Lease]) async throws -> [LeaseEnd] { try await memory.complete(leases) }
  @discardableResult
  func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] { try await memory.giveBack(leases) }
  @discardableResult
  func withdraw(_ jobs: [Job]) async throws -> [JobID] {
    script.withLock { script in
      script.withdrawn += jobs
      let gone = Set(jobs.map(\.id.description))
      script.poisoned.removeAll { gone.contains($0.job) }
    }
    return try await memory.withdraw(jobs)
  }
  func hold(_ holds: [LaneHold]) async throws { try await memory.hold(holds) }
  func announce(worker: String, slots: Int) async throws { try await memory.announce(worker: worker, slots: slots) }
  func poisoned(limit: Int) async throws -> [PoisonedJob] { script.withLock { Array($0.poisoned.prefix(limit)) } }
  func profiles(limit: Int) async throws -> [ProfileQueueStatistics] { script.withLock { $0.numbers } }
  func repair(limit: Int) async throws -> RepairReport {
    script.withLock { script in
      script.repairSizes.append(limit)
      // The checks at idle priority take smaller steps than a repair that a person waits for.
      if limit < SchedulerConfiguration(holder: "").repairSize { return RepairReport(isComplete: true) }
      return script.repairs.count > 1 ? script.repairs.removeFirst() : script.repairs[0]
    }
  }
  func statistics() async throws -> QueueStatistics { try await memory.statistics() }
  func inspect(_ jobs: [Job]) async throws -> [JobLocation] { try await memory.inspect(jobs) }
  func waitForWork(timeout: Duration) async throws { try await memory.waitForWork(timeout: timeout) }
}
