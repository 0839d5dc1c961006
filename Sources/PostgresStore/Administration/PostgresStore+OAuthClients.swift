import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let oauthClientColumns = """
    SELECT c.profile_id, c.flow, c.client_id, c.secret IS NOT NULL, c.authorization_url, c.token_url, c.revocation_url,
      c.scopes
    FROM oauth_client c
    """

  private static func oauthClient(_ row: inout Row) throws -> OAuthClient {
    OAuthClient(
      profileID: try row.id(), flow: try row.word(), clientID: try row.text(), secretSet: try row.bool(),
      authorizationURL: try row.textOrNil(), tokenURL: try row.text(), revocationURL: try row.textOrNil(),
      scopes: try row.text().split(separator: " ").map(String.init))
  }

  private static func readOAuthClient(_ profile: ProfileID, _ organization: OrganizationID) -> Statement {
    Statement(
      oauthClientColumns + " WHERE c.profile_id = $1 AND c.organization_id = $2", [.id(profile), .id(organization)])
  }

  /// The OAuth application of a profile. Throws ``StoreError/notFound(_:)`` when it has none.
  public func oauthClient(of profile: ProfileID, for principal: Principal) async throws -> OAuthClient {
    let found = try await pool.transaction(.api(principal)) { db in
      try db.commit([Self.readOAuthClient(profile, principal.organizationID)])[0].map(Self.oauthClient)
    }
    guard let client = found.first else { throw StoreError.notFound("OAuth application of a server profile") }
    return client
  }

  /// The provider of a profile.
  public func profileType(of profile: ProfileID, for principal: Principal) async throws -> ProfileType {
    let found = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          "SELECT type FROM server_profile WHERE id = $1 AND organization_id = $2",
          [.id(profile), .id(principal.organizationID)])
      ])[0].map { row in try row.word() as ProfileType }
    }
    guard let type = found.first else { throw StoreError.notFound("server profile") }
    return type
  }

  /// Stores a checked application in the place of the one before; what it had got is forgotten. Grants of mailboxes stay.
  ///
  /// No secret is shown to another server: one that is not given anew stays only while client id, flow and token URL
  /// do; refresh tokens of the grants only where token URL and revocation URL have scheme, host and port of the consent
  /// (D169), whatever was set and removed in between. Without them the owners consent again; access tokens are used until
  /// they end.
  public func setOAuthClient(
    _ client: ResolvedOAuthClient, of profile: ProfileID, by principal: Principal
  ) async throws -> OAuthClient {
    let organization = principal.organizationID
    let sealed = try seal(client.secret, SealedPlace(table: "oauth_client", column: "secret", row: profile.value))
    return try await pool.transaction(.api(principal)) { db in
      let first = try db.pipeline([
        Statement(
          "SELECT 1 FROM server_profile WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
          [.id(profile), .id(organization)]), Self.readOAuthClient(profile, organization),
      ])
      if first[0].count == 0 { throw StoreError.notFound("server profile") }
      let before = try first[1].map(Self.oauthClient).first
      let staysAtServer =
        before.map { $0.clientID == client.clientID && $0.flow == client.flow && $0.tokenURL == "\(client.tokenURL)" }
        ?? false
      if sealed == nil && client.flow != .authorizationCode && !(staysAtServer && before?.secretSet == true) {
        let field = client.flow == .serviceAccount ? "privateKey" : "clientSecret"
        throw StoreError.invalid([
          FieldProblem("/\(field)", "required", "is required for a new application or token URL")
        ])
      }
      let write = Statement(
        """
        INSERT INTO oauth_client AS c (profile_id, organization_id, flow, client_id, secret, authorization_url, token_url,
          revocation_url, scopes)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (profile_id) DO UPDATE SET flow = excluded.flow, client_id = excluded.client_id,
          secret = CASE WHEN $10 THEN coalesce(excluded.secret, c.secret) ELSE excluded.secret END,
          authorization_url = excluded.authorization_url, token_url = excluded.token_url,
          revocation_url = excluded.revocation_url, scopes = excluded.scopes, updated_at = now(), access_token = NULL,
          expires_at = NULL, refresh_at = NULL, token_version = c.token_version + 1, refreshing_by = NULL,
          refreshing_until = NULL, failures = 0, failure = NULL, failed_at = NULL, retry_at = NULL
        """,
        [
          .id(profile), .id(organization), .text(client.flow.rawValue), .text(client.clientID), .bytes(sealed),
          .text(client.authorizationURL?.description), .text(client.tokenURL.description),
          .text(client.revocationURL?.description), .text(client.scopes.joined(separator: " ")), .bool(staysAtServer),
        ])
      let written = try db.pipeline([write, Self.readOAuthClient(profile, organization)])[1].map(Self.oauthClient)
      guard let after = written.first else { throw StoreError.notFound("server profile") }
      try db.commit([
        Self.forgetRefreshTokens(profile, client, organization), Self.endConsents(profile, client),
        Self.touch(profile),
        // What was refused to the old application may be granted to this one.
        Statement(
          """
          UPDATE oauth_grant g SET retry_at = NULL FROM mailbox m
          WHERE m.profile_id = $1 AND g.mailbox_id = m.id AND g.retry_at IS NOT NULL
          """, [.id(profile)]),
        .audit(
          [
            AuditEntry(
              "profile.oauth-client", "server-profile", profile.value,
              before: try before.map { try PostgresValue.jsonText($0) }, after: try PostgresValue.jsonText(after))
          ], by: principal),
        SchedulePayload.statement(profile: profile),
      ])
      return after
    }
  }

  /// Forgets what renews the grants of a profile that were given elsewhere; a refresh of them that is under way counts no
  /// more. Workers of the previous release would show it to whatever server the application has.
  private static func forgetRefreshTokens(
    _ profile: ProfileID, _ client: ResolvedOAuthClient, _ organization: OrganizationID
  ) -> Statement {
    Statement(
      """
      UPDATE oauth_grant g SET refresh_token = NULL, token_version = g.token_version + 1, refreshing_by = NULL,
        refreshing_until = NULL
      FROM mailbox m
      WHERE m.id = g.mailbox_id AND g.organization_id = $2
        AND (g.profile_id = $1 OR g.profile_id IS NULL AND m.profile_id = $1) AND g.refresh_token IS NOT NULL
        AND (g.token_origin IS DISTINCT FROM web_origin($3)
          OR $4::text IS NOT NULL AND g.revocation_origin IS DISTINCT FROM web_origin($4))
      """,
      [
        .id(profile), .id(organization), .text(client.tokenURL.description), .text(client.revocationURL?.description),
      ])
  }

  /// Ends the consents under way that were begun with another application than `client`; `nil`: all of them. Whoever
  /// comes back with one is told why, by its row; to the previous release it is one whose time is over.
  private static func endConsents(_ profile: ProfileID, _ client: ResolvedOAuthClient?) -> Statement {
    Statement(
      """
      UPDATE oauth_consent s SET expires_at = least(s.expires_at, now()) FROM mailbox m
      WHERE m.id = s.mailbox_id AND m.profile_id = $1
        AND (s.client_id IS DISTINCT FROM $2 OR s.token_url IS DISTINCT FROM $3)
      """, [.id(profile), .text(client?.clientID), .text(client?.tokenURL.description)])
  }

  /// Removes the application of a profile; its mailboxes get no more tokens.
  public func removeOAuthClient(of profile: ProfileID, by principal: Principal) async throws {
    let organization = principal.organizationID
    try await pool.transaction(.api(principal)) { db in
      let removed = try db.query(
        "DELETE FROM oauth_client WHERE profile_id = $1 AND organization_id = $2 RETURNING profile_id",
        [.id(profile), .id(organization)])
      if removed.count == 0 { throw StoreError.notFound("OAuth application of a server profile") }
      try db.commit([
        Self.endConsents(profile, nil), Self.touch(profile),
        .audit([AuditEntry("profile.oauth-client-remove", "server-profile", profile.value)], by: principal),
        SchedulePayload.statement(profile: profile),
      ])
    }
  }

  /// A newer version, so that a halt of the profile ends.
  private static func touch(_ profile: ProfileID) -> Statement {
    Statement("UPDATE server_profile SET version = version + 1, updated_at = now() WHERE id = $1", [.id(profile)])
  }
}
