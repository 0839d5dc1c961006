import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Changes a profile. A lower limit ends nothing and stops new sessions; a higher one counts at once.
  ///
  /// Throws ``StoreError/stale`` when ``ProfileChange/version`` is not the present one, `invalid` for values out of range,
  /// `notFound`. A change that changes nothing writes nothing.
  public func updateProfile(
    _ id: ProfileID, _ change: ProfileChange, by principal: Principal
  ) async throws -> ServerProfile {
    try change.check()
    let organization = principal.organizationID
    let read = Statement(
      Self.profileColumns + " WHERE p.id = $1 AND p.organization_id = $2", [.id(id), .id(organization)])
    return try await pool.transaction(.api(organization)) { db in
      let first = try db.pipeline([
        Statement(
          "SELECT 1 FROM server_profile WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
          [.id(id), .id(organization)]),
        read,
        Statement("SELECT polling_interval_minutes FROM organization WHERE id = $1", [.id(organization)]),
      ])
      let before = try Self.profile(first[1])
      var standard = first[2][0]
      let standardMinutes = Int(try standard.int())
      if let version = change.version, version != before.version { throw StoreError.stale }
      var after = before
      after.maximumConcurrentConnections = change.maximumConcurrentConnections ?? before.maximumConcurrentConnections
      after.minimumPollingIntervalMinutes =
        change.minimumPollingIntervalMinutes ?? before.minimumPollingIntervalMinutes
      after.weight = change.weight ?? before.weight
      after.isActive = change.isActive ?? before.isActive
      after.sendQuota = change.sendQuota ?? before.sendQuota
      after.sharedSendQuota = change.sharedSendQuota ?? before.sharedSendQuota
      if let notice = change.failureNoticeTo { after.failureNoticeTo = notice.isEmpty ? nil : notice }
      if after == before {
        try db.commit()
        return before
      }
      func minutes(_ profile: ServerProfile) -> Int {
        profile.minimumPollingIntervalMinutes > 0 ? profile.minimumPollingIntervalMinutes : standardMinutes
      }
      var statements = [
        Statement(
          """
          UPDATE server_profile SET maximum_concurrent_connections = $3, minimum_polling_interval_minutes = $4,
            weight = $5, is_active = $6, send_quota = $7::jsonb, shared_send_quota = $8::jsonb,
            failure_notice_to = $9,
            version = version + 1, updated_at = now(),
            resumed_at = CASE WHEN $6 AND NOT is_active THEN now() ELSE resumed_at END
          WHERE id = $1 AND organization_id = $2
          """,
          [
            .id(id), .id(organization), .int(Int64(after.maximumConcurrentConnections)),
            .int(Int64(after.minimumPollingIntervalMinutes)), .int(Int64(after.weight)), .bool(after.isActive),
            .text(try after.sendQuota.map { try PostgresValue.jsonText($0) }),
            .text(try after.sharedSendQuota.map { try PostgresValue.jsonText($0) }), .text(after.failureNoticeTo),
          ])
      ]
      if minutes(after) < minutes(before) { statements.append(Self.pullForward(id, minutes: minutes(after))) }
      statements += [
        .audit(
          [
            AuditEntry(
              "profile.update", "server-profile", id.value, before: try PostgresValue.jsonText(ChangedProfile(before)),
              after: try PostgresValue.jsonText(ChangedProfile(after)))
          ], by: principal),
        SchedulePayload.statement(profile: id),
      ]
      // A quota may have been raised: what waits for the old one looks again.
      if after.sendQuota != before.sendQuota || after.sharedSendQuota != before.sharedSendQuota {
        statements += Self.endQuotaWaits("profile_id", id.value)
      }
      // What became due meanwhile is not in the queue when its epoch changed.
      if after.isActive && !before.isActive { statements.append(SchedulePayload.rescan) }
      statements.append(read)
      return try Self.profile(try db.commit(statements)[statements.count - 1])
    }
  }

  /// Mailboxes that wait for a quota are due at once: the next session finds out how it stands.
  private static func endQuotaWaits(_ column: String, _ id: Int64) -> [Statement] {
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

  /// Polls that wait for a slot of a longer interval are spread over the new, shorter one; the outcome of each returns to
  /// the fixed phase. Without it the new interval would begin up to a day later.
  private static func pullForward(_ id: ProfileID, minutes: Int) -> Statement {
    Statement(
      """
      UPDATE mailbox_schedule s SET next_due_at = now() + random() * $2 * interval '1 minute'
      FROM (
        SELECT h.mailbox_id, h.kind FROM mailbox m JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = 'p'
        WHERE m.profile_id = $1 AND h.enabled AND h.reason IN ('slot', 'enabled')
          AND h.next_due_at > now() + $2 * interval '1 minute'
        ORDER BY h.mailbox_id FOR NO KEY UPDATE OF h
      ) late WHERE s.mailbox_id = late.mailbox_id AND s.kind = late.kind
      """, [.id(id), .int(Int64(minutes))])
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

extension ProfileChange {
  /// Throws ``StoreError/invalid(_:)`` with every value that is out of range.
  fileprivate func check() throws(StoreError) {
    var problems = FieldProblems()
    if let limit = maximumConcurrentConnections {
      problems.check(limit, at: "/maximumConcurrentConnections", in: 1...300)
    }
    if let minutes = minimumPollingIntervalMinutes {
      problems.check(minutes, at: "/minimumPollingIntervalMinutes", in: 0...1_440)
    }
    if let weight { problems.check(weight, at: "/weight", in: 1...100) }
    sendQuota?.check(at: "/sendQuota", &problems)
    sharedSendQuota?.check(at: "/sharedSendQuota", &problems)
    if let failureNoticeTo, !failureNoticeTo.isEmpty {
      AddressRules.check(failureNoticeTo, at: "/failureNoticeTo", &problems)
    }
    try problems.throwIfAny()
  }
}

/// What the audit keeps of a changed profile.
private struct ChangedProfile: Encodable {
  var maximumConcurrentConnections: Int
  var minimumPollingIntervalMinutes: Int
  var weight: Int
  var isActive: Bool
  var sendQuota: SendQuota?
  var sharedSendQuota: SendQuota?
  var failureNoticeTo: String?

  init(_ profile: ServerProfile) {
    failureNoticeTo = profile.failureNoticeTo
    sendQuota = profile.sendQuota
    sharedSendQuota = profile.sharedSendQuota
    maximumConcurrentConnections = profile.maximumConcurrentConnections
    minimumPollingIntervalMinutes = profile.minimumPollingIntervalMinutes
    weight = profile.weight
    isActive = profile.isActive
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
