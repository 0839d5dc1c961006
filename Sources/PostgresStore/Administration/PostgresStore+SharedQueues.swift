import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let queueColumns = """
    SELECT x.id, x.organization_id, x.name, x.address, x.is_active, u.id, u.name, u.address,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'name', w.name, 'address', w.address)
          ORDER BY w.address_key), '[]')
        FROM shared_queue_member s JOIN app_user w ON w.id = s.user_id WHERE s.queue_id = x.id),
      x.version, x.created_at, x.updated_at, x.address_key
    FROM shared_queue x LEFT JOIN app_user u ON u.id = x.owner_id
    """

  private static func oneQueue(_ id: SharedQueueID, _ organization: OrganizationID) -> Statement {
    Statement(queueColumns + " WHERE x.id = $1 AND x.organization_id = $2", [.id(id), .id(organization)])
  }

  private static func queue(_ row: inout Row) throws -> (SharedQueue, String) {
    let id: SharedQueueID = try row.id()
    let organization: OrganizationID = try row.id()
    let name = try row.text()
    let address = try row.text()
    let isActive = try row.bool()
    let owner: UserID? = try row.idOrNil()
    let ownerName = try row.textOrNil()
    let ownerAddress = try row.textOrNil()
    let queue = SharedQueue(
      id: id, organizationID: organization, name: name, address: address, isActive: isActive,
      owner: owner.map { UserReference(id: $0, name: ownerName ?? "", address: ownerAddress ?? "") },
      members: try row.json(), version: try row.int(), createdAt: try row.date(), updatedAt: try row.date())
    return (queue, try row.text())
  }

  private static func queue(_ result: ResultSet) throws -> SharedQueue {
    guard let found = try result.map(Self.queue).first else { throw StoreError.notFound("shared queue") }
    return found.0
  }

  /// Enters a shared queue. Throws ``StoreError/conflict(code:message:)`` `address-taken`, and ``StoreError/invalid(_:)`` for
  /// an owner or member who is not there.
  public func createSharedQueue(_ draft: SharedQueueDraft, by principal: Principal) async throws -> SharedQueue {
    try PeopleRules.check(draft)
    let organization = principal.organizationID
    let owner = draft.ownerID ?? principal.userID
    return try await pool.transaction(.api(principal)) { db in
      try Self.requireUsers([owner], organization, db) { _ in "/ownerID" }
      try Self.requireUsers(draft.memberIDs ?? [], organization, db) { "/memberIDs/\($0)" }
      let inserted: ResultSet
      do {
        inserted = try db.query(
          """
          INSERT INTO shared_queue (organization_id, name, address, address_key, owner_id)
          VALUES ($1, $2, $3, lower($3), $4) RETURNING id
          """, [.id(organization), .text(draft.name ?? draft.address), .text(draft.address), .id(owner)])
      } catch let error as PostgresError where error.violates("shared_queue_address") {
        throw Self.addressTaken("shared queue", draft.address)
      }
      var row = inserted[0]
      let id: SharedQueueID = try row.id()
      let created = try Self.queue(
        try db.pipeline([Self.members(draft.memberIDs ?? [], of: id, organization), Self.oneQueue(id, organization)])[1]
      )
      try db.commit([
        .audit(
          [
            AuditEntry(
              "shared-queue.create", "shared-queue", id.value,
              after: try PostgresValue.jsonText(AuditedQueue(created)))
          ], by: principal)
      ])
      return created
    }
  }

  private static func members(_ ids: [UserID], of id: SharedQueueID, _ organization: OrganizationID) -> Statement {
    Statement(
      """
      INSERT INTO shared_queue_member (queue_id, user_id, organization_id)
      SELECT $1, i, $3 FROM unnest($2) AS i ORDER BY i ON CONFLICT (queue_id, user_id) DO NOTHING
      """, [.id(id), .ids(ids), .id(organization)])
  }

  /// One shared queue. Throws ``StoreError/notFound(_:)``.
  public func sharedQueue(_ id: SharedQueueID, for principal: Principal) async throws -> SharedQueue {
    try await pool.transaction(.api(principal)) { db in
      try Self.queue(try db.commit([Self.oneQueue(id, principal.organizationID)])[0])
    }
  }

  /// Shared queues, by address.
  public func sharedQueues(
    _ filter: PeopleFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<SharedQueue> {
    try await people("shared-queues", "shared_queue", Self.queueColumns, filter, page, for: principal, read: Self.queue)
    {
      $0.id.value
    }
  }

  /// Changes a shared queue. Mailboxes of one that becomes inactive stand still, and run again when it is active.
  ///
  /// Throws as ``createSharedQueue(_:by:)`` does, and ``StoreError/stale``. A change that changes nothing writes nothing.
  public func updateSharedQueue(
    _ id: SharedQueueID, _ change: SharedQueueChange, by principal: Principal
  ) async throws -> SharedQueue {
    try PeopleRules.check(change)
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let before = try Self.lockedQueue(id, organization, db)
      if let version = change.version, version != before.version { throw StoreError.stale }
      if let owner = change.ownerID { try Self.requireUsers([owner], organization, db) { _ in "/ownerID" } }
      if let members = change.memberIDs { try Self.requireUsers(members, organization, db) { "/memberIDs/\($0)" } }
      let isSame =
        [change.name ?? before.name, change.address ?? before.address] == [before.name, before.address]
        && (change.isActive ?? before.isActive) == before.isActive
        && (change.ownerID ?? before.owner?.id) == before.owner?.id
        && change.memberIDs.map { Set($0) == Set(before.members.map(\.id)) } != false
      if isSame {
        try db.commit()
        return before
      }
      do {
        try db.query(
          """
          UPDATE shared_queue SET name = coalesce($2, name), address = coalesce($3, address),
            address_key = lower(coalesce($3, address)), is_active = coalesce($4, is_active),
            owner_id = coalesce($5, owner_id), version = version + 1, updated_at = now()
          WHERE id = $1
          """,
          [.id(id), .text(change.name), .text(change.address), .bool(change.isActive), .id(change.ownerID)])
      } catch let error as PostgresError where error.violates("shared_queue_address") {
        throw Self.addressTaken("shared queue", change.address ?? before.address)
      }
      var statements: [Statement] = []
      if let members = change.memberIDs {
        statements += [
          Statement(
            "DELETE FROM shared_queue_member WHERE queue_id = $1 AND user_id <> ALL ($2)", [.id(id), .ids(members)]),
          Self.members(members, of: id, organization),
        ]
      }
      if let isActive = change.isActive, isActive != before.isActive {
        statements.append(Self.refreshMailboxes("queue_id", id.value))
      }
      statements.append(Self.oneQueue(id, organization))
      let after = try Self.queue(try db.pipeline(statements)[statements.count - 1])
      try db.commit([
        .audit(
          [
            AuditEntry(
              "shared-queue.update", "shared-queue", id.value,
              before: try PostgresValue.jsonText(AuditedQueue(before)),
              after: try PostgresValue.jsonText(AuditedQueue(after)))
          ], by: principal)
      ])
      return after
    }
  }

  /// Reads a shared queue that nobody else changes, and to which nobody gives a mailbox, until the end of the transaction.
  private static func lockedQueue(
    _ id: SharedQueueID, _ organization: OrganizationID, _ db: isolated PostgresConnection
  ) throws -> SharedQueue {
    let results = try db.pipeline([
      Statement(
        "SELECT 1 FROM shared_queue WHERE id = $1 AND organization_id = $2 FOR UPDATE", [.id(id), .id(organization)]),
      oneQueue(id, organization),
    ])
    return try queue(results[1])
  }

  /// Deletes a shared queue. Throws ``StoreError/conflict(code:message:)`` `in-use`, naming the mailboxes it still has.
  public func deleteSharedQueue(_ id: SharedQueueID, by principal: Principal) async throws {
    let organization = principal.organizationID
    try await pool.transaction(.api(principal)) { db in
      let queue = try Self.lockedQueue(id, organization, db)
      let mailboxes = try db.pipeline([Self.belongings("mailbox", "address", "queue_id", id.value, organization)])[0]
      if let rest = try Self.words(mailboxes, "the mailbox", "mailboxes") {
        throw StoreError.conflict(
          code: "in-use",
          message: "\(queue.address) still has \(rest); delete that first, or deactivate the shared queue instead")
      }
      try db.commit([
        Statement("DELETE FROM shared_queue WHERE id = $1", [.id(id)]),
        .audit(
          [
            AuditEntry(
              "shared-queue.delete", "shared-queue", id.value,
              before: try PostgresValue.jsonText(AuditedQueue(queue)))
          ], by: principal),
      ])
    }
  }
}

/// What the audit keeps of a shared queue.
private struct AuditedQueue: Encodable {
  var name: String
  var address: String
  var isActive: Bool
  var owner: String?
  var members: [String]

  init(_ queue: SharedQueue) {
    name = queue.name
    address = queue.address
    isActive = queue.isActive
    owner = queue.owner?.address
    members = queue.members.map(\.address)
  }
}
