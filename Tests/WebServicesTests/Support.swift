import Foundation
import Logging
import MailProtocols
import PostgresStore
import PostriderCore
import PostriderTesting
import Synchronization
import WebServices

/// Names of this test's own; counts how often each was looked up.
final class CountingNames: MailResolver {
  private let addresses: [String: [String]]
  private let counts = Mutex<[String: Int]>([:])

  init(_ addresses: [String: [String]] = [:]) { self.addresses = addresses }

  func count(_ host: String) -> Int { counts.withLock { $0[host] ?? 0 } }

  func resolve(_ host: String) async throws(Failure) -> [IPAddress] {
    counts.withLock { $0[host, default: 0] += 1 }
    if let found = addresses[host] { return found.compactMap { IPAddress($0) } }
    // As the system does with every spelling that it understands.
    return try await SystemResolver().resolve(host)
  }
}

/// A client that may reach this machine.
func loopbackClient(_ names: CountingNames = CountingNames(), trustRootsPEM: String? = nil) throws -> WebClient {
  try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*"), resolver: names, trustRootsPEM: trustRootsPEM)
}

/// The failure that a body throws; `nil` when it throws none.
func failure(_ body: () async throws -> Void) async -> Failure? {
  do {
    try await body()
    return nil
  } catch {
    return error as? Failure
  }
}

extension TestCluster {
  /// A profile whose mailboxes use OAuth, and its application at a server.
  func oauthProfile(
    _ server: OAuthServer, flow: OAuthFlow = .authorizationCode, key: Secret? = nil,
    scopes: [String] = ["mail.read", "mail.send"], name: String = "OAuth"
  ) async throws -> ServerProfile {
    let profile = try await profile(
      name, incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, credentials: .oauth))
    _ = try await desk().setClient(
      OAuthClientDraft(
        flow: flow, clientID: "client", clientSecret: key == nil ? Secret("client-secret") : nil, privateKey: key,
        authorizationURL: server.authorizationURL, tokenURL: server.tokenURL, revocationURL: server.revocationURL,
        scopes: scopes),
      of: profile.id, by: principal)
    return profile
  }

  /// Administration as the API has it.
  func desk(life: Duration = .seconds(600)) throws -> ConsentService {
    ConsentService(store: store, web: try loopbackClient(), publicURL: "https://mail.example.com", life: life)
  }

  /// What a worker gets its tokens from; a store of its own stands for a process of its own.
  func keeper(
    _ store: (any OAuthStore)? = nil, configure: (inout TokenKeeper.Configuration) -> Void = { _ in }
  ) throws -> TokenKeeper {
    var configuration = TokenKeeper.Configuration()
    configure(&configuration)
    return TokenKeeper(
      store: store ?? self.store, web: try loopbackClient(), configuration: configuration, logger: logger)
  }

  /// A mailbox whose owner has consented.
  func connected(_ profile: ServerProfile, as address: String = "ann@example.org") async throws -> MailboxID {
    let mailbox = try await mailbox(address, on: profile, password: nil)
    let desk = try desk()
    let request = try await desk.beginConsent(of: mailbox, by: principal)
    _ = try await desk.finishConsent(try await Browser.consent(at: request.consentURL))
    return mailbox
  }

  /// Makes a mailbox's token old (due), or as good as ended.
  func age(_ mailbox: MailboxID, ended: Bool = false) async throws {
    try await sql(
      """
      UPDATE oauth_grant SET refresh_at = now() - interval '1 second'\(ended ? ", expires_at = now()" : "")
      WHERE mailbox_id = \(mailbox)
      """)
  }
}

/// Runs a body with a cluster.
func withCluster(_ options: TestCluster.Options = .init(), _ body: (TestCluster) async throws -> Void) async throws {
  let cluster = try await TestCluster.make(options)
  do {
    try await body(cluster)
  } catch {
    await cluster.close()
    throw error
  }
  await cluster.close()
}

/// A store whose database is away when the first writes at the end of a refresh come.
final class AwayStore: OAuthStore {
  private let store: PostgresStore
  private let writes: Mutex<Int>

  init(_ store: PostgresStore, writes: Int) {
    self.store = store
    self.writes = Mutex(writes)
  }

  private func write() throws {
    let isAway = writes.withLock { writes in
      writes -= 1
      return writes >= 0
    }
    if isAway { throw StoreError.unavailable(reason: "it is away") }
  }

  func finishRefresh(_ lease: RefreshLease, _ tokens: IssuedTokens) async throws -> Int64? {
    try write()
    return try await store.finishRefresh(lease, tokens)
  }

  func failRefresh(_ lease: RefreshLease, _ failure: Failure, wait: Duration, rotated: Secret?) async throws {
    try write()
    try await store.failRefresh(lease, failure, wait: wait, rotated: rotated)
  }

  func tokenState(of mailbox: MailboxID) async throws -> TokenState { try await store.tokenState(of: mailbox) }

  func beginRefresh(
    of mailbox: MailboxID, version: Int64, holder: String, for duration: Duration
  ) async throws -> RefreshLease? {
    try await store.beginRefresh(of: mailbox, version: version, holder: holder, for: duration)
  }

  func oauthClient(of profile: ProfileID, for principal: Principal) async throws -> OAuthClient {
    try await store.oauthClient(of: profile, for: principal)
  }

  func profileType(of profile: ProfileID, for principal: Principal) async throws -> ProfileType {
    try await store.profileType(of: profile, for: principal)
  }

  func setOAuthClient(
    _ client: ResolvedOAuthClient, of profile: ProfileID, by principal: Principal
  ) async throws -> OAuthClient {
    try await store.setOAuthClient(client, of: profile, by: principal)
  }

  func removeOAuthClient(of profile: ProfileID, by principal: Principal) async throws {
    try await store.removeOAuthClient(of: profile, by: principal)
  }

  func beginConsent(
    of mailbox: MailboxID, state: Secret, verifier: Secret, redirectURL: String, life: Duration, by principal: Principal
  ) async throws -> ConsentStart {
    try await store.beginConsent(
      of: mailbox, state: state, verifier: verifier, redirectURL: redirectURL, life: life, by: principal)
  }

  func takeConsent(state: Secret) async throws -> TakenConsent? { try await store.takeConsent(state: state) }

  func storeGrant(_ tokens: IssuedTokens, of consent: TakenConsent) async throws {
    try await store.storeGrant(tokens, of: consent)
  }

  func connection(of mailbox: MailboxID, for principal: Principal) async throws -> MailboxConnection {
    try await store.connection(of: mailbox, for: principal)
  }

  func removeGrant(
    of mailbox: MailboxID, by principal: Principal
  ) async throws -> (wasConnected: Bool, token: Secret?, revocationURL: WebURL?) {
    try await store.removeGrant(of: mailbox, by: principal)
  }
}

/// A switch that is turned on once.
final class Flag: Sendable {
  private let state = Mutex(false)
  var isSet: Bool { state.withLock { $0 } }
  func set() { state.withLock { $0 = true } }
}
