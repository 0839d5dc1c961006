import Metrics
import Synchronization

/// How late the oldest due row is that is not in the queue yet, as a gauge that goes on growing while nothing moves.
final class ScheduleLag: Sendable {
  /// Who reads due rows.
  enum Reader: Hashable { case watermark, rescan }

  private let oldest = Mutex<[Reader: ContinuousClock.Instant]>([:])
  private let gauge = Meter(label: "postrider_schedule_lag_seconds")

  /// Notes the due time of the oldest row that a reader has before it; `nil` when there is none.
  ///
  /// - Parameters:
  ///   - dueMicroseconds: On the database's clock.
  ///   - nowMicroseconds: The database's clock now.
  func note(_ reader: Reader, dueMicroseconds: Int64?, nowMicroseconds: Int64) {
    let instant = dueMicroseconds.map { due in
      ContinuousClock.now - .microseconds(min(max(0, nowMicroseconds - due), 1_000_000_000_000))
    }
    oldest.withLock { $0[reader] = instant }
    publish()
  }

  /// How late it is now, in seconds.
  var seconds: Double {
    guard let instant = oldest.withLock({ $0.values.min() }) else { return 0 }
    return max(0, (ContinuousClock.now - instant) / .seconds(1))
  }

  /// Sets the gauge.
  func publish() { gauge.set(seconds) }

  /// Nobody reads any more.
  func clear() {
    oldest.withLock { $0 = [:] }
    gauge.set(0)
  }
}
