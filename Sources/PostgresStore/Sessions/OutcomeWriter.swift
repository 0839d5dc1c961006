import FoundationEssentials
import Metrics
import PostriderCore
import Synchronization

/// Commits outcomes in groups: it writes at once when idle, and what arrives meanwhile is the next batch. No timer.
final class OutcomeWriter: Sendable {
  /// Outcomes in one transaction at most.
  static let batchLimit = 500
  /// Outcomes that may wait; a worker has far fewer sessions.
  static let queueLimit = 100_000

  private struct Waiting {
    var outcome: SessionOutcome
    var continuation: CheckedContinuation<OutcomeResult, any Error>
  }

  private struct State {
    var queue: [Waiting] = []
    var writing = false
    var runs: Range<Int64> = 0..<0
    var fenced = 0
    var batches = 0

    mutating func takeRuns(_ count: Int) -> Int64? {
      guard runs.count >= count else { return nil }
      defer { runs = runs.lowerBound + Int64(count)..<runs.upperBound }
      return runs.lowerBound
    }
  }

  private let pool: ConnectionPool
  private let state = Mutex(State())
  private let batchTimer = Timer(label: "postrider_store_batch_seconds")

  private let settings: SettingsCache
  private let activity: ActivityRecorder

  init(pool: ConnectionPool, settings: SettingsCache, activity: ActivityRecorder) {
    self.pool = pool
    self.settings = settings
    self.activity = activity
  }

  /// Writes that came too late.
  var fencedWrites: Int { state.withLock { $0.fenced } }
  /// Transactions begun so far.
  var batchCount: Int { state.withLock { $0.batches } }

  /// Counts a write that came too late.
  func countFenced(_ count: Int = 1) { state.withLock { $0.fenced += count } }

  /// Commits an outcome together with others that wait. Returns when it is durable.
  func commit(_ outcome: SessionOutcome) async throws -> OutcomeResult {
    try await withCheckedThrowingContinuation { continuation in
      let (accepted, starts) = state.withLock { state in
        if state.queue.count >= Self.queueLimit { return (false, false) }
        state.queue.append(Waiting(outcome: outcome, continuation: continuation))
        let starts = !state.writing
        state.writing = true
        return (true, starts)
      }
      if !accepted { continuation.resume(throwing: StoreError.unavailable(reason: "too many outcomes wait")) }
      // A task of its own: a batch holds many sessions' outcomes and must not end with the session that began it.
      if starts { Task { await drain() } }
    }
  }

  private func drain() async {
    while let batch = nextBatch() {
      await write(batch)
    }
  }

  /// What waits, in order, one outcome of each mailbox at most: two of the same rows need two transactions.
  private func nextBatch() -> [Waiting]? {
    state.withLock { state in
      if state.queue.isEmpty {
        state.writing = false
        return nil
      }
      var batch: [Waiting] = []
      var rest: [Waiting] = []
      var mailboxes: Set<MailboxID> = []
      for waiting in state.queue {
        if batch.count < Self.batchLimit && mailboxes.insert(waiting.outcome.writer.job.mailbox).inserted {
          batch.append(waiting)
        } else {
          rest.append(waiting)
        }
      }
      state.queue = rest
      return batch
    }
  }

  /// Writes a batch; one that PostgreSQL refuses is split until the bad outcome stands alone, and only that one throws.
  private func write(_ batch: [Waiting]) async {
    do {
      let runs = try await takeRuns(batch.count)
      let outcomes = batch.map(\.outcome)
      let slots = outcomes.map(slot)
      state.withLock { $0.batches += 1 }
      let start = ContinuousClock.now
      let results = try await pool.transaction(.worker) { db in
        try OutcomeBatch(outcomes: outcomes, slots: slots, firstRun: runs).write(db)
      }
      batchTimer.record(duration: ContinuousClock.now - start)
      countFenced(results.count { $0 == .fenced })
      activity.record(zip(outcomes, results).compactMap { $1 == .fenced ? nil : $0 })
      for (waiting, result) in zip(batch, results) { waiting.continuation.resume(returning: result) }
    } catch StoreError.unavailable(let reason) {
      for waiting in batch { waiting.continuation.resume(throwing: StoreError.unavailable(reason: reason)) }
    } catch {
      if batch.count == 1 {
        batch[0].continuation.resume(throwing: error)
      } else {
        await write(Array(batch[..<(batch.count / 2)]))
        await write(Array(batch[(batch.count / 2)...]))
      }
    }
  }

  /// The slot that a poll served: the last one before it began, whose time the clocks may see differently. Its interval is known from the settings it ran with.
  private func slot(_ outcome: SessionOutcome) -> Date? {
    let job = outcome.writer.job
    guard job.kind == .poll, let interval = settings.pollingInterval(of: job.mailbox) else { return nil }
    return PollingSlots(mailbox: job.mailbox, interval: interval).last(
      before: max(outcome.run.startedAt, outcome.run.dueAt))
  }

  /// The first of `count` run numbers of this process's block, taken from the sequence 1,000 at a time.
  private func takeRuns(_ count: Int) async throws -> Int64 {
    if let first = state.withLock({ $0.takeRuns(count) }) { return first }
    let block = try await pool.transaction(.worker) { db in
      var row = try db.commit([Statement("SELECT nextval('run_block')")])[0][0]
      return try row.int()
    }
    return state.withLock { state in
      state.runs = block..<block + 1_000
      return state.takeRuns(count) ?? block
    }
  }
}
