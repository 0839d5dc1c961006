import Foundation
import PostriderCore
import PostriderTesting
import Testing
import WebServices

/// A grant is shown to the servers of its consent alone, however its profile got another application (D169).
@Suite("Refresh tokens, codes and verifiers go to the server of the consent alone (feature P18)")
struct GrantOriginTests {
  private struct Site {
    let cluster: TestCluster
    let server: OAuthServer
    let stranger: OAuthServer
    let profile: ServerProfile

    /// The application of a profile goes, and another server's comes.
    func replace() async throws {
      try await cluster.desk().removeClient(of: profile.id, by: cluster.principal)
      _ = try await cluster.oauthClient(stranger, of: profile)
    }

    func answer(of mailbox: MailboxID) async throws -> ConsentAnswer {
      let request = try await cluster.desk().beginConsent(of: mailbox, by: cluster.principal)
      return try await Browser.consent(at: request.consentURL)
    }

    /// Why a consent came to nothing; `nil` when it came to something.
    func refusal(_ answer: ConsentAnswer) async -> ConsentError? {
      do {
        _ = try await cluster.desk().finishConsent(answer)
        return nil
      } catch {
        return error as? ConsentError ?? ConsentError(code: "other", "\(error)")
      }
    }

    func token(of mailbox: MailboxID) async throws -> Failure? {
      let keeper = try cluster.keeper()
      return await failure { _ = try await keeper.accessToken(of: mailbox, refused: nil) }
    }

    func grants() async throws -> String {
      try await cluster.sql("SELECT count(*), count(refresh_token) FROM oauth_grant")
    }
  }

  private func withSite(_ body: (Site) async throws -> Void) async throws {
    let server = try await OAuthServer.start()
    let stranger = try await OAuthServer.start()
    try await withCluster { cluster in
      let profile = try await cluster.oauthProfile(server)
      try await body(Site(cluster: cluster, server: server, stranger: stranger, profile: profile))
    }
    await server.stop()
    await stranger.stop()
  }

  @Test("an application that is removed and set at another server gets no refresh token, also not to take it back")
  func removedAndSet() async throws {
    try await withSite { site in
      let cluster = site.cluster
      let mailbox = try await cluster.connected(site.profile)
      let other = try await cluster.connected(site.profile, as: "bob@example.org")
      try await site.replace()
      // What is good is used to its end.
      let keeper = try cluster.keeper()
      let good = try #require(try await keeper.accessToken(of: mailbox, refused: nil))
      let refused = await failure { _ = try await keeper.accessToken(of: mailbox, refused: good) }
      #expect(refused?.code == .oauthReplaced)
      try await cluster.age(mailbox, ended: true)
      let ended = try await site.token(of: mailbox)
      #expect(ended?.code == .oauthReplaced && ended?.failureClass == .credential && ended?.scope == .mailbox)
      #expect(ended?.remedy.contains("mailbox connect") == true)
      let shown = try await cluster.store.connection(of: mailbox, for: cluster.principal)
      #expect(shown.state == .failing && shown.failureCode == "oauth.application-replaced")
      #expect(shown.failureWords?.contains("mailbox connect") == true)
      let disconnection = try await cluster.desk().disconnect(other, by: cluster.principal)
      #expect(disconnection.wasConnected && disconnection.revoked != true)
      #expect(site.stranger.requests.isEmpty)
      // The owner consents to the new one, and all is well.
      #expect(await site.refusal(try await site.answer(of: mailbox)) == nil)
      try await cluster.age(mailbox, ended: true)
      #expect(try await keeper.accessToken(of: mailbox, refused: nil)?.isNew == true)
      #expect(site.stranger.refreshes == 1 && site.server.refreshes == 0)
      #expect(try await cluster.store.connection(of: mailbox, for: cluster.principal).state == .connected)
    }
  }

  @Test("a refresh looks at the consent's server itself: nobody has to have forgotten the token before")
  func notForgotten() async throws {
    try await withSite { site in
      let cluster = site.cluster
      let mailbox = try await cluster.connected(site.profile)
      try await cluster.age(mailbox, ended: true)
      // As a process of the previous release sets it after a removal.
      try await cluster.sql("UPDATE oauth_client SET token_url = '\(site.stranger.tokenURL)'")
      #expect(try await site.grants() == "1|1")
      let lease = try await cluster.store.beginRefresh(of: mailbox, version: 0, holder: "a", for: .seconds(30))
      #expect(lease == nil)
      #expect(try await site.token(of: mailbox)?.code == .oauthReplaced)
      let shown = try await cluster.store.connection(of: mailbox, for: cluster.principal)
      #expect(shown.failureCode == "oauth.application-replaced")
      // Set right again, it goes on; and so does another path of the same server.
      try await cluster.sql("UPDATE oauth_client SET token_url = '\(site.server.tokenURL)?tenant=1'")
      #expect(try await site.token(of: mailbox) == nil && site.server.refreshes == 1)
      // A consent that a process of the previous release stores is marked as well.
      try await cluster.sql(
        """
        UPDATE oauth_client SET token_url = '\(site.stranger.tokenURL)';
        UPDATE oauth_grant SET granted_at = now()
        """)
      let origin = try await cluster.sql("SELECT token_origin FROM oauth_grant")
      #expect(origin == String(site.stranger.tokenURL.dropLast("/token".count)))
    }
  }

  @Test("the application was replaced, changed or removed before the owner came back: said, and no server is asked")
  func replacedBefore() async throws {
    try await withSite { site in
      let cluster = site.cluster
      let mailbox = try await cluster.mailbox("ann@example.org", on: site.profile, password: nil)
      let desk = try cluster.desk()
      func change(_ client: String, _ server: OAuthServer, secret: String = "client-secret") async throws {
        _ = try await desk.setClient(
          OAuthClientDraft(
            clientID: client, clientSecret: Secret(secret), authorizationURL: server.authorizationURL,
            tokenURL: server.tokenURL, scopes: ["mail.read", "mail.send"]),
          of: site.profile.id, by: cluster.principal)
      }
      let replaced = try await site.answer(of: mailbox)
      try await site.replace()
      let refusal = await site.refusal(replaced)
      #expect(refusal?.code == "application-replaced", "\(String(describing: refusal))")
      #expect(refusal?.description.contains("ann@example.org") == true)
      #expect(refusal?.description.contains("begin again") == true)
      #expect(await site.refusal(replaced)?.code == "unknown-state")
      try await change("client", site.server)
      let another = try await site.answer(of: mailbox)
      try await change("another", site.server)
      #expect(await site.refusal(another)?.code == "application-replaced")
      try await change("client", site.server)
      let removed = try await site.answer(of: mailbox)
      try await desk.removeClient(of: site.profile.id, by: cluster.principal)
      #expect(await site.refusal(removed)?.code == "application-replaced")
      #expect(!(site.server.requests + site.stranger.requests).contains { $0.path == "/token" })
      #expect(try await site.grants() == "0|0")
      // A new secret of the same application changes nothing.
      try await change("client", site.server, secret: "typo")
      let same = try await site.answer(of: mailbox)
      try await change("client", site.server)
      #expect(await site.refusal(same) == nil)
      #expect(try await site.grants() == "1|1")
    }
  }

  @Test(
    "the application was replaced while the code was exchanged: said, and nothing is stored", arguments: [true, false])
  func replacedMeanwhile(isSetAgain: Bool) async throws {
    try await withSite { site in
      let cluster = site.cluster
      let mailbox = try await cluster.mailbox("ann@example.org", on: site.profile, password: nil)
      let answer = try await site.answer(of: mailbox)
      let hold = ScriptSignal()
      site.server.change { $0.hold = hold }
      async let refusal = site.refusal(answer)
      try await eventually("the exchange") { site.server.requests.contains { $0.path == "/token" } }
      if isSetAgain {
        try await site.replace()
      } else {
        try await cluster.desk().removeClient(of: site.profile.id, by: cluster.principal)
      }
      hold.fire()
      #expect(await refusal?.code == "application-replaced")
      #expect(try await site.grants() == "0|0" && site.stranger.requests.isEmpty)
      #expect(try await cluster.mailbox(mailbox).testsRequested == 0)
    }
  }

  @Test(
    "consents that come back just as the application is replaced: refused, or forgotten; never shown to the new one")
  func race() async throws {
    try await withSite { site in
      let cluster = site.cluster
      let mailboxes = try await cluster.mailboxes(
        (0..<16).map { "m\($0)@example.org" }, on: site.profile, password: nil)
      let answers = try await withThrowingTaskGroup(of: (Int, ConsentAnswer).self) { group in
        for (index, mailbox) in mailboxes.enumerated() {
          group.addTask { (index, try await site.answer(of: mailbox)) }
        }
        return try await group.reduce(into: [Int: ConsentAnswer]()) { $0[$1.0] = $1.1 }
      }
      let hold = ScriptSignal()
      site.server.change { $0.hold = hold }
      let refusals = try await withThrowingTaskGroup(of: ConsentError?.self) { group in
        for answer in answers.values { group.addTask { await site.refusal(answer) } }
        try await eventually("the exchanges") {
          site.server.requests.count { $0.path == "/token" } == mailboxes.count
        }
        async let replaced: Void = site.replace()
        hold.fire()
        try await replaced
        return try await group.reduce(into: [ConsentError?]()) { $0.append($1) }
      }
      #expect(refusals.allSatisfy { $0 == nil || $0?.code == "application-replaced" }, "\(refusals)")
      #expect(refusals.count == mailboxes.count)
      #expect(try await site.grants() == "\(refusals.count { $0 == nil })|0")
      try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now()")
      for mailbox in mailboxes {
        let code = try await site.token(of: mailbox)?.code
        #expect(code == .oauthReplaced || code == .oauthNotConnected, "\(String(describing: code))")
      }
      #expect(site.stranger.requests.isEmpty)
    }
  }
}
