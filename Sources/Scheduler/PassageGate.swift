import Synchronization

/// Knows which pages of due rows are on their way from PostgreSQL into the queue.
///
/// A page that was read before a mailbox changed its profile may enqueue its job under the old profile after that was
/// withdrawn. Whoever withdraws for good first waits until every page read before has arrived.
final class PassageGate: Sendable {
  private struct State {
    /// Grows with each ``settle()``.
    var age = 0
    /// Pages under way, by the age at which their read began.
    var underWay: [Int: Int] = [:]
    var waiters: [(age: Int, continuation: CheckedContinuation<Void, Never>)] = []

    mutating func ready() -> [CheckedContinuation<Void, Never>] {
      let oldest = underWay.keys.min() ?? .max
      let done = waiters.filter { $0.age < oldest }.map(\.continuation)
      waiters.removeAll { $0.age < oldest }
      return done
    }
  }

  /// One page on its way; its passage ends at the latest when nobody holds it any more.
  final class Passage: Sendable {
    private let gate: PassageGate
    private let age: Int
    private let ended = Mutex(false)

    fileprivate init(_ gate: PassageGate, age: Int) {
      self.gate = gate
      self.age = age
    }

    deinit { end() }

    /// The page has arrived, or never will.
    func end() {
      let ends = ended.withLock { ended in
        defer { ended = true }
        return !ended
      }
      if ends { gate.end(age) }
    }
  }

  private let state = Mutex(State())

  /// Begins a passage; call it before the read.
  func begin() -> Passage {
    let age = state.withLock { state in
      state.underWay[state.age, default: 0] += 1
      return state.age
    }
    return Passage(self, age: age)
  }

  /// Returns when every passage that began before has ended.
  func settle() async {
    await withCheckedContinuation { continuation in
      let ready = state.withLock { state in
        state.waiters.append((state.age, continuation))
        state.age += 1
        return state.ready()
      }
      for waiter in ready { waiter.resume() }
    }
  }

  /// How many settle; for tests.
  var waiterCount: Int { state.withLock { $0.waiters.count } }

  private func end(_ age: Int) {
    let ready = state.withLock { state in
      let left = (state.underWay[age] ?? 1) - 1
      state.underWay[age] = left > 0 ? left : nil
      return state.ready()
    }
    for waiter in ready { waiter.resume() }
  }
}
