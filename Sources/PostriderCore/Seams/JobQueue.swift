/// What the queue must know of a profile to count its connections and give it turns.
public struct QueueProfile: Hashable, Sendable {
  /// Which profile.
  public var id: ProfileID
  /// Maximum concurrent connections, 0…300; 0 grants nothing.
  public var limit: Int
  /// Whether POP3 sessions count against the profile (`true`) or each against its mailbox (`false`).
  public var countsIncomingOnProfile: Bool
  /// Whether SMTP sessions count against the profile (`true`) or each against its mailbox (`false`).
  public var countsOutgoingOnProfile: Bool
  /// Its share relative to other profiles, 1…100, default 1.
  public var weight: Int
  /// A paused profile grants nothing and keeps its jobs.
  public var paused: Bool

  /// Describes a profile to the queue.
  public init(
    id: ProfileID, limit: Int, countsIncomingOnProfile: Bool = false, countsOutgoingOnProfile: Bool = false,
    weight: Int = 1, paused: Bool = false
  ) {
    self.id = id
    self.limit = limit
    self.countsIncomingOnProfile = countsIncomingOnProfile
    self.countsOutgoingOnProfile = countsOutgoingOnProfile
    self.weight = weight
    self.paused = paused
  }
}

/// Why a queue refuses every call.
public enum JobQueueError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The queue holds no epoch, an older or newer one, or is another server than the one opened: it was emptied,
  /// restarted or failed over. Workers close every session and wait; the leading scheduler opens a new epoch.
  case epochLost(reason: String)
  /// The epoch is open but no lease may be given before every session of the one before has closed itself.
  case notOpenYet(milliseconds: Int)
  /// The server cannot be reached; the call may or may not have been carried out.
  case unavailable(reason: String)
  /// The server works with settings that would lose jobs (eviction policy, version); the text says the fix.
  case misconfigured(reason: String)

  /// The reason in words.
  public var description: String {
    switch self {
    case .epochLost(let reason): "the queue's epoch is lost: \(reason)"
    case .notOpenYet(let milliseconds): "the queue opens in \(milliseconds) ms"
    case .unavailable(let reason): "the queue cannot be reached: \(reason)"
    case .misconfigured(let reason): "the queue's server is misconfigured: \(reason)"
    }
  }
}

/// What a claim returned.
public struct Claim: Hashable, Sendable {
  /// The jobs this worker now holds; at most as many as asked for.
  public var leases: [Lease]
  /// How many leases of dead workers were taken back on the way.
  public var reclaimed: Int

  /// Describes a claim's result.
  public init(leases: [Lease], reclaimed: Int = 0) {
    self.leases = leases
    self.reclaimed = reclaimed
  }
}

/// The numbers of a queue at one moment.
public struct QueueStatistics: Hashable, Sendable, Codable {
  /// Jobs that wait, by ``JobClass/label``. Includes those held back by a limit.
  public var ready: [String: Int]
  /// Jobs that workers hold.
  public var inFlight: Int
  /// Waiting jobs that no worker may take now, by reason: `limit`, `busy-mailbox`, `paused`, and the reasons of holds
  /// (see ``LaneHold``) such as `breaker`.
  public var blocked: [String: Int]
  /// The oldest due time among waiting jobs by class label, milliseconds since 1970; absent when a class is empty.
  public var oldestDueMilliseconds: [String: Int64]
  /// Leases taken back since the epoch began.
  public var reclaimed: Int
  /// Leases completed since the epoch began; two readings give the rate.
  public var finished: Int
  /// Jobs set aside after three reclaims, not yet withdrawn by the scheduler.
  public var poisoned: Int
  /// Workers that announced themselves within the last 15 seconds.
  public var workers: Int
  /// The sessions they can run at once, together.
  public var workerSlots: Int
  /// The epoch.
  public var epoch: Int64
  /// The server's clock, milliseconds since 1970.
  public var serverMilliseconds: Int64

  /// Describes a queue.
  public init(
    ready: [String: Int] = [:], inFlight: Int = 0, blocked: [String: Int] = [:],
    oldestDueMilliseconds: [String: Int64] = [:], reclaimed: Int = 0, finished: Int = 0, poisoned: Int = 0,
    workers: Int = 0, workerSlots: Int = 0, epoch: Int64 = 0, serverMilliseconds: Int64 = 0
  ) {
    self.ready = ready
    self.inFlight = inFlight
    self.blocked = blocked
    self.oldestDueMilliseconds = oldestDueMilliseconds
    self.reclaimed = reclaimed
    self.finished = finished
    self.poisoned = poisoned
    self.workers = workers
    self.workerSlots = workerSlots
    self.epoch = epoch
    self.serverMilliseconds = serverMilliseconds
  }

  /// All waiting jobs.
  public var totalReady: Int { ready.values.reduce(0, +) }
}

/// Why and how long the jobs of one direction of a profile wait, for a reason that lies outside the queue.
public struct LaneHold: Hashable, Sendable {
  /// The profile.
  public var profile: ProfileID
  /// The direction: incoming holds polls, outgoing holds sends, either holds batch tests unless the reason is ``halted``.
  /// Interactive jobs are never held.
  public var direction: Direction
  /// From now on the queue's clock; zero lifts the hold at once.
  public var duration: Duration
  /// The word that statistics and people see: `breaker`, `halted`, `login-budget`.
  public var reason: String
  /// The reason of a profile that is halted. What halts it is known, so tests need not wait: it is their answer.
  public static let halted = "halted"

  /// Describes a hold.
  public init(profile: ProfileID, direction: Direction, duration: Duration, reason: String) {
    self.profile = profile
    self.direction = direction
    self.duration = duration
    self.reason = reason
  }
}

/// A job that was taken back from three workers in a row and is set aside.
public struct PoisonedJob: Hashable, Sendable, Codable {
  /// The job's written id.
  public var job: String
  /// Its profile.
  public var profileID: ProfileID
  /// How often it was taken back.
  public var reclaims: Int
  /// The last worker that held it.
  public var worker: String
  /// When it was set aside, milliseconds since 1970 on the queue's clock.
  public var sinceMilliseconds: Int64

  /// Describes a job that was set aside.
  public init(job: String, profileID: ProfileID, reclaims: Int, worker: String, sinceMilliseconds: Int64) {
    self.job = job
    self.profileID = profileID
    self.reclaims = reclaims
    self.worker = worker
    self.sinceMilliseconds = sinceMilliseconds
  }
}

/// The numbers of one profile's part of the queue.
public struct ProfileQueueStatistics: Hashable, Sendable, Codable {
  /// Which profile.
  public var profileID: ProfileID
  /// Jobs that wait, by ``JobClass/label``; parked ones included.
  public var ready: [String: Int]
  /// Jobs that workers hold.
  public var inFlight: Int
  /// Those of them that count against the profile's own limit.
  public var slotsInUse: Int
  /// The limit; per profile or per mailbox, by ``limitIsPerProfile``.
  public var limit: Int
  /// Whether either direction counts on the profile.
  public var limitIsPerProfile: Bool
  /// The oldest due time among waiting jobs, milliseconds since 1970.
  public var oldestDueMilliseconds: Int64?
  /// Waiting jobs that no worker may take now, by reason, as in ``QueueStatistics/blocked``.
  public var blocked: [String: Int]
  /// When the longest hold ends, milliseconds since 1970; absent when nothing is held.
  public var heldUntilMilliseconds: Int64?

  /// Describes a profile's part.
  public init(
    profileID: ProfileID, ready: [String: Int] = [:], inFlight: Int = 0, slotsInUse: Int = 0, limit: Int = 0,
    limitIsPerProfile: Bool = false, oldestDueMilliseconds: Int64? = nil, blocked: [String: Int] = [:],
    heldUntilMilliseconds: Int64? = nil
  ) {
    self.profileID = profileID
    self.ready = ready
    self.inFlight = inFlight
    self.slotsInUse = slotsInUse
    self.limit = limit
    self.limitIsPerProfile = limitIsPerProfile
    self.oldestDueMilliseconds = oldestDueMilliseconds
    self.blocked = blocked
    self.heldUntilMilliseconds = heldUntilMilliseconds
  }

  /// All waiting jobs.
  public var totalReady: Int { ready.values.reduce(0, +) }
}

/// What one step of ``JobQueue/repair(limit:)`` found.
public struct RepairReport: Hashable, Sendable, Codable {
  /// How many entries were looked at.
  public var examined: Int
  /// What was mended, by rule: `lease-without-owner`, `owner-without-lease`, `slot-without-lease`, `lease-without-slot`,
  /// `job-in-two-places`, `lane-without-turn`, `parked-at-free-mailbox`.
  public var mended: [String: Int]
  /// Whether this step reached the end of everything there is to look at; the next one starts over.
  public var isComplete: Bool

  /// Describes a step.
  public init(examined: Int = 0, mended: [String: Int] = [:], isComplete: Bool = false) {
    self.examined = examined
    self.mended = mended
    self.isComplete = isComplete
  }

  /// Everything mended.
  public var total: Int { mended.values.reduce(0, +) }
}

/// Where one job is.
public struct JobLocation: Hashable, Sendable, Codable {
  /// The job's written id.
  public var job: String
  /// `absent`, `ready`, `parked` (its mailbox is busy), `leased` or `poisoned` (set aside after three reclaims).
  public var state: String
  /// Its profile.
  public var profileID: ProfileID?
  /// Its class label, when it waits.
  public var jobClass: String?
  /// The worker that holds it, when leased.
  public var worker: String?
  /// Its fence, when leased.
  public var fence: Fence?
  /// Since when that worker holds it, milliseconds since 1970, when leased.
  public var leasedSinceMilliseconds: Int64?
  /// When its lease ends without renewal, milliseconds since 1970.
  public var leaseEndsMilliseconds: Int64?
  /// When it became due, milliseconds since 1970, when it waits.
  public var dueMilliseconds: Int64?
  /// What keeps it waiting: `limit`, `busy-mailbox`, `paused`, the reason of a hold, `no-worker` (none has announced
  /// itself), `workers-busy` (every slot is taken), else `turn`.
  public var blockedBy: String?
  /// When a hold ends, milliseconds since 1970.
  public var blockedUntilMilliseconds: Int64?

  /// Describes a job's place.
  public init(
    job: String, state: String, profileID: ProfileID? = nil, jobClass: String? = nil, worker: String? = nil,
    fence: Fence? = nil, leaseEndsMilliseconds: Int64? = nil, dueMilliseconds: Int64? = nil, blockedBy: String? = nil,
    blockedUntilMilliseconds: Int64? = nil, leasedSinceMilliseconds: Int64? = nil
  ) {
    self.job = job
    self.state = state
    self.profileID = profileID
    self.jobClass = jobClass
    self.worker = worker
    self.fence = fence
    self.leaseEndsMilliseconds = leaseEndsMilliseconds
    self.dueMilliseconds = dueMilliseconds
    self.blockedBy = blockedBy
    self.blockedUntilMilliseconds = blockedUntilMilliseconds
    self.leasedSinceMilliseconds = leasedSinceMilliseconds
  }
}

/// What became of a lease when it was ended or given back.
public enum LeaseEnd: Hashable, Sendable {
  /// It was this worker's and is ended.
  case ended
  /// It was lost before: ended by its deadline, reclaimed, or withdrawn.
  case lost
}

/// The queue between scheduler and workers: what is in motion, nothing that must be remembered.
///
/// A job is in exactly one place: `ready`, `parked` (its mailbox is busy), `leased` or `poisoned`. Every call throws
/// ``JobQueueError``. Time is the queue's own clock, so no worker's clock decides when a lease ends. Emptying the queue
/// loses nothing: the scheduler fills it again from PostgreSQL under a new epoch.
///
/// Promises, each a case of the contract suite:
/// 1. Enqueuing a job that is ready changes nothing, except that a more urgent class moves it up.
/// 2. Enqueuing a leased job with class interactive or send marks it "again": completing makes it ready at once.
///    With another class it changes nothing.
/// 3. A claim never gives more leases of an identity (mailbox or profile, by ``QueueProfile``) than its limit, never
///    two POP3 jobs (poll or test) of one mailbox, never a job of a paused or unknown profile.
/// 4. Interactive jobs go first, but each lower class with work gets at least ⅛ of a claim's places (for claims of
///    eight or more), and profiles of a class take turns by weight.
/// 5. Each lease has a fence greater than that of every lease of its profile given before, and one of its own.
/// 6. A lease that is not renewed within ``leaseDuration`` is taken back and its job is ready again.
/// 7. Completing, renewing or giving back with another fence than the current one changes nothing and says `lost`.
/// 8. A job given back is ready at once at its old due time, and no reclaim is counted.
/// 9. Withdrawing removes waiting jobs and flags leased ones, whose renewal then says `lost`.
/// 10. After the server was emptied or replaced, every call throws `epochLost` until ``open(epoch:delay:)``.
/// 11. A hold keeps the jobs of its direction, of every class but interactive, from being leased until it ends or is
///     lifted; it delays no other direction and no other profile, and costs claims nothing while it lasts. With the
///     reason ``LaneHold/halted`` it keeps no tests.
/// 12. A job whose lease was renewed and then taken back three times in a row is `poisoned`: enqueuing it changes
///     nothing, until ``withdraw(_:)`` removes it. Completing forgets its reclaims.
/// 13. A worker that has not announced itself for 15 seconds counts no more.
public protocol JobQueue: Sendable {
  /// How long a lease lasts without renewal; 15 s in production.
  var leaseDuration: Duration { get }

  /// Opens an epoch, if it is greater than the present one; an equal or older one changes nothing.
  ///
  /// Jobs, leases and profiles of older epochs are gone. Claims are refused (`notOpenYet`) for `delay`, so that every
  /// session of the epoch before has closed itself; pass the lease duration, or zero when there cannot be any.
  func open(epoch: Int64, delay: Duration) async throws

  /// The epoch the server holds, or `nil` when it was emptied or replaced. Never throws `epochLost`.
  func currentEpoch() async throws -> Int64?

  /// Tells the queue about profiles, new or changed. A lower limit ends nothing and stops grants; a higher one takes
  /// effect at once.
  func update(profiles: [QueueProfile]) async throws

  /// Makes sure that each job is in the queue. Returns how many were not there before.
  @discardableResult
  func enqueue(_ jobs: [Job]) async throws -> Int

  /// Takes up to `limit` jobs for this worker.
  func claim(limit: Int, worker: String) async throws -> Claim

  /// Extends leases. Returns the extended ones; those missing are lost and their sockets must be closed at once.
  func renew(_ leases: [Lease]) async throws -> [Lease]

  /// Ends leases whose outcome is committed.
  @discardableResult
  func complete(_ leases: [Lease]) async throws -> [LeaseEnd]

  /// Ends leases whose work was not done; the jobs are ready again, uncounted.
  @discardableResult
  func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd]

  /// Removes jobs that must not run any more. Returns those that are still leased.
  @discardableResult
  func withdraw(_ jobs: [Job]) async throws -> [JobID]

  /// Keeps jobs of these profiles' directions waiting, or lifts that; the last word on a profile's direction counts.
  func hold(_ holds: [LaneHold]) async throws

  /// Says that a worker lives and how many sessions it can run at once; zero when it leaves. Call it every 5 seconds.
  func announce(worker: String, slots: Int) async throws

  /// Jobs that were set aside, oldest first, at most `limit`.
  func poisoned(limit: Int) async throws -> [PoisonedJob]

  /// The numbers of the profiles with work, most waiting jobs first, at most `limit`.
  func profiles(limit: Int) async throws -> [ProfileQueueStatistics]

  /// Checks the invariants of about `limit` entries and mends what is broken; the next call goes on from there.
  func repair(limit: Int) async throws -> RepairReport

  /// The numbers of the queue.
  func statistics() async throws -> QueueStatistics

  /// Where jobs are.
  func inspect(_ jobs: [Job]) async throws -> [JobLocation]

  /// Returns when there may be work, or after `timeout`. A hint, never the truth.
  func waitForWork(timeout: Duration) async throws
}
