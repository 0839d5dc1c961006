/// How long to wait after repeated failures: exponential with full jitter (errors table, class `transient`).
///
/// The n-th wait is uniform in (0, min(cap, base · 2ⁿ⁻¹)], but never under a tenth of that bound, so that a whole fleet
/// that failed at once comes back spread out. The cap is the larger of 60 minutes and the polling interval.
public struct Backoff: Hashable, Sendable {
  /// The bound of the first wait.
  public var base: Duration
  /// The greatest bound.
  public var cap: Duration

  /// The default of the errors table: from one minute, to the larger of 60 minutes and the polling interval.
  public init(base: Duration = .seconds(60), cap: Duration = .seconds(3_600)) {
    self.base = base
    self.cap = cap
  }

  /// The wait after `failures` consecutive failures (1 and up).
  public func delay(afterFailures failures: Int, using generator: inout some RandomNumberGenerator) -> Duration {
    precondition(failures >= 1, "a back-off follows a failure")
    let doublings = min(failures - 1, 40)
    let factor = Double(UInt64(1) << UInt64(doublings))
    let bound = min(cap / Duration.seconds(1), (base / Duration.seconds(1)) * factor)
    let share = Double.random(in: 0.1...1, using: &generator)
    return .milliseconds(Int64(bound * share * 1_000))
  }
}
