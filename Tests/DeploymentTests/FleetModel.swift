import Foundation
import PostriderCore

@testable import Telemetry

/// The same numbers for the same seed (SplitMix64).
struct SimulatedDice {
  var state: UInt64

  /// From 0 up to, but not, 1.
  mutating func next() -> Double {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Double((z ^ (z >> 31)) >> 11) / Double(1 << 53)
  }
}

/// A fleet of workers in simulated time: jobs come, wait, run and end; workers start with a delay and drain.
///
/// Only the mail servers and the clock are simulated. What the autoscaler sees is computed by the code of the endpoint from
/// the numbers that the queue would tell.
struct FleetModel {
  /// A stretch of time with one load.
  struct Phase {
    var name: String
    var seconds: Int
    /// Jobs that come in a second.
    var rate: Double
    /// Jobs that come at once at its beginning, as after an outage.
    var burst = 0
    /// Waiting jobs that a limit holds back all the while.
    var blocked = 0
  }

  /// What happened in one second.
  struct Moment {
    var replicas: Int
    var wanted: Int
    var ready: Int
    var inFlight: Int
  }

  let slots: Int
  let sessionSeconds: Double
  /// From the decision to start a pod until its worker claims.
  let startSeconds: Double
  var dice: SimulatedDice
  private(set) var now = 0.0
  private(set) var moments: [Moment] = []
  private(set) var done = 0
  private(set) var came = 0
  private var meter = QueueMeter()
  private var ready = 0
  /// Ends of the sessions of each worker.
  private var workers: [Worker]
  private var lastSync = -Double.infinity
  var scaler: Autoscaler
  let rule: ScaleRule

  /// Sessions begin and end at tenths of a second.
  private static let steps = 10

  private struct Worker {
    var worksFrom: Double
    var isDraining = false
    var sessions: [Double] = []
  }

  init(scaler: Autoscaler, slots: Int, sessionSeconds: Double, startSeconds: Double = 20, seed: UInt64) {
    self.scaler = scaler
    self.slots = slots
    self.sessionSeconds = sessionSeconds
    self.startSeconds = startSeconds
    dice = SimulatedDice(state: seed)
    rule = ScaleRule()
    workers = (0..<scaler.minimum).map { _ in Worker(worksFrom: 0) }
  }

  private var replicas: Int { workers.count { !$0.isDraining } }
  private var inFlight: Int { workers.reduce(0) { $0 + $1.sessions.count } }

  /// Plays a phase; returns its moments.
  mutating func play(_ phase: Phase) -> [Moment] {
    let first = moments.count
    arrive(phase.burst)
    for _ in 0..<phase.seconds {
      let second = now
      for step in 1...Self.steps {
        now = second + Double(step) / Double(Self.steps)
        arrive(poisson(phase.rate / Double(Self.steps)))
        runSessions()
      }
      let hint = hint(blocked: phase.blocked)
      if now - lastSync >= scaler.syncSeconds {
        lastSync = now
        resize(to: scaler.sync(at: now, metric: Double(hint.workers), replicas: replicas))
      }
      moments.append(Moment(replicas: replicas, wanted: hint.workers, ready: ready, inFlight: inFlight))
    }
    return Array(moments[first...])
  }

  private mutating func arrive(_ count: Int) {
    ready += count
    came += count
  }

  private mutating func runSessions() {
    for index in workers.indices {
      let before = workers[index].sessions.count
      workers[index].sessions.removeAll { $0 <= now }
      done += before - workers[index].sessions.count
      guard !workers[index].isDraining, workers[index].worksFrom <= now else { continue }
      while ready > 0, workers[index].sessions.count < slots {
        ready -= 1
        // Half to one and a half of the mean.
        workers[index].sessions.append(now + sessionSeconds * (0.5 + dice.next()))
      }
    }
    // A drained worker goes when its last session has ended.
    workers.removeAll { $0.isDraining && $0.sessions.isEmpty }
  }

  private mutating func hint(blocked: Int) -> ScaleHint {
    var statistics = QueueStatistics()
    statistics.ready = ["poll": ready + blocked]
    statistics.blocked = ["limit": blocked]
    statistics.inFlight = inFlight
    statistics.finished = done
    statistics.epoch = 1
    statistics.serverMilliseconds = Int64(now * 1_000)
    statistics.workers = workers.count { !$0.isDraining && $0.worksFrom <= now }
    statistics.workerSlots = statistics.workers * slots
    meter.add(statistics)
    return rule.hint(statistics, meanSessionSeconds: meter.meanSessionSeconds)
  }

  private mutating func resize(to wanted: Int) {
    while replicas < wanted { workers.append(Worker(worksFrom: now + startSeconds)) }
    while replicas > wanted {
      // The newest go first, as a ReplicaSet chooses.
      guard let last = workers.lastIndex(where: { !$0.isDraining }) else { return }
      workers[last].isDraining = true
    }
  }

  /// Knuth's, in parts for a big mean.
  private mutating func poisson(_ mean: Double) -> Int {
    var count = 0
    var left = mean
    while left > 0 {
      let part = min(left, 30)
      left -= part
      let limit = exp(-part)
      var product = dice.next()
      while product > limit {
        count += 1
        product *= dice.next()
      }
    }
    return count
  }
}

extension [FleetModel.Moment] {
  /// Changes of the number of replicas: the second, and by how many.
  private var changes: [(second: Int, by: Int)] {
    zip(self, dropFirst()).enumerated().map { ($0.offset, $0.element.1.replicas - $0.element.0.replicas) }
      .filter { $0.by != 0 }
  }

  /// How often the number turned round – up after down, or down after up – within five minutes.
  var flaps: Int {
    zip(changes, changes.dropFirst()).count { ($0.by > 0) != ($1.by > 0) && $1.second - $0.second < 300 }
  }

  /// The numbers of replicas, each with how many seconds it stayed: for the message of a failure.
  var story: String {
    var parts: [(Int, Int)] = []
    for moment in self {
      if parts.last?.0 == moment.replicas { parts[parts.count - 1].1 += 1 } else { parts.append((moment.replicas, 1)) }
    }
    return parts.map { "\($0.0)×\($0.1)s" }.joined(separator: " ")
  }
}
