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
  /// Another address, profile, method or login makes that direction untested and not enabled (feature M6); another address
  /// waits for approval again (A2). Throws ``StoreError/stale`` when ``MailboxChange/version`` is not the present one,
  /// `invalid` for values out of range and for a profile that does not exist in the organization,
  /// ``StoreError/conflict(code:message:)`` `address-taken`, `profile.no-delegation` or `profile.maildrop-taken`,
  /// `notFound`. A change that changes nothing writes nothing.
  public func updateMailbox(_ id: MailboxID, _ change: MailboxChange, by principal: Principal) async throws -> Mailbox {
    try await pool.transaction(.api(principal)) { [self] db in
      let step = try self.change(id, change, by: principal, db)
      if step.statements.isEmpty {
        try db.commit()
        return step.before
      }
      do {
        return try Self.mailbox(try db.commit(step.statements)[step.statements.count - 1])
      } catch let error as PostgresError {
        throw error.mailboxConflict(step.address) ?? error
      }
    }
  }

  /// A change of a mailbox on its way: what it was, and what is left to be run. The last statement reads what it is.
  struct ChangeStep {
    var before: Mailbox
    /// The address after the change.
    var address: String
    /// Empty when nothing changes.
    var statements: [Statement]
  }

  /// Locks a mailbox and finds out what its change leads to.
  ///
  /// - Parameter applyingDefaults: whether it takes over what the organization chose, which need not fit its profile.
  func change(
    _ id: MailboxID, _ change: MailboxChange, applyingDefaults: Bool = false, by principal: Principal,
    _ db: isolated PostgresConnection
  ) throws -> ChangeStep {
    let organization = principal.organizationID
    let first = try db.pipeline([
      Statement(
        "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
        [.id(id), .id(organization)]),
      MailboxQuery.one(id, of: organization),
      Statement(
        """
        SELECT p.incoming_credentials, p.outgoing_credentials, p.type FROM server_profile p
        WHERE p.organization_id = $2 AND p.id = coalesce($3, (SELECT profile_id FROM mailbox WHERE id = $1))
          AND ($3 IS NULL OR p.deleting_since IS NULL) FOR KEY SHARE
        """, [.id(id), .id(organization), .id(change.profileID)]),
    ])
    let before = try Self.mailbox(first[1])
    if let version = change.version, version != before.version { throw StoreError.stale }
    if let profile = change.profileID, first[2].count == 0 {
      throw StoreError.invalid([FieldProblem("/profileID", "unknown", "there is no server profile \(profile)")])
    }
    let profile = try first[2].map { row -> (ProfileLogins, ProfileType) in
      ([.incoming: try row.word(), .outgoing: try row.word()], try row.word())
    }.first
    let resolved = try MailboxRules.resolve(
      change, of: before, logins: profile?.0 ?? [:], on: applyingDefaults ? nil : profile?.1)
    let after = resolved.mailbox
    if after == before && !resolved.changesPassword {
      return ChangeStep(before: before, address: before.address, statements: [])
    }
    let target = after.profileID.flatMap { $0 == before.profileID ? nil : $0 }
    var statements = [Statement(Self.updateMailbox, try updatedValues(resolved))]
    if let target {
      statements += Self.move(id, from: before.profileID, to: target, organization)
    } else if !resolved.untested.isEmpty {
      statements.append(Self.fence(id, resolved.untested))
    }
    if after.sendQuota != before.sendQuota { statements += Self.endQuotaWaits("mailbox_id", id.value) }
    let entry = AuditEntry(
      target == nil ? "mailbox.update" : "mailbox.move", "mailbox", id.value,
      before: try PostgresValue.jsonText(ChangedMailbox(before)),
      after: try PostgresValue.jsonText(ChangedMailbox(after, hasNewPassword: resolved.password != nil)))
    statements += [
      .refreshMayRun(.ids([id])), .audit([entry], by: principal), MailboxQuery.one(id, of: organization),
    ]
    return ChangeStep(before: before, address: after.address, statements: statements)
  }

  private static let updateMailbox = """
    UPDATE mailbox SET address = $2, address_key = lower($2), approval = $3, is_active = $4, incoming_method = $5,
      outgoing_method = $6, allows_credentials = $7, user_name = $8, password = CASE WHEN $9 THEN $10 ELSE password END,
      process_email_from = $11, delete_after_processing = $12, send_quota = $13::jsonb, profile_id = $16,
      act_method = $17,
      incoming_status = CASE WHEN $14 THEN 'not-run' ELSE incoming_status END,
      incoming_enabled = incoming_enabled AND NOT $14,
      incoming_failure_code = CASE WHEN NOT $14 THEN incoming_failure_code END,
      incoming_failed_at = CASE WHEN NOT $14 THEN incoming_failed_at END,
      outgoing_status = CASE WHEN $15 THEN 'not-run' ELSE outgoing_status END,
      outgoing_enabled = outgoing_enabled AND NOT $15,
      outgoing_failure_code = CASE WHEN NOT $15 THEN outgoing_failure_code END,
      outgoing_failed_at = CASE WHEN NOT $15 THEN outgoing_failed_at END,
      version = version + 1, updated_at = now()
    WHERE id = $1
    """

  private func updatedValues(_ change: ResolvedMailboxChange) throws -> [PostgresValue] {
    let mailbox = change.mailbox
    let place = SealedPlace(table: "mailbox", column: "password", row: mailbox.id.value)
    return [
      .id(mailbox.id), .text(mailbox.address), .text(mailbox.approval.rawValue), .bool(mailbox.isActive),
      .text(mailbox.incoming.method.rawValue), .text(mailbox.outgoing.method.rawValue),
      .bool(mailbox.allowsCredentials),
      .text(mailbox.userName), .bool(change.changesPassword), .bytes(try seal(change.password, place)),
      .time(mailbox.processEmailFrom), .bool(mailbox.deleteAfterProcessing),
      .text(try mailbox.sendQuota.map { try PostgresValue.jsonText($0) }),
      .bool(change.untested.contains(.incoming)), .bool(change.untested.contains(.outgoing)), .id(mailbox.profileID),
      .text(mailbox.act.method.rawValue),
    ]
  }

  /// Ends the right to write of sessions that began before: a test must not enable what it did not try, nor a poll store
  /// mail of the account that the mailbox had. A message on its way out is still finished.
  private static func fence(_ id: MailboxID, _ directions: Set<Direction>) -> Statement {
    let kinds: [JobKind] = [.test] + directions.map { $0 == .incoming ? .poll : .send }
    return Statement(
      """
      UPDATE mailbox_schedule s SET generation = generation + 1 FROM (
        SELECT h.mailbox_id, h.kind FROM mailbox_schedule h WHERE h.mailbox_id = $1 AND h.kind = ANY ($2)
        ORDER BY h.mailbox_id, h.kind FOR NO KEY UPDATE
      ) old WHERE s.mailbox_id = old.mailbox_id AND s.kind = old.kind
      """, [.id(id), .texts(kinds.map(\.rawValue))])
  }

  /// Gives the mailbox to another profile. The generation fences every session begun on the old one; the row in
  /// `mailbox_move` keeps new ones from beginning until the old one's lease has ended.
  private static func move(
    _ id: MailboxID, from: ProfileID?, to target: ProfileID, _ organization: OrganizationID
  ) -> [Statement] {
    var statements = [
      Statement(
        "SELECT 1 FROM mailbox_schedule WHERE mailbox_id = $1 ORDER BY mailbox_id, kind FOR NO KEY UPDATE", [.id(id)]),
      Statement(
        """
        UPDATE mailbox_schedule SET generation = generation + 1, last_fence = 0, lane_fences = NULL, failures = 0,
          failure_code = NULL
        WHERE mailbox_id = $1
        """, [.id(id)]),
      // What a server answered there counts nothing here, and a consent that is under way is for its application.
      Statement("DELETE FROM send_pace WHERE mailbox_id = $1", [.id(id)]),
      Statement("DELETE FROM oauth_consent WHERE mailbox_id = $1", [.id(id)]),
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
  var address: String
  var profileID: ProfileID?
  var isActive: Bool
  var incomingMethod: SyncMethod
  var outgoingMethod: SyncMethod
  var actMethod: SyncMethod
  var allowsCredentials: Bool
  var userName: String?
  var passwordSet: Bool
  /// Says that another password was given; which one nobody keeps.
  var hasNewPassword: Bool?
  var processEmailFrom: Date?
  var deleteAfterProcessing: Bool
  var sendQuota: SendQuota?

  init(_ mailbox: Mailbox, hasNewPassword: Bool = false) {
    address = mailbox.address
    profileID = mailbox.profileID
    isActive = mailbox.isActive
    incomingMethod = mailbox.incoming.method
    outgoingMethod = mailbox.outgoing.method
    actMethod = mailbox.act.method
    allowsCredentials = mailbox.allowsCredentials
    userName = mailbox.userName
    passwordSet = mailbox.passwordSet
    self.hasNewPassword = hasNewPassword ? true : nil
    processEmailFrom = mailbox.processEmailFrom
    deleteAfterProcessing = mailbox.deleteAfterProcessing
    sendQuota = mailbox.sendQuota
  }
}

extension PostgresError {
  /// Why a mailbox cannot be as it was to become; `nil` when something else was refused.
  func mailboxConflict(_ address: String) -> StoreError? {
    violates("mailbox_address")
      ? .conflict(code: "address-taken", message: "there is already a mailbox with the address \(address)")
      : delegationConflict
  }
}
