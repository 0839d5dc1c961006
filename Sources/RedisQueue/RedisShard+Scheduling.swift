import PostriderCore

extension RedisShard {
  /// Tells the shard about profiles of it.
  func update(profiles: [QueueProfile]) async throws(JobQueueError) {
    for part in profiles.parts(of: 200) {
      var arguments: [String] = []
      for profile in part {
        arguments += [
          profile.id.description, String(max(0, profile.limit)), profile.countsIncomingOnProfile ? "1" : "0",
          profile.countsOutgoingOnProfile ? "1" : "0", String(max(1, profile.weight)), profile.paused ? "1" : "0",
        ]
      }
      _ = try await call(.update, arguments)
    }
  }

  /// Makes sure that jobs of this shard, no job twice, are in it. Returns how many were not there before.
  func enqueue(_ jobs: [Job]) async throws(JobQueueError) -> Int {
    var added = 0
    for part in Self.byProfile(jobs).parts(of: maximumBatch) {
      let arguments = Self.grouped(part) {
        [$0.id.description, String($0.jobClass.rawValue), String($0.dueMilliseconds)]
      }
      let (reply, _) = try await call(.enqueue, arguments)
      guard let count = reply.integer else { throw Self.unexpected(reply, from: .enqueue) }
      added += Int(count)
    }
    return added
  }

  /// Removes jobs of this shard. Returns those that are still leased.
  func withdraw(_ jobs: [Job]) async throws(JobQueueError) -> [JobID] {
    var leased: [JobID] = []
    for part in Self.byProfile(jobs).parts(of: maximumBatch) {
      let (reply, _) = try await call(.withdraw, Self.grouped(part) { [$0.id.description] })
      guard let names = reply.array else { throw Self.unexpected(reply, from: .withdraw) }
      leased += names.compactMap { $0.string.flatMap { JobID($0) } }
    }
    return leased
  }

  /// Jobs of one profile next to each other, so that the scripts work once per profile and not once per job.
  private static func byProfile(_ jobs: [Job]) -> [Job] {
    guard let first = jobs.first, jobs.contains(where: { $0.profile != first.profile }) else { return jobs }
    return Dictionary(grouping: jobs, by: \.profile).values.flatMap { $0 }
  }

  /// profile, count, then each job's arguments; for every run of jobs of one profile.
  private static func grouped(_ jobs: ArraySlice<Job>, _ arguments: (Job) -> [String]) -> [String] {
    var all: [String] = []
    var start = jobs.startIndex
    while start < jobs.endIndex {
      let profile = jobs[start].profile
      let end = jobs[start...].firstIndex { $0.profile != profile } ?? jobs.endIndex
      all += [profile.description, String(end - start)]
      for job in jobs[start..<end] { all += arguments(job) }
      start = end
    }
    return all
  }
}
