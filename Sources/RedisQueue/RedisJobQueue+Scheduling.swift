import PostriderCore

extension RedisJobQueue {
  /// Tells the queue about profiles, new or changed.
  public func update(profiles: [QueueProfile]) async throws {
    try await onEach(parts(profiles, by: \.id)) { (shard, part) throws(JobQueueError) in
      try await shard.update(profiles: part)
    }
  }

  /// Makes sure that each job is in the queue. Returns how many were not there before. A job may be enqueued under another
  /// profile only after ``withdraw(_:)`` under the old one says that it is no longer leased.
  @discardableResult
  public func enqueue(_ jobs: [Job]) async throws -> Int {
    // A script may see a job only once; the most urgent wish counts.
    var wanted: [JobID: Job] = [:]
    for job in jobs {
      if let other = wanted[job.id], other.jobClass <= job.jobClass { continue }
      wanted[job.id] = job
    }
    let unique = wanted.count == jobs.count ? jobs : Array(wanted.values)
    let added = try await onEach(parts(unique, by: \.profile)) { (shard, part) throws(JobQueueError) in
      try await shard.enqueue(part)
    }
    return added.reduce(0, +)
  }

  /// Removes jobs that must not run any more. Returns those that are still leased.
  @discardableResult
  public func withdraw(_ jobs: [Job]) async throws -> [JobID] {
    let leased = try await onEach(parts(jobs, by: \.profile)) { (shard, part) throws(JobQueueError) in
      try await shard.withdraw(part)
    }
    return Array(leased.joined())
  }
}
