import PostriderCore

extension RedisJobQueue {
  /// The numbers of the queue. Costs the server some microseconds per profile with work: cache it for seconds.
  public func statistics() async throws -> QueueStatistics {
    let all = try await onEachShard { (shard) throws(JobQueueError) in try await shard.statistics() }
    guard var sum = all.first else { return QueueStatistics() }
    for part in all.dropFirst() {
      guard part.epoch == sum.epoch else {
        throw JobQueueError.epochLost(reason: "the shards hold different epochs, \(sum.epoch) and \(part.epoch)")
      }
      sum.add(part)
    }
    return sum
  }

  /// Where jobs are, under the profiles they are given with.
  public func inspect(_ jobs: [Job]) async throws -> [JobLocation] {
    let found = try await inOrder(jobs, by: \.profile) { (shard, part) throws(JobQueueError) in
      try await shard.inspect(part)
    }
    guard let load = found.first?.1 else { return [] }
    // Every shard knows every worker, and of the leases only its own.
    let leased =
      shards.count == 1 || !found.contains { $0.0.blockedBy == "turn" }
      ? load.leased : Int64(try await statistics().inFlight)
    return found.map { location, _ in
      var location = location
      if location.blockedBy == "turn" {
        if load.workers == 0 {
          location.blockedBy = "no-worker"
        } else if leased >= load.slots {
          location.blockedBy = "workers-busy"
        }
      }
      return location
    }
  }

  /// Returns when there may be work, or after about `timeout` (up to a fifth less). With more than two shards the timeout
  /// is stretched by half their number, so that an idle worker's claims, which visit all of them, stay few. While the
  /// server is away it only waits.
  ///
  /// - Throws: `CancellationError` when the task is cancelled.
  public func waitForWork(timeout: Duration) async throws {
    try await wakeups.wait(timeout: timeout * max(1, Double(shards.count) / 2))
  }
}

extension QueueStatistics {
  /// Adds another shard's numbers. Each shard knows every worker, so those are not added.
  fileprivate mutating func add(_ other: QueueStatistics) {
    ready.merge(other.ready, uniquingKeysWith: +)
    blocked.merge(other.blocked, uniquingKeysWith: +)
    oldestDueMilliseconds.merge(other.oldestDueMilliseconds, uniquingKeysWith: min)
    inFlight += other.inFlight
    reclaimed += other.reclaimed
    finished += other.finished
    poisoned += other.poisoned
    workers = max(workers, other.workers)
    workerSlots = max(workerSlots, other.workerSlots)
  }
}
