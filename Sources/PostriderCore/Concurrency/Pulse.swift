import Synchronization

/// Tells whether a loop that must never stand still goes on.
///
/// The loop beats once a round. Before a wait that may rightly take any time, such as that for a free place, it rests;
/// its next beat ends the rest.
public final class Pulse: Sendable {
  /// How long a loop may go without a beat: longer than every call that it makes may take.
  public static let limit: Duration = .seconds(60)

  private let last = Mutex<ContinuousClock.Instant?>(.now)

  /// A pulse that beats now.
  public init() {}

  /// The loop goes on.
  public func beat() { last.withLock { $0 = .now } }

  /// The loop waits, for as long as it takes.
  public func rest() { last.withLock { $0 = nil } }

  /// Whether the loop rests, or its last beat is younger than `limit` at that moment.
  public func isAlive(
    at now: ContinuousClock.Instant = .now, within limit: Duration = Pulse.limit
  ) -> Bool {
    guard let last = last.withLock({ $0 }) else { return true }
    return now - last < limit
  }
}
