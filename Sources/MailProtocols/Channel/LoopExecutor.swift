import NIOCore

/// Runs tasks on an event loop: a session and its connection on one thread.
///
/// A command and its answer then cost no wake-up of another thread, which is most of what an empty poll costs otherwise.
/// The loop must outlive the tasks.
final class LoopExecutor: TaskExecutor {
  let eventLoop: any EventLoop

  init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}
