import NIOCore
import NIOPosix
import PostriderCore

/// The threads on which logins are computed. Begun with the first login that needs them, and there as long as the
/// process.
enum SASLThreads {
  /// Hashing takes a processor: more threads than processors would only make everybody wait.
  private static let hashing = started(System.coreCount)
  /// A KDC that does not answer holds its thread for as long as krb5.conf says; nothing else waits for these.
  private static let directory = started(4)

  /// Runs a computation and tells its result on the event loop.
  static func run(
    _ computation: SASLComputation, on eventLoop: any EventLoop
  ) -> EventLoopFuture<Result<SASLOutput, Failure>> {
    let pool =
      switch computation.kind {
      case .hashing: hashing
      case .directory: directory
      }
    return pool.runIfActive(eventLoop: eventLoop) { computation.run() }
  }

  private static func started(_ count: Int) -> NIOThreadPool {
    let pool = NIOThreadPool(numberOfThreads: count)
    pool.start()
    return pool
  }
}
