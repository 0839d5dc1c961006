import FoundationEssentials
import PostriderCore

/// The row that holds a token: the mailbox's grant, or the profile's application where one token serves all.
private struct TokenRow: Sendable {
  var mailbox: MailboxID
  var profile: ProfileID?

  var table: String { profile == nil ? "oauth_grant" : "oauth_client" }
  var key: String { profile == nil ? "mailbox_id" : "profile_id" }
  var id: PostgresValue { .int(profile?.value ?? mailbox.value) }
  var accessPlace: SealedPlace {
    if let profile { .accessToken(of: profile) } else { .accessToken(of: mailbox) }
  }

  init(_ mailbox: MailboxID, _ profile: ProfileID?) {
    self.mailbox = mailbox
    self.profile = profile
  }

  init(_ lease: RefreshLease) { self.init(lease.mailboxID, lease.profileID) }
}

extension PostgresStore {
  /// Whether the token URL of application `c` leads to the server at which the owner of grant `g` consented (D169).
  static let isOfServer = "g.token_origin = web_origin(c.token_url)"

  /// Whether grant `g` was given to another application than `c`, and cannot be renewed: every consent brings a refresh
  /// token, so one that is not there was forgotten.
  static let isReplaced = """
    coalesce(c.flow = 'authorization-code' AND g.granted_at IS NOT NULL
      AND (g.refresh_token IS NULL OR (\(isOfServer)) IS NOT TRUE), false)
    """

  /// What is stored of a mailbox's token, by the database's clock. Throws ``StoreError/notFound(_:)`` for a mailbox
  /// without a profile.
  public func tokenState(of mailbox: MailboxID) async throws -> TokenState {
    let found = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT c.flow, CASE c.flow WHEN 'client-credentials' THEN c.profile_id END, g.mailbox_id IS NOT NULL,
            g.profile_id IS NOT NULL, coalesce(g.refresh_token IS NOT NULL AND \(Self.isOfServer), false),
            \(Self.isReplaced), t.access_token,
            coalesce(t.expires_at > now() + interval '5 seconds', false), coalesce(t.refresh_at <= now(), false),
            coalesce(t.token_version, 0), coalesce(t.refreshing_until > now(), false),
            CASE WHEN t.retry_at > now() THEN t.failure END,
            ceil(extract(epoch FROM t.retry_at - now()))::bigint
          FROM mailbox m JOIN server_profile p ON p.id = m.profile_id
            LEFT JOIN oauth_client c ON c.profile_id = p.id
            LEFT JOIN oauth_grant g ON g.mailbox_id = m.id AND (g.profile_id IS NULL OR g.profile_id = p.id)
            CROSS JOIN LATERAL (
              SELECT c.access_token, c.expires_at, c.refresh_at, c.token_version, c.refreshing_until, c.failure, c.retry_at
              WHERE c.flow = 'client-credentials'
              UNION ALL
              SELECT g.access_token, g.expires_at, g.refresh_at, coalesce(g.token_version,
                (SELECT o.token_version FROM oauth_grant o WHERE o.mailbox_id = m.id)), g.refreshing_until, g.failure,
                g.retry_at
              WHERE c.flow IS DISTINCT FROM 'client-credentials'
            ) t
          WHERE m.id = $1
          """, [.id(mailbox)])
      ])[0]
    }
    guard var row = found.first else { throw StoreError.notFound("mailbox with a server profile") }
    return try tokenState(mailbox, &row)
  }

  private func tokenState(_ mailbox: MailboxID, _ row: inout Row) throws -> TokenState {
    let flow = try row.textOrNil().flatMap { OAuthFlow(rawValue: $0) }
    let place = TokenRow(mailbox, try row.idOrNil()).accessPlace
    let isGranted = try row.bool()
    let isFromApplication = try row.bool()
    let isRenewable = try row.bool()
    let isReplaced = try row.bool()
    let sealed = try row.bytesOrNil()
    let isAlive = try row.bool()
    let isDue = try row.bool()
    let version = try row.int()
    let isBeingRefreshed = try row.bool()
    let failure = try row.textOrNil().map { text in
      // A newer release may have written a code that this one does not know.
      (try? JSONDecoder().decode(Failure.self, from: Data(text.utf8))) ?? Failure(.oauthTemporary)
    }
    let wait = try row.intOrNil()
    return TokenState(
      token: isAlive ? try sealed.map { AccessToken(try unseal($0, place), version: version) } : nil, version: version,
      isDue: isDue, isBeingRefreshed: isBeingRefreshed, flow: flow,
      isRenewable: isRenewable || flow?.isUnattended == true,
      isGranted: isGranted, isFromApplication: isFromApplication, isReplaced: isReplaced,
      failure: failure.map { failure in
        Failure(
          failure.code, class: failure.failureClass, scope: failure.scope, serverWords: failure.serverWords,
          context: failure.context, retryAfterSeconds: failure.failureClass == .transient ? wait.map { Int($0) } : nil)
      })
  }

  /// Takes the right to refresh a version for a while; `nil` when somebody else has it or the version is replaced.
  ///
  /// The row decides: of any number of workers that ask at once one gets it. Whoever dies with it is succeeded after its
  /// time.
  public func beginRefresh(
    of mailbox: MailboxID, version: Int64, holder: String, for duration: Duration
  ) async throws -> RefreshLease? {
    let clients = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT coalesce(m.user_name, m.address), c.profile_id, c.flow, c.client_id, c.secret, c.token_url, c.scopes
          FROM mailbox m JOIN oauth_client c ON c.profile_id = m.profile_id WHERE m.id = $1
          """, [.id(mailbox)])
      ])[0]
    }
    guard var found = clients.first else { return nil }
    let subject = try found.text()
    let client = try tokenClient(&found)
    let isShared = client.flow == .clientCredentials
    var statements = [Self.takeLease(mailbox, client, version: version, holder: holder, duration)]
    if client.flow == .serviceAccount { statements.insert(Self.serviceGrant(mailbox), at: 0) }
    let taken = try await pool.transaction(.worker) { [statements] db in
      try db.commit(statements)[statements.count - 1]
    }
    guard var row = taken.first else { return nil }
    let profile: ProfileID? = try row.idOrNil()
    let sealed = try row.bytesOrNil()
    let refresh: Secret?
    do {
      refresh = try sealed.map { try unseal($0, .refreshToken(of: mailbox)) }
    } catch {
      await giveBackLease(of: mailbox, version: version, holder: holder)
      throw error
    }
    return RefreshLease(
      mailboxID: mailbox, profileID: isShared ? profile : nil, version: version, holder: holder, client: client,
      refreshToken: refresh, subject: subject, grantedAt: try row.dateOrNil())
  }

  /// Ends the lease of a grant with which nothing can be done, so that nobody waits for it.
  private func giveBackLease(of mailbox: MailboxID, version: Int64, holder: String) async {
    // If this fails the lease ends by its time.
    try? await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          """
          UPDATE oauth_grant SET refreshing_by = NULL, refreshing_until = NULL
          WHERE mailbox_id = $1 AND token_version = $2 AND refreshing_by = $3
          """, [.id(mailbox), .int(version), .text(holder)])
      ])
    }
  }

  private static func takeLease(
    _ mailbox: MailboxID, _ client: TokenClient, version: Int64, holder: String, _ duration: Duration
  ) -> Statement {
    let isShared = client.flow == .clientCredentials
    let profile = "(SELECT m.profile_id FROM mailbox m WHERE m.id = $1)"
    let owner =
      isShared
      ? "t.profile_id = \(profile)" : "t.mailbox_id = $1 AND (t.profile_id IS NULL OR t.profile_id = \(profile))"
    var values: [PostgresValue] = [
      .id(mailbox), .text(holder), .double(duration / .seconds(1)), .int(version),
    ]
    var guarded = ""
    if client.flow == .authorizationCode {
      // The address that the token will be sent to, whatever stands in the application's row by now.
      guarded = "AND t.token_origin = web_origin($5)"
      values.append(.text(client.tokenURL.description))
    }
    return Statement(
      """
      UPDATE \(isShared ? "oauth_client" : "oauth_grant") t SET refreshing_by = $2,
        refreshing_until = now() + $3 * interval '1 second'
      WHERE \(owner) AND t.token_version = $4 AND (t.refreshing_until IS NULL OR t.refreshing_until <= now()) \(guarded)
      RETURNING t.profile_id, \(isShared ? "NULL::bytea, NULL::timestamptz" : "t.refresh_token, t.granted_at")
      """, values)
  }

  /// The row of a mailbox for which a service account speaks; what another profile's application had is forgotten, and
  /// what a refresh of it still brings counts no more.
  private static func serviceGrant(_ mailbox: MailboxID) -> Statement {
    Statement(
      """
      INSERT INTO oauth_grant AS g (mailbox_id, organization_id, profile_id)
      SELECT m.id, m.organization_id, m.profile_id FROM mailbox m WHERE m.id = $1
      ON CONFLICT (mailbox_id) DO UPDATE SET profile_id = excluded.profile_id, access_token = NULL, refresh_token = NULL,
        scopes = NULL, expires_at = NULL, refresh_at = NULL, failure = NULL, retry_at = NULL,
        token_version = g.token_version + 1, refreshing_by = NULL, refreshing_until = NULL
      WHERE g.profile_id IS DISTINCT FROM excluded.profile_id
      """, [.id(mailbox)])
  }

  /// Stores new tokens in the place of the lease's version, a rotated refresh token with them; returns the new version,
  /// `nil` when that version was replaced, or the lease passed on, meanwhile. Durable when it returns: a new refresh token
  /// may be the only good one.
  public func finishRefresh(_ lease: RefreshLease, _ tokens: IssuedTokens) async throws -> Int64? {
    let row = TokenRow(lease)
    let access = try seal(tokens.accessToken, row.accessPlace)
    let refresh = try seal(tokens.refreshToken, .refreshToken(of: lease.mailboxID))
    // Mailboxes that got their tokens together must not come back together.
    let share = Double.random(in: 0.76...0.8)
    var values: [PostgresValue] = [
      row.id, .int(lease.version), .text(lease.holder), .bytes(access), .double(tokens.life / .seconds(1)),
      .double(share),
    ]
    var own = ""
    if lease.profileID == nil {
      own = ", refresh_token = coalesce($7, refresh_token), scopes = coalesce($8, scopes)"
      values += [.bytes(refresh), .text(tokens.scopes?.joined(separator: " "))]
    }
    let statement = Statement(
      """
      UPDATE \(row.table) SET access_token = $4, expires_at = now() + $5 * interval '1 second',
        refresh_at = now() + $6 * $5 * interval '1 second', refreshed_at = now(), token_version = token_version + 1,
        refreshing_by = NULL, refreshing_until = NULL, failures = 0, failure = NULL, failed_at = NULL, retry_at = NULL\(own)
      WHERE \(row.key) = $1 AND token_version = $2 AND refreshing_by = $3 RETURNING token_version
      """, values)
    return try await pool.transaction(.worker) { db in
      try db.commit([statement])[0].map { row in try row.int() }.first
    }
  }

  /// Notes why the refresh failed and ends the lease; nobody tries again within `wait`. A refresh token that was handed
  /// out all the same (`rotated`) replaces the one before, which is good for nothing any more.
  public func failRefresh(_ lease: RefreshLease, _ failure: Failure, wait: Duration, rotated: Secret?) async throws {
    let row = TokenRow(lease)
    var values: [PostgresValue] = [
      row.id, .int(lease.version), .text(lease.holder), .text(try PostgresValue.jsonText(failure)),
      .double(wait / .seconds(1)),
    ]
    var own = ""
    if lease.profileID == nil {
      own = ", refresh_token = coalesce($6, refresh_token)"
      values.append(.bytes(try seal(rotated, .refreshToken(of: lease.mailboxID))))
    }
    let statement = Statement(
      """
      UPDATE \(row.table) SET refreshing_by = NULL, refreshing_until = NULL, failures = failures + 1,
        failure = $4::jsonb, failed_at = now(), retry_at = now() + $5 * interval '1 second'\(own)
      WHERE \(row.key) = $1 AND token_version = $2 AND refreshing_by = $3
      """, values)
    try await pool.transaction(.worker) { db in _ = try db.commit([statement]) }
  }
}
