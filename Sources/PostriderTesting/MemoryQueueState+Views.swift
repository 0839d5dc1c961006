import PostriderCore

extension MemoryQueueState {
  func statistics() -> QueueStatistics {
    var statistics = QueueStatistics(
      inFlight: leased.count, blocked: ["limit": 0, "busy-mailbox": 0, "paused": 0], reclaimed: reclaimed,
      epoch: epoch ?? 0, serverMilliseconds: now)
    var free = profiles.mapValues { $0.limit - counted(on: $0) }
    for jobClass in JobClass.allCases {
      let entries = waiting.values.filter { $0.job.jobClass == jobClass }
      statistics.ready[jobClass.label] = entries.count
      statistics.oldestDueMilliseconds[jobClass.label] = entries.map(\.job.dueMilliseconds).min()
      statistics.blocked["busy-mailbox", default: 0] += entries.count { $0.parked }
      for (id, lane) in Dictionary(grouping: entries.filter { !$0.parked }, by: \.job.profile) {
        guard let profile = profiles[id], profile.limit > 0 else {
          statistics.blocked["limit", default: 0] += lane.count
          continue
        }
        if profile.paused {
          statistics.blocked["paused", default: 0] += lane.count
          continue
        }
        let counts =
          switch jobClass {
          case .send: profile.countsOutgoingOnProfile
          case .poll: profile.countsIncomingOnProfile
          case .interactive, .batchTest: profile.countsIncomingOnProfile || profile.countsOutgoingOnProfile
          }
        guard counts else { continue }
        let runnable = max(0, min(lane.count, free[id] ?? 0))
        free[id, default: 0] -= runnable
        statistics.blocked["limit", default: 0] += lane.count - runnable
      }
    }
    return statistics
  }

  func inspect(_ jobs: [Job]) -> [JobLocation] {
    jobs.map { job in
      let name = job.id.description
      if let lease = leased[job.id] {
        return JobLocation(
          job: name, state: "leased", profileID: lease.job.profile, worker: lease.worker, fence: lease.fence,
          leaseEndsMilliseconds: lease.ends)
      }
      guard let entry = waiting[job.id], entry.job.profile == job.profile else {
        return JobLocation(job: name, state: "absent")
      }
      let profile = profiles[job.profile]
      let why =
        if entry.parked { "busy-mailbox" } else if profile?.paused == true {
          "paused"
        } else if profile.map({
          $0.limit == 0 || (counted(on: $0) >= $0.limit && $0.countsIncomingOnProfile)
        }) ?? true {
          "limit"
        } else { "turn" }
      return JobLocation(
        job: name, state: entry.parked ? "parked" : "ready", profileID: job.profile,
        jobClass: entry.job.jobClass.label, dueMilliseconds: entry.job.dueMilliseconds, blockedBy: why)
    }
  }

  func verify() -> [String] {
    var broken: [String] = []
    for id in leased.keys where waiting[id] != nil { broken.append("\(id) waits and is leased") }
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
