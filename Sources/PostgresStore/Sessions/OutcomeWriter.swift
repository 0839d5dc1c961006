import FoundationEssentials
import Metrics
import PostriderCore
import Synchronization

/// Commits outcomes in groups, one of each mailbox at most in a transaction: two of the same rows need two.
final class OutcomeWriter: Sendable {
  private struct State {
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
  private let group = GroupCommit<SessionOutcome, OutcomeResult>(batchLimit: 500) { $0.writer.job.mailbox }
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
    try await group.run(outcome) { try await self.write($0) }
  }

  private func write(_ outcomes: [SessionOutcome]) async throws -> [OutcomeResult] {
    let runs = try await takeRuns(outcomes.count)
    let slots = outcomes.map(slot)
    state.withLock { $0.batches += 1 }
    let start = ContinuousClock.now
    let results = try await pool.transaction(.worker) { db in
      try OutcomeBatch(outcomes: outcomes, slots: slots, firstRun: runs).write(db)
    }
    batchTimer.record(duration: ContinuousClock.now - start)
    countFenced(results.count { $0 == .fenced })
    activity.record(zip(outcomes, results).compactMap { $1 == .fenced ? nil : $0 })
    return results
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
