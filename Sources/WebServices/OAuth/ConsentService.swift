import Crypto
import FoundationEssentials
import PostriderCore

/// Administration of OAuth: applications of profiles, consents of owners, their end.
public struct ConsentService: OAuthDesk {
  /// The path behind the public address that providers send browsers back to.
  public static let callbackPath = "/oauth/callback"

  private let store: any OAuthStore
  private let web: WebClient
  private let redirectURL: String
  private let life: Duration

  /// - Parameters:
  ///   - publicURL: where browsers reach this API, without a path.
  ///   - life: how long an owner may take to consent.
  public init(store: any OAuthStore, web: WebClient, publicURL: String, life: Duration = .seconds(900)) {
    self.store = store
    self.web = web
    self.life = life
    redirectURL = (publicURL.hasSuffix("/") ? String(publicURL.dropLast()) : publicURL) + Self.callbackPath
  }

  /// The application of a profile.
  public func client(of profile: ProfileID, for principal: Principal) async throws -> OAuthClient {
    try await store.oauthClient(of: profile, for: principal)
  }

  /// Sets it. Addresses that the egress policy denies are refused here already.
  public func setClient(
    _ draft: OAuthClientDraft, of profile: ProfileID, by principal: Principal
  ) async throws -> OAuthClient {
    let client = try OAuthRules.resolve(draft, of: try await store.profileType(of: profile, for: principal))
    var problems = FieldProblems()
    // The browser goes to the authorization URL, we do not.
    for (pointer, url) in [("/tokenURL", client.tokenURL as WebURL?), ("/revocationURL", client.revocationURL)] {
      guard let url else { continue }
      do throws(Failure) { try web.check(url) } catch {
        problems.add(pointer, error.code.rawValue, error.context ?? error.code.summary)
      }
    }
    try problems.throwIfAny()
    return try await store.setOAuthClient(client, of: profile, by: principal)
  }

  /// Removes it.
  public func removeClient(of profile: ProfileID, by principal: Principal) async throws {
    try await store.removeOAuthClient(of: profile, by: principal)
  }

  /// Begins a consent: state and code verifier of 256 random bits each, the verifier's hash in the address (RFC 7636).
  public func beginConsent(of mailbox: MailboxID, by principal: Principal) async throws -> ConsentRequest {
    let state = Self.random()
    let verifier = Self.random()
    let expiresAt = Date().addingTimeInterval(life / .seconds(1))
    let start = try await store.beginConsent(
      of: mailbox, state: state, verifier: verifier, redirectURL: redirectURL, life: life, by: principal)
    let challenge = Data(SHA256.hash(data: Data(verifier.revealed.utf8))).base64URL
    let url = start.authorizationURL.adding([
      ("response_type", "code"), ("client_id", start.clientID), ("redirect_uri", redirectURL),
      ("scope", start.scopes.joined(separator: " ")), ("state", state.revealed), ("code_challenge", challenge),
      ("code_challenge_method", "S256"), ("login_hint", start.loginName),
    ])
    return ConsentRequest(mailboxID: mailbox, consentURL: url, expiresAt: expiresAt)
  }

  private static func random() -> Secret {
    Secret(SymmetricKey(size: .bits256).withUnsafeBytes { Data($0).base64URL })
  }

  /// Finishes a consent. The state is used up whatever comes of it.
  public func finishConsent(_ answer: ConsentAnswer) async throws -> String {
    guard let consent = try await Self.explained({ try await store.takeConsent(state: answer.state) }) else {
      throw ConsentError(
        code: "unknown-state",
        "This consent is not known: it was used already, is too old, or another one was begun after it. Begin again with "
          + "`postrider mailbox connect`.")
    }
    guard let code = answer.code else {
      let words = [answer.error, answer.errorDescription].compactMap { $0 }.joined(separator: ": ")
      throw ConsentError(
        code: "declined",
        "The provider gave no consent for \(consent.address)\(words.isEmpty ? "" : ": \(Failure.presentable(words))").")
    }
    let tokens: IssuedTokens
    do {
      tokens = try await TokenEndpoint(web: web).exchange(
        code: code, verifier: consent.verifier, redirectURL: consent.redirectURL, consent.client)
    } catch let failure as Failure {
      throw ConsentError(code: failure.code.rawValue, "\(failure.description) \(failure.remedy)")
    }
    guard tokens.refreshToken != nil else {
      throw ConsentError(
        code: "no-refresh-token",
        "The provider gave no refresh token for \(consent.address), so the mailbox would stop within the hour. Ask for "
          + "offline access (Google: access_type=offline and prompt=consent; Microsoft: the scope offline_access).")
    }
    if let granted = tokens.scopes {
      let missing = OAuthClient.missing(granted, of: consent.client.scopes)
      if !missing.isEmpty {
        throw ConsentError(
          code: FailureCode.oauthScope.rawValue,
          "Not every right was granted for \(consent.address). Missing: \(missing.joined(separator: " ")). Begin again and "
            + "grant all of them.")
      }
    }
    try await Self.explained { try await store.storeGrant(tokens, of: consent) }
    return consent.address
  }

  /// What has changed since the consent began is said to the person at the browser.
  private static func explained<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
    do {
      return try await body()
    } catch StoreError.conflict(let code, let message) {
      throw ConsentError(code: code, message)
    }
  }

  /// How a mailbox is connected.
  public func connection(of mailbox: MailboxID, for principal: Principal) async throws -> MailboxConnection {
    try await store.connection(of: mailbox, for: principal)
  }

  /// Forgets the grant first: whether the provider can be told changes nothing of that.
  public func disconnect(_ mailbox: MailboxID, by principal: Principal) async throws -> Disconnection {
    let removed = try await store.removeGrant(of: mailbox, by: principal)
    var result = Disconnection(mailboxID: mailbox, wasConnected: removed.wasConnected)
    if let token = removed.token, let url = removed.revocationURL {
      result.problem = await TokenEndpoint(web: web).revoke(token, at: url)
      result.revoked = result.problem == nil
    }
    return result
  }
}
