import Logging
import PostriderCore
import Synchronization

/// The checks of claimed jobs under way, and how long to wait because the store is away.
final class RunningChecks: Sendable {
  private struct State {
    var running = 0
    var trouble = Trouble()
    var until: ContinuousClock.Instant?
  }

  private let state = Mutex(State())
  private let ended = WakeSignal()
  private let places: Int

  init(places: Int) { self.places = places }

  /// A check begins; one that finds no place waits.
  func begin() async {
    while !Task.isCancelled && state.withLock({ $0.running }) >= places { await ended.wait() }
    state.withLock { $0.running += 1 }
  }

  /// A check ended, with an error or without. Returns whether it is a new trouble.
  func end(_ error: (any Error)? = nil) -> Bool {
    defer { ended.signal() }
    return state.withLock { state in
      state.running -= 1
      guard let error else {
        state.until = nil
        _ = state.trouble.ended()
        return false
      }
      state.until = .now + state.trouble.wait(after: error)
      return state.trouble.isNew
    }
  }

  /// When jobs may be claimed again.
  var until: ContinuousClock.Instant? { state.withLock(\.until) }
}

extension WorkerService {
  /// Batches that are checked side by side: while one waits for PostgreSQL the next jobs are claimed already, so a job
  /// starts at once although others came just before it. Few, so that what comes in the meantime is checked together.
  static let checksAtOnce = 2

  /// Takes as many jobs as there are free slots, again and again, until cancelled. Returns when every claimed job has
  /// started or was given back.
  func claimForEver(_ start: @escaping @Sendable (SessionTask) -> Void) async {
    let checks = RunningChecks(places: Self.checksAtOnce)
    var trouble = Trouble()
    await withDiscardingTaskGroup { group in
      while !Task.isCancelled {
        // A woken sleep is a cancelled one; the loop's condition sees it.
        if let until = checks.until, until > .now { try? await Task.sleep(until: until) }
        pulse.rest()
        let free = await slots.take(upTo: configuration.claimBatch)
        guard free > 0 else { return }
        pulse.beat()
        var leases: [Lease] = []
        do {
          defer { slots.release(free - leases.count) }
          // Before the claim: what this worker may not run is left to those that may.
          try await store.checkSchema()
          let claim = try await queue.claim(limit: free, worker: configuration.name)
          leases = claim.leases
          metrics.reclaimed(claim.reclaimed)
          if let text = trouble.ended() { logger.info("Claiming goes on", metadata: ["after": "\(text)"]) }
        } catch {
          if Task.isCancelled { return }
          let wait = trouble.wait(after: error)
          if trouble.isNew { logger.warning("Claiming waits", metadata: ["error": "\(error)"]) }
          try? await Task.sleep(for: wait)
          continue
        }
        guard !leases.isEmpty else {
          // Throws only when cancelled; the loop's condition sees it.
          try? await queue.waitForWork(timeout: configuration.idleWait)
          continue
        }
        pulse.rest()
        await checks.begin()
        group.addTask { [leases] in await check(leases, checks, start) }
      }
    }
  }

  /// Starts those of a claimed batch that may run, in slots taken for them; what may not run is completed without a
  /// session.
  private func check(
    _ leases: [Lease], _ checks: RunningChecks, _ start: @Sendable (SessionTask) -> Void
  ) async {
    let checked: [JobID: CheckedJob]
    do {
      try Task.checkCancellation()
      checked = try await store.check(leases)
    } catch {
      if checks.end(error), !Task.isCancelled { logger.warning("Claiming waits", metadata: ["error": "\(error)"]) }
      slots.release(leases.count)
      leases.forEach(finisher.giveBack)
      return
    }
    _ = checks.end()
    for lease in leases {
      switch checked[lease.job] ?? .skip("gone") {
      case .run(let assignment):
        start(SessionTask(lease: lease, assignment: assignment, worker: configuration.name))
      case .skip(let reason):
        metrics.skipped(reason)
        slots.release()
        finisher.complete(lease)
      }
    }
  }
}

/// Waits longer the longer the trouble lasts, and says each trouble once.
struct Trouble {
  private var text: String?
  private var seconds = 0.1
  private(set) var isNew = false

  /// How long to wait after an error, with jitter so that a fleet does not come back as one.
  mutating func wait(after error: any Error) -> Duration {
    let now: String
    if case JobQueueError.notOpenYet(let milliseconds) = error {
      isNew = text == nil
      text = text ?? "\(error)"
      return .milliseconds(min(max(milliseconds, 20), 1_000))
    }
    now = "\(error)"
    isNew = text != now
    text = now
    seconds = isNew ? 0.1 : min(seconds * 2, 2)
    return .seconds(Double.random(in: seconds / 2...seconds))
  }

  /// Forgets the trouble and says what it was.
  mutating func ended() -> String? {
    defer {
      text = nil
      seconds = 0.1
    }
    return text
  }
}
