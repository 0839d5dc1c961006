import PostriderCore

/// What administration began and is too much for one transaction.
extension PostgresStore {
  /// Deleted mailboxes that may still have jobs in the queue, each with every profile under which they may be.
  public func deletedMailboxes(limit: Int) async throws -> [MailboxMove] {
    try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT d.mailbox_id, p.id FROM (
            SELECT mailbox_id, profile_ids FROM deleted_mailbox WHERE profile_ids <> '{}' ORDER BY deleted_at LIMIT $1
          ) d CROSS JOIN LATERAL unnest(d.profile_ids) AS p (id)
          """, [.int(Int64(limit))])
      ])[0].map { row in MailboxMove(mailbox: try row.id(), from: try row.id()) }
    }
  }

  /// Notes that these have no job in the queue any more.
  public func finishWithdrawal(of mailboxes: [MailboxID]) async throws {
    if mailboxes.isEmpty { return }
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement("UPDATE deleted_mailbox SET profile_ids = '{}' WHERE mailbox_id = ANY ($1)", [.ids(mailboxes)])
      ])
    }
  }

  /// Carries out the next step of each kind. Returns whether there is more to do at once.
  public func sweep() async throws -> Bool {
    let steps = [
      try await settleNextOrganization(), try await unlinkNextProfile(), try await deleteNextOfMailbox(),
    ]
    return steps.contains(true)
  }

  /// Schedules that follow from changed settings; `false` when there is no such organization.
  private func settleNextOrganization() async throws -> Bool {
    try await pool.transaction(.worker) { db in
      let next = try db.query(
        """
        SELECT id, settled_to FROM organization WHERE settled_to IS NOT NULL ORDER BY id LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
        """
      ).map { row in (try row.id() as OrganizationID, try row.int()) }.first
      guard let (organization, position) = next else { return false }
      try Self.settle(organization, from: position, db)
      return true
    }
  }

  /// Mailboxes of a profile that is being deleted, and the profile after the last of them.
  private func unlinkNextProfile() async throws -> Bool {
    try await pool.transaction(.worker) { db in
      let next = try db.query(
        """
        SELECT id, organization_id FROM server_profile WHERE deleting_since IS NOT NULL ORDER BY id LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
        """
      ).map { row in (try row.id() as ProfileID, try row.id() as OrganizationID) }.first
      guard let (profile, organization) = next else { return false }
      if try Self.unlink(profile, organization, db) > 0 {
        try db.commit([SchedulePayload.moves])
      } else {
        try db.commit([
          Statement("DELETE FROM server_profile WHERE id = $1", [.id(profile)]),
          SchedulePayload.statement(profile: profile),
        ])
      }
      return true
    }
  }

  /// Messages deleted in one step hold at most so many octets, or are one message: each two kilobytes are a row.
  private static let stepOctets: Int64 = 64 << 20

  /// The next step at a deleted mailbox. After the last one it is looked at once more in an hour, for what a transaction
  /// that was under way has written, and then forgotten.
  private func deleteNextOfMailbox() async throws -> Bool {
    try await pool.transaction(.worker) { db in
      let next: [MailboxID] = try db.query(
        """
        SELECT mailbox_id FROM deleted_mailbox WHERE next_step_at <= now() ORDER BY next_step_at LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
        """
      ).map { try $0.id() }
      guard let mailbox = next.first else { return false }
      let deleted = try db.pipeline(Self.deletions(mailbox)).reduce(0) { $0 + $1.affected }
      if deleted == 0 {
        try db.pipeline([
          Statement(
            """
            DELETE FROM deleted_mailbox
            WHERE mailbox_id = $1 AND profile_ids = '{}' AND deleted_at < now() - interval '1 hour'
            """, [.id(mailbox)]),
          Statement(
            """
            UPDATE deleted_mailbox SET next_step_at = greatest(deleted_at + interval '61 minutes',
              now() + interval '1 minute')
            WHERE mailbox_id = $1
            """, [.id(mailbox)]),
        ])
      }
      return true
    }
  }

  /// Deletes some rows of each table. Only the chunks of a content go, its row stays: the deletion of that would look for
  /// references through every message.
  private static func deletions(_ mailbox: MailboxID) -> [Statement] {
    let id = PostgresValue.id(mailbox)
    return [
      Statement(
        """
        WITH next AS (
          SELECT id, raw_content_id FROM (
            SELECT id, raw_content_id, size_octets, sum(size_octets) OVER (ORDER BY id) AS total FROM (
              SELECT id, raw_content_id, size_octets FROM email WHERE mailbox_id = $1 ORDER BY id LIMIT 500
            ) first
          ) counted WHERE total - size_octets < $2
        ), chunks AS (
          DELETE FROM content_chunk WHERE content_id IN (
            SELECT raw_content_id FROM next
            UNION ALL SELECT a.content_id FROM next n JOIN attachment a ON a.email_id = n.id)
        )
        DELETE FROM email e USING next n WHERE e.id = n.id
        """, [id, .int(stepOctets)]),
      Statement(
        """
        WITH next AS (
          SELECT id, content_id FROM (
            SELECT id, content_id, size_octets, sum(size_octets) OVER (ORDER BY id) AS total FROM (
              SELECT id, content_id, size_octets FROM outgoing_email WHERE mailbox_id = $1 ORDER BY id LIMIT 500
            ) first
          ) counted WHERE total - size_octets < $2
        ), chunks AS (DELETE FROM content_chunk WHERE content_id IN (SELECT content_id FROM next))
        DELETE FROM outgoing_email e USING next n WHERE e.id = n.id
        """, [id, .int(stepOctets)]),
      Statement(
        """
        WITH next AS (SELECT id, content_id FROM quarantine WHERE mailbox_id = $1 ORDER BY id LIMIT 20),
          chunks AS (DELETE FROM content_chunk WHERE content_id IN (SELECT content_id FROM next))
        DELETE FROM quarantine q USING next n WHERE q.id = n.id
        """, [id]),
      Statement(
        """
        DELETE FROM ledger WHERE mailbox_id = $1
          AND uidl IN (SELECT uidl FROM ledger WHERE mailbox_id = $1 ORDER BY uidl LIMIT 5000)
        """, [id]),
      Statement(
        """
        WITH next AS (SELECT id, started_at FROM run WHERE mailbox_id = $1 ORDER BY started_at, id LIMIT 1000),
          steps AS (DELETE FROM run_step s USING next n WHERE s.run_id = n.id AND s.run_started_at = n.started_at)
        DELETE FROM run r USING next n WHERE r.id = n.id AND r.started_at = n.started_at
        """, [id]),
    ]
  }
}
