import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Mailboxes that wait for a quota are due at once: the next session finds out how it stands.
  static func endQuotaWaits(_ column: String, _ id: Int64) -> [Statement] {
    [
      Statement(
        """
        UPDATE mailbox_schedule s SET next_due_at = now() FROM (
          SELECT h.mailbox_id FROM mailbox_schedule h WHERE h.\(column) = $1 AND h.kind = 's' AND h.enabled
            AND h.reason IN ('quota', 'profile-quota')
          ORDER BY h.mailbox_id FOR NO KEY UPDATE
        ) waiting WHERE s.mailbox_id = waiting.mailbox_id AND s.kind = 's'
        """, [.int(id)]), SchedulePayload.rescan,
    ]
  }

  /// Changes a mailbox. On a move to another profile no session begins there before the last one on the old has ended.
  ///
  /// Throws ``StoreError/stale`` when ``MailboxChange/version`` is not the present one, `invalid` for a profile that does
  /// not exist in the organization, ``StoreError/conflict(code:message:)`` `profile.no-delegation` or
  /// `profile.maildrop-taken`, `notFound`. A change that changes nothing writes nothing.
  public func updateMailbox(_ id: MailboxID, _ change: MailboxChange, by principal: Principal) async throws -> Mailbox {
    let organization = principal.organizationID
    return try await pool.transaction(.api(organization)) { db in
      let first = try db.pipeline([
        Statement(
          "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
          [.id(id), .id(organization)]),
        MailboxQuery.one(id, of: organization),
        Statement(
          "SELECT id FROM server_profile WHERE id = $1 AND organization_id = $2 FOR KEY SHARE",
          [.id(change.profileID), .id(organization)]),
      ])
      let before = try Self.mailbox(first[1])
      if let version = change.version, version != before.version { throw StoreError.stale }
      if let profile = change.profileID, first[2].count == 0 {
        throw StoreError.invalid([FieldProblem("/profileID", "unknown", "there is no server profile \(profile)")])
      }
      let target = change.profileID.flatMap { $0 == before.profileID ? nil : $0 }
      let isActive = change.isActive ?? before.isActive
      let quota = change.resetsSendQuota == true ? nil : change.sendQuota ?? before.sendQuota
      if target == nil && isActive == before.isActive && quota == before.sendQuota {
        try db.commit()
        return before
      }
      var statements = [
        Statement(
          """
          UPDATE mailbox SET is_active = $2, send_quota = $3::jsonb, version = version + 1, updated_at = now()
          WHERE id = $1
          """, [.id(id), .bool(isActive), .text(try quota.map { try PostgresValue.jsonText($0) })])
      ]
      if quota != before.sendQuota { statements += Self.endQuotaWaits("mailbox_id", id.value) }
      if let target { statements += Self.move(id, from: before.profileID, to: target, organization) }
      let entry = AuditEntry(
        target == nil ? "mailbox.update" : "mailbox.move", "mailbox", id.value,
        before: try PostgresValue.jsonText(ChangedMailbox(before)),
        after: try PostgresValue.jsonText(
          ChangedMailbox(profileID: target ?? before.profileID, isActive: isActive, sendQuota: quota)))
      statements += [
        .refreshMayRun(.ids([id])), .audit([entry], by: principal), MailboxQuery.one(id, of: organization),
      ]
      do {
        return try Self.mailbox(try db.commit(statements)[statements.count - 1])
      } catch let error as PostgresError {
        throw error.delegationConflict ?? error
      }
    }
  }

  /// Gives the mailbox to another profile. The generation fences every session begun on the old one; the row in
  /// `mailbox_move` keeps new ones from beginning until the old one's lease has ended.
  private static func move(
    _ id: MailboxID, from: ProfileID?, to target: ProfileID, _ organization: OrganizationID
  ) -> [Statement] {
    var statements = [
      Statement(
        """
        UPDATE mailbox SET profile_id = $2, incoming_status = 'not-run', incoming_enabled = false,
          incoming_failure_code = NULL, incoming_failed_at = NULL, outgoing_status = 'not-run',
          outgoing_enabled = false, outgoing_failure_code = NULL, outgoing_failed_at = NULL
        WHERE id = $1
        """, [.id(id), .id(target)]),
      Statement(
        "SELECT 1 FROM mailbox_schedule WHERE mailbox_id = $1 ORDER BY mailbox_id, kind FOR NO KEY UPDATE", [.id(id)]),
      Statement(
        """
        UPDATE mailbox_schedule SET generation = generation + 1, last_fence = 0, lane_fences = NULL, failures = 0,
          failure_code = NULL
        WHERE mailbox_id = $1
        """, [.id(id)]),
      // What a server answered there counts nothing here.
      Statement("DELETE FROM send_pace WHERE mailbox_id = $1", [.id(id)]),
      SchedulePayload.statement(profile: target),
    ]
    if let from {
      statements += [
        Statement(
          """
          INSERT INTO mailbox_move (mailbox_id, moved_from, organization_id) VALUES ($1, $2, $3)
          ON CONFLICT (mailbox_id, moved_from) DO NOTHING
          """, [.id(id), .id(from), .id(organization)]),
        SchedulePayload.moves,
      ]
    }
    return statements
  }
}

/// What the audit keeps of a changed mailbox.
private struct ChangedMailbox: Encodable {
  var profileID: ProfileID?
  var isActive: Bool
  var sendQuota: SendQuota?

  init(profileID: ProfileID?, isActive: Bool, sendQuota: SendQuota?) {
    self.sendQuota = sendQuota
    self.profileID = profileID
    self.isActive = isActive
  }

  init(_ mailbox: Mailbox) {
    self.init(profileID: mailbox.profileID, isActive: mailbox.isActive, sendQuota: mailbox.sendQuota)
  }
}
