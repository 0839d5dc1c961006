import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// How a mailbox is connected by OAuth. Throws ``StoreError/notFound(_:)``.
  public func connection(of mailbox: MailboxID, for principal: Principal) async throws -> MailboxConnection {
    let organization = principal.organizationID
    let found = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          """
          SELECT m.address, c.flow, c.scopes, c.token_url, g.mailbox_id IS NOT NULL, g.refresh_token IS NOT NULL,
            \(Self.isReplaced), g.granted_at, g.granted_by, g.scopes,
            CASE c.flow WHEN 'client-credentials' THEN c.expires_at ELSE g.expires_at END,
            CASE c.flow WHEN 'client-credentials' THEN c.refreshed_at ELSE g.refreshed_at END,
            CASE c.flow WHEN 'client-credentials' THEN c.failure ELSE g.failure END,
            CASE c.flow WHEN 'client-credentials' THEN c.failed_at ELSE g.failed_at END,
            s.expires_at, now()
          FROM mailbox m LEFT JOIN oauth_client c ON c.profile_id = m.profile_id
            LEFT JOIN oauth_grant g ON g.mailbox_id = m.id AND (g.profile_id IS NULL OR g.profile_id = m.profile_id)
            LEFT JOIN oauth_consent s ON s.mailbox_id = m.id AND s.expires_at > now()
          WHERE m.id = $1 AND m.organization_id = $2
          """, [.id(mailbox), .id(organization)])
      ])[0].map { row in try Self.connection(mailbox, &row) }
    }
    guard let connection = found.first else { throw StoreError.notFound("mailbox") }
    return connection
  }

  private static func connection(_ mailbox: MailboxID, _ row: inout Row) throws -> MailboxConnection {
    func words(_ text: String?) -> [String] { text?.split(separator: " ").map(String.init) ?? [] }
    var connection = MailboxConnection(mailboxID: mailbox, address: try row.text(), state: .notConfigured)
    connection.flow = try row.textOrNil().flatMap { OAuthFlow(rawValue: $0) }
    let asked = words(try row.textOrNil())
    let tokenURL = try row.textOrNil()
    let isGranted = try row.bool()
    let isRenewable = try row.bool()
    let isReplaced = try row.bool()
    connection.grantedAt = try row.dateOrNil()
    connection.grantedBy = try row.textOrNil()
    let granted = try row.textOrNil()
    connection.scopes = words(granted)
    if granted != nil { connection.missingScopes = OAuthClient.missing(connection.scopes, of: asked) }
    connection.accessTokenExpiresAt = try row.dateOrNil()
    connection.refreshedAt = try row.dateOrNil()
    var failure = try row.textOrNil().flatMap { try? JSONDecoder().decode(Failure.self, from: Data($0.utf8)) }
    if isReplaced { failure = Failure(.oauthReplaced, context: FailureCode.oauthReplaced.remedy) }
    connection.failureCode = failure?.code.rawValue
    connection.failureWords = failure?.serverWords ?? failure?.context
    connection.failedAt = try row.dateOrNil()
    connection.consentExpiresAt = try row.dateOrNil()
    let now = try row.date()
    let isAlive = connection.accessTokenExpiresAt.map { $0 > now } ?? false
    switch connection.flow {
    case .authorizationCode?:
      connection.state =
        failure != nil ? .failing : isGranted && (isRenewable || isAlive) ? .connected : .notConnected
    case .serviceAccount?, .clientCredentials?: connection.state = failure != nil ? .failing : .connected
    case nil: connection.state = isGranted && isAlive ? .connected : .notConfigured
    }
    if connection.consentExpiresAt != nil && connection.state != .connected { connection.state = .pending }
    connection.diagnosis = GrantDiagnosis(
      grantedAt: connection.grantedAt, usedAt: connection.refreshedAt, missingScopes: connection.missingScopes,
      tokenHost: tokenURL.flatMap { WebURL($0)?.host } ?? "",
      endedAt: failure?.code == .oauthGrantExpired ? connection.failedAt : nil
    ).words(at: now)
    return connection
  }
}
