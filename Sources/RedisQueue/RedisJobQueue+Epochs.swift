import PostriderCore

extension RedisJobQueue {
  /// The greatest epoch: fences are epoch · 2³² + counter in 63 bits.
  private static let greatestEpoch = Int64(Int32.max)

  /// Opens an epoch in every shard where it is greater than the present one. Keys of older epochs are removed afterwards,
  /// in the background.
  ///
  /// - Throws: ``JobQueueError/unavailable(reason:)`` while any shard cannot be reached, and
  ///   ``JobQueueError/misconfigured(reason:)`` when the queue has another number of shards, before any is changed: opened
  ///   in some shards only, it would end the work of those for nothing.
  public func open(epoch: Int64, delay: Duration) async throws {
    guard (1...Self.greatestEpoch).contains(epoch) else {
      throw JobQueueError.misconfigured(reason: "an epoch must be 1 to \(Self.greatestEpoch), not \(epoch)")
    }
    if shards.count > 1 {
      try await onEachShard { (shard) throws(JobQueueError) in _ = try await shard.currentEpoch() }
    }
    try await onEachShard { (shard) throws(JobQueueError) in try await shard.open(epoch: epoch, delay: delay) }
    sweep.yield()
  }

  /// The epoch that every shard holds, or `nil` when one of them was emptied or replaced or holds another one.
  public func currentEpoch() async throws -> Int64? {
    let held = try await onEachShard { (shard) throws(JobQueueError) in try await shard.currentEpoch() }
    guard let first = held.first, held.allSatisfy({ $0 == first }) else { return nil }
    return first
  }
}
