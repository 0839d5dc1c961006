import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let tokenColumns = """
    SELECT t.id, u.id, u.name, u.address, t.kind, t.name, CASE t.kind WHEN 'session' THEN u.role ELSE t.role END,
      t.created_at,
      CASE WHEN t.idle_seconds IS NULL THEN t.expires_at
        ELSE least(t.expires_at, t.last_used_at + t.idle_seconds * interval '1 second') END, t.last_used_at, t.revoked_at
    FROM api_token t JOIN app_user u ON u.id = t.user_id
    """

  private static func token(_ row: inout Row) throws -> APIToken {
    APIToken(
      id: try row.id(), user: UserReference(id: try row.id(), name: try row.text(), address: try row.text()),
      kind: try row.word(), name: try row.text(), role: try row.word(), createdAt: try row.date(),
      expiresAt: try row.dateOrNil(), lastUsedAt: try row.dateOrNil(), revokedAt: try row.dateOrNil())
  }

  private static func oneToken(_ id: TokenID, _ organization: OrganizationID, of user: UserID? = nil) -> Statement {
    Statement(
      tokenColumns + " WHERE t.id = $1 AND t.organization_id = $2 AND ($3::bigint IS NULL OR t.user_id = $3)",
      [.id(id), .id(organization), .id(user)])
  }

  /// Makes a token of a role that the caller has checked, which is shown this once.
  ///
  /// Throws ``StoreError/invalid(_:)`` for a person who is not there or inactive, and for an end that is not later than now.
  public func createToken(
    _ draft: TokenDraft, role: Role, of user: UserID, by principal: Principal
  ) async throws -> (token: APIToken, secret: Secret) {
    try PeopleRules.check(draft)
    let organization = principal.organizationID
    let secret = Token.generate()
    let made: APIToken = try await pool.transaction(.api(principal)) { db in
      let person = try db.query(
        """
        SELECT u.is_active, coalesce($3 > now(), true) FROM app_user u WHERE u.id = $1 AND u.organization_id = $2
        FOR KEY SHARE
        """, [.id(user), .id(organization), .time(draft.expiresAt)]
      ).map { (try $0.bool(), try $0.bool()) }.first
      var problems = FieldProblems()
      if person == nil { problems.add("/userID", "unknown", "there is no user \(user)") }
      if person?.0 == false { problems.add("/userID", "inactive", "the user \(user) is inactive") }
      if person?.1 == false { problems.add("/expiresAt", "out-of-range", "must be later than now") }
      try problems.throwIfAny()
      var row = try db.query(
        """
        INSERT INTO api_token (organization_id, user_id, name, role, token_hash, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING id
        """,
        [
          .id(organization), .id(user), .text(draft.name), .text(role.rawValue), .bytes(Token.hash(secret)),
          .time(draft.expiresAt),
        ])[0]
      let id: TokenID = try row.id()
      guard let made = try db.pipeline([Self.oneToken(id, organization)])[0].map(Self.token).first else {
        throw StoreError.notFound("token")
      }
      try db.commit([
        .audit(
          [AuditEntry("token.create", "token", id.value, after: try PostgresValue.jsonText(AuditedToken(made)))],
          by: principal)
      ])
      return made
    }
    return (made, secret)
  }

  /// Tokens and sessions, newest first. The end of a session is the earlier of its two.
  public func tokens(
    _ filter: TokenFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<APIToken> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "tokens")
    let condition = """
       WHERE t.organization_id = $1 AND ($2::bigint IS NULL OR t.user_id = $2) AND ($3::text IS NULL OR t.kind = $3)
      AND ($4 OR \(Self.isAlive))
      """
    let values: [PostgresValue] = [
      .id(principal.organizationID), .id(filter.userID), .text(filter.kind?.rawValue), .bool(filter.includesEnded),
    ]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.tokenColumns + condition + " AND ($5::bigint IS NULL OR t.id < $5) ORDER BY t.id DESC LIMIT $6",
          values + [.int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM api_token t" + condition, values),
      ])
      var total = results[1][0]
      return try Page(rows: try results[0].map(Self.token), limit: limit, total: try total.int()) { last in
        try Cursor(list: "tokens", key: last.id.value, id: last.id.value).text()
      }
    }
  }

  /// Revokes a token or session, of one person alone where one is named; doing it twice changes nothing.
  ///
  /// Throws ``StoreError/notFound(_:)``. Processes of the API may let it in for some seconds more.
  public func revokeToken(_ id: TokenID, of user: UserID?, by principal: Principal) async throws -> APIToken {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let first = try db.pipeline([
        Statement(
          """
          SELECT 1 FROM api_token WHERE id = $1 AND organization_id = $2 AND ($3::bigint IS NULL OR user_id = $3)
          FOR NO KEY UPDATE
          """, [.id(id), .id(organization), .id(user)]),
        Self.oneToken(id, organization, of: user),
      ])
      guard let before = try first[1].map(Self.token).first else { throw StoreError.notFound("token") }
      if before.revokedAt != nil {
        try db.commit()
        return before
      }
      let results = try db.commit([
        Statement("UPDATE api_token SET revoked_at = now() WHERE id = $1", [.id(id)]),
        .audit(
          [AuditEntry("token.revoke", "token", id.value, before: try PostgresValue.jsonText(AuditedToken(before)))],
          by: principal), Self.oneToken(id, organization),
      ])
      guard let after = try results[2].map(Self.token).first else { throw StoreError.notFound("token") }
      return after
    }
  }
}

/// What the audit keeps of a token.
private struct AuditedToken: Encodable {
  var name: String
  var kind: APIToken.Kind
  var role: Role
  var user: String
  var expiresAt: String?

  init(_ token: APIToken) {
    name = token.name
    kind = token.kind
    role = token.role
    user = token.user.address
    expiresAt = token.expiresAt?.formatted(Date.ISO8601FormatStyle())
  }
}
