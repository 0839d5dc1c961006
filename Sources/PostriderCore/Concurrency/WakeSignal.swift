import Synchronization

/// A wake-up that is remembered: a wait that begins after the signal returns at once, many signals count as one.
///
/// Unlike an `AsyncStream` it survives the cancellation of a waiting task.
public final class WakeSignal: Sendable {
  private struct State {
    var signaled = false
    var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
    var nextWaiter = 0
  }

  private let state = Mutex(State())

  /// A signal that was not given yet.
  public init() {}

  /// Wakes everybody who waits, or the next one who will.
  public func signal() {
    let waiters = state.withLock { state in
      let waiters = state.waiters
      state.waiters = [:]
      if waiters.isEmpty { state.signaled = true }
      return waiters
    }
    for waiter in waiters.values { waiter.resume() }
  }

  /// Returns when signaled or when the task is cancelled.
  public func wait() async {
    let id = state.withLock { state in
      state.nextWaiter += 1
      return state.nextWaiter
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let resumeNow = state.withLock { state in
          if state.signaled || Task.isCancelled {
            state.signaled = false
            return true
          }
          state.waiters[id] = continuation
          return false
        }
        if resumeNow { continuation.resume() }
      }
    } onCancel: {
      state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
    }
  }

  /// Returns when signaled, after `timeout`, or when the task is cancelled.
  public func wait(timeout: Duration) async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.wait() }
      // Cancelled when the signal came first.
      group.addTask { try? await Task.sleep(for: timeout) }
      await group.next()
      group.cancelAll()
    }
  }
}
