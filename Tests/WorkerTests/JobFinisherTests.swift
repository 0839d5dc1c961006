import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import Worker

/// A memory queue of which single calls can be made to fail.
final class FaultyQueue: JobQueue {
  let memory: MemoryJobQueue
  private let faults = Mutex<[String: JobQueueError]>([:])
  private let seen = Mutex<[String: Int]>([:])
  private let stuck = Mutex<Set<String>>([])

  init(lease: Duration = .seconds(15)) { memory = MemoryJobQueue(leaseDuration: lease) }

  /// Makes a call fail, or pass again with `nil`.
  func fail(_ call: String, _ error: JobQueueError?) { faults.withLock { $0[call] = error } }

  /// Makes a call never return, until its task is cancelled.
  func stick(_ call: String) { stuck.withLock { _ = $0.insert(call) } }

  /// How often a call was made.
  func calls(_ call: String) -> Int { seen.withLock { $0[call] ?? 0 } }

  private func pass(_ call: String) throws {
    seen.withLock { $0[call, default: 0] += 1 }
    if let error = faults.withLock({ $0[call] }) { throw error }
  }

  var leaseDuration: Duration { memory.leaseDuration }
  func open(epoch: Int64, delay: Duration) async throws { try await memory.open(epoch: epoch, delay: delay) }
  func currentEpoch() async throws -> Int64? { try await memory.currentEpoch() }
  func update(profiles: [QueueProfile]) async throws { try await memory.update(profiles: profiles) }
  func enqueue(_ jobs: [Job]) async throws -> Int { try await memory.enqueue(jobs) }
  func claim(limit: Int, worker: String) async throws -> Claim {
    try pass("claim")
    if stuck.withLock({ $0.contains("claim") }) { try await Task.sleep(for: .seconds(86_400)) }
    return try await memory.claim(limit: limit, worker: worker)
  }
  func renew(_ leases: [Lease]) async throws -> [Lease] {
    try pass("renew")
    return try await memory.renew(leases)
  }
  func complete(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try pass("complete")
    return try await memory.complete(leases)
  }
  func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try pass("giveBack")
    return try await memory.giveBack(leases)
  }
  func withdraw(_ jobs: [Job]) async throws -> [JobID] { try await memory.withdraw(jobs) }
  func hold(_ holds: [LaneHold]) async throws {
    try pass("hold")
    try await memory.hold(holds)
  }
  func announce(worker: String, slots: Int) async throws {
    try pass("announce")
    try await memory.announce(worker: worker, slots: slots)
  }
  func poisoned(limit: Int) async throws -> [PoisonedJob] { try await memory.poisoned(limit: limit) }
  func profiles(limit: Int) async throws -> [ProfileQueueStatistics] { try await memory.profiles(limit: limit) }
  func repair(limit: Int) async throws -> RepairReport { try await memory.repair(limit: limit) }
  func statistics() async throws -> QueueStatistics { try await memory.statistics() }
  func inspect(_ jobs: [Job]) async throws -> [JobLocation] { try await memory.inspect(jobs) }
  func waitForWork(timeout: Duration) async throws { try await memory.waitForWork(timeout: timeout) }
}

@Suite("Ending leases")
struct JobFinisherTests {
  /// Ten jobs in the hands of worker `w`.
  private func leases(_ queue: FaultyQueue) async throws -> [Lease] {
    try await queue.open(epoch: 1, delay: .zero)
    try await queue.update(profiles: [QueueProfile(id: ProfileID(1), limit: 10)])
    _ = try await queue.enqueue(
      (1...10).map {
        Job(
          id: JobID(mailbox: MailboxID(Int64($0)), kind: .poll), profile: ProfileID(1), jobClass: .poll,
          dueMilliseconds: 1)
      })
    return try await queue.claim(limit: 10, worker: "w").leases
  }

  @Test(
    "when completing fails, what is given back in the same round is given back all the same",
    arguments: [JobQueueError.unavailable(reason: "gone"), .epochLost(reason: "other"), .misconfigured(reason: "x")])
  func independent(error: JobQueueError) async throws {
    let queue = FaultyQueue()
    let leases = try await leases(queue)
    let finisher = JobFinisher(queue: queue, logger: .silent)
    queue.fail("complete", error)
    leases[..<4].forEach(finisher.complete)
    leases[4...].forEach(finisher.giveBack)
    await finisher.tell()
    let numbers = try await queue.statistics()
    #expect(numbers.inFlight == 4 && numbers.totalReady == 6)
    if case .unavailable = error { #expect(finisher.count == 4) } else { #expect(finisher.count == 0) }
  }

  @Test("a queue that is away is told again while the leases can last")
  func again() async throws {
    let queue = FaultyQueue(lease: .seconds(300))
    let leases = try await leases(queue)
    let finisher = JobFinisher(queue: queue, logger: .silent)
    for call in ["complete", "giveBack"] { queue.fail(call, .unavailable(reason: "gone")) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await finisher.run() }
      leases[..<4].forEach(finisher.complete)
      leases[4...].forEach(finisher.giveBack)
      try await eventually("a second round") { queue.calls("complete") >= 2 && queue.calls("giveBack") >= 2 }
      #expect(try await queue.statistics().inFlight == 10)
      for call in ["complete", "giveBack"] { queue.fail(call, nil) }
      try await eventually("all leases ended") { try await queue.statistics().inFlight == 0 }
      #expect(try await queue.statistics().totalReady == 6)
      finisher.stop()
      try await group.waitForAll()
    }
    #expect(finisher.count == 0)
  }

  @Test("after the leases' life nobody is told any more, and a worker that stops does not wait for ever")
  func gone() async throws {
    let queue = FaultyQueue(lease: .seconds(1))
    let leases = try await leases(queue)
    let finisher = JobFinisher(queue: queue, logger: .silent)
    queue.fail("complete", .unavailable(reason: "gone"))
    leases.forEach(finisher.complete)
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await finisher.run() }
      finisher.stop()
      await group.waitForAll()
    }
    #expect(finisher.count == 0 && queue.calls("complete") >= 1)
  }
}
