import FoundationEssentials
import PostriderCore

/// What the leading scheduler does besides filling the queue.
extension PostgresStore {
  // MARK: Moves

  /// Mailboxes that were given to another profile and are not withdrawn from the old one yet, at most `limit`.
  public func moves(limit: Int) async throws -> [MailboxMove] {
    try await pool.transaction(.worker) { db in
      try db.commit([
        Statement("SELECT mailbox_id, moved_from FROM mailbox_move ORDER BY moved_at LIMIT $1", [.int(Int64(limit))])
      ])[0].map { row in MailboxMove(mailbox: try row.id(), from: try row.id()) }
    }
  }

  /// Lets the jobs of these mailboxes run under their new profiles: nothing is queued or leased under the old ones.
  public func finish(_ moves: [MailboxMove]) async throws {
    if moves.isEmpty { return }
    let mailboxes = PostgresValue.ids(Array(Set(moves.map(\.mailbox))).sorted())
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement("SELECT 1 FROM mailbox WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", [mailboxes]),
        Statement(
          """
          DELETE FROM mailbox_move v USING unnest($1, $2) AS i (mailbox_id, moved_from)
          WHERE v.mailbox_id = i.mailbox_id AND v.moved_from = i.moved_from
          """, [.ids(moves.map(\.mailbox)), .ids(moves.map(\.from))]),
        .refreshMayRun(mailboxes),
      ])
    }
  }

  // MARK: Poison

  /// Remembers poison jobs: their rows may not run until a person releases them, and an alert says so.
  public func setAside(_ jobs: [PoisonedJob]) async throws {
    let named = jobs.compactMap { poisoned in JobID(poisoned.job).map { (id: $0, job: poisoned) } }
    if named.isEmpty { return }
    let mailboxes = PostgresValue.ids(Array(Set(named.map(\.id.mailbox))).sorted())
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement("SELECT 1 FROM mailbox WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", [mailboxes]),
        Statement(
          """
          WITH new AS (
            INSERT INTO set_aside_job (mailbox_id, kind, organization_id, job, profile_id, reclaims, worker, since)
            SELECT DISTINCT ON (m.id, i.kind) m.id, i.kind, m.organization_id, i.job, i.profile_id, i.reclaims,
              i.worker, now()
            FROM unnest($1, $2, $3, $4, $5, $6) AS i (mailbox_id, kind, job, profile_id, reclaims, worker)
            JOIN mailbox m ON m.id = i.mailbox_id
            ON CONFLICT (mailbox_id, kind) DO NOTHING RETURNING *
          )
          INSERT INTO alert AS a (organization_id, mailbox_id, code, level, text, remedy, parameters, count)
          SELECT DISTINCT ON (n.mailbox_id) n.organization_id, n.mailbox_id, $7, 'error',
            'The ' || CASE n.kind WHEN 'p' THEN 'poll' WHEN 's' THEN 'send' ELSE 'test' END || ' of this mailbox was taken'
              || ' back from a worker ' || n.reclaims || ' times in a row and is set aside; the last worker was '
              || n.worker || '.',
            'Look at it with `postrider queue inspect ' || n.mailbox_id || '` and at the log of that worker; let it run'
              || ' again with `postrider queue poison release ' || n.job || '`.',
            jsonb_build_object('job', n.job, 'reclaims', n.reclaims::text, 'worker', n.worker),
            count(*) OVER (PARTITION BY n.mailbox_id)
          FROM new n ORDER BY n.mailbox_id, n.kind
          ON CONFLICT (mailbox_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL
          DO UPDATE SET count = a.count + EXCLUDED.count, last_seen = now(), text = EXCLUDED.text,
            remedy = EXCLUDED.remedy, parameters = EXCLUDED.parameters
          """,
          [
            .ids(named.map(\.id.mailbox)), .texts(named.map(\.id.kind.rawValue)), .texts(named.map(\.job.job)),
            .ids(named.map(\.job.profileID)), .ints(named.map { Int64($0.job.reclaims) }),
            .texts(named.map(\.job.worker)), .text(PoisonAlert.code),
          ]),
        .refreshMayRun(mailboxes),
      ])
    }
  }

  // MARK: Repairs

  /// The numbers of the repairs that people asked for and that are not done, oldest first.
  public func openRepairs() async throws -> [Int64] {
    try await pool.transaction(.worker) { db in
      try db.commit([Statement("SELECT id FROM queue_repair WHERE finished_at IS NULL ORDER BY id LIMIT 100")])[0]
        .map { try $0.int() }
    }
  }

  /// Writes what a repair found; one that is done already stays as it is.
  public func finishRepair(_ id: Int64, _ report: RepairReport) async throws {
    let json = try PostgresValue.jsonText(report)
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          "UPDATE queue_repair SET finished_at = now(), report = $2::jsonb WHERE id = $1 AND finished_at IS NULL",
          [.int(id), .text(json)])
      ])
    }
  }

  // MARK: Stretched schedules

  /// The profiles whose polls are late by more than one interval.
  ///
  /// Walks the part of the due index that lies more than a minute, the shortest interval, in the past: nothing in good
  /// times. In bad ones at most the 200,000 oldest rows are read; the order is by due time, so the latest are among them.
  public func lateProfiles() async throws -> [LateProfile] {
    try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT p.id, late.seconds::int, count(*), extract(epoch FROM now() - min(s.next_due_at))::int
          FROM (
            SELECT profile_id, next_due_at FROM mailbox_schedule
            WHERE enabled AND next_due_at < now() - interval '1 minute' AND kind = 'p' AND profile_id IS NOT NULL
            ORDER BY next_due_at, mailbox_id, kind LIMIT 200000
          ) s
          JOIN server_profile p ON p.id = s.profile_id
          JOIN organization o ON o.id = p.organization_id
          CROSS JOIN LATERAL (
            SELECT 60 * coalesce(nullif(p.minimum_polling_interval_minutes, 0), o.polling_interval_minutes) AS seconds
          ) late
          WHERE p.is_active AND p.paused_at IS NULL AND o.paused_at IS NULL
            AND s.next_due_at < now() - late.seconds * interval '1 second'
            AND s.next_due_at > coalesce(greatest(p.resumed_at, o.resumed_at), '-infinity')
          GROUP BY p.id, late.seconds ORDER BY p.id
          """)
      ])[0].map { row in
        LateProfile(
          profileID: try row.id(), intervalSeconds: Int(try row.int()), mailboxes: Int(try row.int()),
          lateSeconds: Int(try row.int()))
      }
    }
  }

  /// Raises or updates the alert of each stretched profile and resolves those of all the others.
  public func report(stretched: [StretchedProfile]) async throws {
    let profiles = stretched.map(\.late.profileID)
    var statements = [
      Statement(
        """
        UPDATE alert SET resolved_at = now()
        WHERE code = $1 AND resolved_at IS NULL AND profile_id IS NOT NULL AND profile_id <> ALL ($2)
        """, [.text(StretchAlert.code), .ids(profiles)])
    ]
    if !stretched.isEmpty {
      let alerts = stretched.map(StretchAlert.init)
      statements.append(
        Statement(
          """
          INSERT INTO alert AS a (organization_id, profile_id, code, direction, level, text, remedy, parameters)
          SELECT p.organization_id, p.id, $1, 'incoming', 'warning', i.text, i.remedy, i.parameters::jsonb
          FROM unnest($2, $3, $4, $5) AS i (profile_id, text, remedy, parameters)
          JOIN server_profile p ON p.id = i.profile_id
          ON CONFLICT (profile_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND profile_id IS NOT NULL
          DO UPDATE SET last_seen = now(), text = EXCLUDED.text, remedy = EXCLUDED.remedy,
            parameters = EXCLUDED.parameters
          """,
          [
            .text(StretchAlert.code), .ids(profiles), .texts(alerts.map(\.text)), .texts(alerts.map(\.remedy)),
            .texts(try alerts.map { try PostgresValue.jsonText($0.parameters) }),
          ]))
    }
    let all = statements
    try await pool.transaction(.worker) { db in _ = try db.commit(all) }
  }

  /// How many alerts of all organizations are open, by level, each level there.
  ///
  /// Read by the two partial indexes of open alerts, so it costs nothing to have many that are resolved.
  public func openAlerts() async throws -> [AlertLevel: Int] {
    let rows = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT level, count(*) FROM (
            (SELECT level FROM alert WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL LIMIT 200000)
            UNION ALL
            (SELECT level FROM alert WHERE resolved_at IS NULL AND profile_id IS NOT NULL LIMIT 200000)
          ) open GROUP BY level
          """)
      ])[0].map { row in (try row.text(), Int(try row.int())) }
    }
    var counts = Dictionary(uniqueKeysWithValues: AlertLevel.allCases.map { ($0, 0) })
    for (level, count) in rows {
      if let level = AlertLevel(rawValue: level) { counts[level] = count }
    }
    return counts
  }

  /// Forgets statistics that nobody reads any more.
  public func forgetOldActivity() async throws {
    try await pool.transaction(.worker) { db in
      _ = try db.commit([Statement("DELETE FROM profile_activity WHERE minute < now() - interval '10 minutes'")])
    }
  }
}

/// The alert that says that a profile's mailboxes are polled less often than asked for.
struct StretchAlert {
  static let code = "schedule.stretched"

  var text: String
  var remedy: String
  var parameters: [String: String]

  init(_ stretched: StretchedProfile) {
    let late = stretched.late
    let effective = late.effectiveIntervalSeconds
    let cause: String
    switch stretched.cause {
    case "limit":
      cause = "its maximum number of concurrent connections is reached"
      remedy =
        "Raise the profile's maximum of concurrent connections if its server allows more, or its minimum polling interval;"
        + " more workers do not help."
    case "overload":
      cause = "all workers are busy"
      remedy = "Start more workers, or raise the profile's minimum polling interval."
    default:
      cause = "its jobs are held back (\(stretched.cause))"
      remedy = "Look at the profile with `postrider queue top`."
    }
    text =
      "Mailboxes of this profile are polled about every \(Self.words(effective)) instead of every"
      + " \(Self.words(late.intervalSeconds)), because \(cause)."
    parameters = [
      "cause": stretched.cause, "direction": Direction.incoming.rawValue,
      "effectiveIntervalSeconds": String(effective), "intervalSeconds": String(late.intervalSeconds),
      "lateMailboxes": String(late.mailboxes), "lateSeconds": String(late.lateSeconds),
    ]
  }

  private static func words(_ seconds: Int) -> String {
    let minutes = seconds / 60
    return minutes == 1 ? "minute" : "\(minutes) minutes"
  }
}
