import PostriderCore
import Synchronization

/// One part of the queue: the profiles whose hash falls to it, with all their jobs, leases and slots.
///
/// Its keys share one hash tag, `<prefix>:{<number>}:`, so that each script touches one slot of a Redis Cluster. Nothing
/// connects two shards but the epoch, which is opened in all of them.
final class RedisShard: Sendable {
  /// 0…count − 1.
  let number: Int
  /// How many shards the queue has; fixed when it is installed.
  let count: Int
  /// `<key prefix>:{<number>}:`, what its keys begin with.
  let prefix: String
  let epochs = EpochMemory()
  /// The Cluster slot of its keys.
  let slot: Int
  private let topology: any RedisTopology

  init(number: Int, of count: Int, keyPrefix: String, topology: any RedisTopology) {
    self.number = number
    self.count = count
    prefix = "\(keyPrefix):{\(number)}:"
    slot = RedisSlot.number(of: prefix)
    self.topology = topology
  }

  /// Its epoch's key, the one that every script declares.
  var epochKey: String { prefix + "epoch" }
  /// The channel on which its scripts say that something became ready.
  var wakeChannel: String { prefix + "wake" }

  /// The connection to the server that holds its keys.
  func session() async throws(JobQueueError) -> RedisSession { try await topology.session(slot: slot) }

  /// Sends a command about keys of this shard to the server that holds them now. Returns the reply, which may be an error,
  /// and the connection it came from. `command` is asked for the command once for each server that has to be tried.
  func send(
    _ command: (RedisSession) -> [String]
  ) async throws(JobQueueError) -> (RedisValue, RedisSession) {
    try await topology.send(slot: slot, command)
  }

  /// The shard of a profile among `count`: a hash that depends on nothing else and never changes.
  static func number(of profile: ProfileID, among count: Int) -> Int {
    // The finalizer of SplitMix64: ids that follow each other are spread evenly.
    var z = UInt64(bitPattern: profile.value) &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Int((z ^ (z >> 31)) % UInt64(count))
  }

  /// The fence of a lease. The shards' counters are interleaved, so that no two leases of an epoch have the same one.
  func fence(_ counter: Int64, in epoch: Int64) -> Fence {
    Fence(epoch << 32 | (counter * Int64(count) + Int64(number)))
  }

  /// The shard's counter in a fence of this shard.
  func counter(of fence: Fence) -> Int64 { (fence.value & 0xFFFF_FFFF) / Int64(count) }
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
