import PostriderCore

/// What two readings of the queue say about the time between them: how fast jobs end and how long a session takes.
struct QueueMeter: Sendable {
  private struct Reading {
    var milliseconds: Int64
    var epoch: Int64
    var finished: Int
    var inFlight: Int
  }

  /// A reading older than this is of no use any more.
  private static let memoryMilliseconds: Int64 = 120_000
  /// The time the numbers are taken over, where there are readings so far apart.
  private static let windowMilliseconds: Int64 = 10_000
  /// Readings closer than this say too little.
  private static let leastMilliseconds: Int64 = 500
  private static let maximumReadings = 256

  private var readings: [Reading] = []
  /// Leases completed in a second; `nil` before the second reading.
  private(set) var jobsPerSecond: Double?
  /// How long a session takes, by Little's law: sessions in flight ÷ sessions ended in a second. Stays while none end.
  private(set) var meanSessionSeconds: Double?

  /// Takes a reading into account.
  mutating func add(_ statistics: QueueStatistics) {
    let new = Reading(
      milliseconds: statistics.serverMilliseconds, epoch: statistics.epoch, finished: statistics.finished,
      inFlight: statistics.inFlight)
    // A new epoch counts from zero, and so does another server's clock.
    if let last = readings.last,
      last.epoch != new.epoch || last.finished > new.finished || last.milliseconds > new.milliseconds
    {
      readings = []
      jobsPerSecond = nil
    }
    if let last = readings.last, new.milliseconds - last.milliseconds < Self.leastMilliseconds { return }
    readings.append(new)
    readings.removeAll { new.milliseconds - $0.milliseconds > Self.memoryMilliseconds }
    if readings.count > Self.maximumReadings { readings.removeFirst() }
    guard readings.count > 1 else {
      jobsPerSecond = nil
      return
    }
    let start = readings.lastIndex { new.milliseconds - $0.milliseconds >= Self.windowMilliseconds } ?? 0
    let window = readings[start...]
    guard let first = window.first else { return }
    let seconds = Double(new.milliseconds - first.milliseconds) / 1_000
    let rate = Double(new.finished - first.finished) / seconds
    jobsPerSecond = rate
    guard rate > 0 else { return }
    let inFlight = zip(window, window.dropFirst()).reduce(0.0) { sum, pair in
      sum + Double(pair.0.inFlight + pair.1.inFlight) / 2 * Double(pair.1.milliseconds - pair.0.milliseconds) / 1_000
    }
    // Sessions end by their deadline; a moment between two readings can show none of many short ones.
    meanSessionSeconds = min(max(inFlight / seconds / rate, 0.02), 3_600)
  }
}

/// A queue's numbers with what earlier readings add to them.
public struct QueueReading: Hashable, Sendable {
  /// The numbers.
  public var statistics: QueueStatistics
  /// Leases completed in a second, over about ten seconds; `nil` before the second reading.
  public var jobsPerSecond: Double?
  /// How long a session takes on average; `nil` before any was measured.
  public var meanSessionSeconds: Double?
}
