import CryptoExtras
import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import Testing
import WebServices

@Suite("Access tokens: one refresh in the whole cluster, rotation, failures (features P18, P19)")
struct TokenKeeperTests {
  @Test("two processes with many sessions make exactly one refresh, and all get the new token")
  func oneRefresh() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      let first = try #require(try await cluster.keeper().accessToken(of: mailbox, refused: nil))
      try await cluster.age(mailbox, ended: true)
      // Nobody gets an answer before all have asked.
      let hold = ScriptSignal()
      server.change { $0.hold = hold }
      let other = cluster.makeStore()
      let keepers = [try cluster.keeper(), try cluster.keeper(other)]
      let tokens = try await withThrowingTaskGroup(of: AccessToken?.self) { group in
        for number in 0..<20 {
          group.addTask { try await keepers[number % 2].accessToken(of: mailbox, refused: nil) }
        }
        try await eventually("a refresh") { server.requests.contains { $0.form["grant_type"] == "refresh_token" } }
        try await Task.sleep(for: .milliseconds(300))
        hold.fire()
        return try await group.reduce(into: [AccessToken?]()) { $0.append($1) }
      }
      #expect(server.refreshes == 1)
      #expect(server.requests.count { $0.form["grant_type"] == "refresh_token" } == 1)
      #expect(Set(tokens.map { $0?.secret }).count == 1 && tokens[0]?.version == first.version + 1)
      #expect(tokens[0].map { server.accessTokens.contains($0.secret.revealed) } == true)
      #expect(tokens.count { $0?.isNew == true } == 1)
      await other.close()
    }
    await server.stop()
  }

  @Test("at 80 % of its life a token is refreshed; before that nobody is asked")
  func due() async throws {
    let server = try await OAuthServer.start()
    server.change { $0.life = 1_000 }
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      let share = try await cluster.sql(
        "SELECT round(extract(epoch FROM refresh_at - refreshed_at)) FROM oauth_grant")
      #expect(share == "800")
      let keeper = try cluster.keeper()
      _ = try await keeper.accessToken(of: mailbox, refused: nil)
      #expect(server.refreshes == 0)
      try await cluster.age(mailbox)
      let token = try await keeper.accessToken(of: mailbox, refused: nil)
      #expect(server.refreshes == 1 && token?.isNew == true)
      let later = try await cluster.sql(
        """
        SELECT extract(epoch FROM refresh_at - refreshed_at) BETWEEN 760 AND 800,
          extract(epoch FROM expires_at - refreshed_at) = 1000 FROM oauth_grant
        """)
      #expect(later == "t|t")
      // A mail server that refuses a good token gets another one, once.
      let next = try await keeper.accessToken(of: mailbox, refused: token)
      #expect(server.refreshes == 2 && next?.secret != token?.secret)
      #expect(try await keeper.accessToken(of: mailbox, refused: token)?.version == next?.version)
      #expect(server.refreshes == 2)
    }
    await server.stop()
  }

  @Test("a rotated refresh token replaces the old one, again and again; both lie encrypted")
  func rotation() async throws {
    let server = try await OAuthServer.start()
    server.change { $0.rotates = true }
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      let keeper = try cluster.keeper()
      var seen = Set(server.refreshTokens)
      for round in 1...3 {
        try await cluster.age(mailbox)
        #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.isNew == true)
        #expect(server.refreshes == round && server.refreshTokens.count == 1)
        seen.formUnion(server.refreshTokens)
      }
      #expect(seen.count == 4)
      let stored = try await cluster.sql(
        "SELECT encode(refresh_token, 'escape') || encode(access_token, 'escape') FROM oauth_grant")
      for secret in seen.union(server.accessTokens) { #expect(!stored.contains(secret)) }
    }
    await server.stop()
  }

  @Test("a refresh whose grant was replaced meanwhile changes nothing: the newer consent wins")
  func compareAndSwap() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.connected(profile)
      try await cluster.age(mailbox, ended: true)
      let lease = try #require(
        try await cluster.store.beginRefresh(of: mailbox, version: 0, holder: "a", for: .seconds(30)))
      #expect(try await cluster.store.beginRefresh(of: mailbox, version: 0, holder: "b", for: .seconds(30)) == nil)
      // The owner consents again while the refresh is under way.
      let desk = try cluster.desk()
      let request = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      _ = try await desk.finishConsent(try await Browser.consent(at: request.consentURL))
      let late = IssuedTokens(
        accessToken: Secret("late"), refreshToken: Secret("late-refresh"), life: .seconds(60), scopes: nil)
      #expect(try await cluster.store.finishRefresh(lease, late) == nil)
      let token = try await cluster.keeper().accessToken(of: mailbox, refused: nil)
      #expect(token?.version == 1 && token?.secret != Secret("late"))
      // A holder that died is succeeded when its time is over.
      _ = try await cluster.store.beginRefresh(of: mailbox, version: 1, holder: "dead", for: .milliseconds(300))
      try await cluster.age(mailbox, ended: true)
      #expect(try await cluster.keeper().accessToken(of: mailbox, refused: nil)?.version == 2)
    }
    await server.stop()
  }

  @Test("a token server that is down disables nobody: good tokens go on, and it is not asked all the time")
  func tokenServerDown() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      // Its time is over when the test says so.
      let keeper = try cluster.keeper(configure: { $0.pause = .seconds(3_600) })
      server.change { $0.fault = .json(503, #"{"error":"temporarily_unavailable"}"#) }
      try await cluster.age(mailbox)
      let asked = server.requests.count
      for _ in 0..<3 { #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == 0) }
      #expect(server.requests.count == asked + 1)
      try await cluster.age(mailbox, ended: true)
      let failure = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(failure?.code == .oauthTemporary && failure?.failureClass == .transient && failure?.scope == .profile)
      #expect(server.requests.count == asked + 1)
      // Its time is over and the server is back.
      server.change { $0.fault = nil }
      try await cluster.sql("UPDATE oauth_grant SET retry_at = now()")
      #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == 1)
    }
    await server.stop()
  }

  @Test("a grant that is over, a refused application and a missing right: the right code, and not asked again at once")
  func refusals() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let keeper = try cluster.keeper(configure: { ($0.pause, $0.refusalPause) = (.seconds(3_600), .seconds(3_600)) })
      func refused(_ address: String, _ change: () async throws -> Void) async throws -> (Failure?, MailboxID) {
        let mailbox = try await cluster.connected(profile, as: address)
        try await cluster.age(mailbox, ended: true)
        try await change()
        let first = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
        let asked = server.requests.count
        let second = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
        #expect(second?.code == first?.code && server.requests.count == asked)
        return (first, mailbox)
      }
      let secret = try await refused("a@example.org") { server.setSecret("another") }.0
      #expect(secret?.code == .oauthClient && secret?.scope == .profile && secret?.failureClass == .permanent)
      // The administrator sets the new one: asked again at once.
      server.setSecret("client-secret")
      _ = try await cluster.oauthClient(server, of: profile)
      let (scope, _) = try await refused("b@example.org") { server.change { $0.granted = "mail.read" } }
      #expect(scope?.code == .oauthScope && scope?.context?.contains("mail.send") == true)
      server.change { $0.granted = nil }
      let (ended, mailbox) = try await refused("c@example.org") { server.revokeGrants() }
      #expect(ended?.code == .oauthGrantExpired && ended?.failureClass == .credential && ended?.scope == .mailbox)
      #expect(ended?.context?.contains("the consent was 0.0 days old") == true, "\(String(describing: ended))")
      // The server repeated the refresh token in its words.
      #expect(ended?.serverWords?.contains("«redacted»") == true && ended?.serverWords?.contains("refresh.") == false)
      let connection = try await cluster.store.connection(of: mailbox, for: cluster.principal)
      #expect(connection.state == .failing && connection.failureCode == "oauth.grant-expired")
      #expect(connection.diagnosis.contains { $0.contains("days old") })
    }
    await server.stop()
  }

  @Test("a mailbox that moved to another profile does not show its refresh token to that one's server")
  func otherProfile() async throws {
    let server = try await OAuthServer.start()
    let stranger = try await OAuthServer.start()
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      let other = try await cluster.oauthProfile(stranger, name: "Other")
      _ = try await cluster.store.updateMailbox(mailbox, MailboxChange(profileID: other.id), by: cluster.principal)
      let failure = await failure { _ = try await cluster.keeper().accessToken(of: mailbox, refused: nil) }
      #expect(failure?.code == .oauthNotConnected && stranger.requests.isEmpty)
    }
    await server.stop()
    await stranger.stop()
  }

  @Test("an application that was removed disables nobody: what is good goes on, then the profile lacks its application")
  func applicationRemoved() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.connected(profile)
      let keeper = try cluster.keeper()
      try await cluster.desk().removeClient(of: profile.id, by: cluster.principal)
      try await cluster.age(mailbox)
      let good = try await keeper.accessToken(of: mailbox, refused: nil)
      #expect(good?.version == 0)
      let refused = await failure { _ = try await keeper.accessToken(of: mailbox, refused: good) }
      #expect(refused?.code == .oauthNotConfigured && refused?.scope == .profile)
      try await cluster.age(mailbox, ended: true)
      let ended = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(ended?.code == .oauthNotConfigured)
      // A token that was got elsewhere needs no application, and ends with its time.
      let other = try await cluster.mailbox("bob@example.org", on: profile, password: nil)
      let foreign = Secret("got-elsewhere")
      try await cluster.store.storeAccessToken(
        foreign, expiresAt: Date(timeIntervalSinceNow: -1), mailbox: other, by: cluster.principal)
      let over = await failure { _ = try await keeper.accessToken(of: other, refused: nil) }
      #expect(over?.code == .oauthGrantExpired)
      #expect(try await keeper.accessToken(of: other, refused: AccessToken(foreign, version: 0)) == nil)
      // Set again, the application renews what was granted to it.
      _ = try await cluster.oauthClient(server, of: profile)
      #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == 1)
      // A service account's grant has no refresh token.
      try await cluster.desk().removeClient(of: profile.id, by: cluster.principal)
      try await cluster.sql("UPDATE oauth_grant SET refresh_token = NULL, expires_at = now()")
      let account = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(account?.code == .oauthNotConfigured)
    }
    await server.stop()
  }

  @Test("a new refresh token counts although a right is missing, and although the database is away at that moment")
  func rotatedInVain() async throws {
    let server = try await OAuthServer.start()
    server.change { $0.rotates = true }
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      try await cluster.age(mailbox, ended: true)
      server.change { $0.granted = "mail.read" }
      let keeper = try cluster.keeper(AwayStore(cluster.store, writes: 2))
      let scope = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(scope?.code == .oauthScope)
      server.change { $0.granted = nil }
      try await cluster.sql("UPDATE oauth_grant SET retry_at = now()")
      #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == 1)
      #expect(server.refreshes == 2)
    }
    await server.stop()
  }

  @Test("new tokens wait for a database that is away for longer than the lease")
  func savedLate() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      try await cluster.age(mailbox, ended: true)
      let keeper = try cluster.keeper(AwayStore(cluster.store, writes: 4)) { $0.lease = .milliseconds(500) }
      #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == 1)
      #expect(server.refreshes == 1)
    }
    await server.stop()
  }

  @Test("a refresh token that cannot be decrypted: the keys are at fault, and nobody waits for the lease")
  func unreadable() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.mailbox("ann@example.org", on: profile, password: nil)
      // Another process has a newer key already.
      let ahead = PostgresStore(
        configuration: PostgresStoreConfiguration(
          url: cluster.databaseURL, poolSize: 2, keyRing: try KeyRing(Secret(cluster.keys)).adding(id: "newer")),
        logger: cluster.logger)
      let desk = ConsentService(store: ahead, web: try loopbackClient(), publicURL: "https://mail.example.com")
      let request = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      _ = try await desk.finishConsent(try await Browser.consent(at: request.consentURL))
      try await cluster.age(mailbox, ended: true)
      let keeper = try cluster.keeper()
      let unreadable = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(unreadable?.code == .credentialsUnreadable)
      #expect(try await cluster.sql("SELECT refreshing_by IS NULL FROM oauth_grant") == "t")
      #expect(try await cluster.keeper(ahead).accessToken(of: mailbox, refused: nil)?.version == 1)
      await ahead.close()
    }
    await server.stop()
  }

  @Test("an application that is set to another server does not show it the refresh tokens")
  func otherServer() async throws {
    let server = try await OAuthServer.start()
    let stranger = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let ann = try await cluster.connected(profile)
      func grant(_ mailbox: MailboxID) async throws -> String {
        try await cluster.sql(
          "SELECT refresh_token IS NOT NULL, token_version FROM oauth_grant WHERE mailbox_id = \(mailbox)")
      }
      _ = try await cluster.oauthClient(server, of: profile)
      #expect(try await grant(ann) == "t|0")
      _ = try await cluster.oauthClient(server, of: profile, revokesAt: stranger)
      #expect(try await grant(ann) == "f|1")
      let bob = try await cluster.connected(profile, as: "bob@example.org")
      #expect(try await grant(bob) == "t|0")
      _ = try await cluster.oauthClient(stranger, of: profile)
      #expect(try await grant(bob) == "f|1")
      try await cluster.age(bob, ended: true)
      let keeper = try cluster.keeper()
      let ended = await failure { _ = try await keeper.accessToken(of: bob, refused: nil) }
      #expect(ended?.code == .oauthReplaced && stranger.requests.isEmpty)
    }
    await server.stop()
    await stranger.stop()
  }

  @Test("a service account takes over while the old application refreshes: what that brings counts no more")
  func takenOver() async throws {
    let server = try await OAuthServer.start()
    let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
    server.addServiceAccount("client", publicKeyPEM: key.publicKey.pemRepresentation)
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      let service = try await cluster.oauthProfile(
        server, flow: .serviceAccount, key: Secret(key.pkcs8PEMRepresentation), name: "Service")
      let lease = try #require(
        try await cluster.store.beginRefresh(of: mailbox, version: 0, holder: "old", for: .seconds(30)))
      _ = try await cluster.store.updateMailbox(mailbox, MailboxChange(profileID: service.id), by: cluster.principal)
      // The row becomes the service account's, of a newer version than was asked for.
      #expect(try await cluster.store.beginRefresh(of: mailbox, version: 0, holder: "new", for: .seconds(30)) == nil)
      let late = IssuedTokens(
        accessToken: Secret("late"), refreshToken: Secret("late-refresh"), life: .seconds(60), scopes: nil)
      #expect(try await cluster.store.finishRefresh(lease, late) == nil)
      #expect(try await cluster.keeper().accessToken(of: mailbox, refused: nil)?.version == 2)
    }
    await server.stop()
  }

  @Test("a service account speaks for each mailbox with a signed assertion")
  func serviceAccount() async throws {
    let server = try await OAuthServer.start()
    let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
    server.addServiceAccount("client", publicKeyPEM: key.publicKey.pemRepresentation)
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(
        server, flow: .serviceAccount, key: Secret(key.pkcs8PEMRepresentation))
      let keeper = try cluster.keeper()
      for address in ["ann@example.org", "bob@example.org"] {
        let mailbox = try await cluster.mailbox(address, on: profile, password: nil)
        let token = try #require(try await keeper.accessToken(of: mailbox, refused: nil))
        let page = try await Browser.open(server.introspectionURL + token.secret.revealed)
        #expect(page.text.contains("\"username\":\"\(address)\""))
        #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.version == token.version)
      }
      #expect(server.refreshes == 2)
      // A key that Google does not know is the application's fault, not the mailboxes'.
      let foreign = try _RSA.Signing.PrivateKey(keySize: .bits2048)
      server.addServiceAccount("client", publicKeyPEM: foreign.publicKey.pemRepresentation)
      let mailbox = try await cluster.mailbox("cid@example.org", on: profile, password: nil)
      let failure = await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
      #expect(failure?.code == .oauthClient && failure?.scope == .profile)
    }
    await server.stop()
  }

  @Test("with client credentials one token serves all mailboxes of the profile")
  func clientCredentials() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(
        server, flow: .clientCredentials, scopes: ["https://x.example/.default"])
      let mailboxes = try await cluster.mailboxes((0..<10).map { "m\($0)@example.org" }, on: profile, password: nil)
      let keepers = [try cluster.keeper(), try cluster.keeper()]
      let tokens = try await withThrowingTaskGroup(of: AccessToken?.self) { group in
        for (index, mailbox) in mailboxes.enumerated() {
          group.addTask { try await keepers[index % 2].accessToken(of: mailbox, refused: nil) }
        }
        return try await group.reduce(into: [AccessToken?]()) { $0.append($1) }
      }
      #expect(Set(tokens.map { $0?.secret }).count == 1 && server.refreshes == 1)
      #expect(server.requests.last?.form["scope"] == "https://x.example/.default")
    }
    await server.stop()
  }
}

extension TestCluster {
  /// Sets the application of a profile again, as an administrator does with a new secret.
  func oauthClient(
    _ server: OAuthServer, of profile: ServerProfile, revokesAt other: OAuthServer? = nil
  ) async throws -> OAuthClient {
    try await desk().setClient(
      OAuthClientDraft(
        clientID: "client", clientSecret: Secret("client-secret"), authorizationURL: server.authorizationURL,
        tokenURL: server.tokenURL, revocationURL: (other ?? server).revocationURL, scopes: ["mail.read", "mail.send"]),
      of: profile.id, by: principal)
  }
}
