import FoundationEssentials
import PostriderCore

/// The memory queue's content and rules, without its lock.
struct MemoryQueueState: Sendable {
  struct Waiting: Sendable {
    var job: Job
    /// Its mailbox is busy.
    var parked = false
  }

  struct Leased: Sendable {
    var job: Job
    var worker: String
    var fence: Fence
    var ends: Int64
    var renewed = false
    var withdrawn = false
    var again: Job?
  }

  let leaseMilliseconds: Double
  let frozenAt: Int64?
  var offset: Int64 = 0
  var unavailable: String?
  var woken = false

  var epoch: Int64?
  var opensAt: Int64 = 0
  var profiles: [ProfileID: QueueProfile] = [:]
  var waiting: [JobID: Waiting] = [:]
  var leased: [JobID: Leased] = [:]
  var reclaims: [JobID: Int] = [:]
  var reclaimed = 0
  var counter: Int64 = 0
  var smallClaims = 0
  /// Virtual start time of each lane's next turn, by class.
  var turns: [JobClass: [ProfileID: Double]] = [:]
  var virtualTime: [JobClass: Double] = [:]
  var scarceVisits: [ProfileID: Int] = [:]
  var holds: [ProfileID: [Direction: Hold]] = [:]
  var workers: [String: Announced] = [:]
  var poisoned: [JobID: PoisonedJob] = [:]
  var finished = 0

  struct Hold: Sendable {
    var until: Int64
    var reason: String
  }

  struct Announced: Sendable {
    var slots: Int
    var until: Int64
  }

  init(leaseMilliseconds: Double, frozenAt: Int64?) {
    self.leaseMilliseconds = leaseMilliseconds
    self.frozenAt = frozenAt
  }

  var now: Int64 { (frozenAt ?? Int64(Date().timeIntervalSince1970 * 1_000)) + offset }

  func check() throws(JobQueueError) {
    if let unavailable { throw .unavailable(reason: unavailable) }
    if epoch == nil { throw .epochLost(reason: "the queue holds no epoch; it was emptied") }
  }

  mutating func empty() {
    var fresh = MemoryQueueState(leaseMilliseconds: leaseMilliseconds, frozenAt: frozenAt)
    fresh.offset = offset
    fresh.unavailable = unavailable
    self = fresh
  }

  mutating func open(epoch new: Int64, delayMilliseconds: Int64) throws(JobQueueError) {
    if let unavailable { throw .unavailable(reason: unavailable) }
    if let epoch, epoch >= new { return }
    empty()
    epoch = new
    opensAt = now + max(0, delayMilliseconds)
  }

  mutating func update(_ changed: [QueueProfile]) {
    for profile in changed where profiles[profile.id] != profile {
      profiles[profile.id] = profile
      unpark { $0.profile == profile.id }
      woken = true
    }
  }

  mutating func enqueue(_ jobs: [Job]) -> Int {
    var added = 0
    for job in jobs {
      if let lease = leased[job.id] {
        // Under another profile it is a wish to run there when the lease has ended, whatever its class.
        let elsewhere = lease.job.profile != job.profile
        guard job.jobClass <= .send || elsewhere else { continue }
        if lease.again.map({ job.jobClass < $0.jobClass || (elsewhere && $0.profile != job.profile) }) ?? true {
          leased[job.id]?.again = job
        }
      } else if let present = waiting[job.id] {
        if job.jobClass < present.job.jobClass {
          let due = min(job.dueMilliseconds, present.job.dueMilliseconds)
          waiting[job.id]?.job = Job(
            id: job.id, profile: present.job.profile, jobClass: job.jobClass, dueMilliseconds: due)
          woken = true
        }
      } else if poisoned[job.id] == nil {
        added += 1
        makeReady(job)
      }
    }
    return added
  }

  mutating func makeReady(_ job: Job) {
    waiting[job.id] = Waiting(job: job)
    woken = true
  }

  /// A parked job that was less urgent competes as a send once its mailbox is free, or it would never run between sends.
  mutating func unpark(where matches: (Job) -> Bool) {
    for (id, entry) in waiting where entry.parked && matches(entry.job) {
      let job = entry.job
      makeReady(
        Job(
          id: id, profile: job.profile, jobClass: min(job.jobClass, .send), dueMilliseconds: job.dueMilliseconds))
    }
  }

  /// Ends a lease and says what its job becomes.
  mutating func release(_ lease: Leased, completed: Bool) {
    let job = lease.job
    leased[job.id] = nil
    unpark { $0.id.mailbox == job.id.mailbox }
    woken = true
    if poisoned[job.id] != nil { return }
    if let again = lease.again, completed || lease.withdrawn || again.profile != job.profile {
      makeReady(again)
    } else if !completed, !lease.withdrawn {
      let jobClass = min(job.jobClass, lease.again?.jobClass ?? job.jobClass)
      makeReady(Job(id: job.id, profile: job.profile, jobClass: jobClass, dueMilliseconds: job.dueMilliseconds))
    }
  }

  /// Takes back expired leases, at most 16. Returns how many.
  mutating func reap() -> Int {
    let expired = leased.values.filter { $0.ends <= now }.sorted { $0.ends < $1.ends }.prefix(16)
    for lease in expired {
      // A lease that was never renewed may be one whose reply was lost: it does not count.
      if lease.renewed, !lease.withdrawn {
        let count = (reclaims[lease.job.id] ?? 0) + 1
        reclaims[lease.job.id] = count
        if count >= 3 {
          reclaims[lease.job.id] = nil
          poisoned[lease.job.id] = PoisonedJob(
            job: lease.job.id.description, profileID: lease.job.profile, reclaims: count, worker: lease.worker,
            sinceMilliseconds: now)
        }
      }
      release(lease, completed: false)
    }
    reclaimed += expired.count
    return expired.count
  }

  mutating func renew(_ leases: [Lease], trustedUntil: ContinuousClock.Instant) -> [Lease] {
    leases.compactMap { lease in
      guard let held = leased[lease.job], held.fence == lease.fence, !held.withdrawn, held.ends > now else {
        return nil
      }
      let ends = now + Int64(leaseMilliseconds)
      leased[lease.job]?.ends = ends
      leased[lease.job]?.renewed = true
      return Lease(
        job: lease.job, profile: lease.profile, jobClass: lease.jobClass, fence: lease.fence, reclaims: lease.reclaims,
        dueMilliseconds: lease.dueMilliseconds, trustedUntil: trustedUntil)
    }
  }

  mutating func end(_ leases: [Lease], completed: Bool) -> [LeaseEnd] {
    leases.map { lease in
      guard let held = leased[lease.job], held.fence == lease.fence else { return .lost }
      release(held, completed: completed)
      if completed {
        reclaims[lease.job] = nil
        finished += 1
      }
      return .ended
    }
  }

  mutating func withdraw(_ jobs: [Job]) -> [JobID] {
    jobs.compactMap { job in
      if waiting[job.id]?.job.profile == job.profile { waiting[job.id] = nil }
      reclaims[job.id] = nil
      poisoned[job.id] = nil
      guard let lease = leased[job.id] else { return nil }
      leased[job.id]?.withdrawn = true
      // A wish to run under another profile stays.
      if lease.again?.profile == job.profile { leased[job.id]?.again = nil }
      return job.id
    }
  }

  mutating func hold(_ wanted: [LaneHold]) {
    for hold in wanted {
      let milliseconds = hold.duration > .zero ? max(1, Int64(hold.duration / .milliseconds(1))) : 0
      holds[hold.profile, default: [:]][hold.direction] =
        milliseconds > 0 ? Hold(until: now + milliseconds, reason: hold.reason) : nil
      woken = true
    }
  }

  /// What holds a job of this kind and class now.
  func hold(on profile: ProfileID, _ kind: JobKind, _ jobClass: JobClass) -> Hold? {
    guard jobClass != .interactive, let all = holds[profile] else { return nil }
    let directions: [Direction] =
      switch kind {
      case .poll: [.incoming]
      case .send: [.outgoing]
      case .test: [.incoming, .outgoing]
      }
    return directions.compactMap { all[$0] }
      .filter { $0.until > now && !(kind == .test && $0.reason == LaneHold.halted) }.max { $0.until < $1.until }
  }

  mutating func announce(worker: String, slots: Int) {
    workers = workers.filter { $0.value.until > now }
    workers[worker] = slots > 0 ? Announced(slots: slots, until: now + 15_000) : nil
  }

  var liveWorkers: [Announced] { workers.values.filter { $0.until > now } }
}
