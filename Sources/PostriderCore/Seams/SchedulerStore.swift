/// A row of the schedule as the scheduler reads it.
public struct ScheduledJob: Hashable, Sendable {
  /// The job to enqueue (or to withdraw).
  public var job: Job
  /// Whether it may run now: enabled and due, or requested. `false` asks for withdrawal.
  public var runnable: Bool

  /// Describes a row.
  public init(job: Job, runnable: Bool) {
    self.job = job
    self.runnable = runnable
  }
}

/// A page of due rows in the order of (due time, mailbox, kind).
public struct DuePage: Hashable, Sendable {
  /// A position between two rows.
  public struct Position: Hashable, Sendable {
    /// Due time, microseconds since 1970 on the database's clock.
    public var dueMicroseconds: Int64
    /// The last row's mailbox.
    public var mailbox: Int64
    /// The last row's kind letter.
    public var kind: String

    /// Describes a position; the defaults lie before every row of that time.
    public init(dueMicroseconds: Int64, mailbox: Int64 = 0, kind: String = "") {
      self.dueMicroseconds = dueMicroseconds
      self.mailbox = mailbox
      self.kind = kind
    }
  }

  /// The rows.
  public var jobs: [Job]
  /// Where the next page begins; `nil` when this one was the last.
  public var next: Position?
  /// The database's clock when the page was read, microseconds since 1970.
  public var nowMicroseconds: Int64

  /// Describes a page.
  public init(jobs: [Job], next: Position?, nowMicroseconds: Int64) {
    self.jobs = jobs
    self.next = next
    self.nowMicroseconds = nowMicroseconds
  }
}

/// Which of the due rows to read.
public enum DueSelection: Hashable, Sendable, CaseIterable {
  /// Each that became due, also of paused profiles: the queue keeps their jobs and grants none.
  case all
  /// Those of profiles that are active and not paused: a rescan need not read again and again what may not run.
  case running
  /// Those of them that go first into an empty queue: what a person waits for, and sends.
  case urgent
}

/// A mailbox that was given to another profile and may not run there before its jobs are gone from the old one.
public struct MailboxMove: Hashable, Sendable {
  /// The mailbox.
  public var mailbox: MailboxID
  /// The profile it came from.
  public var from: ProfileID

  /// Describes a move.
  public init(mailbox: MailboxID, from: ProfileID) {
    self.mailbox = mailbox
    self.from = from
  }

  /// Every job that the mailbox may have in the queue under the old profile.
  public var jobs: [Job] {
    JobKind.allCases.flatMap { JobID.all(of: mailbox, $0) }.map {
      Job(id: $0, profile: from, jobClass: .poll, dueMilliseconds: 0)
    }
  }
}

/// A profile whose polls run late by more than one interval.
public struct LateProfile: Hashable, Sendable {
  /// Which profile.
  public var profileID: ProfileID
  /// Seconds from slot to slot as asked for.
  public var intervalSeconds: Int
  /// How many mailboxes are that late.
  public var mailboxes: Int
  /// How late the latest of them is, seconds.
  public var lateSeconds: Int

  /// Describes a late profile.
  public init(profileID: ProfileID, intervalSeconds: Int, mailboxes: Int, lateSeconds: Int) {
    self.profileID = profileID
    self.intervalSeconds = intervalSeconds
    self.mailboxes = mailboxes
    self.lateSeconds = lateSeconds
  }

  /// Seconds from slot to slot as it really goes: whole intervals, because late slots collapse into one.
  public var effectiveIntervalSeconds: Int {
    intervalSeconds * max(2, (lateSeconds + intervalSeconds - 1) / max(1, intervalSeconds))
  }
}

/// Why a profile's polls are late, for the alert on its wall.
public struct StretchedProfile: Hashable, Sendable {
  /// How late.
  public var late: LateProfile
  /// `limit` (the connection limit of the profile), `overload` (every worker is busy, or there is none), or the reason of
  /// a hold.
  public var cause: String

  /// Describes a stretched profile.
  public init(late: LateProfile, cause: String) {
    self.late = late
    self.cause = cause
  }
}

/// What the database announces to the scheduler.
public enum ScheduleSignal: Hashable, Sendable {
  /// These rows were changed or requested; read them.
  case jobs([JobID])
  /// This profile changed; read it.
  case profile(ProfileID)
  /// Every profile may have changed; read them all, and what is due.
  case profiles
  /// A mailbox changed its profile; see ``SchedulerStore/moves(limit:)``.
  case moves
  /// A repair was asked for; see ``SchedulerStore/openRepairs()``.
  case repair
  /// The connection was (re)established or an announcement was too long: read everything that is due.
  case rescan
}

/// A term of leadership, kept by a row in PostgreSQL on the database's clock.
public struct LeadershipTerm: Hashable, Sendable {
  /// Grows with every change of leader.
  public var term: Int64
  /// The last moment, on this process's clock, at which the term can be trusted; counted from before the request left.
  public var trustedUntil: ContinuousClock.Instant

  /// Describes a term.
  public init(term: Int64, trustedUntil: ContinuousClock.Instant) {
    self.term = term
    self.trustedUntil = trustedUntil
  }
}

/// What the scheduler needs of PostgreSQL. Calls throw ``StoreError``.
public protocol SchedulerStore: SweepStore {
  /// Becomes or stays the leader for `duration`; `nil` while somebody else is.
  func lead(holder: String, duration: Duration) async throws -> LeadershipTerm?

  /// Gives leadership up, so that a standby takes over at once.
  func resign(holder: String) async throws

  /// A number greater than every epoch before; 1 for the first ever.
  func nextEpoch() async throws -> Int64

  /// All profiles with at least one mailbox, as the queue needs them.
  func queueProfiles() async throws -> [QueueProfile]

  /// These profiles; with limit 0 those that are inactive or gone.
  func queueProfiles(_ ids: [ProfileID]) async throws -> [QueueProfile]

  /// Rows of the selection that became due after `position` and up to the database's now, oldest first, at most `limit`.
  func due(after position: DuePage.Position, limit: Int, only selection: DueSelection) async throws -> DuePage

  /// The present state of these rows; absent ones are left out, and so are those that a pause of their mailbox keeps from
  /// running: their sessions end by themselves and are not withdrawn.
  func scheduled(_ jobs: [JobID]) async throws -> [ScheduledJob]

  /// The earliest due time of a runnable row after now, microseconds since 1970; `nil` when nothing is scheduled.
  func nextDueMicroseconds() async throws -> Int64?

  /// Mailboxes that were given to another profile and are not withdrawn from the old one yet, at most `limit`.
  func moves(limit: Int) async throws -> [MailboxMove]

  /// Lets the jobs of these mailboxes run under their new profiles: nothing is queued or leased under the old ones.
  func finish(_ moves: [MailboxMove]) async throws

  /// Remembers poison jobs: their rows may not run until a person releases them, and an alert says so. Those that are
  /// remembered already, or whose mailbox is gone, change nothing. Withdraw them from the queue afterwards.
  func setAside(_ jobs: [PoisonedJob]) async throws

  /// The numbers of the repairs that people asked for and that are not done, oldest first.
  func openRepairs() async throws -> [Int64]

  /// Writes what a repair found.
  func finishRepair(_ id: Int64, _ report: RepairReport) async throws

  /// The profiles whose polls are late by more than one interval, from the schedule; none in good times, when it costs next
  /// to nothing.
  func lateProfiles() async throws -> [LateProfile]

  /// Raises or updates the alert of each stretched profile and resolves those of all the others.
  func report(stretched: [StretchedProfile]) async throws

  /// How many alerts of all organizations are open, by level, each level there; of very many only the first 200,000 of
  /// mailboxes and of profiles.
  func openAlerts() async throws -> [AlertLevel: Int]

  /// Raises, updates and resolves the alerts of profiles more than half of whose mailboxes fail within an hour, where
  /// somebody wants to be told.
  func reportFailingProfiles() async throws

  /// The mails that open alerts are due for: at most one for each organization, none sooner than `pause` after its last,
  /// and one for the owner of each failing profile.
  func alertDigests(pause: Duration) async throws -> [AlertDigest]

  /// Hands such a mail over, in one transaction with the note which alerts were in it. `false` when another leader was
  /// first, or it was turned off meanwhile.
  func submit(_ mail: OutgoingSubmission, of digest: AlertDigest, pause: Duration) async throws -> Bool

  /// Resolves alerts of answers that were held back, when none was for a day.
  func forgetHeldAnswers() async throws

  /// Forgets statistics that nobody reads any more.
  func forgetOldActivity() async throws

  /// What the database announces. Begins with `rescan`, repeats it after each reconnection; ends on cancellation.
  func signals() -> AsyncStream<ScheduleSignal>
}

extension SchedulerStore {
  /// Every row that became due after `position` and up to the database's now, oldest first, at most `limit`.
  public func due(after position: DuePage.Position, limit: Int) async throws -> DuePage {
    try await due(after: position, limit: limit, only: .all)
  }

  /// One profile; with limit 0 when it is inactive or gone.
  public func queueProfile(_ id: ProfileID) async throws -> QueueProfile {
    try await queueProfiles([id]).first ?? QueueProfile(id: id, limit: 0)
  }
}
