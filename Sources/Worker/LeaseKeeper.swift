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
/// A lease is a scope (``hold(_:_:)``): the work, the wait for its loss and the watch over its end are siblings, so
/// losing the lease cancels the work, and with it closes the socket, before the lease can end at the server – also while
/// a renewal hangs.
final class LeaseKeeper: Sendable {
  private struct Held {
    var lease: Lease
    let interrupt: @Sendable (Interruption) -> Void
  }

  private struct State {
    /// By fence: a worker may get a job again while its earlier session is still closing.
    var held: [Fence: Held] = [:]
    var stopping = false
  }

  private let queue: any JobQueue
  private let renewal: Duration
  private let logger: Logger
  private let state = Mutex(State())
  private let lost = Counter(label: "postrider_leases_lost_total")

  init(queue: any JobQueue, renewal: Duration, logger: Logger) {
    self.queue = queue
    self.renewal = renewal
    self.logger = logger
  }

  /// How many leases are held.
  var count: Int { state.withLock(\.held.count) }

  /// Runs work while the lease is held. Throws ``Interruption`` when it was stopped from outside, without beginning
  /// when the lease can be trusted no more.
  func hold<Result: Sendable>(
    _ lease: Lease, _ work: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    // Claimed long ago: a slow answer, or a slow check. Not even a connection may be opened any more.
    guard lease.trustedUntil > .now else {
      report(lease)
      throw Interruption.leaseLost
    }
    let (interruptions, continuation) = AsyncStream<Interruption>.makeStream(bufferingPolicy: .bufferingOldest(1))
    let stopping = state.withLock { state in
      if !state.stopping {
        state.held[lease.fence] = Held(lease: lease) { reason in
          continuation.yield(reason)
          continuation.finish()
        }
      }
      return state.stopping
    }
    if stopping { throw Interruption.stopping }
    defer { _ = state.withLock { $0.held.removeValue(forKey: lease.fence) } }
    return try await withThrowingTaskGroup(of: Result.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await work() }
      group.addTask {
        for await reason in interruptions { throw reason }
        throw CancellationError()
      }
      group.addTask {
        try await self.watchEnd(of: lease)
        throw Interruption.leaseLost
      }
      guard let result = try await group.next() else { throw CancellationError() }
      return result
    }
  }

  /// Interrupts every session, those about to begin too: the worker stops.
  func stopAll() {
    let held = state.withLock { state in
      state.stopping = true
      return Array(state.held.values)
    }
    for entry in held { entry.interrupt(.stopping) }
  }

  /// Renews until cancelled.
  func run() async {
    var wait = renewal
    while !Task.isCancelled {
      guard (try? await Task.sleep(for: wait)) != nil else { return }
      // What was not renewed is tried again soon, while the leases can still be trusted.
      wait = await renewAll() ? renewal : renewal / 5
    }
  }

  /// Returns whether the queue answered.
  private func renewAll() async -> Bool {
    let leases = state.withLock { $0.held.values.map(\.lease) }
    guard !leases.isEmpty else { return true }
    do {
      let renewed = try await queue.renew(leases)
      let byFence = Dictionary(renewed.map { ($0.fence, $0) }, uniquingKeysWith: { $1 })
      for lease in leases {
        if let fresh = byFence[lease.fence] {
          state.withLock { $0.held[lease.fence]?.lease = fresh }
        } else {
          interrupt(lease)
        }
      }
      return true
    } catch JobQueueError.epochLost {
      // Leases of a lost epoch will not come back, and the next epoch waits only as long as a lease lasts.
      leases.forEach(interrupt)
      return true
    } catch {
      logger.warning("Cannot renew leases", metadata: ["error": "\(error)", "leases": "\(leases.count)"])
      return false
    }
  }

  /// Returns when the lease, renewed or not, can be trusted no more.
  private func watchEnd(of lease: Lease) async throws {
    let clock = ContinuousClock()
    while let held = state.withLock({ $0.held[lease.fence]?.lease }) {
      if held.trustedUntil <= clock.now { break }
      try await Task.sleep(until: held.trustedUntil, clock: clock)
    }
    report(lease)
  }

  /// Ends the session of a lease.
  private func interrupt(_ lease: Lease) {
    guard let entry = state.withLock({ $0.held.removeValue(forKey: lease.fence) }) else { return }
    report(lease)
    entry.interrupt(.leaseLost)
  }

  private func report(_ lease: Lease) {
    lost.increment()
    logger.warning("Lost a lease", metadata: ["job.id": "\(lease.job)", "job.fence": "\(lease.fence)"])
  }
}
