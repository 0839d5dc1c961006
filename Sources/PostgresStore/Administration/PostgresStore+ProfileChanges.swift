import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Changes a profile under the deployment's rules. A lower limit ends nothing and stops new sessions; a higher one counts
  /// at once.
  ///
  /// Another host, port, protection or login makes the mailboxes of that direction untested and not enabled (feature M6).
  /// When there are such that were tested, and the change does not confirm it, throws
  /// ``StoreError/conflict(code:message:)`` `needs-new-tests` with their number. Throws `name-taken` likewise,
  /// ``StoreError/stale`` when ``ProfileChange/version`` is not the present one, `invalid` for values out of range,
  /// `notFound`. A change that changes nothing writes nothing.
  public func updateProfile(
    _ id: ProfileID, _ change: ProfileChange, rules: ProfileRules = ProfileRules(), by principal: Principal
  ) async throws -> ServerProfile {
    let organization = principal.organizationID
    let read = Statement(
      Self.profileColumns + " WHERE p.id = $1 AND p.organization_id = $2", [.id(id), .id(organization)])
    return try await pool.transaction(.api(principal)) { [self] db in
      let first = try db.pipeline([
        // Before the profile, as when a profile is created: one at a time moves the default switch.
        Statement(
          "SELECT 1 FROM organization WHERE id = $1 AND $2 FOR NO KEY UPDATE",
          [.id(organization), .bool(change.isDefault == true)]),
        Statement(
          "SELECT 1 FROM server_profile WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
          [.id(id), .id(organization)]),
        read,
        Statement("SELECT polling_interval_minutes FROM organization WHERE id = $1", [.id(organization)]),
      ])
      let before = try Self.profile(first[2])
      var standard = first[3][0]
      let standardMinutes = Int(try standard.int())
      if let version = change.version, version != before.version { throw StoreError.stale }
      if before.deletingSince != nil {
        throw StoreError.conflict(
          code: "being-deleted", message: "the server profile “\(before.name)” is being deleted and cannot be changed")
      }
      if let owner = change.ownerID { try Self.requireUsers([owner], organization, db) { _ in "/ownerID" } }
      let resolved = try rules.resolve(change, of: before)
      let after = resolved.profile
      if after == before && resolved.passwords.isEmpty {
        try db.commit()
        return before
      }
      if change.confirmsNewTests != true { try Self.confirm(id, resolved, db) }
      func minutes(_ profile: ServerProfile) -> Int {
        profile.minimumPollingIntervalMinutes > 0 ? profile.minimumPollingIntervalMinutes : standardMinutes
      }
      if after.isDefault && !before.isDefault {
        try db.query(
          """
          UPDATE server_profile SET is_default = false, version = version + 1, updated_at = now()
          WHERE organization_id = $1 AND is_default AND id <> $2
          """, [.id(organization), .id(id)])
      }
      do {
        try db.query(Self.update, try updatedValues(resolved, before))
      } catch let error as PostgresError where error.violates("server_profile_name") {
        throw StoreError.conflict(
          code: "name-taken", message: "there is already a server profile with the name “\(after.name)”")
      } catch let error as PostgresError {
        throw error.delegationConflict ?? error
      }
      var statements = resolved.newlyUntested.isEmpty ? [] : Self.forgetTests(id, resolved.newlyUntested)
      statements.append(Self.tryAgain(id))
      if minutes(after) < minutes(before) { statements.append(Self.pullForward(id, minutes: minutes(after))) }
      statements += [
        .audit(
          [
            AuditEntry(
              "profile.update", "server-profile", id.value, before: try PostgresValue.jsonText(before),
              after: try PostgresValue.jsonText(after))
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

  private static let update = """
    UPDATE server_profile SET name = $2, name_key = lower($2), description = $3, is_default = $4, is_active = $5,
      use_same_settings_for_outgoing = $6, process_email_from = $7, minimum_polling_interval_minutes = $8,
      maximum_concurrent_connections = $9, weight = $10, connection_timeout_seconds = $11, maximum_failed_logins = $12,
      ca_certificates_pem = $13, incoming_login_as = $14,
      send_quota = $29::jsonb, shared_send_quota = $30::jsonb, failure_notice_to = $31, owner_id = $32,
      incoming_host = $15, incoming_port = $16, incoming_tls = $17, incoming_credentials = $18, incoming_mechanism = $19,
      incoming_user_name = $20, incoming_password = CASE WHEN $18 = 'profile' THEN coalesce($21, incoming_password) END,
      outgoing_host = $22, outgoing_port = $23, outgoing_tls = $24, outgoing_credentials = $25, outgoing_mechanism = $26,
      outgoing_user_name = $27, outgoing_password = CASE WHEN $25 = 'profile' THEN coalesce($28, outgoing_password) END,
      version = version + 1, updated_at = now(),
      resumed_at = CASE WHEN $5 AND NOT is_active THEN now() ELSE resumed_at END
    WHERE id = $1
    """

  private func updatedValues(_ change: ResolvedChange, _ before: ServerProfile) throws -> [PostgresValue] {
    let profile = change.profile
    func server(_ direction: Direction) throws -> [PostgresValue] {
      let settings = profile.settings(direction)
      let place = SealedPlace(table: "server_profile", column: "\(direction.rawValue)_password", row: profile.id.value)
      return [
        .text(settings.host), .int(Int64(settings.port)), .text(settings.tls.rawValue),
        .text(settings.credentials.rawValue), .text(settings.mechanism.rawValue), .text(settings.userName),
        .bytes(try seal(change.passwords[direction], place)),
      ]
    }
    return [
      .id(profile.id), .text(profile.name), .text(profile.description), .bool(profile.isDefault),
      .bool(profile.isActive),
      .bool(profile.useSameSettingsForOutgoing), .time(profile.processEmailFrom),
      .int(Int64(profile.minimumPollingIntervalMinutes)), .int(Int64(profile.maximumConcurrentConnections)),
      .int(Int64(profile.weight)), .int(Int64(profile.connectionTimeoutSeconds)),
      .int(Int64(profile.maximumFailedLogins)), .text(profile.caCertificatesPEM),
      .text(profile.incoming.loginAs?.rawValue),
    ] + (try server(.incoming)) + (try server(.outgoing)) + [
      .text(try profile.sendQuota.map { try PostgresValue.jsonText($0) }),
      .text(try profile.sharedSendQuota.map { try PostgresValue.jsonText($0) }), .text(profile.failureNoticeTo),
      .id(profile.ownerID),
    ]
  }

  /// Mailboxes of a profile for which a direction is used and tested.
  private static func tested(_ direction: Direction) -> String {
    "(m.\(direction.rawValue)_method <> 'none' AND m.\(direction.rawValue)_status <> 'not-run')"
  }

  private static func confirm(_ id: ProfileID, _ change: ResolvedChange, _ db: isolated PostgresConnection) throws {
    if change.newlyUntested.isEmpty { return }
    let conditions = change.newlyUntested.map(tested).sorted().joined(separator: " OR ")
    let counted = try db.query(
      "SELECT count(*) FROM mailbox m WHERE m.profile_id = $1 AND (\(conditions))", [.id(id)])
    var row = counted[0]
    let count = try row.int()
    if count == 0 { return }
    throw StoreError.conflict(
      code: "needs-new-tests",
      message: "\(count) \(count == 1 ? "mailbox stands" : "mailboxes stand") still until tested again, because "
        + "\(change.newlyUntested.map(\.rawValue).sorted().joined(separator: " and ")) mail is reached in another way; "
        + "send `confirmsNewTests` to change it nevertheless")
  }

  /// Only a new test enables what was proven in another way. The generation fences tests that began before; polls and
  /// sending sessions under way end by themselves, as nothing of what they did is wrong.
  private static func forgetTests(_ id: ProfileID, _ directions: Set<Direction>) -> [Statement] {
    directions.map(\.rawValue).sorted().map { word in
      Statement(
        """
        UPDATE mailbox m SET \(word)_status = 'not-run', \(word)_enabled = false, \(word)_failure_code = NULL,
          \(word)_failed_at = NULL, version = version + 1, updated_at = now()
        WHERE m.profile_id = $1 AND m.\(word)_method <> 'none' AND m.\(word)_status <> 'not-run'
        """, [.id(id)])
    } + [
      Statement(
        """
        UPDATE mailbox_schedule s SET generation = generation + 1 FROM (
          SELECT h.mailbox_id FROM mailbox m JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = 't'
          WHERE m.profile_id = $1 ORDER BY h.mailbox_id FOR NO KEY UPDATE OF h
        ) test WHERE s.mailbox_id = test.mailbox_id AND s.kind = 't'
        """, [.id(id)]),
      Statement(
        """
        SELECT announce_jobs(ARRAY(SELECT job FROM refresh_may_run(ARRAY(
          SELECT m.id FROM mailbox m WHERE m.profile_id = $1 ORDER BY m.id))))
        """, [.id(id)]),
    ]
  }

  /// Those whose latest session met a fault of the server or of the profile, and wait for it to be over: the edit may have
  /// mended it. They come within a minute, as many at once would be a stampede.
  private static func tryAgain(_ id: ProfileID) -> Statement {
    Statement(
      """
      UPDATE mailbox_schedule s SET next_due_at = least(s.next_due_at, now() + random() * interval '1 minute')
      FROM (
        SELECT h.mailbox_id, h.kind FROM mailbox m JOIN mailbox_schedule h ON h.mailbox_id = m.id
        WHERE m.profile_id = $1 AND h.enabled AND h.failures = 0 AND h.reason = h.failure_code
          AND h.next_due_at > now()
        ORDER BY h.mailbox_id, h.kind FOR NO KEY UPDATE OF h
      ) halted WHERE s.mailbox_id = halted.mailbox_id AND s.kind = halted.kind
      """, [.id(id)])
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
}
