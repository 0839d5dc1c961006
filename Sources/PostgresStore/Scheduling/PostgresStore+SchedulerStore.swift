import PostriderCore

extension PostgresStore {
  /// Becomes or stays the leader for `duration`; `nil` while somebody else is.
  public func lead(holder: String, duration: Duration) async throws -> LeadershipTerm? {
    // Whoever leads writes to the schedule of everybody.
    try await schema.pass()
    // Trust is counted from before the request leaves: the database's own deadline is later.
    let start = ContinuousClock.now
    let term: Int64? = try await pool.transaction(.worker) { db in
      let result = try db.commit([
        Statement(
          """
          UPDATE leadership SET
            term = CASE WHEN holder = $1 AND expires_at > clock_timestamp() THEN term ELSE term + 1 END,
            holder = $1, expires_at = clock_timestamp() + $2 * interval '1 millisecond'
          WHERE holder IS NULL OR holder = $1 OR expires_at <= clock_timestamp()
          RETURNING term
          """, [.text(holder), .int(duration.wholeMilliseconds)])
      ])[0]
      return try result.map { try $0.int() }.first
    }
    return term.map { LeadershipTerm(term: $0, trustedUntil: start + duration) }
  }

  /// Gives leadership up, so that a standby takes over at once.
  public func resign(holder: String) async throws {
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          "UPDATE leadership SET holder = NULL, expires_at = clock_timestamp() WHERE holder = $1", [.text(holder)])
      ])
    }
  }

  /// A number greater than every epoch before; 1 for the first ever.
  public func nextEpoch() async throws -> Int64 {
    try await pool.transaction(.worker) { db in
      var row = try db.commit([Statement("SELECT nextval('queue_epoch')")])[0][0]
      return try row.int()
    }
  }

  private static let queueProfileColumns = """
    SELECT p.id, CASE WHEN p.is_active THEN p.maximum_concurrent_connections ELSE 0 END,
      p.incoming_credentials IN ('profile', 'integrated'), p.outgoing_credentials IN ('profile', 'integrated'),
      p.weight, coalesce(p.paused_at, o.paused_at) IS NOT NULL
    FROM server_profile p JOIN organization o ON o.id = p.organization_id
    """

  private static func queueProfile(_ row: inout Row) throws -> QueueProfile {
    QueueProfile(
      id: try row.id(), limit: Int(try row.int()), countsIncomingOnProfile: try row.bool(),
      countsOutgoingOnProfile: try row.bool(), weight: Int(try row.int()), paused: try row.bool())
  }

  /// All profiles with at least one mailbox, as the queue needs them.
  public func queueProfiles() async throws -> [QueueProfile] {
    try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          Self.queueProfileColumns + " WHERE EXISTS (SELECT FROM mailbox m WHERE m.profile_id = p.id) ORDER BY p.id")
      ])[0].map(Self.queueProfile)
    }
  }

  /// These profiles, in the order asked; with limit 0 those that are inactive or gone.
  public func queueProfiles(_ ids: [ProfileID]) async throws -> [QueueProfile] {
    if ids.isEmpty { return [] }
    let found = try await pool.transaction(.worker) { db in
      try db.commit([Statement(Self.queueProfileColumns + " WHERE p.id = ANY ($1)", [.ids(ids)])])[0]
        .map(Self.queueProfile)
    }
    let byID = Dictionary(uniqueKeysWithValues: found.map { ($0.id, $0) })
    return ids.map { byID[$0] ?? QueueProfile(id: $0, limit: 0) }
  }

  private static func job(_ row: inout Row) throws -> (job: Job, dueMicroseconds: Int64) {
    let mailbox: MailboxID = try row.id()
    let kind: JobKind = try row.word()
    let profile: ProfileID = try row.id()
    let jobClass = JobClass(rawValue: Int(try row.int())) ?? .poll
    let due = try row.microseconds()
    return (
      Job(
        id: JobID(mailbox: mailbox, kind: kind), profile: profile, jobClass: jobClass,
        dueMilliseconds: due.flooredMilliseconds), due
    )
  }

  /// Reads a page of due rows by the partial index alone. `NOT IN` becomes a hash table of the few profiles that stand
  /// still, so a row costs the same however many they are.
  static func dueStatement(_ selection: DueSelection) -> String {
    let condition =
      switch selection {
      case .all: ""
      case .running: " AND \(ofRunningProfile)"
      case .urgent: " AND job_class <= 1 AND \(ofRunningProfile)"
      }
    return """
      SELECT mailbox_id, kind, profile_id, job_class, next_due_at FROM mailbox_schedule
      WHERE enabled AND (next_due_at, mailbox_id, kind) > ($1, $2, $3) AND next_due_at <= now()
        AND profile_id IS NOT NULL\(condition)
      ORDER BY next_due_at, mailbox_id, kind LIMIT $4
      """
  }

  private static let ofRunningProfile = """
    profile_id NOT IN (
      SELECT p.id FROM server_profile p JOIN organization o ON o.id = p.organization_id
      WHERE NOT p.is_active OR p.paused_at IS NOT NULL OR o.paused_at IS NOT NULL)
    """

  /// Rows of the selection that became due after `position` and up to the database's now, oldest first, at most `limit`.
  public func due(
    after position: DuePage.Position, limit: Int, only selection: DueSelection
  ) async throws -> DuePage {
    try await pool.transaction(.worker) { db in
      let results = try db.commit([
        Statement("SELECT now()"),
        Statement(
          Self.dueStatement(selection),
          [
            .microseconds(position.dueMicroseconds), .int(position.mailbox), .text(position.kind), .int(Int64(limit)),
          ]),
      ])
      var clock = results[0][0]
      let rows = try results[1].map(Self.job)
      let next = rows.last.map {
        DuePage.Position(
          dueMicroseconds: $0.dueMicroseconds, mailbox: $0.job.id.mailbox.value, kind: $0.job.id.kind.rawValue)
      }
      return DuePage(
        jobs: rows.map(\.job), next: rows.count < limit ? nil : next, nowMicroseconds: try clock.microseconds())
    }
  }

  /// The present state of these rows; absent ones, those without a profile and those that a pause of their mailbox keeps
  /// from running are left out.
  public func scheduled(_ jobs: [JobID]) async throws -> [ScheduledJob] {
    if jobs.isEmpty { return [] }
    return try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT s.mailbox_id, s.kind, s.profile_id, s.job_class, coalesce(s.next_due_at, now()),
            s.enabled AND (s.requested > s.served OR coalesce(s.next_due_at <= now(), false))
          FROM unnest($1, $2) AS i (mailbox_id, kind) JOIN mailbox_schedule s USING (mailbox_id, kind)
          JOIN mailbox m ON m.id = s.mailbox_id
          WHERE s.profile_id IS NOT NULL AND (s.enabled OR m.paused_at IS NULL)
          """, [.ids(jobs.map(\.mailbox)), .texts(jobs.map(\.kind.rawValue))])
      ])[0].map { row in ScheduledJob(job: try Self.job(&row).job, runnable: try row.bool()) }
    }
  }

  /// The earliest due time of a runnable row after now, microseconds since 1970; `nil` when nothing is scheduled.
  public func nextDueMicroseconds() async throws -> Int64? {
    try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT next_due_at FROM mailbox_schedule WHERE enabled AND next_due_at > now()
          ORDER BY next_due_at, mailbox_id, kind LIMIT 1
          """)
      ])[0].map { try $0.microseconds() }.first
    }
  }

  /// What the database announces. Begins with `rescan`, repeats it after each reconnection; ends on cancellation.
  public func signals() -> AsyncStream<ScheduleSignal> {
    SignalListener(
      url: ConnectionURL(configuration.directURL.revealed), application: configuration.applicationName,
      connectTimeout: configuration.connectTimeout, logger: logger
    ).signals()
  }
}

extension Int64 {
  /// Microseconds as milliseconds, towards the past.
  fileprivate var flooredMilliseconds: Int64 { self >= 0 ? self / 1_000 : (self - 999) / 1_000 }
}
