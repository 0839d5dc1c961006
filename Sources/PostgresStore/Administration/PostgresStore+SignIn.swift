import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Stores a password's hash, or takes the password away. Ends the lock and the person's other sessions.
  ///
  /// - Parameter session: the bearer token of the session that goes on; `nil` for none.
  public func setPassword(
    _ hash: Secret?, of id: UserID, keeping session: Secret?, by principal: Principal
  ) async throws {
    let organization = principal.organizationID
    try await pool.transaction(.api(principal)) { db in
      try db.query(
        "SELECT 1 FROM app_user WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE", [.id(id), .id(organization)]
      ).requireOne("user")
      let change =
        if let hash {
          Statement(
            """
            INSERT INTO user_password (user_id, organization_id, hash) VALUES ($1, $2, $3)
            ON CONFLICT (user_id) DO UPDATE SET hash = EXCLUDED.hash, changed_at = now(), failures = 0, failed_at = NULL,
              locked_until = NULL
            """, [.id(id), .id(organization), .text(hash.revealed)])
        } else {
          Statement("DELETE FROM user_password WHERE user_id = $1", [.id(id)])
        }
      try db.commit([
        change,
        Statement(
          """
          UPDATE api_token SET revoked_at = now() WHERE user_id = $1 AND kind = 'session' AND revoked_at IS NULL
            AND token_hash IS DISTINCT FROM $2
          """, [.id(id), .bytes(session.map { Token.hash($0) })]),
        .audit(
          [AuditEntry(hash == nil ? "user.remove-password" : "user.set-password", "user", id.value)], by: principal),
      ])
    }
  }

  /// Begins to check the password of the principal themselves; counted as ``beginSignIn(organization:address:)`` does.
  public func beginPasswordCheck(by principal: Principal) async throws -> SignInTicket? {
    try await beginCheck(principal.organizationID, "u.id = $1", .id(principal.userID))
  }

  /// Begins to sign somebody in, and counts a wrong password in advance, so that guesses at the same time cannot outrun the
  /// lock. `nil` for an unknown organization or address, an inactive or locked person, one without a password.
  public func beginSignIn(organization: String, address: String) async throws -> SignInTicket? {
    try await schema.pass()
    let found: OrganizationID? = try await pool.transaction(.worker) { db in
      try db.commit([Statement("SELECT id FROM organization WHERE name = $1", [.text(organization)])])[0]
        .map { try $0.id() as OrganizationID }.first
    }
    guard let found else { return nil }
    return try await beginCheck(found, "u.address_key = lower($1)", .text(address))
  }

  private func beginCheck(
    _ organization: OrganizationID, _ who: String, _ value: PostgresValue
  ) async throws -> SignInTicket? {
    // Of attempts at the same time each sees what the one before it has counted: the row is read again under its lock.
    let failures = "CASE WHEN p.failed_at > now() - $6 * interval '1 second' THEN p.failures + 1 ELSE 1 END"
    return try await pool.transaction(.api(organization, owner: nil)) { db in
      let counted = try db.commit([
        Statement(
          """
          UPDATE user_password p SET failed_at = now(), failures = \(failures),
            locked_until = CASE WHEN \(failures) >= $3
              THEN now() + least($5, $4 * 2.0 ^ least(\(failures) - $3, 20)) * interval '1 second' END
          FROM app_user u
          WHERE u.organization_id = $2 AND \(who) AND u.is_active AND p.user_id = u.id
            AND (p.locked_until IS NULL OR p.locked_until <= now())
          RETURNING u.id, u.name, u.role, p.hash
          """,
          [
            value, .id(organization), .int(Int64(PasswordRules.freeFailures)),
            .int(Int64(PasswordRules.firstLockSeconds)), .int(Int64(PasswordRules.maximumLockSeconds)),
            .int(Int64(PasswordRules.forgottenAfterSeconds)),
          ])
      ])[0]
      return try counted.map { row in
        let principal = Principal(
          organizationID: organization, userID: try row.id(), name: try row.text(), role: try row.word())
        return SignInTicket(principal: principal, hash: Secret(try row.text()))
      }.first
    }
  }

  /// Notes in the audit that the password was wrong.
  public func failSignIn(_ ticket: SignInTicket) async throws {
    let principal = ticket.principal
    try await pool.transaction(.api(principal)) { db in
      _ = try db.commit([
        .audit([AuditEntry("session.refused", "user", principal.userID.value)], by: principal)
      ])
    }
  }

  /// Begins a session and takes back the wrong password that was counted; `nil` when the password was changed meanwhile.
  ///
  /// - Parameter rehashed: replaces the stored hash where given: the same password under the present parameters.
  public func completeSignIn(
    _ ticket: SignInTicket, life: SessionLife, rehashed: Secret?
  ) async throws -> StartedSession? {
    let principal = ticket.principal
    let token = Token.generate()
    return try await pool.transaction(.api(principal)) { db in
      let kept = try db.query(
        """
        UPDATE user_password p SET failures = 0, failed_at = NULL, locked_until = NULL, last_sign_in_at = now(),
          hash = coalesce($3, p.hash)
        WHERE p.user_id = $1 AND p.hash = $2
        """, [.id(principal.userID), .text(ticket.hash.revealed), .text(rehashed?.revealed)])
      if kept.affected == 0 { return nil }
      let results = try db.pipeline([
        // The person's sessions that are over, so that nobody has to sweep them.
        Statement(
          """
          DELETE FROM api_token WHERE user_id = $1 AND kind = 'session'
            AND (revoked_at < now() - interval '1 day' OR expires_at < now() - interval '1 day')
          """, [.id(principal.userID)]),
        Statement(
          """
          INSERT INTO api_token (organization_id, user_id, name, role, token_hash, expires_at, kind, idle_seconds,
            last_used_at)
          VALUES ($1, $2, 'session', $3, $4, now() + $5 * interval '1 second', 'session', $6, now())
          RETURNING id, expires_at
          """,
          [
            .id(principal.organizationID), .id(principal.userID), .text(principal.role.rawValue),
            .bytes(Token.hash(token)), .int(life.absolute.components.seconds), .int(life.idle.components.seconds),
          ]),
      ])
      var row = results[1][0]
      let id = try row.int()
      let expiresAt = try row.date()
      try db.commit([.audit([AuditEntry("session.create", "token", id)], by: principal)])
      return StartedSession(token: token, principal: principal, expiresAt: expiresAt)
    }
  }

  /// Ends the session of a bearer token.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `not-a-session` for a token that a person made.
  public func endSession(_ token: Secret, by principal: Principal) async throws {
    try await pool.transaction(.api(principal)) { db in
      let ended = try db.query(
        """
        UPDATE api_token SET revoked_at = coalesce(revoked_at, now())
        WHERE token_hash = $1 AND organization_id = $2 AND kind = 'session' RETURNING id
        """, [.bytes(Token.hash(token)), .id(principal.organizationID)])
      guard var row = ended.first else {
        throw StoreError.conflict(
          code: "not-a-session", message: "this token was made by a person; revoke it with POST /tokens/{id}/revoke")
      }
      try db.commit([.audit([AuditEntry("session.end", "token", try row.int())], by: principal)])
    }
  }
}

extension ResultSet {
  /// Throws ``StoreError/notFound(_:)`` when there is no row.
  fileprivate func requireOne(_ what: String) throws(StoreError) {
    if count == 0 { throw .notFound(what) }
  }
}
