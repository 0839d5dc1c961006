import PostriderCore

extension PostgresStore {
  /// The person behind a bearer token; `nil` for an unknown, revoked or expired one.
  public func principal(token: Secret) async throws -> Principal? {
    // Every request comes by here, so none works with a schema that does not fit.
    try await schema.pass()
    let hash = Token.hash(token)
    return try await pool.transaction(.token(hash: hash)) { db in
      // The first statement sees the one token whose hash is known; it opens its organization for the second.
      try db.commit([
        Statement(
          """
          SELECT set_config('postrider.organization', organization_id::text, true) FROM api_token
          WHERE token_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
          """, [.bytes(hash)]),
        Statement(
          """
          SELECT t.organization_id, u.id, u.name, t.role
          FROM api_token t JOIN app_user u ON u.id = t.user_id AND u.organization_id = t.organization_id
          WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
            AND u.is_active
          """, [.bytes(hash)]),
      ])[1].map { row in
        Principal(
          organizationID: try row.id(), userID: try row.id(), name: try row.text(), role: try row.word())
      }.first
    }
  }
}
