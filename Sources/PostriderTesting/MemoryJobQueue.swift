import PostriderCore
import Synchronization

/// A job queue in memory that keeps every promise of ``JobQueue``, with a clock that tests set.
///
/// The contract suite runs against it and against Redis, so a test may use either. Its clock stands still unless
/// ``advance(by:)`` is called, or follows the system's clock plus what was advanced.
public final class MemoryJobQueue: JobQueue {
  /// How long a lease lasts without renewal.
  public let leaseDuration: Duration

  let state: Mutex<MemoryQueueState>
  private let waiters = Mutex(Waiters())

  private struct Waiters {
    var heard = 0
    var answered = 0
    var waiting: [Int: CheckedContinuation<Void, Never>] = [:]
    var next = 0
  }

  /// Makes an empty queue. It holds no epoch: ``open(epoch:delay:)`` comes first, as with a real server.
  ///
  /// - Parameter frozenAt: where the clock stands, milliseconds since 1970; `nil` for a running clock.
  public init(leaseDuration: Duration = .seconds(15), frozenAt: Int64? = nil) {
    self.leaseDuration = leaseDuration
    state = Mutex(MemoryQueueState(leaseMilliseconds: leaseDuration / .milliseconds(1), frozenAt: frozenAt))
  }

  /// Moves the queue's clock on.
  public func advance(by duration: Duration) {
    state.withLock { $0.offset += Int64(duration / .milliseconds(1)) }
    wake()
  }

  /// Ends leases now, as if nobody had renewed them for long; the next claim takes them back.
  public func endLeases(of jobs: [JobID]) {
    state.withLock { state in
      let now = state.now
      for job in jobs { state.leased[job]?.ends = now }
    }
  }

  /// Empties the queue like FLUSHALL: every call throws `epochLost` until the next ``open(epoch:delay:)``.
  public func empty() {
    state.withLock { $0.empty() }
    wake()
  }

  /// Makes every call throw `unavailable` with this reason, or lets them pass again with `nil`.
  public func setUnavailable(_ reason: String?) {
    state.withLock { $0.unavailable = reason }
  }

  /// The broken rules in words: none when all is well. Those that begin with `limit:` can also come from a lowered limit.
  public func verify() -> [String] { state.withLock { $0.verify() } }

  /// Opens an epoch, if it is greater than the present one.
  public func open(epoch: Int64, delay: Duration) async throws {
    try state.withLock { try $0.open(epoch: epoch, delayMilliseconds: Int64(delay / .milliseconds(1))) }
  }

  /// The epoch held, or `nil` when the queue was emptied.
  public func currentEpoch() async throws -> Int64? {
    try state.withLock { state in
      if let reason = state.unavailable { throw JobQueueError.unavailable(reason: reason) }
      return state.epoch
    }
  }

  /// Tells the queue about profiles, new or changed.
  public func update(profiles: [QueueProfile]) async throws { try change { $0.update(profiles) } }

  /// Makes sure that each job is in the queue. Returns how many were not there before.
  @discardableResult
  public func enqueue(_ jobs: [Job]) async throws -> Int { try change { $0.enqueue(jobs) } }

  /// Takes up to `limit` jobs for this worker.
  public func claim(limit: Int, worker: String) async throws -> Claim {
    waiters.withLock { $0.answered = $0.heard }
    let trusted = trustedUntil()
    return try change { try $0.claim(limit: limit, worker: worker, trustedUntil: trusted) }
  }

  /// Extends leases. Returns the extended ones.
  public func renew(_ leases: [Lease]) async throws -> [Lease] {
    let trusted = trustedUntil()
    return try change { $0.renew(leases, trustedUntil: trusted) }
  }

  /// Ends leases whose outcome is committed.
  @discardableResult
  public func complete(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try change { $0.end(leases, completed: true) }
  }

  /// Ends leases whose work was not done; the jobs are ready again.
  @discardableResult
  public func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try change { $0.end(leases, completed: false) }
  }

  /// Removes jobs that must not run any more. Returns those that are still leased.
  @discardableResult
  public func withdraw(_ jobs: [Job]) async throws -> [JobID] { try change { $0.withdraw(jobs) } }

  /// The numbers of the queue.
  public func statistics() async throws -> QueueStatistics { try change { $0.statistics() } }

  /// Where jobs are.
  public func inspect(_ jobs: [Job]) async throws -> [JobLocation] { try change { $0.inspect(jobs) } }

  /// Returns when something became ready, or after `timeout` of the real clock.
  public func waitForWork(timeout: Duration) async throws {
    let id = waiters.withLock { waiters in
      waiters.next += 1
      return waiters.next
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let waits = self.waiters.withLock { waiters in
              if waiters.heard != waiters.answered || Task.isCancelled {
                waiters.answered = waiters.heard
                return false
              }
              waiters.waiting[id] = continuation
              return true
            }
            if !waits { continuation.resume() }
            if waits, Task.isCancelled { self.endWaiting(id) }
          }
        } onCancel: {
          self.endWaiting(id)
        }
      }
      group.addTask { try await Task.sleep(for: timeout) }
      defer { group.cancelAll() }
      try await group.next()
    }
    try Task.checkCancellation()
  }

  private func endWaiting(_ id: Int) {
    waiters.withLock { $0.waiting.removeValue(forKey: id) }?.resume()
  }

  private func wake() {
    let waiting = waiters.withLock { waiters in
      waiters.heard += 1
      if !waiters.waiting.isEmpty { waiters.answered = waiters.heard }
      defer { waiters.waiting.removeAll() }
      return waiters.waiting
    }
    for continuation in waiting.values { continuation.resume() }
  }

  private func trustedUntil() -> ContinuousClock.Instant {
    ContinuousClock.now + leaseDuration - min(leaseDuration / 10, .seconds(1))
  }

  func change<Result>(_ body: (inout MemoryQueueState) throws -> Result) throws -> Result {
    let (result, woken) = try state.withLock { state in
      try state.check()
      let result = try body(&state)
      defer { state.woken = false }
      return (result, state.woken)
    }
    if woken { wake() }
    return result
  }
}
