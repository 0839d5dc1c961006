import FoundationEssentials

/// An access token and which one it is.
public struct AccessToken: Hashable, Sendable {
  /// The token.
  public var secret: Secret
  /// Grows with every new token of the grant.
  public var version: Int64
  /// Whether this call got it from the token server.
  public var isNew: Bool

  /// Names a token.
  public init(_ secret: Secret, version: Int64, isNew: Bool = false) {
    self.secret = secret
    self.version = version
    self.isNew = isNew
  }
}

/// Where sessions get access tokens.
public protocol AccessTokenSource: Sendable {
  /// The access token of a mailbox, refreshed when it is old: by this caller, unless another one is at it.
  ///
  /// - Parameter refused: the token that a mail server just refused: another one is returned, or `nil` when there can be
  ///   none.
  /// - Throws: ``Failure`` `oauth.…`, ``StoreError/unavailable(reason:)``, `CancellationError`.
  func accessToken(of mailbox: MailboxID, refused: AccessToken?) async throws -> AccessToken?
}

/// What administration does with OAuth. Every call works in the principal's organization alone.
public protocol OAuthDesk: Sendable {
  /// The application of a profile. Throws `notFound` when it has none.
  func client(of profile: ProfileID, for principal: Principal) async throws -> OAuthClient
  /// Sets it; grants of the old one stay, their refresh tokens only where token and revocation URL lead to the servers
  /// of the consent.
  func setClient(_ draft: OAuthClientDraft, of profile: ProfileID, by principal: Principal) async throws -> OAuthClient
  /// Removes it; its mailboxes get no more tokens.
  func removeClient(of profile: ProfileID, by principal: Principal) async throws
  /// Begins a consent; one begun earlier for the mailbox ends. Throws `oauth.not-configured` or `oauth.no-consent`.
  func beginConsent(of mailbox: MailboxID, by principal: Principal) async throws -> ConsentRequest
  /// Finishes the consent that the answer's state names; the state is the only proof needed, and is good once. Returns
  /// the address of the mailbox, which is tested then. Throws ``ConsentError``.
  func finishConsent(_ answer: ConsentAnswer) async throws -> String
  /// How a mailbox is connected.
  func connection(of mailbox: MailboxID, for principal: Principal) async throws -> MailboxConnection
  /// Forgets the grant of a mailbox and tells the provider; both directions that use it stop.
  func disconnect(_ mailbox: MailboxID, by principal: Principal) async throws -> Disconnection
}

/// Why a consent came to nothing, in words for the person at the browser.
public struct ConsentError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Stable: `unknown-state`, `declined`, `no-refresh-token`, `profile-changed`, `application-replaced`, `oauth.…`.
  public var code: String
  /// What happened and what to do.
  public var description: String

  /// Describes a failure.
  public init(code: String, _ description: String) {
    self.code = code
    self.description = description
  }
}

/// How to speak to a token endpoint.
public struct TokenClient: Sendable {
  /// How tokens come about.
  public var flow: OAuthFlow
  /// The client id.
  public var clientID: String
  /// Client secret or private key.
  public var secret: Secret?
  /// Where tokens come from.
  public var tokenURL: WebURL
  /// What is asked for.
  public var scopes: [String]

  /// Describes a client.
  public init(flow: OAuthFlow, clientID: String, secret: Secret?, tokenURL: WebURL, scopes: [String]) {
    self.flow = flow
    self.clientID = clientID
    self.secret = secret
    self.tokenURL = tokenURL
    self.scopes = scopes
  }
}

/// A consent on its way: what the browser is sent off with.
public struct ConsentStart: Sendable {
  /// Where people consent.
  public var authorizationURL: WebURL
  /// The client id.
  public var clientID: String
  /// What is asked for.
  public var scopes: [String]
  /// The name that the mailbox logs in with: a hint for the provider's page.
  public var loginName: String

  /// Describes a start.
  public init(authorizationURL: WebURL, clientID: String, scopes: [String], loginName: String) {
    self.authorizationURL = authorizationURL
    self.clientID = clientID
    self.scopes = scopes
    self.loginName = loginName
  }
}

/// A consent that came back and is not good a second time.
public struct TakenConsent: Sendable {
  /// Who began it.
  public var principal: Principal
  /// The mailbox.
  public var mailboxID: MailboxID
  /// Its address.
  public var address: String
  /// RFC 7636.
  public var verifier: Secret
  /// The same that the browser was sent off with.
  public var redirectURL: String
  /// The profile whose application it is.
  public var profileID: ProfileID
  /// Where the code is worth something.
  public var client: TokenClient

  /// Describes a consent.
  public init(
    principal: Principal, mailboxID: MailboxID, address: String, verifier: Secret, redirectURL: String,
    profileID: ProfileID, client: TokenClient
  ) {
    self.principal = principal
    self.mailboxID = mailboxID
    self.address = address
    self.verifier = verifier
    self.redirectURL = redirectURL
    self.profileID = profileID
    self.client = client
  }
}

/// Tokens as a token endpoint handed them out.
public struct IssuedTokens: Sendable {
  /// The access token.
  public var accessToken: Secret
  /// A new refresh token; `nil`: the old one stays good.
  public var refreshToken: Secret?
  /// How long the access token is good.
  public var life: Duration
  /// What was granted; `nil` when it is what was asked for.
  public var scopes: [String]?

  /// Describes tokens.
  public init(accessToken: Secret, refreshToken: Secret?, life: Duration, scopes: [String]?) {
    self.accessToken = accessToken
    self.refreshToken = refreshToken
    self.life = life
    self.scopes = scopes
  }
}

/// What is stored of the token of a mailbox, as the database's clock sees it.
public struct TokenState: Sendable {
  /// The access token with its version; `nil` when there is none that is still good.
  public var token: AccessToken?
  /// The version, with or without a token.
  public var version: Int64
  /// Whether 80 % of its life are over.
  public var isDue: Bool
  /// Whether somebody refreshes it now.
  public var isBeingRefreshed: Bool
  /// How tokens come about; `nil` where the profile has no application.
  public var flow: OAuthFlow?
  /// Whether there is a refresh token.
  public var isRenewable: Bool
  /// Whether there is a grant at all.
  public var isGranted: Bool
  /// Whether that grant came from an application of the profile, and not from elsewhere.
  public var isFromApplication: Bool
  /// Whether that was another application than the profile's present one, or its token server another: the grant cannot
  /// be renewed.
  public var isReplaced: Bool
  /// Why the last attempt failed, while it is too early for another one.
  public var failure: Failure?

  /// Describes a state.
  public init(
    token: AccessToken?, version: Int64, isDue: Bool, isBeingRefreshed: Bool, flow: OAuthFlow?, isRenewable: Bool,
    isGranted: Bool, isFromApplication: Bool, isReplaced: Bool, failure: Failure?
  ) {
    self.token = token
    self.version = version
    self.isDue = isDue
    self.isBeingRefreshed = isBeingRefreshed
    self.flow = flow
    self.isRenewable = isRenewable
    self.isGranted = isGranted
    self.isFromApplication = isFromApplication
    self.isReplaced = isReplaced
    self.failure = failure
  }
}

/// The time-limited right to refresh a grant.
public struct RefreshLease: Sendable {
  /// The mailbox for which it is done.
  public var mailboxID: MailboxID
  /// Set when the token is the profile's, for all its mailboxes.
  public var profileID: ProfileID?
  /// The version that is to be replaced.
  public var version: Int64
  /// Names the holder; only it may end the lease.
  public var holder: String
  /// How to speak to the token endpoint.
  public var client: TokenClient
  /// What proves the grant.
  public var refreshToken: Secret?
  /// For whom a service account speaks.
  public var subject: String
  /// When the owner consented.
  public var grantedAt: Date?

  /// Describes a lease.
  public init(
    mailboxID: MailboxID, profileID: ProfileID?, version: Int64, holder: String, client: TokenClient,
    refreshToken: Secret?, subject: String, grantedAt: Date?
  ) {
    self.mailboxID = mailboxID
    self.profileID = profileID
    self.version = version
    self.holder = holder
    self.client = client
    self.refreshToken = refreshToken
    self.subject = subject
    self.grantedAt = grantedAt
  }
}

/// What OAuth needs of PostgreSQL. Calls throw ``StoreError``.
public protocol OAuthStore: Sendable {
  /// See ``OAuthDesk/client(of:for:)``.
  func oauthClient(of profile: ProfileID, for principal: Principal) async throws -> OAuthClient
  /// The provider of a profile, for ``OAuthRules``.
  func profileType(of profile: ProfileID, for principal: Principal) async throws -> ProfileType
  /// Stores a checked application.
  func setOAuthClient(
    _ client: ResolvedOAuthClient, of profile: ProfileID, by principal: Principal
  ) async throws -> OAuthClient
  /// See ``OAuthDesk/removeClient(of:by:)``.
  func removeOAuthClient(of profile: ProfileID, by principal: Principal) async throws
  /// Remembers a consent that begins, under the hash of its state.
  func beginConsent(
    of mailbox: MailboxID, state: Secret, verifier: Secret, redirectURL: String, life: Duration, by principal: Principal
  ) async throws -> ConsentStart
  /// Takes the consent of a state, which is gone then; `nil` for an unknown, used or old one. Throws `conflict`
  /// `application-replaced` when it was begun with another application than the profile has now.
  func takeConsent(state: Secret) async throws -> TakenConsent?
  /// Stores what the owner granted, ends what the old credentials had proven, and asks for a test. Throws `conflict`
  /// `profile-changed` when the mailbox has another profile by now, whose application the grant is not for, and
  /// `application-replaced` when the profile has another application.
  func storeGrant(_ tokens: IssuedTokens, of consent: TakenConsent) async throws
  /// See ``OAuthDesk/connection(of:for:)``.
  func connection(of mailbox: MailboxID, for principal: Principal) async throws -> MailboxConnection
  /// Forgets a grant; returns its refresh token and where it is taken back.
  func removeGrant(
    of mailbox: MailboxID, by principal: Principal
  ) async throws -> (wasConnected: Bool, token: Secret?, revocationURL: WebURL?)

  /// What is stored of a mailbox's token. Throws `notFound` for a mailbox without a profile.
  func tokenState(of mailbox: MailboxID) async throws -> TokenState
  /// Takes the right to refresh a version; `nil` when somebody else has it or the version is replaced.
  func beginRefresh(
    of mailbox: MailboxID, version: Int64, holder: String, for duration: Duration
  ) async throws -> RefreshLease?
  /// Stores new tokens in the place of the lease's version; returns the new version, `nil` when that was replaced
  /// meanwhile.
  func finishRefresh(_ lease: RefreshLease, _ tokens: IssuedTokens) async throws -> Int64?
  /// Notes why the refresh failed; nobody tries again within `wait`. `rotated`: a refresh token that was handed out all
  /// the same; it replaces the one before.
  func failRefresh(_ lease: RefreshLease, _ failure: Failure, wait: Duration, rotated: Secret?) async throws
}
