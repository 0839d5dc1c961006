import CoreMetrics
import Synchronization

/// A number that threads change without a lock: a `Double` kept as its bits.
struct AtomicDouble: ~Copyable, Sendable {
  private let bits = Atomic<UInt64>(0)

  var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

  func set(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

  func add(_ amount: Double) {
    var old = bits.load(ordering: .relaxed)
    while true {
      let new = (Double(bitPattern: old) + amount).bitPattern
      let result = bits.compareExchange(expected: old, desired: new, ordering: .relaxed)
      if result.exchanged { return }
      old = result.original
    }
  }
}

/// One counter with its label values.
final class CounterSeries: CounterHandler, FloatingPointCounterHandler, Sendable {
  private let number = AtomicDouble()

  var value: Double { number.value }

  func increment(by amount: Int64) { increment(by: Double(amount)) }

  func increment(by amount: Double) {
    // A counter that shrinks would look like a restart, and NaN would stay for ever.
    if amount > 0 && amount.isFinite { number.add(amount) }
  }

  func reset() { number.set(0) }
}

/// One gauge with its label values.
final class GaugeSeries: MeterHandler, RecorderHandler, Sendable {
  private let number = AtomicDouble()

  var value: Double { number.value }

  func set(_ value: Int64) { number.set(Double(value)) }
  func set(_ value: Double) { number.set(value) }
  func increment(by amount: Double) { number.add(amount) }
  func decrement(by amount: Double) { number.add(-amount) }
  func record(_ value: Int64) { number.set(Double(value)) }
  func record(_ value: Double) { number.set(value) }
}

/// One histogram with its label values.
final class HistogramSeries: TimerHandler, RecorderHandler, Sendable {
  /// What was observed so far.
  struct State {
    /// Observations per bucket, not added up; the last one is everything above the highest bound.
    var counts: [UInt64]
    var sum = 0.0
  }

  let bounds: [Double]
  private let state: Mutex<State>

  init(bounds: [Double]) {
    self.bounds = bounds
    state = Mutex(State(counts: [UInt64](repeating: 0, count: bounds.count + 1)))
  }

  var snapshot: State { state.withLock { $0 } }

  func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
  func record(_ value: Int64) { record(Double(value)) }

  func record(_ value: Double) {
    guard value.isFinite else { return }
    let bucket = bounds.firstIndex { value <= $0 } ?? bounds.count
    state.withLock {
      $0.counts[bucket] += 1
      $0.sum += value
    }
  }
}
