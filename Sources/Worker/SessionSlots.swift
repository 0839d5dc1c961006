import PostriderCore
import Synchronization

/// How many sessions may run at once in this process, and how many do.
final class SessionSlots: Sendable {
  let capacity: Int
  private let taken = Mutex(0)
  private let freed = WakeSignal()

  init(capacity: Int) { self.capacity = capacity }

  /// How many are taken.
  var busy: Int { taken.withLock { $0 } }

  /// Takes up to `limit` free slots, at least one; waits while there is none. Returns 0 only when cancelled.
  func take(upTo limit: Int) async -> Int {
    while !Task.isCancelled {
      let count = taken.withLock { taken in
        let count = min(limit, capacity - taken)
        taken += max(count, 0)
        return count
      }
      if count > 0 { return count }
      await freed.wait()
    }
    return 0
  }

  /// Gives slots back.
  func release(_ count: Int = 1) {
    guard count > 0 else { return }
    taken.withLock { taken in
      precondition(count <= taken, "a slot is given back once")
      taken -= count
    }
    freed.signal()
  }

  /// Returns when no slot is taken, after `timeout`, or when cancelled.
  func waitUntilIdle(timeout: Duration) async {
    let clock = ContinuousClock()
    let end = clock.now + timeout
    while busy > 0 && clock.now < end && !Task.isCancelled {
      await freed.wait(timeout: end - clock.now)
    }
  }
}
