import PostriderCore

// Filled in by the parts that follow: one shard's share of what RedisJobQueue+Operations.swift merges.
extension RedisShard {
  /// Keeps jobs of these profiles' directions waiting; all of them are this shard's.
  func hold(_ holds: [LaneHold]) async throws(JobQueueError) { throw .misconfigured(reason: "not there yet") }

  /// Says that a worker lives. Each shard knows every worker.
  func announce(worker: String, slots: Int) async throws(JobQueueError) {}

  /// Jobs of this shard that were set aside, oldest first.
  func poisoned(limit: Int) async throws(JobQueueError) -> [PoisonedJob] { [] }

  /// The numbers of the profiles with work, most waiting jobs first.
  func profiles(limit: Int) async throws(JobQueueError) -> [ProfileQueueStatistics] {
    throw .misconfigured(reason: "not there yet")
  }

  /// Checks the invariants of about `limit` entries and mends what is broken; goes on from there at the next call.
  func repair(limit: Int) async throws(JobQueueError) -> RepairReport { throw .misconfigured(reason: "not there yet") }
}
