import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Changes of a profile's servers and logins", .timeLimit(.minutes(3)))
struct ProfileChangeStoreTests {
  private static func change(_ fill: (inout ProfileChange) -> Void) -> ProfileChange {
    var change = ProfileChange()
    fill(&change)
    return change
  }

  @Test("another host asks first, then makes that direction of each mailbox untested; the other runs on")
  func host() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let tested = try await database.runningMailbox("a@example.com")
      let other = try await database.mailbox("b@example.com")
      _ = try await store.requestTest(of: [tested.id], by: database.principal)
      let (lease, assignment) = try await database.assignment(tested, .test)
      var change = Self.change { $0.incoming = ServerChange(host: "pop2.example.com") }
      let error = await #expect(throws: StoreError.self) {
        try await store.updateProfile(profile.id, change, by: database.principal)
      }
      guard case .conflict(code: "needs-new-tests", let message) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      // The one that was never tested does not count.
      #expect(message.hasPrefix("1 mailbox stands still"))
      let untouched = try await store.profile(profile.id, for: database.principal)
      #expect(untouched.incoming == profile.incoming && untouched.version == profile.version)

      change.confirmsNewTests = true
      let changed = try await store.updateProfile(profile.id, change, by: database.principal)
      #expect(changed.incoming.host == "pop2.example.com" && changed.incoming.port == 995)
      #expect(changed.outgoing == profile.outgoing && changed.version == profile.version + 1)
      let now = try await store.mailbox(tested.id, for: database.principal)
      #expect(now.incoming.status == .notRun && !now.incoming.enabled)
      #expect(now.incoming.notRunningReason == "not-tested" && now.incoming.nextRunAt == nil)
      #expect(now.outgoing.status == .success && now.outgoing.enabled)
      #expect(try await store.mailbox(other.id, for: database.principal).version == other.version)
      // A test that began before proves nothing; the next one does.
      let late = database.outcome(
        lease, assignment,
        directions: [DirectionChange(.incoming, status: .success, enabled: true)])
      #expect(try await store.commit(late) == .fenced)
      try await database.pass(tested)
      #expect(try await store.mailbox(tested.id, for: database.principal).incoming.enabled)
      #expect(try await database.assignment(tested, .poll).1.settings.incoming.host == "pop2.example.com")
    }
  }

  @Test(
    "what changes no login asks nothing and stops nothing; a name that is taken is refused; the default switch moves")
  func harmless() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let first = try await database.profile("First")
      let second = try await database.profile("Second", isDefault: false)
      let mailbox = try await database.runningMailbox("a@example.com")
      #expect(mailbox.profileID == first.id)
      let changed = try await store.updateProfile(
        first.id,
        Self.change {
          $0.name = "Third"
          $0.description = "for people"
          $0.connectionTimeoutSeconds = 7
          $0.caCertificatesPEM = "-----BEGIN CERTIFICATE-----\n"
          $0.processEmailFrom = Date(timeIntervalSince1970: 1_735_689_600)
        }, by: database.principal)
      #expect(changed.name == "Third" && changed.caCertificatesPEM != nil && changed.processEmailFrom != nil)
      #expect(try await store.mailbox(mailbox.id, for: database.principal).incoming.enabled)
      let settings = try await database.assignment(mailbox, .poll).1.settings
      #expect(settings.connectionTimeout == .seconds(7) && settings.caCertificatesPEM != nil)
      await #expect(throws: StoreError.self) {
        try await store.updateProfile(first.id, Self.change { $0.name = "SECOND" }, by: database.principal)
      }
      #expect(
        try await store.updateProfile(second.id, Self.change { $0.isDefault = true }, by: database.principal).isDefault)
      #expect(try await database.int("SELECT count(*) FROM server_profile WHERE is_default") == 1)
    }
  }

  @Test("a new password is sealed and used in both directions; it goes with the credentials it belonged to")
  func password() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let server = { (password: String?) in
        ServerDraft(
          host: "pop.example.com", credentials: .profile, userName: "sync", password: password.map { Secret($0) },
          loginAs: "authzid")
      }
      let profile = try await store.createProfile(
        try ProfileRules().resolve(
          ProfileDraft(
            name: "Own", type: .pop3SMTP, isDefault: true, incoming: server("first-secret"),
            outgoing: ServerDraft(host: "smtp.example.com"))), by: database.principal)
      let mailbox = try await database.runningMailbox("a@example.com")
      let change = Self.change {
        $0.incoming = ServerChange(userName: "sync2", password: Secret("second-secret"))
        $0.confirmsNewTests = true
      }
      let changed = try await store.updateProfile(profile.id, change, by: database.principal)
      #expect(changed.incoming.passwordSet && changed.outgoing.userName == "sync2")
      _ = try await store.requestTest(of: [mailbox.id], by: database.principal)
      let settings = try await database.assignment(mailbox, .test).1.settings
      #expect(settings.incomingCredentials?.userName == "sync2")
      #expect(
        settings.incomingCredentials
          == Credentials(
            userName: "sync2", password: Secret("second-secret"), authorizationIdentity: "a@example.com"))
      #expect(settings.outgoingCredentials?.userName == "sync2")
      // Neither in the rows nor in the audit.
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE before::text LIKE '%secret%' OR after::text LIKE '%-secret%'") == 0)
      let mailboxes = Self.change {
        $0.incoming = ServerChange(credentials: .mailbox)
        $0.confirmsNewTests = true
      }
      _ = try await store.updateProfile(profile.id, mailboxes, by: database.principal)
      #expect(
        try await database.int(
          "SELECT count(*) FROM server_profile WHERE incoming_password IS NULL AND outgoing_password IS NULL") == 1)
    }
  }
}
