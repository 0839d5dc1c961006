import PostriderCore

extension MemoryQueueState {
  private enum Fit { case fits, profileFull, mailboxBusy }

  mutating func claim(
    limit: Int, worker: String, trustedUntil: ContinuousClock.Instant
  ) throws(JobQueueError) -> Claim {
    guard now >= opensAt else { throw .notOpenYet(milliseconds: Int(opensAt - now)) }
    let expired = reap()

    var places = max(0, limit)
    var granted: [Lease] = []
    func serve(_ jobClass: JobClass, _ wanted: Int, mayDefer: Bool, in state: inout MemoryQueueState) {
      let taken = state.serve(
        jobClass, min(wanted, places), of: limit, mayDefer: mayDefer, worker: worker, trustedUntil: trustedUntil)
      granted += taken
      places -= taken.count
    }
    let lower: [JobClass] = [.send, .poll, .batchTest]
    let work = Set(lower.filter { jobClass in waiting.values.contains { !$0.parked && $0.job.jobClass == jobClass } })
    let share = places / 8
    if share == 0, !work.isEmpty {
      smallClaims += 1
      if let first = JobClass(rawValue: smallClaims % 8 - 4), first > .interactive, work.contains(first) {
        serve(first, 1, mayDefer: true, in: &self)
      }
    }
    for jobClass in JobClass.allCases {
      let kept = work.count { $0 > jobClass } * share
      serve(jobClass, places - kept, mayDefer: true, in: &self)
    }
    for jobClass in JobClass.allCases { serve(jobClass, places, mayDefer: false, in: &self) }
    return Claim(leases: granted, reclaimed: expired)
  }

  /// Gives up to `wanted` places to a class, one profile's turn after the other (start-time fair queueing).
  private mutating func serve(
    _ jobClass: JobClass, _ wanted: Int, of limit: Int, mayDefer: Bool, worker: String,
    trustedUntil: ContinuousClock.Instant
  ) -> [Lease] {
    var granted: [Lease] = []
    let quantum = max(4, min(8, (limit + 3) / 4))
    var lanes: [ProfileID: [Job]] = [:]
    for entry in waiting.values where !entry.parked && entry.job.jobClass == jobClass {
      let job = entry.job
      if hold(on: job.profile, job.id.kind, jobClass) != nil { continue }
      lanes[entry.job.profile, default: []].append(entry.job)
    }
    // Turns of lanes that stand in line begin no earlier than the class's virtual time.
    let virtual = virtualTime[jobClass] ?? 0
    var tags = lanes.keys.reduce(into: [ProfileID: Double]()) { $0[$1] = max(virtual, turns[jobClass]?[$1] ?? 0) }
    for profile in lanes.keys {
      lanes[profile]?.sort { ($0.dueMilliseconds, $0.id.description) < ($1.dueMilliseconds, $1.id.description) }
    }
    while granted.count < wanted, let (id, tag) = tags.min(by: { ($0.value, $0.key) < ($1.value, $1.key) }) {
      virtualTime[jobClass] = max(virtualTime[jobClass] ?? 0, tag)
      tags[id] = nil
      guard let profile = profiles[id], profile.limit > 0, !profile.paused else { continue }
      if mayDefer, leavesLastSlots(of: profile, at: jobClass, wanted: wanted - granted.count) { continue }
      var taken = 0
      var left: [Job] = []
      for job in lanes[id] ?? [] {
        guard taken < min(quantum, wanted - granted.count) else {
          left.append(job)
          continue
        }
        switch fit(of: job, profile) {
        case .profileFull: left.append(job)
        case .mailboxBusy: waiting[job.id]?.parked = true
        case .fits:
          granted.append(lease(job, worker: worker, trustedUntil: trustedUntil))
          taken += 1
        }
      }
      let next = tag + Double(taken) / Double(max(1, profile.weight))
      turns[jobClass, default: [:]][id] = next
      lanes[id] = left
      if taken > 0, !left.isEmpty { tags[id] = next }
    }
    return granted
  }

  /// Every fourth time a profile's last slots are left to a lower class that has work, or it would starve.
  private mutating func leavesLastSlots(of profile: QueueProfile, at jobClass: JobClass, wanted: Int) -> Bool {
    guard profile.countsIncomingOnProfile || profile.countsOutgoingOnProfile else { return false }
    let free = profile.limit - counted(on: profile)
    guard free > 0, free < wanted || free * 8 <= profile.limit else { return false }
    let lower = waiting.values.contains {
      !$0.parked && $0.job.profile == profile.id && $0.job.jobClass > jobClass
        && hold(on: profile.id, $0.job.id.kind, $0.job.jobClass) == nil
    }
    guard lower else { return false }
    scarceVisits[profile.id, default: 0] += 1
    return scarceVisits[profile.id, default: 0] % 4 == 0
  }

  private mutating func lease(_ job: Job, worker: String, trustedUntil: ContinuousClock.Instant) -> Lease {
    counter += 1
    let fence = Fence((epoch ?? 0) << 32 | counter)
    waiting[job.id] = nil
    leased[job.id] = Leased(job: job, worker: worker, fence: fence, ends: now + Int64(leaseMilliseconds))
    return Lease(
      job: job.id, profile: job.profile, jobClass: job.jobClass, fence: fence, reclaims: reclaims[job.id] ?? 0,
      dueMilliseconds: job.dueMilliseconds, trustedUntil: trustedUntil)
  }

  func countsOnProfile(_ kind: JobKind, _ profile: QueueProfile) -> Bool {
    (kind != .send && profile.countsIncomingOnProfile) || (kind != .poll && profile.countsOutgoingOnProfile)
  }

  private func countsOnMailbox(_ kind: JobKind, _ profile: QueueProfile) -> Bool {
    (kind != .send && !profile.countsIncomingOnProfile) || (kind != .poll && !profile.countsOutgoingOnProfile)
  }

  func counted(on profile: QueueProfile) -> Int {
    leased.values.count { $0.job.profile == profile.id && countsOnProfile($0.job.id.kind, profile) }
  }

  private func fit(of job: Job, _ profile: QueueProfile) -> Fit {
    let kind = job.id.kind
    if countsOnProfile(kind, profile), counted(on: profile) >= profile.limit { return .profileFull }
    let others = leased.values.map(\.job.id).filter { $0.mailbox == job.id.mailbox }
    if kind != .send, others.contains(where: { $0.kind != .send }) { return .mailboxBusy }
    let count = others.count { countsOnMailbox($0.kind, profile) }
    return countsOnMailbox(kind, profile) && count >= profile.limit ? .mailboxBusy : .fits
  }
}
