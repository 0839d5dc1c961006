import Foundation
import PostriderCore
import RedisQueue
import Synchronization

/// Claims and completes like a fleet of workers: several claimers over a few connections, sessions that last and are
/// renewed, and completions in batches.
final class QueueCycles: Sendable {
  /// What was done, and what it cost.
  struct Result: Sendable {
    var cycles = 0
    var seconds = 0.0
    var redis = RedisProbe.Counters()
    /// CPU seconds of this process.
    var clientSeconds = 0.0
    var enqueued = 0
    var enqueueSeconds = 0.0
    var enqueueRedis = RedisProbe.Counters()
    var renewed = 0
    var lost = 0
    var claims = 0

    var cyclesPerSecond: Double { seconds > 0 ? Double(cycles) / seconds : 0 }
    var redisMicroseconds: Double { cycles > 0 ? redis.cpuSeconds * 1e6 / Double(cycles) : 0 }
    /// Every script call of claiming, completing, renewing and enqueuing, to a finished job.
    var roundTripsPerJob: Double {
      cycles > 0 ? Double(redis.scriptCalls + enqueueRedis.scriptCalls) / Double(cycles) : 0
    }
  }

  private struct Long: Sendable {
    var lease: Lease
    var since: ContinuousClock.Instant
    var forEver: Bool
  }

  private struct State {
    var long: [Fence: Long] = [:]
    var cycles = 0
    var claimed = 0
    var lasting = 0
    var renewed = 0
    /// Leases that ended before their job did, as when the machine stands still for longer than a lease.
    var lost = 0
    var claims = 0
    /// Stop when so many were claimed in this drain.
    var target = Int.max

    mutating func count(_ ends: [LeaseEnd]) {
      let ended = ends.count { $0 == .ended }
      cycles += ended
      lost += ends.count - ended
    }
  }

  private let load: QueueLoad
  private let queues: [RedisJobQueue]
  private let batch: Int
  private let claimersPerQueue: Int
  private let state = Mutex(State())
  private static let renewal = Duration.seconds(5)

  init(load: QueueLoad, queues: [RedisJobQueue], batch: Int, claimersPerQueue: Int) {
    self.load = load
    self.queues = queues
    self.batch = batch
    self.claimersPerQueue = claimersPerQueue
  }

  /// Fills and drains the queue until draining has lasted for `seconds`.
  func run(seconds: Double, probe: RedisProbe) async throws -> Result {
    let queue = queues[0]
    try await queue.update(profiles: load.profiles)
    var result = Result()
    let due = Int64(Date().timeIntervalSince1970 * 1_000) - 10_000
    let jobs = load.baseJobs(due: due)
    try await holdForEver(due: due)
    try await fill(load.bigJobs(due: due), queue)
    // The first fill and the first moments of draining are not measured: profiles become full meanwhile.
    try await fill(jobs, queue)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.keepRenewing(queue) }
      defer { group.cancelAll() }
      try await drain(upTo: jobs.count / 4)
      while result.seconds < seconds {
        try Task.checkCancellation()
        let beforeFill = try probe.counters()
        try await fill(jobs, queue)
        let afterFill = try probe.counters()
        let cpu = Machine.ownCPUSeconds
        let before = state.withLock { $0 }
        try await drain(upTo: jobs.count / 2)
        let afterDrain = try probe.counters()
        let after = state.withLock { $0 }
        guard after.cycles > before.cycles else {
          throw BenchFailure(description: "the queue gives no jobs although some are ready")
        }
        result.cycles += after.cycles - before.cycles
        result.renewed += after.renewed - before.renewed
        result.lost += after.lost - before.lost
        result.claims += after.claims - before.claims
        result.seconds += (afterDrain.at - afterFill.at).inSeconds
        result.clientSeconds += Machine.ownCPUSeconds - cpu
        result.redis = result.redis + (afterDrain - afterFill)
        result.enqueued += jobs.count
        result.enqueueSeconds += (afterFill.at - beforeFill.at).inSeconds
        result.enqueueRedis = result.enqueueRedis + (afterFill - beforeFill)
      }
    }
    return result
  }

  /// Enqueues in pages as a scheduler does, two at a time.
  private func fill(_ jobs: [Job], _ queue: RedisJobQueue) async throws {
    var pages = stride(from: 0, to: jobs.count, by: 1_000).map { jobs[$0..<min($0 + 1_000, jobs.count)] }.makeIterator()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<2 {
        if let page = pages.next() { group.addTask { try await queue.enqueue(Array(page)) } }
      }
      while try await group.next() != nil {
        if let page = pages.next() { group.addTask { try await queue.enqueue(Array(page)) } }
      }
    }
  }

  /// Takes every slot of the blocked profiles, then lets further jobs of theirs wait.
  private func holdForEver(due: Int64) async throws {
    let jobs = load.blockedJobs(due: due)
    guard !jobs.isEmpty else { return }
    let queue = queues[0]
    let holders = load.blockedProfiles * QueueLoad.profileLimit
    try await fill(Array(jobs.prefix(holders)), queue)
    var held = 0
    while held < holders {
      let leases = try await queue.claim(limit: 256, worker: "bench-holder").leases
      guard !leases.isEmpty else { throw BenchFailure(description: "only \(held) of \(holders) slots could be taken") }
      held += leases.count
      state.withLock { state in
        for lease in leases { state.long[lease.fence] = Long(lease: lease, since: .now, forEver: true) }
      }
    }
    try await fill(Array(jobs.dropFirst(holders)), queue)
  }

  private func drain(upTo count: Int) async throws {
    state.withLock { state in
      state.claimed = 0
      state.lasting = 0
      state.target = count
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (number, queue) in queues.enumerated() {
        for claimer in 0..<claimersPerQueue {
          group.addTask { try await self.cycle(queue, worker: "bench-\(number)-\(claimer)") }
        }
      }
      try await group.waitForAll()
    }
  }

  private func cycle(_ queue: RedisJobQueue, worker: String) async throws {
    while state.withLock({ $0.claimed < $0.target }) {
      try Task.checkCancellation()
      let leases = try await queue.claim(limit: batch, worker: worker).leases
      if leases.isEmpty { return }
      let short = keepLong(of: leases)
      if !short.isEmpty {
        let ends = try await queue.complete(short)
        state.withLock { $0.count(ends) }
      }
    }
  }

  /// Puts the jobs aside whose sessions last; returns the others.
  ///
  /// Those of full profiles all last; of the profiles that limit by mailbox as many as make a tenth of all jobs.
  private func keepLong(of leases: [Lease]) -> [Lease] {
    let now = ContinuousClock.now
    return state.withLock { state in
      state.claimed += leases.count
      state.claims += 1
      return leases.filter { lease in
        let lasts: Bool
        switch load.kind(lease.profile) {
        case .full, .blocked: lasts = true
        case .onMailbox: lasts = state.lasting * 10 < state.claimed
        case .onProfile, .mixed: lasts = false
        }
        if lasts {
          state.lasting += 1
          state.long[lease.fence] = Long(lease: lease, since: now, forEver: false)
        }
        return !lasts
      }
    }
  }

  /// Renews every lasting lease each 5 s, and completes those that were renewed.
  private func keepRenewing(_ queue: RedisJobQueue) async throws {
    while !Task.isCancelled {
      try await Task.sleep(for: Self.renewal)
      let held = state.withLock { Array($0.long.values) }
      let renewed = Set(try await queue.renew(held.map(\.lease)).map(\.fence))
      state.withLock { state in
        state.renewed += renewed.count
        for one in held where !renewed.contains(one.lease.fence) {
          state.lost += 1
          state.long[one.lease.fence] = nil
        }
      }
      let finished = held.filter { !$0.forEver && renewed.contains($0.lease.fence) }.map(\.lease)
      // As sessions end: a few at a time, over the whole interval.
      for part in stride(from: 0, to: finished.count, by: batch) {
        let leases = Array(finished[part..<min(part + batch, finished.count)])
        let ends = try await queue.complete(leases)
        state.withLock { state in
          for lease in leases { state.long[lease.fence] = nil }
          state.count(ends)
        }
      }
    }
  }
}
