import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing
import WebServices

/// A Dovecot and a Postfix that believe what an authorization server says of tokens.
private struct TokenProvider: Sendable {
  let sandbox: MailSandbox
  let server: OAuthServer

  static let password = "the right password"
  private static let starting = Task {
    let server = try await OAuthServer.start()
    var options = MailSandbox.Options()
    options.submission = .whenRoot
    options.dovecot.mechanisms += ["xoauth2", "oauthbearer"]
    options.dovecot.introspectionURL = server.introspectionURL
    let sandbox = try await MailSandbox.start(
      in: try await TestServers.shared.dedicatedDirectory(named: "oauth"), options: options)
    return TokenProvider(sandbox: sandbox, server: server)
  }

  static func shared() async throws -> TokenProvider { try await starting.value }

  /// A new account, which could log in by its password as well.
  func account(_ name: String) async throws -> String {
    let address = "\(name)@\(sandbox.domain)"
    try await sandbox.addAccount(address, password: Self.password)
    return address
  }

  /// The server as each test wants to find it.
  func reset() { server.change { $0 = OAuthServer.Behaviour() } }
}

extension TestCluster {
  fileprivate func desk() throws -> ConsentService {
    let web = try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*"))
    return ConsentService(store: store, web: web, publicURL: "https://mail.example.com")
  }

  /// A profile of the provider's mail servers with its application.
  fileprivate func profile(
    of provider: TokenProvider, _ name: String = "OAuth", mechanism: AuthenticationMechanism = .auto,
    secret: String = "client-secret"
  ) async throws -> ServerProfile {
    let sandbox = provider.sandbox
    let profile = try await profile(
      name,
      incoming: ServerDraft(
        host: sandbox.hostName, port: sandbox.pop3sPort, tls: .implicit, credentials: .oauth, mechanism: mechanism),
      outgoing: ServerDraft(
        host: sandbox.hostName, port: sandbox.submissionPort ?? 1, tls: .starttls, mechanism: mechanism),
      caPEM: sandbox.caPEM)
    try await setClient(of: profile, provider, secret: secret)
    return profile
  }

  fileprivate func setClient(of profile: ServerProfile, _ provider: TokenProvider, secret: String) async throws {
    _ = try await desk().setClient(
      OAuthClientDraft(
        clientID: "client", clientSecret: Secret(secret), authorizationURL: provider.server.authorizationURL,
        tokenURL: provider.server.tokenURL, revocationURL: provider.server.revocationURL, scopes: ["mail"]),
      of: profile.id, by: principal)
  }

  /// Consents as the owner of a mailbox, and waits for the test that follows.
  fileprivate func connect(_ mailbox: MailboxID) async throws -> RunRecord {
    let desk = try desk()
    let request = try await desk.beginConsent(of: mailbox, by: principal)
    _ = try await desk.finishConsent(try await Browser.consent(at: request.consentURL))
    return try await eventually("the test after the consent") {
      let now = try await self.mailbox(mailbox)
      guard now.testsServed >= now.testsRequested, let run = now.lastTestRunID else { return nil }
      return try await self.store.run(run, for: self.principal)
    }
  }
}

@Suite("OAuth at a real Dovecot and Postfix (features P18, P19)", .serialized)
struct OAuthTests {
  @Test(
    "a consent connects, tests and enables; polls and sends log in with the token", .enabled(if: geteuid() == 0),
    arguments: [AuthenticationMechanism.xoauth2, .oauthbearer])
  func endToEnd(mechanism: AuthenticationMechanism) async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    let address = try await provider.account("both-\(mechanism.rawValue)")
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(of: provider, mechanism: mechanism)
      let mailbox = try await cluster.mailbox(address, on: profile, password: nil, outgoing: .serverSideSync)
      let test = try await cluster.connect(mailbox)
      #expect(test.result == .success, "\(test)")
      for direction in Direction.allCases {
        let steps = test.steps.filter { $0.direction == direction }
        #expect(steps.contains { $0.name == .token && $0.result == .ok }, "\(direction)")
        let login = steps.first { $0.name == .authenticate }
        #expect(login?.tried.hasSuffix("by \(mechanism.rawValue.uppercased())") == true, "\(String(describing: login))")
      }
      try provider.sandbox.deliver(to: address, subject: "by token")
      let emails = try await cluster.received(1, by: mailbox)
      #expect(emails.contains { $0.envelope.subject == "by token" })
      let email = try await cluster.submit("sent by token", from: mailbox, to: [address])
      _ = try await cluster.waitForState(.sent, of: email)
    }
  }

  @Test("a token that the mail server does not take any more: one refresh, the login tried again, nobody disabled")
  func expired() async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    let address = try await provider.account("expired")
    try await Spine.with { spine in
      let cluster = spine.cluster
      let mailbox = try await cluster.mailbox(
        address, on: try await cluster.profile(of: provider), password: TokenProvider.password)
      #expect(try await cluster.connect(mailbox).result == .success)
      let before = provider.server.refreshes
      provider.server.expireAccessTokens()
      let poll = try await cluster.poll(mailbox)
      #expect(poll.result == .success, "\(poll)")
      #expect(provider.server.refreshes == before + 1)
      #expect(try await cluster.poll(mailbox).result == .success && provider.server.refreshes == before + 1)
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
    }
  }

  @Test("two workers that poll and send for one mailbox at once refresh its token once", .enabled(if: geteuid() == 0))
  func twoWorkers() async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    let address = try await provider.account("two")
    try await Spine.with(workers: 2, configure: { $0.sessions = 1 }) { spine in
      let cluster = spine.cluster
      let mailbox = try await cluster.mailbox(
        address, on: try await cluster.profile(of: provider), password: nil, outgoing: .serverSideSync)
      #expect(try await cluster.connect(mailbox).result == .success)
      let before = provider.server.refreshes
      let asked = provider.server.requests.count { $0.path == "/token" }
      let hold = ScriptSignal()
      provider.server.change {
        $0.hold = hold
        $0.rotates = true
      }
      try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now()")
      let email = try await cluster.submit("two", from: mailbox, to: [address])
      async let poll = cluster.poll(mailbox)
      try await eventually("a refresh") { provider.server.requests.count { $0.path == "/token" } > asked }
      // One slot each: both workers have a session of this mailbox, and both wait.
      try await spine.withGuard { serverGuard in
        try await eventually("both sessions") { try await serverGuard.sessionsUnderWay() == 2 }
      }
      hold.fire()
      #expect(try await poll.result == .success)
      _ = try await cluster.waitForState(.sent, of: email)
      #expect(provider.server.refreshes == before + 1)
      #expect(provider.server.requests.count { $0.path == "/token" } == asked + 1)
    }
  }

  @Test(
    "a token server that is down stops nobody for good; a consent that ended disables, and no password is tried"
  )
  func failures() async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    let address = try await provider.account("failing")
    try await Spine.with { spine in
      let cluster = spine.cluster
      let mailbox = try await cluster.mailbox(
        address, on: try await cluster.profile(of: provider), password: TokenProvider.password)
      #expect(try await cluster.connect(mailbox).result == .success)
      func endToken() async throws {
        try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now(), retry_at = NULL")
      }
      provider.server.change { $0.fault = .json(503, "{}") }
      try await endToken()
      let down = try await cluster.poll(mailbox)
      #expect(
        down.failure?.code == .oauthTemporary && down.steps.contains { $0.name == .token && $0.code == .oauthTemporary }
      )
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
      // Nor does a test that meets it.
      #expect(try await cluster.test(mailbox).failure?.code == .oauthTemporary)
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
      provider.reset()
      try await endToken()
      #expect(try await cluster.poll(mailbox).result == .success)
      // The alert goes with the fault.
      #expect(try await cluster.alerts().allSatisfy { $0.resolvedAt != nil })
      provider.server.revokeGrants()
      try await endToken()
      // The token server is asked once more.
      #expect(try await cluster.poll(mailbox).failure?.code == .oauthGrantExpired)
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
      let asked = provider.server.requests.count
      try await endToken()
      let ended = try await cluster.poll(mailbox)
      #expect(provider.server.requests.count == asked + 1)
      #expect(ended.failure?.code == .oauthGrantExpired, "\(ended)")
      #expect(!ended.steps.contains { $0.name == .authenticate })
      let state = try await cluster.mailbox(mailbox).incoming
      #expect(!state.enabled && state.status == .failure && state.failureCode == "oauth.grant-expired")
      let alert = try await cluster.alerts(of: mailbox).first { $0.code == "oauth.grant-expired" }
      #expect(alert?.level == .error && alert?.remedy?.contains("postrider mailbox connect") == true)
      // The owner consents again.
      #expect(try await cluster.connect(mailbox).result == .success)
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
    }
  }

  @Test("a refused application: one alert of the profile, nobody disabled, on again with the new secret")
  func application() async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    let addresses = [try await provider.account("app1"), try await provider.account("app2")]
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(of: provider)
      let mailboxes = try await cluster.mailboxes(addresses, on: profile, password: nil)
      for mailbox in mailboxes { #expect(try await cluster.connect(mailbox).result == .success) }
      provider.server.setSecret("rotated-secret")
      try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now()")
      #expect(try await cluster.poll(mailboxes[0]).failure?.code == .oauthClient)
      _ = try await cluster.poll(mailboxes[1])
      let alerts = try await cluster.alerts().filter { $0.resolvedAt == nil }
      #expect(alerts.map(\.code) == ["oauth.client"], "\(alerts)")
      for mailbox in mailboxes { #expect(try await cluster.mailbox(mailbox).incoming.enabled) }
      try await cluster.setClient(of: profile, provider, secret: "rotated-secret")
      for mailbox in mailboxes { #expect(try await cluster.poll(mailbox).result == .success) }
    }
    provider.server.setSecret("client-secret")
  }

  /// How many keys and values of Redis hold a text.
  private func countInRedis(_ text: String) async throws -> Int {
    let script = """
      local n=0 local c={hash='HGETALL',string='GET'} local function look(v) if type(v)=='table' then for _,e in \
      ipairs(v) do look(e) end elseif v and string.find(tostring(v),ARGV[1],1,true) then n=n+1 end end for _,k in \
      ipairs(redis.call('KEYS','*')) do look(k) local t=redis.call('TYPE',k).ok if t=='zset' then \
      look(redis.call('ZRANGE',k,0,-1)) elseif c[t] then look(redis.call(c[t],k)) end end return {ok=tostring(n)}
      """
    let redis = try await TestServers.shared.redis()
    let answer = try #require(redis.ask("EVAL \"\(script)\" 0 \(text)"))
    return try #require(Int(answer.dropFirst()), "\(answer)")
  }

  @Test("of tokens, codes and secrets nothing is in logs, in the database, in Redis")
  func canaries() async throws {
    let provider = try await TokenProvider.shared()
    provider.reset()
    provider.server.change { $0.rotates = true }
    let address = try await provider.account("canary")
    let keeper = LogKeeper()
    try await Spine.with(TestCluster.Options(logger: keeper.logger)) { spine in
      let cluster = spine.cluster
      let mailbox = try await cluster.mailbox(address, on: try await cluster.profile(of: provider), password: nil)
      _ = try await cluster.connect(mailbox)
      provider.server.expireAccessTokens()
      _ = try await cluster.poll(mailbox)
      var secrets = provider.server.accessTokens + provider.server.refreshTokens + ["client-secret"]
      // A server that says everything it was told.
      provider.server.revokeGrants()
      try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now()")
      #expect(try await cluster.poll(mailbox).failure?.code == .oauthGrantExpired)
      let request = try await cluster.desk().beginConsent(of: mailbox, by: cluster.principal)
      secrets += provider.server.requests.flatMap { request in
        [request.form["code"], request.form["code_verifier"], request.form["refresh_token"]].compactMap { $0 }
      }
      secrets.append(
        try #require(WebURL(request.consentURL)?.target.split(separator: "state=").last).description
          .split(separator: "&").first.map(String.init) ?? "")
      #expect(secrets.count >= 8 && secrets.allSatisfy { $0.count >= 8 })
      let tables = try await cluster.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")
      var stored = ""
      for table in tables.split(separator: "\n") {
        stored += try await cluster.sql("SELECT coalesce(string_agg(x::text, ' '), '') FROM \"\(table)\" x")
      }
      #expect(stored.contains("oauth.grant-expired") && stored.contains("redacted"))
      #expect(try await countInRedis("cluster") > 0)
      for secret in secrets {
        let hex = secret.utf8.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let base64 = String(Data(secret.utf8).base64EncodedString().prefix(20))
        for form in [secret, hex, base64] {
          #expect(!stored.contains(form) && !keeper.text.contains(form), "\(form)")
          #expect(try await countInRedis(form) == 0, "\(form)")
        }
      }
    }
  }
}
