import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Gives a mailbox an access token that was got elsewhere, in the place of the one it had; its next session uses it
  /// until `expiresAt`, and nothing renews it.
  ///
  /// Throws ``StoreError/notFound(_:)``, and ``StoreError/missingKey(id:)`` in a process without a key ring.
  public func storeAccessToken(
    _ token: Secret, expiresAt: Date, mailbox: MailboxID, by principal: Principal
  ) async throws {
    let organization = principal.organizationID
    let sealed = try seal(token, .accessToken(of: mailbox))
    try await pool.transaction(.api(principal)) { db in
      let known = try db.query(
        "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
        [.id(mailbox), .id(organization)])
      if known.count == 0 { throw StoreError.notFound("mailbox") }
      try db.commit([
        Statement(
          """
          INSERT INTO oauth_grant AS g (mailbox_id, organization_id, access_token, expires_at) VALUES ($1, $2, $3, $4)
          ON CONFLICT (mailbox_id) DO UPDATE SET access_token = excluded.access_token, expires_at = excluded.expires_at,
            profile_id = NULL, refresh_token = NULL, scopes = NULL, granted_at = NULL, granted_by = NULL,
            refresh_at = NULL, token_version = g.token_version + 1, refreshing_by = NULL, refreshing_until = NULL,
            failures = 0, failure = NULL, failed_at = NULL, retry_at = NULL
          """, [.id(mailbox), .id(organization), .bytes(sealed), .time(expiresAt)]),
        .audit([AuditEntry("mailbox.token", "mailbox", mailbox.value)], by: principal),
      ])
    }
  }
}
