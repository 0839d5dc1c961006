import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Creates a mailbox from a checked draft (see ``MailboxRules``), and its owner where none of that address exists.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `address-taken`, `profile.no-delegation` or `profile.maildrop-taken`, and ``StoreError/invalid(_:)`` for an owner or
  /// profile that does not exist in the organization.
  public func createMailbox(_ draft: MailboxDraft, by principal: Principal) async throws -> Mailbox {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { [self] db in
      let first = try db.pipeline([
        Statement("SELECT nextval('mailbox_id_seq')"), Self.profileStatement(draft, organization),
        Statement(
          "SELECT incoming_method, outgoing_method, act_method FROM organization WHERE id = $1", [.id(organization)]),
        try Self.ownerStatement(draft, principal),
      ])
      var row = first[0][0]
      let id: MailboxID = try row.id()
      let chosen = try first[1].map { row in (id: try row.id() as ProfileID, type: try row.word() as ProfileType) }
        .first
      let profile = chosen?.id
      if let wanted = draft.profileID, profile == nil {
        throw StoreError.invalid([FieldProblem("/profileID", "unknown", "there is no server profile \(wanted)")])
      }
      guard var methods = first[2].first else { throw StoreError.notFound("organization") }
      let incoming: SyncMethod = try methods.word()
      let outgoing: SyncMethod = try methods.word()
      let act: SyncMethod = try methods.word()
      var problems = FieldProblems()
      MailboxRules.checkACT(draft.actMethod, on: chosen?.type, &problems)
      try problems.throwIfAny()
      guard let owner = try first[3].map({ try $0.int() }).first else {
        throw StoreError.invalid([
          FieldProblem("/owner/id", "unknown", "there is no \(draft.owner?.kind.rawValue ?? "user") of that number")
        ])
      }
      let password = try seal(draft.password, SealedPlace(table: "mailbox", column: "password", row: id.value))
      let isQueue = draft.owner?.kind == .queue
      do {
        try db.pipeline(
          [
            Statement(
              Self.insertMailbox,
              [
                .id(id), .id(organization), .text(draft.address), .int(isQueue ? nil : owner),
                .int(isQueue ? owner : nil), .id(profile), .bool(draft.allowsCredentials ?? true),
                .text(draft.userName),
                .bytes(password), .time(draft.processEmailFrom), .bool(draft.deleteAfterProcessing ?? false),
                .text((draft.incomingMethod ?? incoming).rawValue), .text((draft.outgoingMethod ?? outgoing).rawValue),
                .text((draft.actMethod ?? act).rawValue),
              ])
          ] + Self.hotRows(id, organization))
      } catch let error as PostgresError where error.violates("mailbox_address") {
        throw StoreError.conflict(
          code: "address-taken", message: "there is already a mailbox with the address \(draft.address)")
      } catch let error as PostgresError {
        throw error.delegationConflict ?? error
      }
      let created = try Self.mailbox(try db.pipeline([MailboxQuery.one(id, of: organization)])[0])
      let entry = AuditEntry("mailbox.create", "mailbox", id.value, after: try PostgresValue.jsonText(created))
      // The queue learns of a profile with its first mailbox.
      try db.commit([.audit([entry], by: principal)] + (profile.map { [SchedulePayload.statement(profile: $0)] } ?? []))
      return created
    }
  }

  private static let insertMailbox = """
    INSERT INTO mailbox (id, organization_id, address, address_key, user_id, queue_id, profile_id, allows_credentials,
      user_name, password, process_email_from, delete_after_processing, incoming_method, outgoing_method, act_method)
    VALUES ($1, $2, $3, lower($3), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    """

  private static func hotRows(_ id: MailboxID, _ organization: OrganizationID) -> [Statement] {
    [
      Statement(
        """
        INSERT INTO mailbox_schedule (mailbox_id, organization_id, kind, job_class, enabled)
        VALUES ($1, $2, 'p', 2, false), ($1, $2, 's', 1, false), ($1, $2, 't', 3, true)
        """, [.id(id), .id(organization)]),
      Statement(
        "INSERT INTO mailbox_counter (mailbox_id, organization_id) VALUES ($1, $2)", [.id(id), .id(organization)]),
      .refreshMayRun(.ids([id])),
    ]
  }

  private static func profileStatement(_ draft: MailboxDraft, _ organization: OrganizationID) -> Statement {
    if let id = draft.profileID {
      return Statement(
        """
        SELECT id, type FROM server_profile WHERE id = $1 AND organization_id = $2 AND deleting_since IS NULL
        FOR KEY SHARE
        """, [.id(id), .id(organization)])
    }
    return Statement(
      "SELECT id, type FROM server_profile WHERE organization_id = $1 AND is_default FOR KEY SHARE", [.id(organization)]
    )
  }

  /// Finds the owner, by number or by the mailbox's address, or creates one of that address. A shared queue that is created
  /// so belongs to whoever does it.
  private static func ownerStatement(_ draft: MailboxDraft, _ principal: Principal) throws -> Statement {
    let organization = principal.organizationID
    let isQueue = draft.owner?.kind == .queue
    let table = isQueue ? "shared_queue" : "app_user"
    if let id = draft.owner?.id {
      return Statement("SELECT id FROM \(table) WHERE id = $1 AND organization_id = $2", [.int(id), .id(organization)])
    }
    return Statement(
      """
      INSERT INTO \(table) AS owner (organization_id, name, address, address_key\(isQueue ? ", owner_id" : ""))
      VALUES ($1, $2, $3, lower($3)\(isQueue ? ", $4" : ""))
      ON CONFLICT (organization_id, address_key) DO UPDATE SET name = owner.name RETURNING id
      """,
      [.id(organization), .text(draft.owner?.name ?? draft.address), .text(draft.address)]
        + (isQueue ? [.id(principal.userID)] : []))
  }

  static func mailbox(_ result: ResultSet) throws -> Mailbox {
    guard let mailbox = try result.map(MailboxQuery.read).first?.mailbox else { throw StoreError.notFound("mailbox") }
    return mailbox
  }

  /// One mailbox. Throws ``StoreError/notFound(_:)``.
  public func mailbox(_ id: MailboxID, for principal: Principal) async throws -> Mailbox {
    try await pool.transaction(.api(principal)) { db in
      try Self.mailbox(try db.commit([MailboxQuery.one(id, of: principal.organizationID)])[0])
    }
  }
}
