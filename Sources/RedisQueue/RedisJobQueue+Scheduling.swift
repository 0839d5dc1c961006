import PostriderCore

extension RedisJobQueue {
  /// Tells the queue about profiles, new or changed.
  public func update(profiles: [QueueProfile]) async throws {
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
    var added = 0
    for part in Self.byProfile(unique).parts(of: maximumBatch) {
      let arguments = Self.grouped(part) {
        [$0.id.description, String($0.jobClass.rawValue), String($0.dueMilliseconds)]
      }
      let (reply, _) = try await call(.enqueue, arguments)
      guard let count = reply.integer else { throw Self.unexpected(reply, from: .enqueue) }
      added += Int(count)
    }
    return added
  }

  /// Removes jobs that must not run any more. Returns those that are still leased.
  @discardableResult
  public func withdraw(_ jobs: [Job]) async throws -> [JobID] {
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
