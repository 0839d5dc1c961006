import Logging
import PostriderCore
import ServiceLifecycle

/// Carries batches out, step by step; runs in every process of the API, and any number of them share the work.
public struct BatchRunner: Service {
  private let queue: any BatchQueue
  private let idleWait: Duration
  private let logger: Logger

  /// How often a process tidies up.
  private static let tidying: Duration = .seconds(600)

  /// A runner over a queue.
  ///
  /// - Parameter idleWait: how often it looks for work that other processes took in, and for what workers have done.
  public init(queue: any BatchQueue, idleWait: Duration = .seconds(1), logger: Logger) {
    self.queue = queue
    self.idleWait = idleWait
    self.logger = logger
  }

  /// Works until the service is stopped: a step that has begun is finished.
  public func run() async throws {
    await cancelWhenGracefulShutdown {
      var tidied: ContinuousClock.Instant?
      var failures = 0
      while !Task.isCancelled {
        do {
          if tidied.map({ ContinuousClock.now - $0 >= Self.tidying }) ?? true {
            try await queue.tidyBatches()
            tidied = .now
          }
          let step = try await queue.advanceBatch()
          failures = 0
          if step == .idle { await queue.waitForBatch(atMost: idleWait * Double.random(in: 0.7...1.3)) }
        } catch is CancellationError {
          return
        } catch {
          failures += 1
          if failures == 1 {
            logger.warning("Batches cannot be carried out at the moment", metadata: ["error": "\(error)"])
          }
          // Cancelled, the loop's condition sees it.
          try? await Task.sleep(for: .seconds(min(failures, 10)))
        }
      }
    }
  }
}
