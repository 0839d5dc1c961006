import Dispatch
import Foundation
import Synchronization

/// A serial executor that is one thread of its own, so that a blocking call of libpq never holds a thread that other
/// tasks need.
///
/// The thread lives until ``stop()``, which the owning actor calls in its deinitializer: after that no job can come.
final class ThreadExecutor: SerialExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var stopped = false
  }

  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)

  /// Starts the thread.
  init(name: String) {
    Thread.detachNewThread { [self] in
      Thread.current.name = name
      loop()
    }
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    state.withLock { $0.jobs.append(job) }
    wake.signal()
  }

  /// Ends the thread once the jobs enqueued so far are done.
  func stop() {
    state.withLock { $0.stopped = true }
    wake.signal()
  }

  private func loop() {
    while true {
      wake.wait()
      let (jobs, stopped) = state.withLock { state in
        let jobs = state.jobs
        state.jobs.removeAll(keepingCapacity: true)
        return (jobs, state.stopped)
      }
      for job in jobs { job.runSynchronously(on: asUnownedSerialExecutor()) }
      if stopped && jobs.isEmpty { return }
      if stopped { wake.signal() }
    }
  }
}
