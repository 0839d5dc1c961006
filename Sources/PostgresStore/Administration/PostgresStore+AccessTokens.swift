import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Gives a mailbox an access token, in the place of the one it had; its next session uses it until `expiresAt`.
  ///
  /// Throws ``StoreError/notFound(_:)``, and ``StoreError/missingKey(id:)`` in a process without a key ring.
  public func storeAccessToken(
    _ token: Secret, expiresAt: Date, mailbox: MailboxID, by principal: Principal
  ) async throws {
    let organization = principal.organizationID
    let sealed = try seal(token, SealedPlace(table: "oauth_grant", column: "access_token", row: mailbox.value))
    try await pool.transaction(.api(organization)) { db in
      // A newer version, so that no worker goes on with the token it remembers.
      let changed = try db.query(
        "UPDATE mailbox SET version = version + 1, updated_at = now() WHERE id = $1 AND organization_id = $2 RETURNING id",
        [.id(mailbox), .id(organization)])
      if changed.count == 0 { throw StoreError.notFound("mailbox") }
      try db.commit([
        Statement(
          """
          INSERT INTO oauth_grant (mailbox_id, organization_id, access_token, expires_at) VALUES ($1, $2, $3, $4)
          ON CONFLICT (mailbox_id) DO UPDATE SET access_token = excluded.access_token, expires_at = excluded.expires_at
          """, [.id(mailbox), .id(organization), .bytes(sealed), .time(expiresAt)]),
        .audit([AuditEntry("mailbox.token", "mailbox", mailbox.value)], by: principal),
      ])
    }
  }
}
