import FoundationEssentials
import Logging
import PostriderCore
import Synchronization

/// Counts finished sessions by profile and minute, in memory, and writes the sums every few seconds.
///
/// Statistics, not results: what a killed process had not written is lost. A counter kept in the outcomes' own transaction
/// would make all workers wait for the row of a big profile.
final class ActivityRecorder: Sendable {
  private struct Key: Hashable {
    var minute: Int64
    var profile: ProfileID
    var organization: OrganizationID
  }

  private struct Sums {
    var runs: Int64 = 0
    var failures: Int64 = 0
  }

  private struct State {
    var sums: [Key: Sums] = [:]
    var flushIsPlanned = false
  }

  /// Sums kept at most while PostgreSQL is away.
  private static let capacity = 20_000

  private let pool: ConnectionPool
  private let interval: Duration
  private let logger: Logger
  /// Tells this process's rows from others', so that no two processes write the same one.
  private let writer = Int64.random(in: 1...Int64.max)
  private let state = Mutex(State())

  init(pool: ConnectionPool, interval: Duration, logger: Logger) {
    self.pool = pool
    self.interval = interval
    self.logger = logger
  }

  /// Counts sessions whose outcomes are committed.
  func record(_ outcomes: [SessionOutcome]) {
    if outcomes.isEmpty { return }
    let plans = state.withLock { state in
      for outcome in outcomes {
        let second = Int64(outcome.run.finishedAt.timeIntervalSince1970.rounded(.down))
        let key = Key(
          minute: second / 60, profile: outcome.profileID, organization: outcome.writer.organizationID)
        if state.sums[key] == nil && state.sums.count >= Self.capacity { continue }
        state.sums[key, default: Sums()].runs += 1
        if outcome.run.result == .failure { state.sums[key, default: Sums()].failures += 1 }
      }
      defer { state.flushIsPlanned = true }
      return !state.flushIsPlanned
    }
    guard plans else { return }
    // A task of its own: it outlives the batch of outcomes that began it, and ends after one wait.
    Task { [interval] in
      try? await Task.sleep(for: interval)
      await flush()
    }
  }

  /// Writes the sums; keeps them when that fails.
  func flush() async {
    let sums = state.withLock { state in
      defer {
        state.sums = [:]
        state.flushIsPlanned = false
      }
      return state.sums
    }
    if sums.isEmpty { return }
    let rows = sums.sorted { ($0.key.minute, $0.key.profile) < ($1.key.minute, $1.key.profile) }
    do {
      try await pool.transaction(.worker) { [writer] db in
        _ = try db.commit([
          Statement(
            """
            INSERT INTO profile_activity AS a (minute, profile_id, writer, organization_id, runs, failures)
            SELECT to_timestamp(i.minute * 60), i.profile_id, $1, i.organization_id, i.runs, i.failures
            FROM unnest($2, $3, $4, $5, $6) AS i (minute, profile_id, organization_id, runs, failures)
            ON CONFLICT (minute, profile_id, writer) DO UPDATE SET runs = a.runs + EXCLUDED.runs,
              failures = a.failures + EXCLUDED.failures
            """,
            [
              .int(writer), .ints(rows.map(\.key.minute)), .ids(rows.map(\.key.profile)),
              .ids(rows.map(\.key.organization)), .ints(rows.map(\.value.runs)), .ints(rows.map(\.value.failures)),
            ])
        ])
      }
    } catch {
      logger.debug("Statistics of profiles could not be written", metadata: ["error": "\(error)"])
      // The next session plans another try.
      state.withLock { state in
        for (key, sum) in sums where state.sums.count < Self.capacity {
          state.sums[key, default: Sums()].runs += sum.runs
          state.sums[key, default: Sums()].failures += sum.failures
        }
      }
    }
  }
}
