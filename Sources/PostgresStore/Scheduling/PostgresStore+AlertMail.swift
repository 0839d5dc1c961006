import FoundationEssentials
import PostriderCore

/// Alerts on their way into mail.
extension PostgresStore {
  /// Which alerts `a` an organization's settings `s`, with their mailbox `m`, send by mail: each once, and again when it
  /// has become an error. What comes back within the hour is known.
  ///
  /// Never what concerns the sending itself, the mailbox's own alerts and those of its outgoing server: they could not
  /// leave, or would make others of their kind.
  private static let isToMail = """
    a.organization_id = s.organization_id AND a.resolved_at IS NULL AND s.levels ? a.level
      AND (a.mailed_level IS NULL OR a.level = 'error' AND a.mailed_level <> 'error')
      AND a.mailbox_id IS DISTINCT FROM s.mailbox_id
      AND NOT (a.profile_id IS NOT NULL AND a.profile_id = m.profile_id AND a.direction IS DISTINCT FROM 'incoming')
      AND NOT EXISTS (SELECT FROM alert b
        WHERE b.code = a.code AND coalesce(b.mailbox_id, -b.profile_id) = coalesce(a.mailbox_id, -a.profile_id)
          AND b.mailed_at > now() - interval '1 hour' AND b.organization_id = a.organization_id
          AND b.id <> a.id AND b.level = a.level AND b.direction IS NOT DISTINCT FROM a.direction)
    """

  /// Settings that are on, whose mailbox sends, and whose last mail is some time ago: alerts come in swarms.
  private static let isReady =
    "s.is_on AND (s.last_mailed_at IS NULL OR s.last_mailed_at < now() - $1 * interval '1 ms')"

  /// The mails that alerts are due for, at most one for each organization.
  public func alertDigests(pause: Duration) async throws -> [AlertDigest] {
    let wait = PostgresValue.int(Int64(pause / .milliseconds(1)))
    return try await pool.transaction(.worker) { db in
      let ready = try db.query(
        """
        SELECT s.organization_id, s.mailbox_id, m.address, s.recipients FROM alert_mail s
        JOIN mailbox m ON m.id = s.mailbox_id JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = 's'
        WHERE \(Self.isReady) AND h.enabled AND EXISTS (SELECT FROM alert a WHERE \(Self.isToMail))
        ORDER BY s.organization_id LIMIT 100
        """, [wait]
      ).map { row in
        AlertDigest(
          organizationID: try row.id(), mailboxID: try row.id(), sender: try row.text(), recipients: try row.json(),
          alerts: [])
      }
      let owners = try db.pipeline([Self.ownerStatement])[0].map { row in
        AlertDigest(
          organizationID: try row.id(), mailboxID: try row.id(), sender: try row.text(),
          recipients: [try row.text()], isForOwner: true, alerts: [try Self.alert(&row)])
      }
      let alerts = try db.commit(
        ready.map { digest in
          Statement(
            """
            SELECT a.id, a.level, a.code, a.text, a.remedy, a.parameters, a.mailbox_id, b.address, a.profile_id,
              a.run_id, a.count, a.first_seen, a.last_seen, a.resolved_at
            FROM alert_mail s JOIN mailbox m ON m.id = s.mailbox_id JOIN alert a ON \(Self.isToMail)
            LEFT JOIN mailbox b ON b.id = a.mailbox_id
            WHERE s.organization_id = $1
            ORDER BY a.level = 'error' DESC, a.level = 'warning' DESC, a.id LIMIT $2
            """, [.id(digest.organizationID), .int(Int64(AlertDigest.maximumAlerts))])
        })
      return try zip(ready, alerts).map { digest, rows in
        var digest = digest
        digest.alerts = try rows.map(Self.alert)
        return digest
      }.filter { !$0.alerts.isEmpty } + owners
    }
  }

  /// Whom each failing profile's owner is told by: the mailbox that alerts are mailed from, whether or not they are.
  private static let ownerStatement = Statement(
    """
    SELECT s.organization_id, s.mailbox_id, m.address, p.failure_notice_to, a.id, a.level, a.code, a.text, a.remedy,
      a.parameters, a.mailbox_id, NULL::text, a.profile_id, a.run_id, a.count, a.first_seen, a.last_seen, a.resolved_at
    FROM alert a JOIN server_profile p ON p.id = a.profile_id AND p.failure_notice_to IS NOT NULL
    JOIN alert_mail s ON s.organization_id = a.organization_id JOIN mailbox m ON m.id = s.mailbox_id
    JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = 's' AND h.enabled
    WHERE a.code = $1 AND a.resolved_at IS NULL AND a.owner_mailed_at IS NULL
      AND NOT EXISTS (SELECT FROM alert b WHERE b.organization_id = a.organization_id AND b.code = a.code
        AND b.profile_id = a.profile_id AND b.owner_mailed_at > now() - interval '1 hour')
    ORDER BY a.id LIMIT 100
    """, [.text(ProfileFailureNotice.code)])

  /// What stops all mailboxes of a profile: while it lasts they are not even tried, and have no failure of their own.
  private static let stoppingCodes = FailureCode.allCases.filter {
    $0.defaultScope == .server || $0.defaultScope == .profile || $0 == .smtpBusy || $0 == .authMassRejection
  }.map(\.rawValue)

  /// Raises, updates and resolves the alerts of profiles more than half of whose mailboxes fail within an hour, where
  /// somebody wants to be told.
  public func reportFailingProfiles() async throws {
    let failing = Statement(
      """
      SELECT p.id, p.organization_id, count(*) AS mailboxes, count(*) FILTER (WHERE f.fails) AS failing
      FROM server_profile p JOIN mailbox m ON m.profile_id = p.id AND m.is_active
      CROSS JOIN LATERAL (SELECT greatest(m.incoming_failed_at, m.outgoing_failed_at) > now() - interval '1 hour'
        OR EXISTS (SELECT FROM mailbox_schedule h WHERE h.mailbox_id = m.id AND h.kind IN ('p', 's')
          AND h.failure_code IS NOT NULL AND h.last_run_at > now() - interval '1 hour')
        OR EXISTS (SELECT FROM alert w WHERE w.profile_id = p.id AND w.resolved_at IS NULL
          AND w.level IN ('warning', 'error') AND w.code = ANY ($2)) AS fails) f
      WHERE p.failure_notice_to IS NOT NULL AND p.is_active
      GROUP BY p.id HAVING 2 * count(*) FILTER (WHERE f.fails) > count(*)
      """)
    let code = PostgresValue.text(ProfileFailureNotice.code)
    let stopping = PostgresValue.texts(Self.stoppingCodes)
    let remedy =
      "Look at the profile with `postrider queue top` and at its mailboxes with `postrider mailbox list "
      + "--view failing`."
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          """
          UPDATE alert a SET resolved_at = now() WHERE a.code = $1 AND a.resolved_at IS NULL AND a.profile_id IS NOT NULL
            AND a.profile_id NOT IN (SELECT id FROM (\(failing.sql)) f)
          """, [code, stopping]),
        Statement(
          """
          INSERT INTO alert AS a (organization_id, profile_id, code, level, text, remedy, parameters)
          SELECT f.organization_id, f.id, $1, 'error', f.failing || ' of ' || f.mailboxes || ' mailboxes of this profile'
            || ' failed within the last hour.', $3,
            jsonb_build_object('failing', f.failing::text, 'mailboxes', f.mailboxes::text)
          FROM (\(failing.sql)) f
          ON CONFLICT (profile_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND profile_id IS NOT NULL
          DO UPDATE SET last_seen = now(), text = EXCLUDED.text, parameters = EXCLUDED.parameters
          """, [code, stopping, .text(remedy)]),
      ])
    }
  }

  /// Resolves alerts of answers that were held back, when none was for a day.
  public func forgetHeldAnswers() async throws {
    let codes = [FailureCode.sendLoop, .sendAutomaticAnswer].map(\.rawValue)
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          """
          UPDATE alert SET resolved_at = now()
          WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL AND code = ANY ($1)
            AND last_seen < now() - interval '1 day'
          """, [.texts(codes)])
      ])
    }
  }

  /// Hands the mail over and remembers which alerts were in it. Returns whether it did: another leader may have been
  /// first, or a person may have turned it off.
  public func submit(_ mail: OutgoingSubmission, of digest: AlertDigest, pause: Duration) async throws -> Bool {
    let organization = digest.organizationID
    let ids = PostgresValue.ids(digest.alerts.map(\.id))
    let mark =
      digest.isForOwner
      ? Statement(
        "UPDATE alert SET owner_mailed_at = now() WHERE id = ANY ($1) AND owner_mailed_at IS NULL RETURNING 1", [ids])
      : Statement(
        """
        UPDATE alert_mail s SET last_mailed_at = now()
        WHERE \(Self.isReady) AND s.organization_id = $2 AND s.mailbox_id = $3 RETURNING 1
        """, [.int(Int64(pause / .milliseconds(1))), .id(organization), .id(mail.mailboxID)])
    return try await pool.transaction(.worker) { db in
      let first = try db.pipeline([
        Statement("SELECT 1 FROM mailbox WHERE id = $1 FOR NO KEY UPDATE", [.id(mail.mailboxID)]),
        mark,
        Statement("SELECT nextval('content_id_seq'), nextval('outgoing_email_id_seq')"),
      ])
      guard first[1].count == 1 else { return false }
      var numbers = first[2][0]
      let content = try numbers.int()
      let email: OutgoingEmailID = try numbers.id()
      try db.commit { send in
        try send(Self.contentStatement([(content, mail.raw)], organization))
        try withoutActuallyEscaping(send) { send in
          var batch = ChunkBatch(organization: organization, send: send)
          try batch.add(mail.raw, id: content)
          try batch.flush()
        }
        for statement in try Self.rows(
          of: mail, email, content: content, sender: mail.sender ?? digest.sender, organization)
        {
          try send(statement)
        }
        if !digest.isForOwner {
          try send(Statement("UPDATE alert SET mailed_at = now(), mailed_level = level WHERE id = ANY ($1)", [ids]))
        }
      }
      return true
    }
  }
}
