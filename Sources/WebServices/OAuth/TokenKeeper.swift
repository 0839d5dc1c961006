import FoundationEssentials
import Logging
import Metrics
import PostriderCore

/// Hands out access tokens and renews them, one refresh per grant in the whole cluster.
///
/// PostgreSQL decides who refreshes: the lease and the version stand in the grant's row. The others go on with the token
/// that is still good, or wait for the new one.
public struct TokenKeeper: AccessTokenSource {
  /// How refreshing behaves.
  public struct Configuration: Sendable {
    /// How long the right to refresh lasts; longer than a call may take, so that nobody takes over from a living one.
    public var lease: Duration = .seconds(45)
    /// How long a session waits for somebody else's refresh.
    public var patience: Duration = .seconds(50)
    /// How often it looks.
    public var glance: Duration = .milliseconds(150)
    /// Nobody asks a token server again so soon after it was busy.
    public var pause: Duration = .seconds(30)
    /// Nor after it said that this grant is over. What it says of the application halts the profile, whose probes are
    /// paced by that.
    public var refusalPause: Duration = .seconds(240)
    /// How long a database that is away is waited for with new tokens in the hand: longer than the lease, since whoever
    /// took over meanwhile is not overwritten.
    public var savePatience: Duration = .seconds(300)

    /// Production's times.
    public init() {}
  }

  private let store: any OAuthStore
  private let endpoint: TokenEndpoint
  private let configuration: Configuration
  private let logger: Logger
  /// Names this process among those that refresh.
  private let name = String(UInt64.random(in: 0 ... .max), radix: 36)

  /// A keeper over the store; `web` calls the token servers.
  public init(
    store: any OAuthStore, web: WebClient, configuration: Configuration = Configuration(), logger: Logger
  ) {
    self.store = store
    endpoint = TokenEndpoint(web: web)
    self.configuration = configuration
    self.logger = logger
    for result in ["success", "failure"] { Self.count(result, by: 0) }
  }

  private static func count(_ result: String, by number: Int = 1) {
    Counter(label: "postrider_token_refreshes_total", dimensions: [("result", result)]).increment(by: number)
  }

  /// See ``AccessTokenSource/accessToken(of:refused:)``.
  public func accessToken(of mailbox: MailboxID, refused: AccessToken?) async throws -> AccessToken? {
    let end = ContinuousClock.now + configuration.patience
    while true {
      let state = try await readable(mailbox) { try await store.tokenState(of: mailbox) }
      let good = state.token.flatMap { $0.version == refused?.version ? nil : $0 }
      let canRenew = state.flow != nil && state.isRenewable
      // A wait that the token server asked for, somebody else's refresh, an application that cannot renew or is not
      // there: what is good is good enough.
      if let good, !state.isDue || state.isBeingRefreshed || state.failure != nil || !canRenew { return good }
      if !canRenew { return try unrenewable(state, refused) }
      if let failure = state.failure { throw failure }
      if state.isBeingRefreshed {
        guard ContinuousClock.now < end else {
          throw Failure(
            .oauthTemporary, context: "another worker has been refreshing the token for \(configuration.patience)")
        }
        try await Task.sleep(for: configuration.glance * Double.random(in: 0.7...1.3))
        continue
      }
      let holder = "\(name)-\(UInt32.random(in: 0 ... .max))"
      do {
        let lease = try await readable(mailbox) {
          try await store.beginRefresh(of: mailbox, version: state.version, holder: holder, for: configuration.lease)
        }
        if let lease, let token = try await refresh(lease) { return token }
      } catch let failure as Failure {
        guard let good else { throw failure }
        return good
      }
    }
  }

  /// Asks the store for what it decrypts: a value that cannot be is a matter of the profile and its workers' keys.
  private func readable<Value: Sendable>(_ mailbox: MailboxID, _ ask: () async throws -> Value) async throws -> Value {
    do {
      return try await ask()
    } catch StoreError.missingKey(let id) {
      logger.error("A stored token cannot be decrypted", metadata: ["mailbox.id": "\(mailbox)", "key.id": "\(id)"])
      throw Failure(.credentialsUnreadable, context: "the token of mailbox \(mailbox)")
    } catch StoreError.statement(sqlState: "XX001", _) {
      throw Failure(.credentialsUnreadable, context: "the token of mailbox \(mailbox) is damaged")
    }
  }

  /// There is nothing to renew: the refusal of the mail server stands, or people have to do something.
  private func unrenewable(_ state: TokenState, _ refused: AccessToken?) throws(Failure) -> AccessToken? {
    // The profile's application was removed, which is no fault of the mailbox: its consent still stands.
    if state.flow == nil && state.isFromApplication { throw Failure(.oauthNotConfigured) }
    if state.isReplaced { throw Failure(.oauthReplaced) }
    if refused != nil { return nil }
    guard state.flow != nil else { throw Failure(state.isGranted ? .oauthGrantExpired : .oauthNotConfigured) }
    throw Failure(state.isGranted ? .oauthGrantExpired : .oauthNotConnected)
  }

  /// Does the refresh that a lease is the right to. Not stopped by the end of the session: what the server has handed out
  /// may be the only good refresh token. Returns `nil` when the grant was replaced meanwhile.
  private func refresh(_ lease: RefreshLease) async throws -> AccessToken? {
    try await Task { try await self.carryOut(lease) }.value
  }

  private func carryOut(_ lease: RefreshLease) async throws -> AccessToken? {
    let tokens: IssuedTokens
    var rotated: Secret?
    do {
      tokens = try await endpoint.renew(lease)
      rotated = tokens.refreshToken
      try Self.checkScopes(tokens, lease)
    } catch {
      let failure = Self.diagnosed(
        (error as? Failure) ?? Failure(.oauthTemporary, context: "it was interrupted"), lease)
      Self.count("failure")
      logger.info(
        "A token could not be refreshed",
        metadata: [
          "mailbox.id": "\(lease.mailboxID)", "error.kind": "\(failure.code.rawValue)",
          "server": "\(lease.client.tokenURL.host)",
        ])
      try await note(failure, lease, rotated)
      throw failure
    }
    let version = try await saved { try await store.finishRefresh(lease, tokens) }
    Self.count("success")
    return version.map { AccessToken(tokens.accessToken, version: $0, isNew: true) }
  }

  private func note(_ failure: Failure, _ lease: RefreshLease, _ rotated: Secret?) async throws {
    let pause = failure.scope == .mailbox ? configuration.refusalPause : configuration.pause
    let wait = failure.retryAfterSeconds.map { Duration.seconds(min($0, 3_600)) } ?? pause
    // Without a new refresh token nothing is lost by not waiting for the database.
    guard let rotated else { return try await store.failRefresh(lease, failure, wait: wait, rotated: nil) }
    try await saved { try await store.failRefresh(lease, failure, wait: wait, rotated: rotated) }
  }

  /// Writes what a token server handed out, waiting for a database that is away.
  private func saved<Value: Sendable>(_ write: () async throws -> Value) async throws -> Value {
    let end = ContinuousClock.now + configuration.savePatience
    while true {
      do {
        return try await write()
      } catch StoreError.unavailable(let reason) {
        guard ContinuousClock.now < end else { throw StoreError.unavailable(reason: reason) }
        try await Task.sleep(for: .milliseconds(500))
      }
    }
  }

  private static func checkScopes(_ tokens: IssuedTokens, _ lease: RefreshLease) throws(Failure) {
    guard lease.client.flow == .authorizationCode, let granted = tokens.scopes else { return }
    let missing = OAuthClient.missing(granted, of: lease.client.scopes)
    if !missing.isEmpty { throw Failure(.oauthScope, context: "not granted: \(missing.joined(separator: " "))") }
  }

  /// A grant that is over says how old it was.
  private static func diagnosed(_ failure: Failure, _ lease: RefreshLease) -> Failure {
    guard failure.code == .oauthGrantExpired else { return failure }
    let words = GrantDiagnosis(
      grantedAt: lease.grantedAt, tokenHost: lease.client.tokenURL.host, endedAt: Date()
    ).words()
    if words.isEmpty { return failure }
    return Failure(
      failure.code, serverWords: failure.serverWords,
      context: ([failure.context].compactMap { $0 } + words).joined(separator: "; "))
  }
}
