/// How many workers the work at hand wants.
///
/// Workers wanted = max(1, ⌈(in-flight + runnable × mean session seconds ÷ target seconds) ÷ (slots per worker × 0.8)⌉).
/// What a limit, a pause or a hold keeps back never counts: more workers cannot help it.
public struct ScaleRule: Hashable, Sendable {
  /// How full a worker should be; the rest is room for what comes at once.
  public static let utilization = 0.8
  /// The mean session before any was measured.
  public static let assumedSessionSeconds = 2.0
  /// No more workers than this are ever wanted.
  public static let maximumWorkers = 10_000

  /// Within how many seconds the waiting jobs should be worked off; above 0.
  public var targetSeconds: Double
  /// Sessions of one worker at once; `nil` for what the workers announce.
  public var slotsPerWorker: Int?
  /// The same before any worker announced itself; 1 and up.
  public var assumedSlotsPerWorker: Int

  /// A rule; values out of range are moved into it.
  public init(targetSeconds: Double = 10, slotsPerWorker: Int? = nil, assumedSlotsPerWorker: Int = 64) {
    self.targetSeconds = max(targetSeconds, 0.1)
    self.slotsPerWorker = slotsPerWorker.flatMap { $0 > 0 ? $0 : nil }
    self.assumedSlotsPerWorker = max(1, assumedSlotsPerWorker)
  }

  /// The hint for a queue's numbers.
  ///
  /// - Parameters:
  ///   - statistics: the queue; `nil` when there never was a reading.
  ///   - meanSessionSeconds: as measured; `nil` before that.
  ///   - isCurrent: whether the numbers are of now.
  public func hint(_ statistics: QueueStatistics?, meanSessionSeconds: Double?, isCurrent: Bool = true) -> ScaleHint {
    let queue = statistics ?? QueueStatistics()
    let announced = queue.workers > 0 ? queue.workerSlots / queue.workers : 0
    let slots = slotsPerWorker ?? (announced > 0 ? announced : assumedSlotsPerWorker)
    let mean = meanSessionSeconds ?? Self.assumedSessionSeconds
    let runnable = max(0, queue.totalReady - queue.blocked.values.reduce(0, +))
    let busy = Double(queue.inFlight) + Double(runnable) * mean / targetSeconds
    let wanted = (busy / (Double(slots) * Self.utilization)).rounded(.up)
    return ScaleHint(
      workers: Int(min(max(wanted, 1), Double(Self.maximumWorkers))), inFlight: queue.inFlight, runnable: runnable,
      meanSessionSeconds: mean, targetSeconds: targetSeconds, slotsPerWorker: slots, presentWorkers: queue.workers,
      presentSlots: queue.workerSlots, isCurrent: isCurrent)
  }
}
