import FoundationEssentials

/// One profile's part of queue and schedule, as its own organization sees it.
public struct ProfileQueueView: Hashable, Sendable, Codable {
  /// Which profile.
  public var profileID: ProfileID
  /// Its name.
  public var name: String
  /// Runnable rows that are due now, enqueued or not.
  public var due: Int
  /// Jobs that wait in the queue, by ``JobClass/label``.
  public var ready: [String: Int]
  /// Jobs that workers hold.
  public var inFlight: Int
  /// Those of them that count against the profile's own limit.
  public var slotsInUse: Int
  /// The limit of concurrent connections; `nil` when it is not known here.
  public var limit: Int?
  /// Whether the limit counts on the profile (`true`) or on each of its mailboxes (`false`).
  public var limitIsPerProfile: Bool
  /// The oldest due time among waiting jobs, milliseconds since 1970.
  public var oldestDueMilliseconds: Int64?
  /// Waiting jobs that no worker may take now, by reason, as in ``QueueStatistics/blocked``.
  public var blocked: [String: Int]
  /// Why: `paused` for a paused profile, else the reason that blocks most jobs; `nil` when nothing is blocked.
  public var blockedBy: String?
  /// When the longest hold ends, milliseconds since 1970.
  public var heldUntilMilliseconds: Int64?
  /// Sessions that ended in the last five minutes.
  public var runs: Int
  /// Those of them that failed.
  public var failures: Int
  /// Failed sessions in a session, 0…1, of the last five minutes; `nil` when none ended.
  public var errorRate: Double?
  /// Since when the profile or its organization is paused; `nil` when it is not.
  public var pausedAt: Date?

  /// Joins what the schedule knows of a profile with what the queue knows of it.
  ///
  /// - Parameters:
  ///   - activity: from PostgreSQL.
  ///   - queue: the profile's part of the queue; `nil` when it has no work there.
  ///   - profile: for the limit of a profile without work.
  public init(_ activity: ProfileActivity, queue: ProfileQueueStatistics?, profile: ServerProfile? = nil) {
    profileID = activity.profileID
    name = activity.name
    due = activity.due
    ready = queue?.ready ?? [:]
    inFlight = queue?.inFlight ?? 0
    slotsInUse = queue?.slotsInUse ?? 0
    limit = queue?.limit ?? profile?.maximumConcurrentConnections
    limitIsPerProfile = queue?.limitIsPerProfile ?? profile?.limitIsPerProfile ?? false
    oldestDueMilliseconds = queue?.oldestDueMilliseconds
    blocked = (queue?.blocked ?? [:]).filter { $0.value > 0 }
    heldUntilMilliseconds = queue?.heldUntilMilliseconds
    runs = activity.runs
    failures = activity.failures
    errorRate = activity.runs > 0 ? Double(activity.failures) / Double(activity.runs) : nil
    pausedAt = activity.pausedAt
    let most = blocked.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key
    blockedBy = activity.pausedAt == nil ? most : "paused"
  }

  /// All waiting jobs.
  public var totalReady: Int { ready.values.reduce(0, +) }
  /// All blocked jobs.
  public var totalBlocked: Int { blocked.values.reduce(0, +) }
  /// How much of what counts against the limit is in use: on the profile itself, or by all its mailboxes together.
  public var inUse: Int { limitIsPerProfile ? slotsInUse : inFlight }
}

extension ServerProfile {
  /// Whether either direction's sessions count on the profile: where one account opens them all.
  public var limitIsPerProfile: Bool {
    [incoming, outgoing].contains { $0.credentials == .profile || $0.credentials == .integrated }
  }
}

/// How many workers the work at hand wants, with the numbers behind it.
public struct ScaleHint: Hashable, Sendable, Codable {
  /// The number to scale to, 1 and up. Always there: without a reading it is the last one, before any it is 1.
  public var workers: Int
  /// Jobs that workers hold.
  public var inFlight: Int
  /// Waiting jobs that a further worker could take: all but those that a limit, a pause or a hold keeps back.
  public var runnable: Int
  /// How long a session takes on average.
  public var meanSessionSeconds: Double
  /// Within how many seconds the waiting jobs should be worked off.
  public var targetSeconds: Double
  /// Sessions that one worker runs at once.
  public var slotsPerWorker: Int
  /// Workers that live now.
  public var presentWorkers: Int
  /// The sessions they can run at once, together.
  public var presentSlots: Int
  /// Whether the queue answered; `false` when these numbers are from before.
  public var isCurrent: Bool

  /// Describes a hint.
  public init(
    workers: Int, inFlight: Int, runnable: Int, meanSessionSeconds: Double, targetSeconds: Double, slotsPerWorker: Int,
    presentWorkers: Int, presentSlots: Int, isCurrent: Bool
  ) {
    self.workers = workers
    self.inFlight = inFlight
    self.runnable = runnable
    self.meanSessionSeconds = meanSessionSeconds
    self.targetSeconds = targetSeconds
    self.slotsPerWorker = slotsPerWorker
    self.presentWorkers = presentWorkers
    self.presentSlots = presentSlots
    self.isCurrent = isCurrent
  }
}
