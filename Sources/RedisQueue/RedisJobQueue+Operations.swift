import PostriderCore

// Filled in by the parts that follow.
extension RedisJobQueue {
  /// Keeps jobs of these profiles' directions waiting.
  public func hold(_ holds: [LaneHold]) async throws { throw JobQueueError.misconfigured(reason: "not there yet") }
  /// Says that a worker lives.
  public func announce(worker: String, slots: Int) async throws {}
  /// Jobs that were set aside.
  public func poisoned(limit: Int) async throws -> [PoisonedJob] { [] }
  /// The numbers of the profiles with work.
  public func profiles(limit: Int) async throws -> [ProfileQueueStatistics] {
    throw JobQueueError.misconfigured(reason: "not there yet")
  }
  /// Checks the invariants and mends what is broken.
  public func repair(limit: Int) async throws -> RepairReport {
    throw JobQueueError.misconfigured(reason: "not there yet")
  }
}
