import PostriderCore

extension RedisJobQueue {
  /// Keeps jobs of these profiles' directions waiting, or lifts that.
  public func hold(_ holds: [LaneHold]) async throws {
    try await onEach(parts(holds, by: \.profile)) { (shard, part) throws(JobQueueError) in try await shard.hold(part) }
  }

  /// Says that a worker lives and how many sessions it can run at once; every shard is told.
  public func announce(worker: String, slots: Int) async throws {
    try await onEachShard { (shard) throws(JobQueueError) in try await shard.announce(worker: worker, slots: slots) }
  }

  /// Jobs that were set aside, oldest first, at most `limit`.
  public func poisoned(limit: Int) async throws -> [PoisonedJob] {
    let all = try await onEachShard { (shard) throws(JobQueueError) in try await shard.poisoned(limit: limit) }
    guard all.count > 1 else { return all.first ?? [] }
    return Array(all.joined().sorted { $0.sinceMilliseconds < $1.sinceMilliseconds }.prefix(max(0, limit)))
  }

  /// The numbers of the profiles with work, most waiting jobs first, at most `limit`.
  public func profiles(limit: Int) async throws -> [ProfileQueueStatistics] {
    let all = try await onEachShard { (shard) throws(JobQueueError) in try await shard.profiles() }
    let sorted = all.joined().map(\.statistics).sorted {
      ($1.totalReady, $0.profileID) < ($0.totalReady, $1.profileID)
    }
    return Array(sorted.prefix(max(0, limit)))
  }

  /// Checks the invariants of about `limit` entries, one shard after the other, and mends what is broken.
  public func repair(limit: Int) async throws -> RepairReport {
    let number = repairing.withLock { $0 }
    var report = try await shards[number].repair(limit: limit, lease: leaseDuration)
    if report.isComplete {
      let next = (number + 1) % shards.count
      repairing.withLock { $0 = next }
      report.isComplete = next == 0
    }
    return report
  }
}
