import Logging
import NIOCore
import NIOPosix
import PostriderCore
import Synchronization

/// The job queue in Redis 6.2 or newer, or Valkey.
///
/// Make one per process, run ``run()`` as a service beside it and call from anywhere. Calls share one connection and wait
/// for their answers together. Each ends within the call timeout, also in a cancelled task, so that leases can be given
/// back while a process stops. While the server is away calls fail at once with ``JobQueueError/unavailable(reason:)``;
/// only before the first attempt to connect has ended do they wait for it.
///
/// The epoch is learned from the server. After ``JobQueueError/epochLost(reason:)`` the next call uses the server's new
/// epoch if there is one; leases of the old one are then `lost`.
public final class RedisJobQueue: JobQueue {
  /// How long a lease lasts without renewal.
  public let leaseDuration: Duration

  let link: RedisLink
  let wakeups: RedisWakeups
  /// `<prefix>:{<shard>}:`, what the keys of the shard begin with. The braces keep them in one Redis Cluster slot.
  let shardPrefix: String
  let keyPrefix: String
  let epochs = EpochMemory()
  let sweeps: AsyncStream<Void>
  let sweep: AsyncStream<Void>.Continuation
  private let logger: Logger

  /// Makes a queue; nothing is connected before ``run()``.
  public init(configuration: RedisQueueConfiguration, logger: Logger) {
    let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
    leaseDuration = configuration.leaseDuration
    shardPrefix = "\(configuration.keyPrefix):{0}:"
    keyPrefix = configuration.keyPrefix
    self.logger = logger
    link = RedisLink(configuration: configuration, eventLoop: eventLoop, logger: logger)
    wakeups = RedisWakeups(
      configuration: configuration, channelName: shardPrefix + "wake", eventLoop: eventLoop, logger: logger)
    (sweeps, sweep) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  /// Keeps the connections until the task is cancelled; then closes them and returns. Call it once.
  public func run() async throws {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.link.run() }
      group.addTask { await self.wakeups.run() }
      group.addTask { await self.runSweeper() }
    }
  }

  /// Whether the server answers and its settings are safe, now. Says nothing of the epoch.
  ///
  /// - Throws: ``JobQueueError/unavailable(reason:)`` or ``JobQueueError/misconfigured(reason:)``.
  public func checkHealth() async throws {
    try await link.session().connection.command(["PING"])
  }

  /// Checks what must always hold, reading everything: for tests and for finding the cause of something.
  ///
  /// - Returns: the broken rules in words; those that begin with `limit:` can also come from a limit that was lowered.
  public func verify() async throws -> [String] {
    let (reply, _) = try await call(.verify, [])
    return (reply.array ?? []).compactMap(\.string)
  }

  /// Removes the keys of older epochs, one sweep at a time, after an epoch was opened.
  private func runSweeper() async {
    for await _ in sweeps {
      do {
        try await removeOldEpochs()
      } catch {
        logger.info("Keys of older epochs remain until the next epoch", metadata: ["error": "\(error)"])
      }
    }
  }
}

/// The epoch that this process works in.
final class EpochMemory: Sendable {
  private let known = Mutex<Int64?>(nil)

  var current: Int64? { known.withLock { $0 } }

  /// Takes a newer epoch; never goes back.
  func learn(_ epoch: Int64) {
    known.withLock { $0 = max($0 ?? epoch, epoch) }
  }

  /// Forgets an epoch that the server does not hold, so that the next call asks.
  func forget(_ epoch: Int64) {
    known.withLock { if $0 == epoch { $0 = nil } }
  }
}
