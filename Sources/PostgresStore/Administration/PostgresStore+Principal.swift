import PostriderCore

extension PostgresStore {
  /// Tokens `t` that let in: neither revoked nor at their end, nor sessions that nobody has used for too long.
  static let isAlive = """
    t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
    AND (t.idle_seconds IS NULL OR t.last_used_at > now() - t.idle_seconds * interval '1 second')
    """

  /// The person behind a bearer token; `nil` for an unknown, revoked or expired one, and for an inactive person's.
  ///
  /// A session has the role that the person has now. That it was used is written once a minute.
  public func principal(token: Secret) async throws -> Principal? {
    // Every request comes by here, so none works with a schema that does not fit.
    try await schema.pass()
    let hash = Token.hash(token)
    return try await pool.transaction(.token(hash: hash)) { db in
      // The first statement sees the one token whose hash is known; it opens its organization for the second.
      try db.commit([
        Statement(
          """
          SELECT set_config('postrider.organization', t.organization_id::text, true) FROM api_token t
          WHERE t.token_hash = $1 AND \(Self.isAlive)
          """, [.bytes(hash)]),
        Statement(
          """
          SELECT t.organization_id, u.id, u.name, CASE t.kind WHEN 'session' THEN u.role ELSE t.role END
          FROM api_token t JOIN app_user u ON u.id = t.user_id AND u.organization_id = t.organization_id
          WHERE t.token_hash = $1 AND \(Self.isAlive) AND u.is_active
          """, [.bytes(hash)]),
        Statement(
          """
          UPDATE api_token t SET last_used_at = now()
          WHERE t.token_hash = $1 AND \(Self.isAlive) AND coalesce(t.last_used_at < now() - interval '1 minute', true)
          """, [.bytes(hash)]),
      ])[1].map { row in
        Principal(
          organizationID: try row.id(), userID: try row.id(), name: try row.text(), role: try row.word())
      }.first
    }
  }
}
