import Logging
import PostriderCore
import Synchronization

/// Ends leases in batches: what arrives while a call is under way is the next call.
///
/// One round trip to the queue per batch instead of one per job, without any timer. A queue that is away is told again as
/// long as the leases can last; after that they have ended by themselves, and the next worker finds the jobs not due.
final class JobFinisher: Sendable {
  private struct Entry {
    var lease: Lease
    /// No lease that was held when it came can last longer.
    var until: ContinuousClock.Instant
  }

  private struct State {
    var completed: [Entry] = []
    var returned: [Entry] = []
    /// Since when it is to stop.
    var stoppingSince: ContinuousClock.Instant?
  }

  /// How a round went.
  enum Round {
    case nothing
    case told
    case unavailable
  }

  /// How long a worker that stops waits for a queue that is away.
  private static let patience: Duration = .seconds(2)

  private let queue: any JobQueue
  private let logger: Logger
  private let state = Mutex(State())
  private let work = WakeSignal()

  init(queue: any JobQueue, logger: Logger) {
    self.queue = queue
    self.logger = logger
  }

  /// How many leases wait to be ended.
  var count: Int { state.withLock { $0.completed.count + $0.returned.count } }

  /// Ends a lease whose outcome is committed.
  func complete(_ lease: Lease) {
    let entry = Entry(lease: lease, until: .now + queue.leaseDuration)
    state.withLock { $0.completed.append(entry) }
    work.signal()
  }

  /// Ends a lease whose work was not done.
  func giveBack(_ lease: Lease) {
    let entry = Entry(lease: lease, until: .now + queue.leaseDuration)
    state.withLock { $0.returned.append(entry) }
    work.signal()
  }

  /// Lets ``run()`` end as soon as everything is told.
  func stop() {
    state.withLock { $0.stoppingSince = $0.stoppingSince ?? .now }
    work.signal()
  }

  /// Tells the queue until stopped, or until cancelled.
  func run() async {
    var trouble = Trouble()
    while true {
      let stopping = state.withLock(\.stoppingSince)
      switch await tell() {
      case .told:
        _ = trouble.ended()
      case .nothing:
        if stopping != nil || Task.isCancelled { return }
        await work.wait()
      case .unavailable:
        if Task.isCancelled { return }
        if let stopping, ContinuousClock.now - stopping > Self.patience { return }
        // Cancelled: the next round is the last.
        try? await Task.sleep(for: trouble.wait(after: JobQueueError.unavailable(reason: "")))
      }
    }
  }

  /// Tells the queue what has come together.
  @discardableResult
  func tell() async -> Round {
    let (completed, returned) = state.withLock { state in
      defer {
        state.completed = []
        state.returned = []
      }
      return (state.completed, state.returned)
    }
    if completed.isEmpty && returned.isEmpty { return .nothing }
    // One after the other, so that a failure of the first loses nothing of the second.
    let later = await end(completed) { try await self.queue.complete($0) }
    let laterReturned = await end(returned) { try await self.queue.giveBack($0) }
    if later.isEmpty && laterReturned.isEmpty { return .told }
    state.withLock { state in
      state.completed = later + state.completed
      state.returned = laterReturned + state.returned
    }
    return .unavailable
  }

  /// Returns what has to be told again.
  private func end(_ entries: [Entry], _ call: ([Lease]) async throws -> [LeaseEnd]) async -> [Entry] {
    if entries.isEmpty { return [] }
    do {
      _ = try await call(entries.map(\.lease))
      return []
    } catch {
      let now = ContinuousClock.now
      var again: [Entry] = []
      // The leases of a lost epoch are gone, and a wrong setting does not mend itself.
      if case JobQueueError.unavailable = error { again = entries.filter { $0.until > now } }
      logger.warning(
        again.isEmpty ? "Cannot end leases" : "Ending leases waits for the queue",
        metadata: ["error": "\(error)", "jobs": "\(entries.count)"])
      return again
    }
  }
}
