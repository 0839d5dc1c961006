import PostriderCore

extension MemoryQueueState {
  func statistics() -> QueueStatistics {
    var statistics = QueueStatistics(
      ready: Dictionary(uniqueKeysWithValues: JobClass.allCases.map { ($0.label, 0) }), inFlight: leased.count,
      blocked: ["limit": 0, "busy-mailbox": 0, "paused": 0], reclaimed: reclaimed, finished: finished,
      poisoned: poisoned.count, workers: liveWorkers.count, workerSlots: liveWorkers.reduce(0) { $0 + $1.slots },
      epoch: epoch ?? 0, serverMilliseconds: now)
    for entry in waiting.values {
      let label = entry.job.jobClass.label
      statistics.ready[label, default: 0] += 1
      let oldest = statistics.oldestDueMilliseconds[label] ?? entry.job.dueMilliseconds
      statistics.oldestDueMilliseconds[label] = min(oldest, entry.job.dueMilliseconds)
    }
    for part in profileStatistics() { statistics.blocked.merge(part.blocked, uniquingKeysWith: +) }
    return statistics
  }

  /// The numbers of the profiles with work, most waiting jobs first.
  func profileStatistics() -> [ProfileQueueStatistics] {
    let present = Set(waiting.values.map(\.job.profile) + leased.values.map(\.job.profile))
    let all = present.map { id -> ProfileQueueStatistics in
      let profile = profiles[id] ?? QueueProfile(id: id, limit: 0)
      let entries = waiting.values.filter { $0.job.profile == id }
      let used = counted(on: profile)
      var part = ProfileQueueStatistics(
        profileID: id, ready: Dictionary(uniqueKeysWithValues: JobClass.allCases.map { ($0.label, 0) }),
        inFlight: leased.values.count { $0.job.profile == id }, slotsInUse: used, limit: profile.limit,
        limitIsPerProfile: profile.countsIncomingOnProfile || profile.countsOutgoingOnProfile,
        oldestDueMilliseconds: entries.map(\.job.dueMilliseconds).min(),
        heldUntilMilliseconds: holds[id]?.values.map(\.until).filter { $0 > now }.max())
      var free = max(0, profile.limit - used)
      for entry in entries.sorted(by: { $0.job.jobClass < $1.job.jobClass }) {
        part.ready[entry.job.jobClass.label, default: 0] += 1
        let kind = entry.job.id.kind
        if entry.parked {
          part.blocked["busy-mailbox", default: 0] += 1
        } else if profile.paused {
          part.blocked["paused", default: 0] += 1
        } else if profile.limit == 0 {
          part.blocked["limit", default: 0] += 1
        } else if let hold = hold(on: id, kind, entry.job.jobClass) {
          part.blocked[hold.reason, default: 0] += 1
        } else if countsOnProfile(kind, profile) {
          if free == 0 { part.blocked["limit", default: 0] += 1 } else { free -= 1 }
        }
      }
      return part
    }
    return all.sorted { ($1.totalReady, $0.profileID) < ($0.totalReady, $1.profileID) }
  }

  func inspect(_ jobs: [Job]) -> [JobLocation] {
    jobs.map { job in
      let name = job.id.description
      if let lease = leased[job.id] {
        return JobLocation(
          job: name, state: "leased", profileID: lease.job.profile, worker: lease.worker, fence: lease.fence,
          leaseEndsMilliseconds: lease.ends)
      }
      if let aside = poisoned[job.id] {
        return JobLocation(job: name, state: "poisoned", profileID: aside.profileID, worker: aside.worker)
      }
      guard let entry = waiting[job.id], entry.job.profile == job.profile else {
        return JobLocation(job: name, state: "absent")
      }
      let (why, until) = reason(entry)
      return JobLocation(
        job: name, state: entry.parked ? "parked" : "ready", profileID: job.profile,
        jobClass: entry.job.jobClass.label, dueMilliseconds: entry.job.dueMilliseconds, blockedBy: why,
        blockedUntilMilliseconds: until)
    }
  }

  /// What keeps a job waiting, and until when.
  private func reason(_ entry: Waiting) -> (String, Int64?) {
    if entry.parked { return ("busy-mailbox", nil) }
    let job = entry.job
    guard let profile = profiles[job.profile] else { return ("limit", nil) }
    if profile.paused { return ("paused", nil) }
    if profile.limit == 0 { return ("limit", nil) }
    if let hold = hold(on: job.profile, job.id.kind, job.jobClass) { return (hold.reason, hold.until) }
    if countsOnProfile(job.id.kind, profile), counted(on: profile) >= profile.limit { return ("limit", nil) }
    if liveWorkers.isEmpty { return ("no-worker", nil) }
    return (leased.count >= liveWorkers.reduce(0) { $0 + $1.slots } ? "workers-busy" : "turn", nil)
  }

  func verify() -> [String] {
    var broken: [String] = []
    for id in leased.keys where waiting[id] != nil { broken.append("\(id) waits and is leased") }
    for id in poisoned.keys where waiting[id] != nil || leased[id] != nil {
      broken.append("\(id) is set aside and waits or is leased")
    }
    for (mailbox, leases) in Dictionary(grouping: leased.keys, by: \.mailbox) {
      if leases.count(where: { $0.kind != .send }) > 1 { broken.append("mailbox \(mailbox) has two POP3 sessions") }
    }
    for profile in profiles.values where counted(on: profile) > profile.limit {
      broken.append("limit: profile \(profile.id) has \(counted(on: profile))")
    }
    for entry in waiting.values where entry.parked {
      if !leased.keys.contains(where: { $0.mailbox == entry.job.id.mailbox }) {
        broken.append("\(entry.job.id) is parked and its mailbox is free")
      }
    }
    return broken
  }
}
