import Logging
import Metrics
import PostriderCore
import Synchronization

/// Keeps the leases of running sessions alive and ends the sessions whose lease is lost.
///
/// A lease is a scope (``hold(_:deadline:_:then:)``): losing the lease cancels the work, and with it closes the socket,
/// before the lease can end at the server – also while a renewal hangs, because ``run()`` watches the ends apart from it.
final class LeaseKeeper: Sendable {
  private struct Held {
    var lease: Lease
    /// When the session lasts too long; `nil` once that was said, or when its work is over.
    var deadline: ContinuousClock.Instant?
    let session: HeldSession

    /// When somebody has to look at it.
    var watched: ContinuousClock.Instant { deadline.map { min($0, lease.trustedUntil) } ?? lease.trustedUntil }
  }

  private struct State {
    /// By fence: a worker may get a job again while its earlier session is still closing.
    var held: [Fence: Held] = [:]
    /// When the watch looks again by itself; `nil` while nothing is held.
    var nextLook: ContinuousClock.Instant?
    var stopping = false
  }

  private let queue: any JobQueue
  private let renewal: Duration
  private let logger: Logger
  private let state = Mutex(State())
  private let earlier = WakeSignal()
  private let lost = Counter(label: "postrider_leases_lost_total")

  init(queue: any JobQueue, renewal: Duration, logger: Logger) {
    self.queue = queue
    self.renewal = renewal
    self.logger = logger
  }

  /// How many leases are held.
  var count: Int { state.withLock { $0.held.count } }

  /// Runs work while the lease is held, then what follows from it, which gets `nil` when the work took longer than the
  /// deadline and was stopped. The lease is kept until both are over.
  ///
  /// Throws ``Interruption`` when the work was stopped from outside, without beginning when the lease can be trusted no
  /// more. What follows is not stopped: it asks
  /// ``interruption(of:)`` where it waits.
  func hold<Work: Sendable, Result>(
    _ lease: Lease, deadline: Duration, _ work: @escaping @Sendable () async throws -> Work,
    then finish: (Work?) async throws -> Result
  ) async throws -> Result {
    // Claimed long ago: a slow answer, or a slow check. Not even a connection may be opened any more.
    guard lease.trustedUntil > .now else {
      report(lease)
      throw Interruption.leaseLost
    }
    let session = HeldSession()
    let held = Held(lease: lease, deadline: .now + deadline, session: session)
    let (stopping, isEarlier) = state.withLock { state in
      if state.stopping { return (true, false) }
      state.held[lease.fence] = held
      return (false, state.nextLook.map { held.watched < $0 } ?? true)
    }
    if stopping { throw Interruption.stopping }
    defer { _ = state.withLock { $0.held.removeValue(forKey: lease.fence) } }
    if isEarlier { earlier.signal() }
    var result: Work?
    do {
      result = try await session.run(work)
    } catch Interruption.deadline {
      result = nil
    }
    state.withLock { $0.held[lease.fence]?.deadline = nil }
    return try await finish(result)
  }

  /// Why a session whose work is over should not wait any longer; `nil` while its lease is held.
  func interruption(of lease: Lease) -> Interruption? {
    state.withLock { state in
      state.held[lease.fence] == nil ? .leaseLost : state.stopping ? .stopping : nil
    }
  }

  /// Whether a session may still open a connection: its lease is held and can be trusted at this very moment.
  func mayConnect(_ lease: Lease) -> Bool {
    state.withLock { state in
      !state.stopping && state.held[lease.fence].map { $0.lease.trustedUntil > .now } ?? false
    }
  }

  /// Interrupts every session, those about to begin too: the worker stops.
  func stopAll() {
    let held = state.withLock { state in
      state.stopping = true
      return Array(state.held.values)
    }
    for entry in held { entry.session.stop(.stopping) }
  }

  /// Renews and watches until cancelled.
  func run() async {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.watchEnds() }
      await renewForEver()
    }
  }

  private func renewForEver() async {
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

  /// Stops every session whose lease, renewed or not, can be trusted no more, or whose deadline has come; until
  /// cancelled. Looks at the earliest end of those held at the last look, so short sessions cost nothing here.
  private func watchEnds() async {
    while !Task.isCancelled {
      let now = ContinuousClock.now
      let (untrusted, late, next) = state.withLock { state in
        let ended = state.held.values.filter { $0.watched <= now }
        let untrusted = ended.filter { $0.lease.trustedUntil <= now }
        let late = ended.filter { $0.lease.trustedUntil > now }
        for entry in late { state.held[entry.lease.fence]?.deadline = nil }
        for entry in untrusted { state.held[entry.lease.fence] = nil }
        state.nextLook = state.held.values.map(\.watched).min()
        return (untrusted, late, state.nextLook)
      }
      for entry in late { entry.session.stop(.deadline) }
      for entry in untrusted {
        report(entry.lease)
        entry.session.stop(.leaseLost)
      }
      if let next { await earlier.wait(timeout: next - .now) } else { await earlier.wait() }
    }
  }

  /// Ends the session of a lease.
  private func interrupt(_ lease: Lease) {
    guard let entry = state.withLock({ $0.held.removeValue(forKey: lease.fence) }) else { return }
    report(lease)
    entry.session.stop(.leaseLost)
  }

  private func report(_ lease: Lease) {
    lost.increment()
    logger.warning("Lost a lease", metadata: ["job.id": "\(lease.job)", "job.fence": "\(lease.fence)"])
  }
}
