import FoundationEssentials
import PostriderCore

extension PostgresStore {
  static func emailSettingsStatement(_ organization: OrganizationID) -> Statement {
    Statement(
      """
      SELECT p.id, p.name, p.type, o.polling_interval_minutes, o.incoming_method, o.outgoing_method, o.act_method,
        o.approved_users_only, o.approved_queues_only, o.alert_levels, o.notifies_mailbox_owners,
        o.maximum_message_octets, o.maximum_attachment_octets, o.messages_per_poll, o.session_deadline_seconds,
        o.version, o.updated_at
      FROM organization o LEFT JOIN server_profile p ON p.organization_id = o.id AND p.is_default
      WHERE o.id = $1
      """, [.id(organization)])
  }

  static func emailSettings(_ rows: ResultSet) throws -> EmailSettings {
    let settings = try rows.map { row in
      let profile: ProfileID? = try row.idOrNil()
      let name = try row.textOrNil()
      let type = try row.textOrNil().flatMap { ProfileType(rawValue: $0) }
      var settings = EmailSettings(
        defaultProfileID: profile, defaultProfileName: name, pollingIntervalMinutes: Int(try row.int()),
        incomingMethod: try row.word(), outgoingMethod: try row.word(), act: ACTState(method: try row.word(), on: type),
        approvedUsersOnly: try row.bool(), approvedQueuesOnly: try row.bool(), alertLevels: try row.json(),
        notifiesMailboxOwners: try row.bool(), maximumMessageOctets: try row.int(),
        maximumAttachmentOctets: try row.int(), messagesPerPoll: Int(try row.int()),
        sessionDeadlineSeconds: Int(try row.int()), version: try row.int(), updatedAt: try row.date())
      // In one order, so that the same settings are equal.
      settings.alertLevels = AlertLevel.allCases.filter(settings.alertLevels.contains)
      return settings
    }
    guard let found = settings.first else { throw StoreError.notFound("organization") }
    return found
  }

  /// The organization's settings.
  public func emailSettings(for principal: Principal) async throws -> EmailSettings {
    try await pool.transaction(.api(principal)) { db in
      try Self.emailSettings(try db.commit([Self.emailSettingsStatement(principal.organizationID)])[0])
    }
  }

  /// Changes the settings. Running workers see the new version with their next session.
  ///
  /// The default profile is the switch of the profile itself. Where an approval is asked for anew or no longer, or polls
  /// come more often, the schedules of the first mailboxes follow at once and those of the others within a minute or so:
  /// the leading scheduler goes through them in steps. Throws ``StoreError/invalid(_:)`` with everything that is wrong,
  /// ``StoreError/stale``. A change that changes nothing writes nothing.
  public func updateEmailSettings(
    _ change: EmailSettingsChange, by principal: Principal
  ) async throws -> EmailSettings {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let first = try db.pipeline([
        // Before profiles, as when a profile is created or changed: one at a time moves the default switch.
        Statement("SELECT 1 FROM organization WHERE id = $1 FOR NO KEY UPDATE", [.id(organization)]),
        Self.emailSettingsStatement(organization),
        Statement(
          """
          SELECT 1 FROM server_profile WHERE id = $1 AND organization_id = $2 AND deleting_since IS NULL
          FOR NO KEY UPDATE
          """, [.id(change.defaultProfileID), .id(organization)]),
      ])
      let before = try Self.emailSettings(first[1])
      if let version = change.version, version != before.version { throw StoreError.stale }
      let after = try change.applied(to: before)
      if let profile = change.defaultProfileID, first[2].count == 0 {
        throw StoreError.invalid([
          FieldProblem("/defaultProfileID", "unknown", "there is no server profile \(profile)")
        ])
      }
      if after == before {
        try db.commit()
        return before
      }
      var statements: [Statement] = []
      if after.defaultProfileID != before.defaultProfileID {
        statements += Self.makeDefault(after.defaultProfileID, organization)
      }
      statements.append(
        Statement(Self.updateSettings, [.id(organization)] + (try Self.values(after))))
      let entry = AuditEntry(
        "email-settings.update", "organization", organization.value, before: try PostgresValue.jsonText(before),
        after: try PostgresValue.jsonText(after))
      statements += [.audit([entry], by: principal), Self.emailSettingsStatement(organization)]
      let results = try db.pipeline(statements)
      let settings = try Self.emailSettings(results[results.count - 1])
      if after.changesSchedules(from: before) {
        try Self.settle(organization, from: 0, db)
        try db.commit([SchedulePayload.moves, SchedulePayload.rescan])
      } else {
        try db.commit()
      }
      return settings
    }
  }

  private static let updateSettings = """
    UPDATE organization SET polling_interval_minutes = $2, incoming_method = $3, outgoing_method = $4, act_method = $5,
      approved_users_only = $6, approved_queues_only = $7, alert_levels = $8::jsonb, notifies_mailbox_owners = $9,
      maximum_message_octets = $10, maximum_attachment_octets = $11, messages_per_poll = $12,
      session_deadline_seconds = $13, version = version + 1, updated_at = now()
    WHERE id = $1
    """

  private static func values(_ settings: EmailSettings) throws -> [PostgresValue] {
    [
      .int(Int64(settings.pollingIntervalMinutes)), .text(settings.incomingMethod.rawValue),
      .text(settings.outgoingMethod.rawValue), .text(settings.act.method.rawValue), .bool(settings.approvedUsersOnly),
      .bool(settings.approvedQueuesOnly), .text(try PostgresValue.jsonText(settings.alertLevels)),
      .bool(settings.notifiesMailboxOwners), .int(settings.maximumMessageOctets),
      .int(settings.maximumAttachmentOctets), .int(Int64(settings.messagesPerPoll)),
      .int(Int64(settings.sessionDeadlineSeconds)),
    ]
  }

  /// Moves the default switch; the caller holds the lock on the organization.
  private static func makeDefault(_ profile: ProfileID?, _ organization: OrganizationID) -> [Statement] {
    [
      Statement(
        """
        UPDATE server_profile SET is_default = false, version = version + 1, updated_at = now()
        WHERE organization_id = $1 AND is_default AND id IS DISTINCT FROM $2
        """, [.id(organization), .id(profile)]),
      Statement(
        """
        UPDATE server_profile SET is_default = true, version = version + 1, updated_at = now()
        WHERE organization_id = $1 AND id = $2
        """, [.id(organization), .id(profile)]),
    ]
  }
}

extension EmailSettings {
  /// Whether mailboxes may run that did not before, or the reverse, or polls come more often.
  fileprivate func changesSchedules(from before: EmailSettings) -> Bool {
    approvedUsersOnly != before.approvedUsersOnly || approvedQueuesOnly != before.approvedQueuesOnly
      || pollingIntervalMinutes < before.pollingIntervalMinutes
  }
}

extension PostgresStore {
  /// Mailboxes whose schedules are looked at in one transaction.
  static let settlingStep: Int64 = 1_000

  /// Lets the schedules of the organization's next mailboxes follow its settings, and remembers how far that came.
  static func settle(_ organization: OrganizationID, from position: Int64, _ db: isolated PostgresConnection) throws {
    let ids: [MailboxID] = try db.query(
      "SELECT id FROM mailbox WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3",
      [.id(organization), .int(position), .int(settlingStep)]
    ).map { try $0.id() }
    // What is created from now on follows by itself.
    let next = ids.count == Int(settlingStep) ? ids.last : nil
    try db.pipeline(
      (ids.isEmpty ? [] : [.refreshMayRun(.ids(ids)), pullForward(ids)]) + [
        Statement("UPDATE organization SET settled_to = $2 WHERE id = $1", [.id(organization), .id(next)])
      ])
  }

  /// Polls that wait for a slot of a longer interval are spread over the new, shorter one, as after a change of a profile.
  private static func pullForward(_ mailboxes: [MailboxID]) -> Statement {
    Statement(
      """
      UPDATE mailbox_schedule s SET next_due_at = now() + random() * late.minutes * interval '1 minute'
      FROM (
        SELECT h.mailbox_id, h.kind, i.minutes
        FROM mailbox m JOIN organization o ON o.id = m.organization_id JOIN server_profile p ON p.id = m.profile_id
        JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = 'p'
        CROSS JOIN LATERAL (
          SELECT coalesce(nullif(p.minimum_polling_interval_minutes, 0), o.polling_interval_minutes) AS minutes
        ) i
        WHERE m.id = ANY ($1) AND h.enabled AND h.reason IN ('slot', 'enabled')
          AND h.next_due_at > now() + i.minutes * interval '1 minute'
        ORDER BY h.mailbox_id FOR NO KEY UPDATE OF h
      ) late WHERE s.mailbox_id = late.mailbox_id AND s.kind = late.kind
      """, [.ids(mailboxes)])
  }
}
