import Logging
import Metrics
import PostriderCore
import Synchronization

/// Why a session has to stop before it is done.
enum Interruption: Error, Hashable, Sendable {
  /// The lease ended or was withdrawn: somebody else may already work on the mailbox.
  case leaseLost
  /// The worker stops; the job is given back.
  case stopping
}

/// Keeps the leases of running sessions alive and ends the sessions whose lease is lost.
///
/// A lease is a scope (``hold(_:_:)``): the work and the wait for its loss are siblings, so losing the lease cancels
/// the work, and with it closes the socket, before the lease can end at the server.
final class LeaseKeeper: Sendable {
  private struct Held {
    var lease: Lease
    let interrupt: @Sendable (Interruption) -> Void
  }

  private let queue: any JobQueue
  private let renewal: Duration
  private let logger: Logger
  private let held = Mutex<[JobID: Held]>([:])
  private let lost = Counter(label: "postrider_leases_lost_total")

  init(queue: any JobQueue, renewal: Duration, logger: Logger) {
    self.queue = queue
    self.renewal = renewal
    self.logger = logger
  }

  /// How many leases are held.
  var count: Int { held.withLock(\.count) }

  /// Runs work while the lease is held. Throws ``Interruption`` when it was stopped from outside.
  func hold<Result: Sendable>(
    _ lease: Lease, _ work: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    let (interruptions, continuation) = AsyncStream<Interruption>.makeStream(bufferingPolicy: .bufferingOldest(1))
    held.withLock {
      $0[lease.job] = Held(lease: lease) { reason in
        continuation.yield(reason)
        continuation.finish()
      }
    }
    defer { _ = held.withLock { $0.removeValue(forKey: lease.job) } }
    return try await withThrowingTaskGroup(of: Result.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await work() }
      group.addTask {
        for await reason in interruptions { throw reason }
        throw CancellationError()
      }
      guard let result = try await group.next() else { throw CancellationError() }
      return result
    }
  }

  /// The lease of a job as last renewed; `nil` when it is not held any more.
  func current(_ job: JobID) -> Lease? { held.withLock { $0[job]?.lease } }

  /// Interrupts every session: the worker stops.
  func stopAll() {
    for entry in held.withLock({ Array($0.values) }) { entry.interrupt(.stopping) }
  }

  /// Renews until cancelled.
  func run() async {
    let clock = ContinuousClock()
    var next = clock.now + renewal
    while !Task.isCancelled {
      // Wakes at the renewal, or earlier where a lease that could not be renewed ends.
      let earliest = held.withLock { $0.values.map(\.lease.trustedUntil).min() }
      let wake = min(next, earliest ?? next)
      guard (try? await Task.sleep(until: max(wake, clock.now + .milliseconds(20)), clock: clock)) != nil else {
        return
      }
      if clock.now >= next {
        next = clock.now + renewal
        let end = next
        // Renewing must not delay the watch over the leases' ends: a call to a dead server may take long.
        await withTaskGroup(of: Void.self) { group in
          group.addTask { await self.renewAll() }
          group.addTask { await self.interruptExpired(until: end) }
          await group.next()
          group.cancelAll()
        }
      }
      interruptExpiredNow()
    }
  }

  private func renewAll() async {
    let leases = held.withLock { $0.values.map(\.lease) }
    guard !leases.isEmpty else { return }
    do {
      let renewed = try await queue.renew(leases)
      let byJob = Dictionary(renewed.map { ($0.job, $0) }, uniquingKeysWith: { $1 })
      for lease in leases {
        if let fresh = byJob[lease.job], fresh.fence == lease.fence {
          held.withLock { if $0[lease.job]?.lease.fence == lease.fence { $0[lease.job]?.lease = fresh } }
        } else {
          interrupt(lease)
        }
      }
    } catch JobQueueError.epochLost {
      // Leases of a lost epoch will not come back, and the next epoch waits only as long as a lease lasts.
      leases.forEach(interrupt)
    } catch {
      logger.warning("Cannot renew leases", metadata: ["error": "\(error)", "leases": "\(leases.count)"])
    }
  }

  private func interruptExpired(until end: ContinuousClock.Instant) async {
    let clock = ContinuousClock()
    while clock.now < end {
      guard (try? await Task.sleep(for: .milliseconds(250))) != nil else { return }
      interruptExpiredNow()
    }
  }

  private func interruptExpiredNow() {
    let now = ContinuousClock.now
    held.withLock { $0.values.map(\.lease).filter { $0.trustedUntil <= now } }.forEach(interrupt)
  }

  /// Ends the session of a lease, if it is still that lease.
  private func interrupt(_ lease: Lease) {
    let entry = held.withLock { held in
      held[lease.job]?.lease.fence == lease.fence ? held.removeValue(forKey: lease.job) : nil
    }
    guard let entry else { return }
    lost.increment()
    logger.warning("Lost a lease", metadata: ["job.id": "\(lease.job)", "job.fence": "\(lease.fence)"])
    entry.interrupt(.leaseLost)
  }
}
