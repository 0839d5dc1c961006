/// How a scheduler process works.
public struct SchedulerConfiguration: Sendable {
  /// Names this process in the leadership row; unique per process.
  public var holder: String
  /// How long a term of leadership lasts without renewal. A standby takes over after at most this and ``retry``.
  public var leadership: Duration = .seconds(10)
  /// How often the leader renews its term, and a standby asks for it.
  public var retry: Duration = .seconds(3)
  /// How often everything overdue is read again, the safety net below the watermark.
  public var rescan: Duration = .seconds(30)
  /// The bounds of the wait between two reads of the watermark.
  public var tick: ClosedRange<Duration> = .milliseconds(50) ... .seconds(1)
  /// Rows read and enqueued at once.
  public var pageSize = 1_000
  /// Rows per second of a rescan, so that it never crowds out what has just become due.
  public var rescanRowsPerSecond = 5_000

  /// The defaults of a deployment.
  public init(holder: String) { self.holder = holder }
}
