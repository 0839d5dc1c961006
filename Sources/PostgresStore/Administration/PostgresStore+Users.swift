import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let userColumns = """
    SELECT x.id, x.organization_id, x.name, x.address, x.role, x.is_active, p.user_id IS NOT NULL,
      CASE WHEN p.locked_until > now() THEN p.locked_until END, p.last_sign_in_at, x.version, x.created_at, x.updated_at,
      x.address_key
    FROM app_user x LEFT JOIN user_password p ON p.user_id = x.id
    """

  private static func oneUser(_ id: UserID, _ organization: OrganizationID) -> Statement {
    Statement(userColumns + " WHERE x.id = $1 AND x.organization_id = $2", [.id(id), .id(organization)])
  }

  private static func user(_ row: inout Row) throws -> (User, String) {
    let user = User(
      id: try row.id(), organizationID: try row.id(), name: try row.text(), address: try row.text(),
      role: try row.word(), isActive: try row.bool(), passwordSet: try row.bool(), lockedUntil: try row.dateOrNil(),
      lastSignInAt: try row.dateOrNil(), version: try row.int(), createdAt: try row.date(), updatedAt: try row.date())
    return (user, try row.text())
  }

  static func user(_ result: ResultSet) throws -> User {
    guard let found = try result.map(Self.user).first else { throw StoreError.notFound("user") }
    return found.0
  }

  /// Enters a person. Throws ``StoreError/conflict(code:message:)`` `address-taken`.
  public func createUser(_ draft: UserDraft, by principal: Principal) async throws -> User {
    try PeopleRules.check(draft)
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let inserted: ResultSet
      do {
        inserted = try db.query(
          """
          INSERT INTO app_user (organization_id, name, address, address_key, role) VALUES ($1, $2, $3, lower($3), $4)
          RETURNING id
          """,
          [
            .id(organization), .text(draft.name ?? draft.address), .text(draft.address),
            .text((draft.role ?? .owner).rawValue),
          ])
      } catch let error as PostgresError where error.violates("app_user_address") {
        throw Self.addressTaken("user", draft.address)
      }
      var row = inserted[0]
      let id: UserID = try row.id()
      let created = try Self.user(try db.pipeline([Self.oneUser(id, organization)])[0])
      let entry = AuditEntry("user.create", "user", id.value, after: try PostgresValue.jsonText(AuditedUser(created)))
      try db.commit([.audit([entry], by: principal)])
      return created
    }
  }

  static func addressTaken(_ what: String, _ address: String) -> StoreError {
    .conflict(code: "address-taken", message: "there is already a \(what) with the address \(address)")
  }

  /// One person. Throws ``StoreError/notFound(_:)``.
  public func user(_ id: UserID, for principal: Principal) async throws -> User {
    try await pool.transaction(.api(principal)) { db in
      try Self.user(try db.commit([Self.oneUser(id, principal.organizationID)])[0])
    }
  }

  /// People, by address.
  public func users(_ filter: PeopleFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<User> {
    try await people("users", "app_user", Self.userColumns, filter, page, for: principal, read: Self.user) {
      $0.id.value
    }
  }

  /// A page of people or shared queues, by address. `columns` is a query of `table` under the name `x` that ends with the
  /// address's key.
  func people<Somebody: Codable & Sendable>(
    _ list: String, _ table: String, _ columns: String, _ filter: PeopleFilter, _ page: PageRequest,
    for principal: Principal, read: @escaping @Sendable (inout Row) throws -> (Somebody, String),
    id: @escaping @Sendable (Somebody) -> Int64
  ) async throws -> Page<Somebody> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<String>(page.cursor, list: list)
    return try await pool.transaction(.api(principal)) { db in
      let values = filter.values(of: principal.organizationID)
      let results = try db.commit([
        Statement(
          columns + filter.condition + """
             AND ($5::text IS NULL OR (x.address_key, x.id) > ($5, $6)) ORDER BY x.address_key, x.id LIMIT $7
            """, values + [.text(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM \(table) x" + filter.condition, values),
      ])
      let rows = try results[0].map(read)
      var total = results[1][0]
      let keys = Dictionary(uniqueKeysWithValues: rows.map { (id($0.0), $0.1) })
      return try Page(rows: rows.map(\.0), limit: limit, total: try total.int()) { last in
        try Cursor(list: list, key: keys[id(last)] ?? "", id: id(last)).text()
      }
    }
  }

  /// Changes a person. Mailboxes of one who becomes inactive stand still, and run again when they are active; another role
  /// revokes their tokens of other roles.
  ///
  /// Throws ``StoreError/stale``, ``StoreError/conflict(code:message:)`` `address-taken`, and `yourself` or
  /// `last-administrator` for what could leave nobody to administer. A change that changes nothing writes nothing.
  public func updateUser(_ id: UserID, _ change: UserChange, by principal: Principal) async throws -> User {
    try PeopleRules.check(change)
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let before = try Self.lockedUser(id, organization, db)
      if let version = change.version, version != before.version { throw StoreError.stale }
      var after = before
      after.name = change.name ?? before.name
      after.address = change.address ?? before.address
      after.role = change.role ?? before.role
      after.isActive = change.isActive ?? before.isActive
      if after == before {
        try db.commit()
        return before
      }
      if !after.isActive || after.role != .administrator { try Self.keepAdministrator(before, principal, db) }
      do {
        try db.query(
          """
          UPDATE app_user SET name = $2, address = $3, address_key = lower($3), role = $4, is_active = $5,
            version = version + 1, updated_at = now()
          WHERE id = $1
          """,
          [.id(id), .text(after.name), .text(after.address), .text(after.role.rawValue), .bool(after.isActive)])
      } catch let error as PostgresError where error.violates("app_user_address") {
        throw Self.addressTaken("user", after.address)
      }
      var statements: [Statement] = []
      if after.role != before.role {
        statements.append(
          Statement(
            """
            UPDATE api_token SET revoked_at = now()
            WHERE user_id = $1 AND kind = 'token' AND role <> $2 AND revoked_at IS NULL
            """, [.id(id), .text(after.role.rawValue)]))
      }
      if after.isActive != before.isActive { statements.append(Self.refreshMailboxes("user_id", id.value)) }
      statements += [
        .audit(
          [
            AuditEntry(
              "user.update", "user", id.value, before: try PostgresValue.jsonText(AuditedUser(before)),
              after: try PostgresValue.jsonText(AuditedUser(after)))
          ], by: principal), Self.oneUser(id, organization),
      ]
      return try Self.user(try db.commit(statements)[statements.count - 1])
    }
  }

  /// Derives "may run" anew for the mailboxes of a person or shared queue, and tells the scheduler.
  static func refreshMailboxes(_ column: String, _ id: Int64) -> Statement {
    Statement(
      """
      SELECT announce_jobs(ARRAY(SELECT job FROM refresh_may_run(ARRAY(
        SELECT m.id FROM mailbox m WHERE m.\(column) = $1 ORDER BY m.id))))
      """, [.int(id)])
  }

  /// Reads a person whom nobody else changes, and to whom nobody gives anything, until the end of the transaction.
  private static func lockedUser(
    _ id: UserID, _ organization: OrganizationID, _ db: isolated PostgresConnection
  ) throws -> User {
    let results = try db.pipeline([
      // One at a time: of two administrators who deactivate each other the second finds themselves alone.
      Statement("SELECT 1 FROM organization WHERE id = $1 FOR NO KEY UPDATE", [.id(organization)]),
      Statement(
        "SELECT 1 FROM app_user WHERE id = $1 AND organization_id = $2 FOR UPDATE", [.id(id), .id(organization)]),
      oneUser(id, organization),
    ])
    return try user(results[2])
  }

  /// Throws for a person who has to stay an active administrator.
  private static func keepAdministrator(
    _ user: User, _ principal: Principal, _ db: isolated PostgresConnection
  ) throws {
    guard user.isActive && user.role == .administrator else { return }
    if user.id == principal.userID {
      throw StoreError.conflict(
        code: "yourself", message: "you would take your own rights as an administrator; another administrator has to")
    }
    let others = try db.query(
      """
      SELECT 1 FROM app_user WHERE organization_id = $1 AND role = 'administrator' AND is_active AND id <> $2 LIMIT 1
      """, [.id(user.organizationID), .id(user.id)])
    if others.count == 0 {
      throw StoreError.conflict(
        code: "last-administrator", message: "\(user.name) is the last active administrator; make another one first")
    }
  }

  /// Deletes a person with their tokens, sessions, password and memberships. What they did stays in the audit.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `in-use`, naming the mailboxes, shared queues and server profiles that
  /// are still theirs; `yourself` and `last-administrator`.
  public func deleteUser(_ id: UserID, by principal: Principal) async throws {
    let organization = principal.organizationID
    try await pool.transaction(.api(principal)) { db in
      let user = try Self.lockedUser(id, organization, db)
      try Self.keepAdministrator(user, principal, db)
      let found = try db.pipeline([
        Self.belongings("mailbox", "address", "user_id", id.value, organization),
        Self.belongings("shared_queue", "address", "owner_id", id.value, organization),
        Self.belongings("server_profile", "name", "owner_id", id.value, organization),
      ])
      let rest = [
        try Self.words(found[0], "the mailbox", "mailboxes"),
        try Self.words(found[1], "the ownership of the shared queue", "shared queues"),
        try Self.words(found[2], "the ownership of the server profile", "server profiles"),
      ].compactMap { $0 }
      if !rest.isEmpty {
        throw StoreError.conflict(
          code: "in-use",
          message: "\(user.address) still has \(rest.joined(separator: ", and "));"
            + " give that to somebody else or delete it first, or deactivate the user instead")
      }
      try db.commit([
        Statement("DELETE FROM app_user WHERE id = $1", [.id(id)]),
        .audit(
          [
            AuditEntry(
              "user.delete", "user", id.value, before: try PostgresValue.jsonText(AuditedUser(user)))
          ], by: principal),
      ])
    }
  }

  /// How many rows of a table belong to somebody, and what the first ones are called.
  static func belongings(
    _ table: String, _ name: String, _ column: String, _ id: Int64, _ organization: OrganizationID
  ) -> Statement {
    Statement(
      """
      SELECT \(name), count(*) OVER () FROM \(table) WHERE organization_id = $1 AND \(column) = $2
      ORDER BY id LIMIT 3
      """, [.id(organization), .int(id)])
  }

  /// `the mailbox a@example.com`, or `12 mailboxes (a@example.com, …)`; `nil` for none.
  static func words(_ belongings: ResultSet, _ one: String, _ many: String) throws -> String? {
    var total: Int64 = 0
    let names = try belongings.map { row -> String in
      let name = try row.text()
      total = try row.int()
      return name
    }
    if names.isEmpty { return nil }
    if total == 1 { return "\(one) \(names[0])" }
    return "\(total) \(many) (\(names.joined(separator: ", "))\(Int(total) > names.count ? ", …" : ""))"
  }

  /// Throws ``StoreError/invalid(_:)`` unless all of these people are there; keeps them there until the transaction's end.
  static func requireUsers(
    _ ids: [UserID], _ organization: OrganizationID, _ db: isolated PostgresConnection,
    at pointer: (Int) -> String
  ) throws {
    let known = Set(
      try db.query(
        "SELECT id FROM app_user WHERE id = ANY ($1) AND organization_id = $2 ORDER BY id FOR KEY SHARE",
        [.ids(ids), .id(organization)]
      ).map { try $0.id() as UserID })
    var problems = FieldProblems()
    for (index, id) in ids.enumerated() where !known.contains(id) {
      problems.add(pointer(index), "unknown", "there is no user \(id)")
    }
    try problems.throwIfAny()
  }
}

/// What the audit keeps of a person.
private struct AuditedUser: Encodable {
  var name: String
  var address: String
  var role: Role
  var isActive: Bool

  init(_ user: User) {
    name = user.name
    address = user.address
    role = user.role
    isActive = user.isActive
  }
}

extension PeopleFilter {
  /// The condition on a person or shared queue `x`, with the parameters $1 to $4.
  var condition: String {
    """
     WHERE x.organization_id = $1 AND ($2::boolean IS NULL OR x.is_active = $2)
    AND ($3::text IS NULL OR x.address_key = lower($3))
    AND ($4::text IS NULL OR strpos(x.address_key, lower($4)) > 0 OR strpos(lower(x.name), lower($4)) > 0)
    """
  }

  /// The parameters of the condition.
  func values(of organization: OrganizationID) -> [PostgresValue] {
    [.id(organization), .bool(isActive), .text(address), .text(text)]
  }
}
