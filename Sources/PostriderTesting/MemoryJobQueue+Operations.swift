import PostriderCore

extension MemoryJobQueue {
  /// Keeps jobs of these profiles' directions waiting, or lifts that.
  public func hold(_ holds: [LaneHold]) async throws { try change { $0.hold(holds) } }

  /// Says that a worker lives and how many sessions it can run at once.
  public func announce(worker: String, slots: Int) async throws {
    try change { $0.announce(worker: worker, slots: slots) }
  }

  /// Jobs that were set aside, oldest first, at most `limit`.
  public func poisoned(limit: Int) async throws -> [PoisonedJob] {
    try change { state in
      let all = state.poisoned.values.sorted { ($0.sinceMilliseconds, $0.job) < ($1.sinceMilliseconds, $1.job) }
      return Array(all.prefix(max(0, limit)))
    }
  }

  /// The numbers of the profiles with work, most waiting jobs first, at most `limit`.
  public func profiles(limit: Int) async throws -> [ProfileQueueStatistics] {
    try change { Array($0.profileStatistics().prefix(max(0, limit))) }
  }

  /// Looks at everything at once. Nothing can be broken in memory, so nothing is mended.
  public func repair(limit: Int) async throws -> RepairReport {
    try change { RepairReport(examined: $0.leased.count + $0.waiting.count, isComplete: true) }
  }
}
