import FoundationEssentials
import PostriderCore

/// The rows of an import that are carried out together: read, compared with what there is, created.
struct ImportStep: Sendable {
  let batch: LockedBatch
  private(set) var changes = RowChanges()
  private var rows: [DraftRow] = []
  private var existing: [Int64: Existing] = [:]
  private var profiles: [Int64: ProfileID] = [:]
  private var defaults = Defaults()
  /// Profiles whose account opens one maildrop only, and whether it is taken.
  private var single: [ProfileID: Bool] = [:]
  private var created: [NewMailbox] = []

  init(batch: LockedBatch) { self.batch = batch }

  /// Where a password stands until its row's turn has come.
  static func place(_ row: Int64) -> SealedPlace {
    SealedPlace(table: "mailbox_import_row", column: "password", row: row)
  }

  private struct DraftRow: Sendable {
    var position: Int64
    var id: Int64
    var draft: ImportedMailbox
    var password: [UInt8]?
    /// `lower(address)` as PostgreSQL has it.
    var key = ""

    var isQueue: Bool { draft.ownerKind == .queue }
  }

  /// A mailbox that has the address already.
  private struct Existing: Sendable {
    var isQueue: Bool
    var profile: ProfileID?
    var incoming: SyncMethod
    var outgoing: SyncMethod
    var allowsCredentials: Bool
    var userName: String?
    var deletes: Bool
  }

  private struct Defaults: Sendable {
    var profile: ProfileID?
    var incoming = SyncMethod.none
    var outgoing = SyncMethod.none
  }

  private struct NewMailbox: Sendable {
    var row: DraftRow
    var profile: ProfileID?
    var incoming: SyncMethod
    var outgoing: SyncMethod
  }

  private var organization: OrganizationID { batch.principal.organizationID }

  // MARK: Reading

  mutating func read(_ db: isolated PostgresConnection) throws {
    rows = try db.query(
      """
      SELECT r.position, i.id, i.draft, i.password
      FROM batch_row r JOIN mailbox_import_row i ON i.batch_id = r.batch_id AND i.position = r.position
        AND i.position >= $2 AND i.position < $3
      WHERE r.batch_id = $1 AND r.position >= $2 AND r.position < $3 AND r.state = 'pending'
      """, [.id(batch.id), .int(batch.next), .int(batch.end)]
    ).map { row in
      DraftRow(position: try row.int(), id: try row.int(), draft: try row.json(), password: try row.bytesOrNil())
    }
    if rows.isEmpty { return }
    let positions = PostgresValue.ints(rows.map(\.position))
    let results = try db.pipeline([
      // Each address is looked up; a join would read all mailboxes of the organization for every step.
      Statement(
        """
        SELECT i.position, lower(i.address), m.queue_id IS NOT NULL, m.profile_id, m.incoming_method,
          m.outgoing_method, m.allows_credentials, m.user_name, m.delete_after_processing
        FROM unnest($2, $3) AS i (position, address)
        LEFT JOIN LATERAL (
          SELECT * FROM mailbox k WHERE k.organization_id = $1 AND k.address_key = lower(i.address) LIMIT 1
        ) m ON true
        """, [.id(organization), positions, .texts(rows.map(\.draft.address))]),
      Statement(
        """
        SELECT i.position, p.id FROM unnest($2, $3) AS i (position, name)
        JOIN server_profile p ON p.organization_id = $1 AND p.name_key = lower(i.name)
        """, [.id(organization), positions, .texts(rows.map(\.draft.profile))]),
      Statement(
        """
        SELECT (SELECT id FROM server_profile WHERE organization_id = $1 AND is_default), incoming_method,
          outgoing_method FROM organization WHERE id = $1
        """, [.id(organization)]),
      Statement(
        """
        SELECT p.id, EXISTS (SELECT FROM mailbox m WHERE m.profile_id = p.id AND m.incoming_method <> 'none')
        FROM server_profile p
        WHERE p.organization_id = $1 AND p.incoming_credentials = 'profile' AND p.incoming_login_as IS NULL
        """, [.id(organization)]),
    ])
    var keys: [Int64: String] = [:]
    for index in 0..<results[0].count {
      var row = results[0][index]
      let position = try row.int()
      keys[position] = try row.text()
      existing[position] = try Self.existing(&row)
    }
    for index in rows.indices { rows[index].key = keys[rows[index].position] ?? "" }
    // The order in which owners are locked.
    rows.sort { $0.key < $1.key }
    for (position, profile) in try results[1].map({ (try $0.int(), try $0.id() as ProfileID) }) {
      profiles[position] = profile
    }
    guard var row = results[2].first else { throw StoreError.notFound("organization") }
    defaults = Defaults(profile: try row.idOrNil(), incoming: try row.word(), outgoing: try row.word())
    for (profile, isTaken) in try results[3].map({ (try $0.id() as ProfileID, try $0.bool()) }) {
      single[profile] = isTaken
    }
  }

  private static func existing(_ row: inout Row) throws -> Existing? {
    let isQueue = try row.bool()
    let profile: ProfileID? = try row.idOrNil()
    guard let incoming = try row.textOrNil().flatMap({ SyncMethod(rawValue: $0) }) else { return nil }
    return Existing(
      isQueue: isQueue, profile: profile, incoming: incoming, outgoing: try row.word(),
      allowsCredentials: try row.bool(), userName: try row.textOrNil(), deletes: try row.bool())
  }

  // MARK: Deciding

  /// Sorts the rows: refused, there already, new.
  mutating func decide() {
    for row in rows {
      let profile = row.draft.profile == nil ? defaults.profile : profiles[row.position]
      if let name = row.draft.profile, profile == nil {
        changes.add(
          row.position, .failed, code: "unknown-profile", message: "there is no server profile called \(name)")
        continue
      }
      let new = NewMailbox(
        row: row, profile: profile, incoming: row.draft.incomingMethod ?? defaults.incoming,
        outgoing: row.draft.outgoingMethod ?? defaults.outgoing)
      if let existing = existing[row.position] {
        compare(new, existing)
      } else if let profile, let isTaken = single[profile], new.incoming != .none {
        if isTaken {
          changes.add(
            row.position, .failed, code: FailureCode.profileNoDelegation.rawValue,
            message: FailureCode.profileNoDelegation.summary)
        } else {
          single[profile] = true
          created.append(new)
        }
      } else {
        created.append(new)
      }
    }
    if batch.dryRun { for new in created { changes.add(new.row.position, .done) } }
  }

  /// A file that is imported again finds its own mailboxes: they are left as they are. Others are somebody else's.
  private mutating func compare(_ new: NewMailbox, _ there: Existing) {
    let draft = new.row.draft
    let differences = [
      ("ownerKind", there.isQueue != new.row.isQueue), ("profile", there.profile != new.profile),
      ("incomingMethod", there.incoming != new.incoming), ("outgoingMethod", there.outgoing != new.outgoing),
      ("allowsCredentials", there.allowsCredentials != (draft.allowsCredentials ?? true)),
      ("userName", there.userName != draft.userName),
      ("deleteAfterProcessing", there.deletes != (draft.deleteAfterProcessing ?? false)),
    ].filter(\.1).map(\.0)
    if differences.isEmpty {
      changes.add(
        new.row.position, .unchanged, code: "exists",
        message: "there was such a mailbox; it was left as it is, with its password")
    } else {
      changes.add(
        new.row.position, .failed, code: "address-taken",
        message: "there is a mailbox of this address with another \(differences.joined(separator: ", ")); an import "
          + "only creates")
    }
  }

  // MARK: Creating

  /// What creates the new mailboxes; their owners are found or made here.
  ///
  /// - Parameter reseal: encrypts a password for another place.
  mutating func statements(
    _ db: isolated PostgresConnection,
    reseal: (_ sealed: [UInt8], _ from: SealedPlace, _ to: SealedPlace) throws -> [UInt8]?
  ) throws -> [Statement] {
    if batch.dryRun || created.isEmpty { return [] }
    let results = try db.pipeline([
      Statement(
        "SELECT nextval('mailbox_id_seq') FROM generate_series(1, $1)", [.int(Int64(created.count))]),
      owners("app_user", created.filter { !$0.row.isQueue }), owners("shared_queue", created.filter(\.row.isQueue)),
    ])
    let ids = try results[0].map { try $0.id() as MailboxID }
    let users = try Self.owners(results[1])
    let queues = try Self.owners(results[2])
    var passwords: [[UInt8]?] = []
    for (id, new) in zip(ids, created) {
      passwords.append(
        try new.row.password.flatMap {
          try reseal(
            $0, Self.place(new.row.id), SealedPlace(table: "mailbox", column: "password", row: id.value))
        })
      changes.add(new.row.position, .done, mailbox: id)
    }
    let drafts = created.map(\.row.draft)
    return [
      Statement(
        Self.insertMailboxes,
        [
          .id(organization), .ids(ids), .texts(drafts.map(\.address)),
          .ints(created.map { $0.row.isQueue ? nil : users[$0.row.key] }),
          .ints(created.map { $0.row.isQueue ? queues[$0.row.key] : nil }), .ints(created.map { $0.profile?.value }),
          .bools(drafts.map { $0.allowsCredentials ?? true }), .texts(drafts.map(\.userName)),
          .bytesArray(passwords), .times(drafts.map(\.processEmailFrom)),
          .bools(drafts.map { $0.deleteAfterProcessing ?? false }), .texts(created.map(\.incoming.rawValue)),
          .texts(created.map(\.outgoing.rawValue)),
        ]),
      // With the profile at once, so that deriving "may run" finds nothing to write.
      Statement(
        """
        INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled)
        SELECT i.id, $1, i.profile_id, k.kind, k.class, k.kind = 't'
        FROM unnest($2, $3) AS i (id, profile_id) CROSS JOIN (VALUES ('p', 2), ('s', 1), ('t', 3)) AS k (kind, class)
        """, [.id(organization), .ids(ids), .ints(created.map { $0.profile?.value })]),
      Statement(
        "INSERT INTO mailbox_counter (mailbox_id, organization_id) SELECT i.id, $1 FROM unnest($2) AS i (id)",
        [.id(organization), .ids(ids)]),
      .refreshMayRun(.ids(ids)),
      .audit(
        try zip(ids, created).map { id, new in
          AuditEntry(
            "mailbox.create", "mailbox", id.value, after: try PostgresValue.jsonText(Created(new, batch.id)))
        }, by: batch.principal),
    ] + announcements
  }

  /// The queue learns of a profile with its first mailbox.
  private var announcements: [Statement] {
    let profiles = Set(created.compactMap(\.profile))
    if profiles.count > 1 { return [SchedulePayload.profiles] }
    return profiles.map { SchedulePayload.statement(profile: $0) }
  }

  private static let insertMailboxes = """
    INSERT INTO mailbox (id, organization_id, address, address_key, user_id, queue_id, profile_id, allows_credentials,
      user_name, password, process_email_from, delete_after_processing, incoming_method, outgoing_method)
    SELECT i.id, $1, i.address, lower(i.address), i.user_id, i.queue_id, i.profile_id, i.allows, i.user_name,
      i.password, i.since, i.deletes, i.incoming, i.outgoing
    FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS i (id, address, user_id, queue_id, profile_id,
      allows, user_name, password, since, deletes, incoming, outgoing)
    """

  /// Users and shared queues of the addresses; a queue that is created so belongs to whoever asked for the import.
  private func owners(_ table: String, _ new: [NewMailbox]) -> Statement {
    let isQueue = table == "shared_queue"
    return Statement(
      """
      INSERT INTO \(table) AS owner (organization_id, name, address, address_key\(isQueue ? ", owner_id" : ""))
      SELECT $1, i.name, i.address, lower(i.address)\(isQueue ? ", $4" : "") FROM unnest($2, $3) AS i (name, address)
      ON CONFLICT (organization_id, address_key) DO UPDATE SET name = owner.name RETURNING address_key, id
      """,
      [
        .id(organization), .texts(new.map { $0.row.draft.ownerName ?? $0.row.draft.address }),
        .texts(new.map(\.row.draft.address)),
      ] + (isQueue ? [.id(batch.principal.userID)] : []))
  }

  private static func owners(_ result: ResultSet) throws -> [String: Int64] {
    Dictionary(try result.map { (try $0.text(), try $0.int()) }, uniquingKeysWith: { first, _ in first })
  }

  /// What the audit keeps of an imported mailbox.
  private struct Created: Encodable {
    var mailbox: ImportedMailbox
    var profileID: ProfileID?
    var passwordSet: Bool
    var batchID: BatchID

    init(_ new: NewMailbox, _ batch: BatchID) {
      mailbox = new.row.draft
      profileID = new.profile
      passwordSet = new.row.password != nil
      batchID = batch
    }
  }
}
