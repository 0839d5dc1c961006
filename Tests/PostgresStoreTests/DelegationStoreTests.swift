import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("One account of a profile, many mailboxes (feature P8)")
struct DelegationStoreTests {
  private func profile(
    _ database: TestDatabase, _ name: String, loginAs: String?, mechanism: AuthenticationMechanism? = nil,
    password: Secret? = Secret("master")
  ) async throws -> ServerProfile {
    let draft = ProfileDraft(
      name: name, type: .pop3SMTP,
      incoming: ServerDraft(
        host: "pop.example.com", credentials: .profile, mechanism: mechanism, userName: "sync", password: password,
        loginAs: loginAs),
      outgoing: ServerDraft(host: "smtp.example.com"))
    return try await database.store.createProfile(try ProfileRules().resolve(draft), by: database.principal)
  }

  private func mailbox(
    _ database: TestDatabase, _ address: String, _ profile: ServerProfile?, userName: String? = nil,
    incoming: SyncMethod? = nil
  ) async throws -> Mailbox {
    try await database.store.createMailbox(
      MailboxDraft(address: address, profileID: profile?.id, incomingMethod: incoming, userName: userName),
      by: database.principal)
  }

  /// The code with which a change is refused.
  private func refusal(_ body: () async throws -> Void) async -> String? {
    do {
      try await body()
      return nil
    } catch StoreError.conflict(let code, _) {
      return code
    } catch {
      return "\(error)"
    }
  }

  @Test("without loginAs the second mailbox is refused, made or moved; one that does not poll is not")
  func noDelegation() async throws {
    try await TestDatabase.with { database in
      let profile = try await profile(database, "own drop", loginAs: nil)
      let first = try await mailbox(database, "a@example.com", profile)
      #expect(await refusal { _ = try await mailbox(database, "b@example.com", profile) } == "profile.no-delegation")
      let silent = try await mailbox(database, "c@example.com", profile, incoming: SyncMethod.none)
      let other = try await database.profile("other", isDefault: false)
      let moving = try await mailbox(database, "d@example.com", other)
      func move(_ mailbox: Mailbox, to profile: ServerProfile) async throws {
        _ = try await database.store.updateMailbox(
          mailbox.id, MailboxChange(profileID: profile.id), by: database.principal)
      }
      #expect(await refusal { try await move(moving, to: profile) } == "profile.no-delegation")
      #expect(try await database.store.mailbox(moving.id, for: database.principal).profileID == other.id)
      // Also past the program.
      await #expect(throws: (any Error).self) {
        try await database.sql(
          "UPDATE mailbox SET incoming_method = 'server-side-sync' WHERE id = $1", [.id(silent.id)])
      }
      try await move(first, to: other)
      try await move(moving, to: profile)
    }
  }

  @Test("with loginAs each mailbox has a maildrop of its own: the same user name twice is refused")
  func ownMaildrop() async throws {
    try await TestDatabase.with { database in
      for (index, loginAs) in ["authzid", "{mailbox}*{user}"].enumerated() {
        let profile = try await profile(database, loginAs, loginAs: loginAs)
        #expect(profile.incoming.loginAs?.rawValue == loginAs && profile.outgoing.loginAs == nil)
        _ = try await mailbox(database, "a\(index)@example.com", profile)
        _ = try await mailbox(database, "b\(index)@example.com", profile, userName: "bob")
        for (address, name) in [("c\(index)@example.com", "A\(index)@example.com"), ("d\(index)@example.com", "BOB")] {
          #expect(
            await refusal { _ = try await mailbox(database, address, profile, userName: name) }
              == "profile.maildrop-taken")
        }
        // Elsewhere the name is free.
        _ = try await mailbox(
          database, "e\(index)@example.com", try await database.profile("free \(index)", isDefault: false),
          userName: "bob")
      }
    }
  }

  @Test("of two that come at once one is refused")
  func atOnce() async throws {
    try await TestDatabase.with { database in
      let profile = try await profile(database, "own drop", loginAs: nil)
      let refusals = await withTaskGroup(of: String?.self) { group in
        for number in 1...4 {
          group.addTask { await refusal { _ = try await mailbox(database, "m\(number)@example.com", profile) } }
        }
        return await group.reduce(into: []) { $0.append($1) }
      }
      #expect(refusals.filter { $0 == nil }.count == 1)
      #expect(refusals.filter { $0 == "profile.no-delegation" }.count == 3, "\(refusals)")
    }
  }

  @Test("a profile cannot lose its loginAs while several mailboxes use it")
  func profileKeepsIt() async throws {
    try await TestDatabase.with { database in
      let profile = try await profile(database, "masters", loginAs: "authzid")
      _ = try await mailbox(database, "a@example.com", profile)
      try await database.sql("UPDATE server_profile SET incoming_login_as = NULL WHERE id = $1", [.id(profile.id)])
      try await database.sql("UPDATE server_profile SET incoming_login_as = 'authzid' WHERE id = $1", [.id(profile.id)])
      _ = try await mailbox(database, "b@example.com", profile)
      await #expect(throws: (any Error).self) {
        try await database.sql("UPDATE server_profile SET incoming_login_as = NULL WHERE id = $1", [.id(profile.id)])
      }
    }
  }

  @Test("what a session logs in with")
  func credentials() async throws {
    try await TestDatabase.with { database in
      func incoming(_ mailbox: Mailbox) async throws -> SessionSettings {
        let lease = database.lease(mailbox.id, .test, mailbox.profileID ?? ProfileID(1))
        _ = try await database.store.setApproval(.approved, of: [mailbox.id], by: database.principal)
        _ = try await database.store.requestTest(of: [mailbox.id], by: database.principal)
        guard case .run(let assignment) = try await database.store.check([lease])[lease.job] else {
          throw TimedOut(what: "a runnable test")
        }
        return assignment.settings
      }
      let identity = try await profile(database, "identity", loginAs: "authzid")
      #expect(
        try await incoming(try await mailbox(database, "a@example.com", identity)).incomingCredentials
          == Credentials(userName: "sync", password: Secret("master"), authorizationIdentity: "a@example.com"))
      let template = try await profile(database, "template", loginAs: "{mailbox}*{user}")
      #expect(
        try await incoming(try await mailbox(database, "b@example.com", template, userName: "bob")).incomingCredentials
          == Credentials(userName: "bob*sync", password: Secret("master")))
      let trick = try await incoming(try await mailbox(database, "c@example.com", template, userName: "bob*x"))
      #expect(trick.incomingCredentials == nil && trick.credentialsProblem == .credentialsAmbiguous)
      let kerberos = try await profile(
        database, "kerberos", loginAs: "authzid", mechanism: .gssapi, password: nil)
      #expect(
        try await incoming(try await mailbox(database, "d@example.com", kerberos)).incomingCredentials
          == Credentials(userName: "sync", proof: .workerIdentity, authorizationIdentity: "d@example.com"))
    }
  }

  @Test("an access token is encrypted, counts from its version on, and ends with its time")
  func tokens() async throws {
    try await TestDatabase.with { database in
      let draft = ProfileDraft(
        name: "OAuth", type: .pop3SMTP, incoming: ServerDraft(host: "pop.example.com", credentials: .oauth),
        outgoing: ServerDraft(host: "smtp.example.com"))
      let profile = try await database.store.createProfile(
        try ProfileRules().resolve(draft), by: database.principal)
      let mailbox = try await mailbox(database, "a@example.com", profile)
      _ = try await database.store.setApproval(.approved, of: [mailbox.id], by: database.principal)
      let store = database.store
      #expect(try await store.tokenState(of: mailbox.id).token == nil)
      for (version, token) in ["first-token", "second-token"].enumerated() {
        try await store.storeAccessToken(
          Secret(token), expiresAt: Date(timeIntervalSinceNow: 3_600), mailbox: mailbox.id, by: database.principal)
        let state = try await store.tokenState(of: mailbox.id)
        #expect(
          state.token == AccessToken(Secret(token), version: Int64(version)) && !state.isDue && !state.isRenewable)
        var row = try await database.sql("SELECT access_token FROM oauth_grant")[0]
        #expect(!String(decoding: try row.bytesOrNil() ?? [], as: UTF8.self).contains("token"))
      }
      try await store.storeAccessToken(
        Secret("old"), expiresAt: Date(timeIntervalSinceNow: -1), mailbox: mailbox.id, by: database.principal)
      #expect(try await store.tokenState(of: mailbox.id).token == nil)
      let stranger = try await database.otherPrincipal()
      await #expect(throws: StoreError.self) {
        try await database.store.storeAccessToken(
          Secret("x"), expiresAt: Date(), mailbox: mailbox.id, by: stranger)
      }
    }
  }
}
