import Logging
import PostriderCore

extension WorkerService {
  /// Takes as many jobs as there are free slots, again and again, until cancelled.
  func claimForEver(_ start: @Sendable (SessionTask) -> Void) async {
    var trouble = Trouble()
    while !Task.isCancelled {
      let free = await slots.take(upTo: configuration.claimBatch)
      guard free > 0 else { return }
      do {
        let claimed = try await claim(upTo: free, start)
        if let text = trouble.ended() { logger.info("Claiming goes on", metadata: ["after": "\(text)"]) }
        if claimed == 0 { try await queue.waitForWork(timeout: configuration.idleWait) }
      } catch {
        if Task.isCancelled { return }
        let wait = trouble.wait(after: error)
        if trouble.isNew { logger.warning("Claiming waits", metadata: ["error": "\(error)"]) }
        // A woken sleep is a cancelled one; the loop's condition sees it.
        try? await Task.sleep(for: wait)
      }
    }
  }

  /// One claim into slots that were taken for it; those not needed for sessions are given back. What may not run is
  /// completed without a session. Returns how many jobs there were.
  private func claim(upTo limit: Int, _ start: @Sendable (SessionTask) -> Void) async throws -> Int {
    var started = 0
    defer { slots.release(limit - started) }
    let claim = try await queue.claim(limit: limit, worker: configuration.name)
    metrics.reclaimed(claim.reclaimed)
    guard !claim.leases.isEmpty else { return 0 }
    let checked: [JobID: CheckedJob]
    do {
      checked = try await store.check(claim.leases)
    } catch {
      claim.leases.forEach(finisher.giveBack)
      throw error
    }
    for lease in claim.leases {
      switch checked[lease.job] ?? .skip("gone") {
      case .run(let assignment):
        started += 1
        start(SessionTask(lease: lease, assignment: assignment, worker: configuration.name))
      case .skip(let reason):
        metrics.skipped(reason)
        finisher.complete(lease)
      }
    }
    return claim.leases.count
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
