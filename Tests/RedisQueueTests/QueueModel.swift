import PostriderCore

/// The simplest queue there can be: where each job is, and what may be granted. What the random test compares with.
struct QueueModel {
  struct Held {
    var lease: Lease
    var renewed = false
    var withdrawn = false
    /// Its lease has run out; nobody has taken it back yet.
    var expired = false
    /// Whether the worker knows of it: its claim's reply arrived.
    var known = true
    var again: Job?
  }

  var profiles: [ProfileID: QueueProfile] = [:]
  var held: [ProfileID: Set<Direction>] = [:]
  var waiting: [JobID: Job] = [:]
  var leased: [JobID: Held] = [:]
  var poisoned: Set<JobID> = []
  var reclaims: [JobID: Int] = [:]
  /// Other due times that waiting jobs may have: one that waited for its mailbox may compete as a send already, and then
  /// asking for that, or for less, changes nothing.
  var possible: [JobID: Set<Int64>] = [:]
  var fence = Fence(0)

  /// What a step did wrong, in words.
  typealias Complaint = String

  mutating func enqueue(_ jobs: [Job]) -> Int {
    var added = 0
    var wanted: [JobID: Job] = [:]
    for job in jobs where job.jobClass < wanted[job.id]?.jobClass ?? .batchTest || wanted[job.id] == nil {
      wanted[job.id] = job
    }
    for job in wanted.values {
      if let held = leased[job.id] {
        let elsewhere = held.lease.profile != job.profile
        guard job.jobClass <= .send || elsewhere else { continue }
        if held.again.map({ job.jobClass < $0.jobClass || (elsewhere && $0.profile != job.profile) }) ?? true {
          leased[job.id]?.again = job
        }
      } else if let present = waiting[job.id] {
        if job.jobClass < present.jobClass {
          let before = possible[job.id, default: []].union([present.dueMilliseconds])
          let earlier = Set(before.map { min($0, job.dueMilliseconds) })
          possible[job.id] = job.jobClass < .send || present.jobClass <= .send ? earlier : earlier.union(before)
          waiting[job.id] = Job(
            id: job.id, profile: present.profile, jobClass: job.jobClass,
            dueMilliseconds: min(job.dueMilliseconds, present.dueMilliseconds))
        }
      } else if !poisoned.contains(job.id) {
        added += 1
        possible[job.id] = nil
        waiting[job.id] = job
      }
    }
    return added
  }

  func isHeld(_ job: Job) -> Bool {
    guard job.jobClass != .interactive, let directions = held[job.profile] else { return false }
    switch job.id.kind {
    case .poll: return directions.contains(.incoming)
    case .send: return directions.contains(.outgoing)
    case .test: return !directions.isEmpty
    }
  }

  static func countsOnProfile(_ kind: JobKind, _ profile: QueueProfile) -> Bool {
    (kind != .send && profile.countsIncomingOnProfile) || (kind != .poll && profile.countsOutgoingOnProfile)
  }

  static func countsOnMailbox(_ kind: JobKind, _ profile: QueueProfile) -> Bool {
    (kind != .send && !profile.countsIncomingOnProfile) || (kind != .poll && !profile.countsOutgoingOnProfile)
  }

  /// Why a job may not be leased now; `nil` when it may.
  func obstacle(_ job: Job) -> String? {
    guard let profile = profiles[job.profile] else { return "its profile is unknown" }
    if profile.paused { return "its profile is paused" }
    if isHeld(job) { return "it is held" }
    let kind = job.id.kind
    let onProfile = leased.values.count {
      $0.lease.profile == profile.id && Self.countsOnProfile($0.lease.job.kind, profile)
    }
    if profile.limit == 0 || (Self.countsOnProfile(kind, profile) && onProfile >= profile.limit) {
      return "its profile's limit"
    }
    let others = leased.keys.filter { $0.mailbox == job.id.mailbox }
    if kind != .send, others.contains(where: { $0.kind != .send }) { return "its mailbox's POP3 session" }
    let onMailbox = others.count { Self.countsOnMailbox($0.kind, profile) }
    if Self.countsOnMailbox(kind, profile), onMailbox >= profile.limit { return "its mailbox's limit" }
    return nil
  }

  /// What the queue takes back at the next claim.
  mutating func reap() -> Int {
    let expired = leased.values.filter(\.expired)
    for held in expired {
      let id = held.lease.job
      if held.renewed, !held.withdrawn {
        reclaims[id, default: 0] += 1
        if reclaims[id] == 3 {
          reclaims[id] = nil
          poisoned.insert(id)
          leased[id] = nil
          continue
        }
      }
      end(id, completed: false)
    }
    return expired.count
  }

  mutating func end(_ id: JobID, completed: Bool) {
    guard let held = leased.removeValue(forKey: id) else { return }
    if completed { reclaims[id] = nil }
    let lease = held.lease
    if let again = held.again, completed || held.withdrawn || again.profile != lease.profile {
      waiting[id] = again
    } else if !completed, !held.withdrawn {
      waiting[id] = Job(
        id: id, profile: lease.profile, jobClass: min(lease.jobClass, held.again?.jobClass ?? .batchTest),
        dueMilliseconds: lease.dueMilliseconds)
    }
  }

  /// Takes the result of a claim: each lease must have been possible, and nothing possible may be left out.
  mutating func claimed(_ claim: Claim, limit: Int) -> [Complaint] {
    var complaints: [Complaint] = []
    if claim.leases.count > limit { complaints.append("\(claim.leases.count) leases for \(limit) places") }
    for lease in claim.leases { if let wrong = grant(lease) { complaints.append(wrong) } }
    if claim.leases.count < limit {
      for job in waiting.values where obstacle(job) == nil {
        complaints.append("\(job.id) of profile \(job.profile) could run and was left out")
      }
    }
    return complaints
  }

  /// Takes one lease.
  mutating func grant(_ lease: Lease) -> Complaint? {
    var complaint: Complaint?
    if let job = waiting[lease.job] {
      if let obstacle = obstacle(job) { complaint = "\(lease.job) was leased against \(obstacle)" }
      // One that waited for its mailbox competes as a send.
      let classes = [job.jobClass, min(job.jobClass, .send)]
      if !classes.contains(lease.jobClass) || lease.profile != job.profile {
        complaint = "\(lease.job) was leased as \(lease.jobClass.label) of profile \(lease.profile)"
      }
      if lease.dueMilliseconds != job.dueMilliseconds, !possible[lease.job, default: []].contains(lease.dueMilliseconds)
      {
        complaint = "\(lease.job) has another due time"
      }
    } else {
      complaint = "\(lease.job) was leased and did not wait"
    }
    if lease.fence <= fence { complaint = "\(lease.job) has the fence \(lease.fence) after \(fence)" }
    if lease.reclaims != reclaims[lease.job] ?? 0 { complaint = "\(lease.job) has \(lease.reclaims) reclaims" }
    fence = max(fence, lease.fence)
    waiting[lease.job] = nil
    possible[lease.job] = nil
    leased[lease.job] = Held(lease: lease)
    return complaint
  }

  mutating func withdraw(_ jobs: [Job]) -> Set<JobID> {
    var stillLeased: Set<JobID> = []
    for job in jobs {
      if waiting[job.id]?.profile == job.profile { waiting[job.id] = nil }
      poisoned.remove(job.id)
      reclaims[job.id] = nil
      if let held = leased[job.id] {
        stillLeased.insert(job.id)
        leased[job.id]?.withdrawn = true
        if held.again?.profile == job.profile { leased[job.id]?.again = nil }
      }
    }
    return stillLeased
  }

  /// Forgets everything that lives in an epoch.
  mutating func forget() {
    let last = fence
    self = QueueModel()
    fence = last
  }
}
