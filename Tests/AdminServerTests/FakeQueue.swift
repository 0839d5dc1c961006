import PostriderCore
import Synchronization

/// The queue as administration sees it: numbers and places.
final class FakeQueue: JobQueue {
  let failure = Mutex<JobQueueError?>(nil)
  let statisticsCalls = Mutex(0)
  let inspected = Mutex<[Job]>([])
  let leaseDuration = Duration.seconds(15)
  /// Answered by `statistics`.
  let numbers = Mutex(
    QueueStatistics(
      ready: ["poll": 3], inFlight: 1, oldestDueMilliseconds: ["poll": 1_000], epoch: 4, serverMilliseconds: 3_000))
  /// Answered by `profiles`, of all organizations.
  let profileNumbers = Mutex<[ProfileQueueStatistics]>([])
  /// Answered by `inspect` when set.
  let places = Mutex<[JobLocation]?>(nil)
  let profileCalls = Mutex(0)

  private func check() throws { if let failure = failure.withLock({ $0 }) { throw failure } }

  func statistics() async throws -> QueueStatistics {
    statisticsCalls.withLock { $0 += 1 }
    try check()
    return numbers.withLock { $0 }
  }

  func inspect(_ jobs: [Job]) async throws -> [JobLocation] {
    try check()
    inspected.withLock { $0 = jobs }
    if let places = places.withLock({ $0 }) { return places }
    return jobs.map {
      $0.id.lane > 1
        ? JobLocation(job: $0.id.description, state: "absent")
        : JobLocation(job: $0.id.description, state: "leased", profileID: $0.profile, worker: "w1", fence: Fence(7))
    }
  }

  func currentEpoch() async throws -> Int64? {
    try check()
    return 4
  }

  func open(epoch: Int64, delay: Duration) async throws {}
  func update(profiles: [QueueProfile]) async throws {}
  func enqueue(_ jobs: [Job]) async throws -> Int { 0 }
  func claim(limit: Int, worker: String) async throws -> Claim { Claim(leases: []) }
  func renew(_ leases: [Lease]) async throws -> [Lease] { [] }
  func complete(_ leases: [Lease]) async throws -> [LeaseEnd] { [] }
  func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] { [] }
  func withdraw(_ jobs: [Job]) async throws -> [JobID] { [] }
  func waitForWork(timeout: Duration) async throws {}
  func hold(_ holds: [LaneHold]) async throws {}
  func announce(worker: String, slots: Int) async throws {}
  func poisoned(limit: Int) async throws -> [PoisonedJob] { [] }
  func profiles(limit: Int) async throws -> [ProfileQueueStatistics] {
    profileCalls.withLock { $0 += 1 }
    try check()
    return Array(profileNumbers.withLock { $0 }.prefix(limit))
  }
  func repair(limit: Int) async throws -> RepairReport { RepairReport(isComplete: true) }
}
