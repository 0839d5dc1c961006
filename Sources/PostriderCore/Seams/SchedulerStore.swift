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

/// What the database announces to the scheduler.
public enum ScheduleSignal: Hashable, Sendable {
  /// These rows were changed or requested; read them.
  case jobs([JobID])
  /// This profile changed; read it.
  case profile(ProfileID)
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
public protocol SchedulerStore: Sendable {
  /// Becomes or stays the leader for `duration`; `nil` while somebody else is.
  func lead(holder: String, duration: Duration) async throws -> LeadershipTerm?

  /// Gives leadership up, so that a standby takes over at once.
  func resign(holder: String) async throws

  /// A number greater than every epoch before; 1 for the first ever.
  func nextEpoch() async throws -> Int64

  /// All profiles with at least one mailbox, as the queue needs them.
  func queueProfiles() async throws -> [QueueProfile]

  /// One profile; with limit 0 when it is inactive or gone.
  func queueProfile(_ id: ProfileID) async throws -> QueueProfile

  /// Runnable rows that became due after `position` and up to the database's now, oldest first, at most `limit`.
  func due(after position: DuePage.Position, limit: Int) async throws -> DuePage

  /// The present state of these rows; absent ones are left out.
  func scheduled(_ jobs: [JobID]) async throws -> [ScheduledJob]

  /// The earliest due time of a runnable row after now, microseconds since 1970; `nil` when nothing is scheduled.
  func nextDueMicroseconds() async throws -> Int64?

  /// What the database announces. Begins with `rescan`, repeats it after each reconnection; ends on cancellation.
  func signals() -> AsyncStream<ScheduleSignal>
}
