import PostriderCore

/// How a scheduler process works.
public struct SchedulerConfiguration: Sendable {
  /// Names this process in the leadership row; unique per process.
  public var holder: String
  /// How long a term of leadership lasts without renewal. A standby takes over after at most this and ``retry``.
  public var leadership: Duration = .seconds(10)
  /// How often the leader renews its term, and a standby asks for it.
  public var retry: Duration = .seconds(3)
  /// How often either asks again while PostgreSQL does not answer.
  public var retryWhileAway: Duration = .milliseconds(500)
  /// How often everything overdue is read again, the safety net below the watermark.
  public var rescan: Duration = .seconds(30)
  /// The bounds of the wait between two reads of the watermark.
  public var tick: ClosedRange<Duration> = .milliseconds(50) ... .seconds(1)
  /// Rows read and enqueued at once.
  public var pageSize = 1_000
  /// Rows per second of a rescan, so that it never crowds out what has just become due.
  public var rescanRowsPerSecond = 5_000
  /// Rows read at once while an empty queue is filled.
  public var refillPageSize = 10_000
  /// Calls under way at once while an empty queue is filled.
  public var refillCalls = 4
  /// How often moves, poison jobs and repairs are looked for; announced ones are looked at once.
  public var upkeep: Duration = .seconds(2)
  /// How often a step of the invariants is checked while there is nothing else to do.
  public var check: Duration = .seconds(1)
  /// Entries of the queue looked at in one step of such a check.
  public var checkSize = 500
  /// Entries looked at in one step of a repair that a person asked for.
  public var repairSize = 2_000
  /// How often profiles are looked for whose polls are late by more than one interval. One that is so twice in a row gets
  /// an alert.
  public var lateness: Duration = .seconds(30)

  /// How often the open alerts are counted.
  public var alertCount: Duration = .seconds(15)

  /// Writes the mail that tells people of alerts.
  public typealias AlertComposer = @Sendable (AlertDigest) throws -> OutgoingSubmission

  /// How often alerts are looked for that have to be mailed.
  public var alertMail: Duration = .seconds(15)
  /// How often the failing mailboxes of profiles are counted whose owner wants to be told.
  public var failingProfiles: Duration = .seconds(120)
  /// An organization gets at most one such mail in this time.
  public var alertMailPause: Duration = .seconds(60)
  /// Who writes it; `nil` for none to be mailed.
  public var composeAlertMail: AlertComposer?

  /// The defaults of a deployment.
  public init(holder: String) { self.holder = holder }
}
