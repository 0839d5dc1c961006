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
/// Profiles are spread over shards, each with its jobs, leases and slots (see ``RedisQueueConfiguration/shards``); limits,
/// classes and turns hold inside a shard, and claims visit the shards in rotation.
///
/// The epoch is learned from the server. After ``JobQueueError/epochLost(reason:)`` the next call uses the server's new
/// epoch if there is one; leases of the old one are then `lost`.
public final class RedisJobQueue: JobQueue {
  /// How long a lease lasts without renewal.
  public let leaseDuration: Duration

  let shards: [RedisShard]
  let wakeups: RedisWakeups
  let rotation: ShardRotation
  /// The shard whose invariants are checked next.
  let repairing = Mutex(0)
  let sweeps: AsyncStream<Void>
  let sweep: AsyncStream<Void>.Continuation
  private let topology: any RedisTopology
  private let logger: Logger

  /// Makes a queue; nothing is connected before ``run()``.
  public init(configuration: RedisQueueConfiguration, logger: Logger) {
    let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
    leaseDuration = configuration.leaseDuration
    self.logger = logger
    let tools = RedisTools(eventLoop: eventLoop, logger: logger)
    let topology = configuration.topology(tools)
    self.topology = topology
    let count = configuration.shards
    shards = (0..<count).map {
      RedisShard(number: $0, of: count, keyPrefix: configuration.keyPrefix, topology: topology)
    }
    rotation = ShardRotation(count: count)
    wakeups = RedisWakeups(
      topology, channels: shards.map(\.wakeChannel), maximumReconnectDelay: configuration.maximumReconnectDelay,
      tools: tools)
    (sweeps, sweep) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  /// Keeps the connections until the task is cancelled; then closes them and returns. Call it once.
  public func run() async throws {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.topology.run() }
      group.addTask { await self.wakeups.run() }
      group.addTask { await self.runSweeper() }
    }
  }

  /// Whether the server answers and its settings are safe, now. Says nothing of the epoch.
  ///
  /// - Throws: ``JobQueueError/unavailable(reason:)`` or ``JobQueueError/misconfigured(reason:)``.
  public func checkHealth() async throws {
    try await onEachShard { (shard) throws(JobQueueError) in
      _ = try await shard.session().connection.command(["PING"])
    }
  }

  /// Checks what must always hold, reading everything: for tests and for finding the cause of something.
  ///
  /// - Returns: the broken rules in words; those that begin with `limit:` can also come from a limit that was lowered.
  public func verify() async throws -> [String] {
    let broken = try await onEachShard { (shard) throws(JobQueueError) in try await shard.verify() }
    return Array(broken.joined())
  }

  /// Removes the keys of older epochs, one sweep at a time, after an epoch was opened.
  private func runSweeper() async {
    for await _ in sweeps {
      do {
        for shard in shards { try await shard.removeOldEpochs() }
      } catch {
        logger.info("Keys of older epochs remain until the next epoch", metadata: ["error": "\(error)"])
      }
    }
  }
}
