import Foundation

/// How big the cluster is and what is done to it.
struct ChaosOptions: Sendable {
  /// How many faults of each kind.
  struct Faults: Sendable, Codable {
    var workerKills = 12
    var schedulerKills = 2
    /// Redis restarts that keep the data, and those that lose them; every third of the latter is a FLUSHALL.
    var redisRestarts = 1
    var redisLosses = 1
    var postgresRestarts = 1
    var workerStops = 1
    var networkSplits = 1
    var schedulerStops = 0
  }

  var seed: UInt64
  /// Profiles whose one account is limited: the limit of each.
  var profileLimits: [Int]
  /// Profiles whose mailboxes have accounts of their own: the limit of each.
  var mailboxLimits: [Int]
  /// Mailboxes of each of those.
  var mailboxesEach: Int
  var workers: Int
  var sessionsPerWorker: Int
  var schedulers: Int
  var leaseSeconds: Int
  var sessionSeconds: ClosedRange<Double>
  var faults: Faults
  /// Added to every allowed recovery time: for a machine on which other work runs too.
  var slackSeconds: Double
  /// Whether the cluster is kept busy, every limit reached, and recovery timed; a small one only runs.
  var isFull = true
  /// A mistake that the suite has to notice.
  var mistake: Mistake?

  /// 56 profiles, every kind of fault once at least.
  static func short(seed: UInt64) -> ChaosOptions {
    ChaosOptions(
      seed: seed, profileLimits: (0..<40).map { [1, 2, 1, 3, 2][$0 % 5] }, mailboxLimits: (0..<16).map { 1 + $0 % 4 },
      // Longer than a process may stand still on a busy machine: only a fault may end a lease.
      mailboxesEach: 2, workers: 8, sessionsPerWorker: 24, schedulers: 2, leaseSeconds: 6, sessionSeconds: 1.5...4,
      faults: Faults(), slackSeconds: 8)
  }

  /// A handful of profiles, for looking at one thing.
  static func small(seed: UInt64, mistake: Mistake?) -> ChaosOptions {
    // Only an ignored fence needs a late write to be seen.
    let stops = mistake == .slotNeverFreed || mistake == .completeBeforeCommit ? 0 : 1
    return ChaosOptions(
      seed: seed, profileLimits: [1, 2], mailboxLimits: [1, 3], mailboxesEach: 2, workers: 2, sessionsPerWorker: 16,
      schedulers: 1, leaseSeconds: 6, sessionSeconds: 0.2...0.6,
      faults: Faults(
        workerKills: 0, schedulerKills: 0, redisRestarts: 0, redisLosses: 0, postgresRestarts: 0, workerStops: stops,
        networkSplits: 0), slackSeconds: 5, isFull: false, mistake: mistake)
  }

  /// The long run, as the environment of `ops/chaos` describes it.
  static func long(_ environment: [String: String]) -> ChaosOptions {
    func number(_ name: String, _ fallback: Int) -> Int { environment["CHAOS_\(name)"].flatMap { Int($0) } ?? fallback }
    var options = short(seed: seed(environment))
    options.leaseSeconds = number("LEASE", 5)
    options.sessionSeconds = 2...6
    options.slackSeconds = Double(number("SLACK", 0))
    let kills = number("KILLS", 200)
    let redis = number("REDIS", 20)
    options.faults = Faults(
      workerKills: kills - kills / 10, schedulerKills: kills / 10, redisRestarts: redis / 2,
      redisLosses: redis - redis / 2, postgresRestarts: number("POSTGRES", 10), workerStops: number("STOPS", 5),
      networkSplits: number("SPLITS", 5), schedulerStops: number("LEADERS", 2))
    return options
  }

  /// Leaves only the faults of some kinds, five of each, to look at one thing.
  mutating func keep(only kinds: String) {
    var kept = Faults(
      workerKills: 0, schedulerKills: 0, redisRestarts: 0, redisLosses: 0, postgresRestarts: 0, workerStops: 0,
      networkSplits: 0)
    for kind in kinds.split(separator: ",") {
      switch kind {
      case "workers": kept.workerKills = 12
      case "schedulers": kept.schedulerKills = 4
      case "redis": (kept.redisRestarts, kept.redisLosses) = (5, 5)
      case "postgres": kept.postgresRestarts = 5
      case "stops": kept.workerStops = 5
      case "splits": kept.networkSplits = 5
      default: break
      }
    }
    faults = kept
  }

  /// The seed that is asked for, or a new one.
  static func seed(_ environment: [String: String]) -> UInt64 {
    environment["CHAOS_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...999_999_999)
  }
}

/// A mistake built into the cluster on purpose: the suite has to fail with each of them.
enum Mistake: String, Sendable, CaseIterable {
  /// Every row looks as if no session had ever written it, so that late ones may.
  case fenceIgnored = "fence-ignored"
  /// The queue's scripts take no job out of the slots.
  case slotNeverFreed = "slot-never-freed"
  /// A worker ends the lease before it commits.
  case completeBeforeCommit = "complete-before-commit"

  /// What it does to the scripts on their way into Redis.
  var scriptEdit: ScriptEdit? {
    guard self == .slotNeverFreed else { return nil }
    return { source in
      """
      local true_redis = redis
      local redis = setmetatable({ call = function(...)
        local command, key = ...
        local taken = command == 'ZREM' or command == 'SREM' or command == 'HDEL' or command == 'ZREMRANGEBYSCORE'
        if taken and string.find(key, ':slots:', 1, true) then return 1 end
        return true_redis.call(...)
      end }, { __index = true_redis })

      """ + source
    }
  }
}
