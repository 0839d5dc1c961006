import Logging
import PostriderCore
import Synchronization

/// Ends leases in batches: what arrives while a call is under way is the next call.
///
/// One round trip to the queue per batch instead of one per job, without any timer. When the queue cannot be told, the
/// lease ends by itself and the next worker finds the job not due.
final class JobFinisher: Sendable {
  private struct State {
    var completed: [Lease] = []
    var returned: [Lease] = []
    var stopping = false
  }

  private let queue: any JobQueue
  private let logger: Logger
  private let state = Mutex(State())
  private let work = WakeSignal()

  init(queue: any JobQueue, logger: Logger) {
    self.queue = queue
    self.logger = logger
  }

  /// Ends a lease whose outcome is committed.
  func complete(_ lease: Lease) {
    state.withLock { $0.completed.append(lease) }
    work.signal()
  }

  /// Ends a lease whose work was not done.
  func giveBack(_ lease: Lease) {
    state.withLock { $0.returned.append(lease) }
    work.signal()
  }

  /// Lets ``run()`` end as soon as everything is told.
  func stop() {
    state.withLock { $0.stopping = true }
    work.signal()
  }

  /// Tells the queue until stopped, or until cancelled.
  func run() async {
    while true {
      let stopping = state.withLock { $0.stopping }
      if await tell() { continue }
      if stopping || Task.isCancelled { return }
      await work.wait()
    }
  }

  /// Tells the queue what has come together. Returns whether there was anything.
  @discardableResult
  func tell() async -> Bool {
    let (completed, returned) = state.withLock { state in
      defer {
        state.completed = []
        state.returned = []
      }
      return (state.completed, state.returned)
    }
    if completed.isEmpty && returned.isEmpty { return false }
    do {
      if !completed.isEmpty { try await queue.complete(completed) }
      if !returned.isEmpty { try await queue.giveBack(returned) }
    } catch {
      logger.warning(
        "Cannot end leases", metadata: ["error": "\(error)", "jobs": "\(completed.count + returned.count)"])
    }
    return true
  }
}
