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
  /// Waiting jobs that no worker may take now, by reason: `limit`, `busy-mailbox`, `breaker`, `paused`.
  public var blocked: [String: Int]
  /// The oldest due time among waiting jobs by class label, milliseconds since 1970; absent when a class is empty.
  public var oldestDueMilliseconds: [String: Int64]
  /// Leases taken back since the epoch began.
  public var reclaimed: Int
  /// The epoch.
  public var epoch: Int64
  /// The server's clock, milliseconds since 1970.
  public var serverMilliseconds: Int64

  /// Describes a queue.
  public init(
    ready: [String: Int] = [:], inFlight: Int = 0, blocked: [String: Int] = [:],
    oldestDueMilliseconds: [String: Int64] = [:], reclaimed: Int = 0, epoch: Int64 = 0, serverMilliseconds: Int64 = 0
  ) {
    self.ready = ready
    self.inFlight = inFlight
    self.blocked = blocked
    self.oldestDueMilliseconds = oldestDueMilliseconds
    self.reclaimed = reclaimed
    self.epoch = epoch
    self.serverMilliseconds = serverMilliseconds
  }

  /// All waiting jobs.
  public var totalReady: Int { ready.values.reduce(0, +) }
}

/// Where one job is.
public struct JobLocation: Hashable, Sendable, Codable {
  /// The job's written id.
  public var job: String
  /// `absent`, `ready`, `parked` (its mailbox is busy) or `leased`.
  public var state: String
  /// Its profile.
  public var profileID: ProfileID?
  /// Its class label, when it waits.
  public var jobClass: String?
  /// The worker that holds it, when leased.
  public var worker: String?
  /// Its fence, when leased.
  public var fence: Fence?
  /// When its lease ends without renewal, milliseconds since 1970.
  public var leaseEndsMilliseconds: Int64?
  /// When it became due, milliseconds since 1970, when it waits.
  public var dueMilliseconds: Int64?
  /// What keeps it waiting: `limit`, `busy-mailbox`, `paused`, `turn`.
  public var blockedBy: String?

  /// Describes a job's place.
  public init(
    job: String, state: String, profileID: ProfileID? = nil, jobClass: String? = nil, worker: String? = nil,
    fence: Fence? = nil, leaseEndsMilliseconds: Int64? = nil, dueMilliseconds: Int64? = nil, blockedBy: String? = nil
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
/// A job is in exactly one place: `ready`, `parked` (its mailbox is busy) or `leased`. Every call throws
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
/// 5. Each lease has a fence greater than that of every lease given before.
/// 6. A lease that is not renewed within ``leaseDuration`` is taken back and its job is ready again.
/// 7. Completing, renewing or giving back with another fence than the current one changes nothing and says `lost`.
/// 8. A job given back is ready at once at its old due time, and no reclaim is counted.
/// 9. Withdrawing removes waiting jobs and flags leased ones, whose renewal then says `lost`.
/// 10. After the server was emptied or replaced, every call throws `epochLost` until ``open(epoch:delay:)``.
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

  /// The numbers of the queue.
  func statistics() async throws -> QueueStatistics

  /// Where jobs are.
  func inspect(_ jobs: [Job]) async throws -> [JobLocation]

  /// Returns when there may be work, or after `timeout`. A hint, never the truth.
  func waitForWork(timeout: Duration) async throws
}
