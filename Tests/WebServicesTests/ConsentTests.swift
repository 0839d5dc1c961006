import Foundation
import PostriderCore
import PostriderTesting
import Testing
import WebServices

@Suite("Consents: authorization code with PKCE (feature P18)")
struct ConsentTests {
  private func consentError(_ body: () async throws -> Void) async -> ConsentError? {
    do {
      try await body()
      return nil
    } catch {
      return error as? ConsentError
    }
  }

  @Test("an owner consents, the mailbox is connected and tested; the state is good once and for this mailbox")
  func consent() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.mailbox("ann@example.org", on: profile, password: nil)
      let desk = try cluster.desk()
      #expect(try await desk.connection(of: mailbox, for: cluster.principal).state == .notConnected)
      let request = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      #expect(request.consentURL.contains("code_challenge_method=S256"))
      #expect(request.consentURL.contains("redirect_uri=https%3A%2F%2Fmail.example.com%2Foauth%2Fcallback"))
      #expect(try await desk.connection(of: mailbox, for: cluster.principal).state == .pending)
      let answer = try await Browser.consent(at: request.consentURL)
      #expect(try await desk.finishConsent(answer) == "ann@example.org")
      let connection = try await desk.connection(of: mailbox, for: cluster.principal)
      #expect(connection.state == .connected && connection.grantedBy == cluster.principal.name)
      #expect(connection.scopes == ["mail.read", "mail.send"] && connection.missingScopes.isEmpty)
      #expect(try await cluster.mailbox(mailbox).testsRequested == 1)
      // Used up, and an invented one is no better.
      let again = await consentError { _ = try await desk.finishConsent(answer) }
      #expect(again?.code == "unknown-state")
      let invented = await consentError {
        _ = try await desk.finishConsent(ConsentAnswer(state: Secret("x"), code: Secret("y")))
      }
      #expect(invented?.code == "unknown-state")
      let stored = try await cluster.sql(
        "SELECT count(*) FROM audit WHERE action IN ('mailbox.connect', 'mailbox.connected')")
      #expect(stored == "2")
    }
    await server.stop()
  }

  @Test("an older request, one whose time is over, and one of somebody who may not sign in any more, are not known")
  func endings() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.mailbox("ann@example.org", on: profile, password: nil)
      let desk = try cluster.desk()
      let older = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      let newer = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      let answer = try await Browser.consent(at: older.consentURL)
      let unknown1 = await consentError { _ = try await desk.finishConsent(answer) }
      #expect(unknown1?.code == "unknown-state")
      let current = try await Browser.consent(at: newer.consentURL)
      try await cluster.sql("UPDATE oauth_consent SET expires_at = now()")
      let unknown2 = await consentError { _ = try await desk.finishConsent(current) }
      #expect(unknown2?.code == "unknown-state")
      let third = try await Browser.consent(
        at: try await desk.beginConsent(of: mailbox, by: cluster.principal).consentURL)
      try await cluster.sql("UPDATE app_user SET is_active = false")
      let unknown3 = await consentError { _ = try await desk.finishConsent(third) }
      #expect(unknown3?.code == "unknown-state")
      #expect(!server.requests.contains { $0.path == "/token" })
    }
    await server.stop()
  }

  @Test("an owner who says no, a missing right, no offline access, a wrong verifier: said, and nothing is stored")
  func refusals() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let mailbox = try await cluster.mailbox("ann@example.org", on: profile, password: nil)
      let desk = try cluster.desk()
      func attempt(_ spoil: (inout ConsentAnswer) -> Void = { _ in }) async throws -> ConsentError? {
        let request = try await desk.beginConsent(of: mailbox, by: cluster.principal)
        var answer = try await Browser.consent(at: request.consentURL)
        spoil(&answer)
        return await consentError { _ = try await desk.finishConsent(answer) }
      }
      server.change { $0.declines = true }
      let declined = try await attempt()
      #expect(declined?.code == "declined" && declined?.description.contains("The owner said no") == true)
      server.change {
        $0.declines = false
        $0.granted = "mail.read"
      }
      let scope = try await attempt()
      #expect(scope?.code == "oauth.scope" && scope?.description.contains("mail.send") == true)
      server.change {
        $0.granted = nil
        $0.isOffline = false
      }
      #expect(try await attempt()?.code == "no-refresh-token")
      server.change { $0.isOffline = true }
      // Somebody else's code, whose verifier is another.
      let other = try await cluster.mailbox("eve@example.org", on: profile, password: nil)
      let theirs = try await Browser.consent(
        at: try await desk.beginConsent(of: other, by: cluster.principal).consentURL)
      #expect(try await attempt { $0.code = theirs.code }?.code == "oauth.grant-expired")
      #expect(try await cluster.sql("SELECT count(*) FROM oauth_grant") == "0")
    }
    await server.stop()
  }

  @Test("a mailbox that got another profile while its code was exchanged: said, and nothing is stored")
  func profileChanged() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      let other = try await cluster.oauthProfile(server, name: "Other")
      let mailbox = try await cluster.mailbox("ann@example.org", on: profile, password: nil)
      let desk = try cluster.desk()
      let request = try await desk.beginConsent(of: mailbox, by: cluster.principal)
      let answer = try await Browser.consent(at: request.consentURL)
      let hold = ScriptSignal()
      server.change { $0.hold = hold }
      async let refusal = consentError { _ = try await desk.finishConsent(answer) }
      try await eventually("the exchange") { server.requests.contains { $0.path == "/token" } }
      _ = try await cluster.store.updateMailbox(mailbox, MailboxChange(profileID: other.id), by: cluster.principal)
      hold.fire()
      let refused = await refusal
      #expect(refused?.code == "profile-changed" && refused?.description.contains("begin again") == true)
      #expect(try await cluster.sql("SELECT count(*) FROM oauth_grant") == "0")
    }
    await server.stop()
  }

  @Test("a connection is ended: the grant is forgotten, the provider told, both directions stand still")
  func disconnection() async throws {
    let server = try await OAuthServer.start()
    try await withCluster { cluster in
      let mailbox = try await cluster.connected(try await cluster.oauthProfile(server))
      try await cluster.enable(mailbox)
      #expect(server.refreshTokens.count == 1)
      let desk = try cluster.desk()
      let ended = try await desk.disconnect(mailbox, by: cluster.principal)
      #expect(ended.wasConnected && ended.revoked == true && server.refreshTokens.isEmpty)
      let state = try await cluster.mailbox(mailbox).incoming
      #expect(!state.enabled && state.status == .notRun)
      #expect(try await desk.connection(of: mailbox, for: cluster.principal).state == .notConnected)
      #expect(try await desk.disconnect(mailbox, by: cluster.principal).wasConnected == false)
    }
    await server.stop()
  }

  @Test("a stored secret is never shown to another address, and addresses inside are refused on save")
  func applications() async throws {
    try await withCluster { cluster in
      let profile = try await cluster.profile(
        incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, credentials: .oauth))
      func set(_ draft: OAuthClientDraft, _ desk: ConsentService) async throws -> OAuthClient {
        try await desk.setClient(draft, of: profile.id, by: cluster.principal)
      }
      let strict = try ConsentService(
        store: cluster.store, web: WebClient(egress: .init()), publicURL: "https://mail.example.com")
      var draft = OAuthClientDraft(
        flow: .clientCredentials, clientID: "c", clientSecret: Secret("s"), tokenURL: "https://login.example.com/token",
        scopes: ["x"])
      #expect(try await set(draft, strict).secretSet)
      draft.clientSecret = nil
      #expect(try await set(draft, strict).secretSet)
      draft.tokenURL = "https://elsewhere.example.com/token"
      await #expect(throws: StoreError.self) { try await set(draft, strict) }
      for url in ["https://10.0.0.1/", "https://login.example.com:8443/", "http://login.example.com/", "https://a@b/"] {
        draft.clientSecret = Secret("s")
        draft.tokenURL = url
        await #expect(throws: StoreError.self, "\(url)") { try await set(draft, strict) }
      }
      let shown = try await strict.client(of: profile.id, for: cluster.principal)
      #expect(shown.tokenURL == "https://login.example.com/token" && shown.flow == .clientCredentials)
      try await strict.removeClient(of: profile.id, by: cluster.principal)
      await #expect(throws: StoreError.self) { try await strict.client(of: profile.id, for: cluster.principal) }
    }
  }

  @Test("presets: Gmail and Microsoft 365 fill in their addresses and scopes")
  func presets() throws {
    let gmail = try OAuthRules.resolve(OAuthClientDraft(clientID: "c"), of: .gmail)
    #expect(gmail.scopes == ["https://mail.google.com/"] && gmail.tokenURL.host == "oauth2.googleapis.com")
    #expect(gmail.authorizationURL?.target.contains("access_type=offline") == true)
    let microsoft = try OAuthRules.resolve(OAuthClientDraft(clientID: "c", tenant: "example.com"), of: .microsoft365)
    #expect(microsoft.tokenURL.description == "https://login.microsoftonline.com/example.com/oauth2/v2.0/token")
    #expect(microsoft.scopes.contains("offline_access") && microsoft.scopes.count == 3)
    let app = OAuthClientDraft(flow: .clientCredentials, clientID: "c")
    #expect(throws: StoreError.self) { try OAuthRules.resolve(app, of: .microsoft365) }
    #expect(throws: StoreError.self) { try OAuthRules.resolve(OAuthClientDraft(clientID: "c"), of: .pop3SMTP) }
    let week = GrantDiagnosis(
      grantedAt: Date(timeIntervalSince1970: 0), tokenHost: "oauth2.googleapis.com",
      endedAt: Date(timeIntervalSince1970: 7 * 86_400 + 60))
    #expect(week.words().contains { $0.contains("Testing") })
  }
}
