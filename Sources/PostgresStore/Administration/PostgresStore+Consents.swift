import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Remembers a consent that begins, under the hash of its state; one begun earlier for the mailbox ends.
  ///
  /// Throws `oauth.not-configured` when the profile has no application, and `oauth.no-consent` when its application needs
  /// nobody's consent.
  public func beginConsent(
    of mailbox: MailboxID, state: Secret, verifier: Secret, redirectURL: String, life: Duration, by principal: Principal
  ) async throws -> ConsentStart {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { [self] db in
      let rows = try db.query(
        """
        SELECT nextval('oauth_consent_id_seq'), coalesce(m.user_name, m.address), c.token_url, c.flow, c.authorization_url,
          c.client_id, c.scopes
        FROM mailbox m LEFT JOIN oauth_client c ON c.profile_id = m.profile_id
        WHERE m.id = $1 AND m.organization_id = $2 FOR NO KEY UPDATE OF m
        """, [.id(mailbox), .id(organization)])
      guard var row = rows.first else { throw StoreError.notFound("mailbox") }
      let id = try row.int()
      let name = try row.text()
      let tokenURL = try row.textOrNil()
      guard let flow = try row.textOrNil() else { throw Self.notConfigured }
      guard flow == OAuthFlow.authorizationCode.rawValue, let url = try row.textOrNil().flatMap({ WebURL($0) }) else {
        throw StoreError.conflict(
          code: "oauth.no-consent",
          message:
            "the application of this mailbox's profile gets its tokens by itself (\(flow)); test the mailbox instead")
      }
      let start = ConsentStart(
        authorizationURL: url, clientID: try row.text(),
        scopes: try row.text().split(separator: " ").map(String.init), loginName: name)
      let sealed = try seal(verifier, SealedPlace(table: "oauth_consent", column: "code_verifier", row: id))
      try db.commit([
        Statement(
          "DELETE FROM oauth_consent WHERE organization_id = $2 AND (mailbox_id = $1 OR expires_at <= now())",
          [.id(mailbox), .id(organization)]),
        Statement(
          """
          INSERT INTO oauth_consent (id, organization_id, mailbox_id, user_id, state_hash, code_verifier, redirect_url,
            expires_at, client_id, token_url)
          VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8 * interval '1 second', $9, $10)
          """,
          [
            .int(id), .id(organization), .id(mailbox), .id(principal.userID), .bytes(Token.hash(state)), .bytes(sealed),
            .text(redirectURL), .int(life.components.seconds), .text(start.clientID), .text(tokenURL),
          ]),
        .audit([AuditEntry("mailbox.connect", "mailbox", mailbox.value)], by: principal),
      ])
      return start
    }
  }

  private static let notConfigured = StoreError.conflict(
    code: FailureCode.oauthNotConfigured.rawValue,
    message: "the mailbox's server profile has no OAuth application; set it with `postrider profile oauth set`")

  /// Takes the consent of a state, which is gone then; `nil` for an unknown, used or old one.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `application-replaced` when the profile has another application than the
  /// consent was begun with, or none: its server must see neither code nor verifier.
  public func takeConsent(state: Secret) async throws -> TakenConsent? {
    let hash = Token.hash(state)
    let found = try await pool.transaction(.token(hash: hash)) { db in
      // The first statement sees the one consent whose hash is known; it opens its organization for the second.
      try db.commit([
        Statement(
          """
          SELECT set_config('postrider.organization', organization_id::text, true) FROM oauth_consent
          WHERE state_hash = $1
          """, [.bytes(hash)]),
        Statement(
          """
          DELETE FROM oauth_consent s USING app_user u, mailbox m LEFT JOIN oauth_client c ON c.profile_id = m.profile_id
          WHERE s.state_hash = $1 AND m.id = s.mailbox_id AND u.id = s.user_id AND u.is_active
          RETURNING m.address, coalesce(c.flow = 'authorization-code' AND c.client_id = coalesce(s.client_id, c.client_id)
              AND c.token_url = coalesce(s.token_url, c.token_url), false), s.expires_at > now(),
            s.organization_id, u.id, u.name, s.id, s.mailbox_id, s.code_verifier, s.redirect_url,
            c.profile_id, c.profile_id, c.flow, c.client_id, c.secret, c.token_url, c.scopes
          """, [.bytes(hash)]),
      ])[1]
    }
    guard var row = found.first else { return nil }
    let address = try row.text()
    guard try row.bool() else { throw Self.applicationReplaced(address) }
    return try row.bool() ? try takenConsent(address, &row) : nil
  }

  private func takenConsent(_ address: String, _ row: inout Row) throws -> TakenConsent {
    let principal = Principal(
      organizationID: try row.id(), userID: try row.id(), name: try row.text(), role: .mailboxManager)
    let id = try row.int()
    let mailbox: MailboxID = try row.id()
    let verifier = try unseal(try row.bytes(), SealedPlace(table: "oauth_consent", column: "code_verifier", row: id))
    return TakenConsent(
      principal: principal, mailboxID: mailbox, address: address, verifier: verifier, redirectURL: try row.text(),
      profileID: try row.id(), client: try tokenClient(&row))
  }

  /// Reads profile, flow, client id, secret, token URL and scopes.
  func tokenClient(_ row: inout Row) throws -> TokenClient {
    let profile: ProfileID = try row.id()
    let flow: OAuthFlow = try row.word()
    let clientID = try row.text()
    let secret = try row.bytesOrNil().map {
      try unseal($0, SealedPlace(table: "oauth_client", column: "secret", row: profile.value))
    }
    guard let url = WebURL(try row.text()) else { throw StoreError.schema(reason: "a stored token URL cannot be read") }
    return TokenClient(
      flow: flow, clientID: clientID, secret: secret, tokenURL: url,
      scopes: try row.text().split(separator: " ").map(String.init))
  }

  /// Decrypts a value of one place.
  func unseal(_ sealed: [UInt8], _ place: SealedPlace) throws(StoreError) -> Secret {
    guard let ring = configuration.keyRing else { throw .missingKey(id: KeyRing.keyID(of: sealed) ?? "unknown") }
    return try ring.open(sealed, for: place)
  }

  /// Stores what the owner granted; what the old credentials had proven counts no more, and a test is asked for.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `profile-changed` when the mailbox has another profile by now, and
  /// `application-replaced` when that has another application: the grant is the old one's, and its refresh token must not
  /// be shown to the new one's server.
  public func storeGrant(_ tokens: IssuedTokens, of consent: TakenConsent) async throws {
    let principal = consent.principal
    let mailbox = consent.mailboxID
    let access = try seal(tokens.accessToken, SealedPlace.accessToken(of: mailbox))
    let refresh = try seal(tokens.refreshToken, SealedPlace.refreshToken(of: mailbox))
    let scopes = tokens.scopes ?? consent.client.scopes
    try await pool.transaction(.api(principal)) { db in
      let changed = try db.query(
        """
        \(Self.forgetProof)
        WHERE m.id = $1 AND m.organization_id = $2 AND m.profile_id = $3 AND p.id = m.profile_id RETURNING m.id
        """, [.id(mailbox), .id(principal.organizationID), .id(consent.profileID)])
      if changed.count == 0 {
        let known = try db.query(
          "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2", [.id(mailbox), .id(principal.organizationID)])
        throw known.count == 0 ? StoreError.notFound("mailbox") : Self.profileChanged(consent.address)
      }
      // Locked, so that an application that is set meanwhile finds this grant and forgets what it must not have.
      let isSame = try db.query(
        """
        SELECT 1 FROM oauth_client
        WHERE profile_id = $1 AND flow = 'authorization-code' AND client_id = $2 AND token_url = $3 FOR SHARE
        """,
        [.id(consent.profileID), .text(consent.client.clientID), .text(consent.client.tokenURL.description)])
      if isSame.count == 0 { throw Self.applicationReplaced(consent.address) }
      let seconds = PostgresValue.double(tokens.life / .seconds(1))
      try db.commit([
        Statement(
          """
          INSERT INTO oauth_grant AS g (mailbox_id, organization_id, profile_id, access_token, expires_at, refresh_token,
            scopes, granted_at, granted_by, refresh_at, refreshed_at)
          SELECT m.id, m.organization_id, m.profile_id, $2, now() + $3 * interval '1 second', $4, $5, now(), $6,
            now() + 0.8 * $3 * interval '1 second', now()
          FROM mailbox m WHERE m.id = $1
          ON CONFLICT (mailbox_id) DO UPDATE SET profile_id = excluded.profile_id, access_token = excluded.access_token,
            expires_at = excluded.expires_at, refresh_token = excluded.refresh_token, scopes = excluded.scopes,
            granted_at = excluded.granted_at, granted_by = excluded.granted_by, refresh_at = excluded.refresh_at,
            refreshed_at = excluded.refreshed_at, token_version = g.token_version + 1, refreshing_by = NULL,
            refreshing_until = NULL, failures = 0, failure = NULL, failed_at = NULL, retry_at = NULL
          """,
          [
            .id(mailbox), .bytes(access), seconds, .bytes(refresh), .text(scopes.joined(separator: " ")),
            .text(principal.name),
          ]),
        .refreshMayRun(.ids([mailbox])),
        .audit(
          [
            AuditEntry(
              "mailbox.connected", "mailbox", mailbox.value,
              after: try PostgresValue.jsonText(["scopes": scopes.joined(separator: " ")]))
          ], by: principal),
      ])
    }
    do {
      // A mailbox that may not be tested yet is tested by whoever approves it.
      _ = try await requestTest(of: [mailbox], by: principal)
    } catch {
      // The grant is there; a person can ask for the test.
      logger.warning(
        "A connected mailbox could not be tested", metadata: ["mailbox.id": "\(mailbox)", "error": "\(error)"])
    }
  }

  private static func profileChanged(_ address: String) -> StoreError {
    .conflict(
      code: "profile-changed",
      message: "\(address) has got another server profile since the consent began, so nothing is stored; begin again "
        + "with `postrider mailbox connect`")
  }

  private static func applicationReplaced(_ address: String) -> StoreError {
    .conflict(
      code: "application-replaced",
      message:
        "the server profile of \(address) has got another OAuth application since the consent began, or has none "
        + "any more, so nothing is stored; begin again with `postrider mailbox connect`")
  }

  /// Sets the directions that use OAuth to not tested (feature M6).
  private static let forgetProof = """
    UPDATE mailbox m SET version = m.version + 1, updated_at = now(),
      incoming_status = CASE p.incoming_credentials WHEN 'oauth' THEN 'not-run' ELSE m.incoming_status END,
      incoming_enabled = m.incoming_enabled AND p.incoming_credentials <> 'oauth',
      outgoing_status = CASE p.outgoing_credentials WHEN 'oauth' THEN 'not-run' ELSE m.outgoing_status END,
      outgoing_enabled = m.outgoing_enabled AND p.outgoing_credentials <> 'oauth'
    FROM server_profile p
    """

  /// Forgets a grant and stops both directions that use it; returns its refresh token and where it is taken back.
  public func removeGrant(
    of mailbox: MailboxID, by principal: Principal
  ) async throws -> (wasConnected: Bool, token: Secret?, revocationURL: WebURL?) {
    let organization = principal.organizationID
    let found: (grant: ResultSet, client: ResultSet) = try await pool.transaction(.api(principal)) { db in
      let known = try db.query(
        "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
        [.id(mailbox), .id(organization)])
      if known.count == 0 { throw StoreError.notFound("mailbox") }
      let removed = try db.pipeline([
        Statement(
          "DELETE FROM oauth_consent WHERE mailbox_id = $1 AND organization_id = $2", [.id(mailbox), .id(organization)]),
        Statement(
          """
          DELETE FROM oauth_grant WHERE mailbox_id = $1 AND organization_id = $2
          RETURNING profile_id, refresh_token, revocation_origin
          """, [.id(mailbox), .id(organization)]),
        Statement(
          """
          SELECT c.profile_id, web_origin(c.revocation_url), c.revocation_url
          FROM mailbox m JOIN oauth_client c ON c.profile_id = m.profile_id WHERE m.id = $1
          """, [.id(mailbox)]),
      ])
      if removed[1].count == 0 {
        try db.commit()
        return (removed[1], removed[2])
      }
      try db.commit([
        Statement(
          "\(Self.forgetProof) WHERE m.id = $1 AND m.organization_id = $2 AND p.id = m.profile_id",
          [.id(mailbox), .id(organization)]), .refreshMayRun(.ids([mailbox])),
        .audit([AuditEntry("mailbox.disconnect", "mailbox", mailbox.value)], by: principal),
      ])
      return (removed[1], removed[2])
    }
    guard var row = found.grant.first else { return (false, nil, nil) }
    let profile: ProfileID? = try row.idOrNil()
    // One that cannot be decrypted is forgotten all the same.
    let token = try row.bytesOrNil().flatMap { try? unseal($0, SealedPlace.refreshToken(of: mailbox)) }
    let origin = try row.textOrNil()
    // It is taken back where its owner consented, or nowhere.
    guard var client = found.client.first, try client.idOrNil() == profile, let origin, try client.textOrNil() == origin
    else { return (true, token, nil) }
    return (true, token, try client.textOrNil().flatMap { WebURL($0) })
  }
}

extension SealedPlace {
  static func accessToken(of mailbox: MailboxID) -> SealedPlace {
    SealedPlace(table: "oauth_grant", column: "access_token", row: mailbox.value)
  }

  static func refreshToken(of mailbox: MailboxID) -> SealedPlace {
    SealedPlace(table: "oauth_grant", column: "refresh_token", row: mailbox.value)
  }

  static func accessToken(of profile: ProfileID) -> SealedPlace {
    SealedPlace(table: "oauth_client", column: "access_token", row: profile.value)
  }
}
