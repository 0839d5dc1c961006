import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Tokens, passwords, sessions and the audit", .timeLimit(.minutes(3)))
struct SignInTests {
  private static let hash = Secret("$scrypt$ln=4,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$x")
  private static let other = Secret("$scrypt$ln=5,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$x")

  @Test("a token works for its role until it is revoked or expires, and is stored as a hash")
  func tokens() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let ann = try await store.createUser(UserDraft(address: "ann@example.com"), by: ada)
      let (token, secret) = try await store.createToken(
        TokenDraft(name: "report", expiresAt: Date() + 3_600), role: .reader, of: ann.id, by: ada)
      #expect(token.kind == .token && token.role == .reader && token.user.id == ann.id && token.lastUsedAt == nil)
      let principal = try #require(try await store.principal(token: secret))
      #expect(principal.role == .reader && principal.userID == ann.id)
      #expect(
        try await database.int(
          "SELECT count(*) FROM api_token t WHERE to_jsonb(t)::text LIKE '%' || $1 || '%'", [.text(secret.revealed)])
          == 0)
      let page = try await store.tokens(TokenFilter(), PageRequest(limit: 1), for: ada)
      #expect(page.total == 2 && page.items.map(\.id) == [token.id] && page.items[0].lastUsedAt != nil)
      let next = try await store.tokens(TokenFilter(), PageRequest(limit: 1, cursor: page.nextCursor), for: ada)
      #expect(next.items.map(\.name) == ["bootstrap"])
      #expect(try await store.tokens(TokenFilter(userID: ann.id, kind: .session), PageRequest(), for: ada).total == 0)

      // Not of somebody else, nor of another organization.
      await #expect(throws: StoreError.notFound("token")) {
        try await store.revokeToken(token.id, of: ada.userID, by: ada)
      }
      let stranger = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("token")) {
        try await store.revokeToken(token.id, of: nil, by: stranger)
      }
      #expect(try await store.revokeToken(token.id, of: ann.id, by: ada).revokedAt != nil)
      #expect(try await store.principal(token: secret) == nil)
      let again = try await store.revokeToken(token.id, of: nil, by: ada)
      #expect(again.revokedAt != nil)
      #expect(try await store.tokens(TokenFilter(userID: ann.id), PageRequest(), for: ada).total == 0)
      #expect(
        try await store.tokens(TokenFilter(userID: ann.id, includesEnded: true), PageRequest(), for: ada).items == [
          again
        ])
      let rows = try await store.auditRecords(AuditFilter(entity: "token"), PageRequest(), for: ada).items
      #expect(rows.map(\.action) == ["token.revoke", "token.create"])

      for (draft, user, pointer) in [
        (TokenDraft(name: "x", expiresAt: Date() - 1), ann.id, "/expiresAt"),
        (TokenDraft(name: "x"), stranger.userID, "/userID"),
      ] {
        let wrong = await #expect(throws: StoreError.self) {
          try await store.createToken(draft, role: .reader, of: user, by: ada)
        }
        #expect(wrong?.description.hasPrefix(pointer) == true, "\(String(describing: wrong))")
      }
    }
  }

  @Test("an inactive user's token lets nobody in, and does so again when they are active")
  func inactive() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let ann = try await store.createUser(UserDraft(address: "ann@example.com", role: .reader), by: ada)
      let secret = try await store.createToken(TokenDraft(name: "x"), role: .reader, of: ann.id, by: ada).secret
      try await store.setPassword(Self.hash, of: ann.id, keeping: nil, by: ada)
      _ = try await store.updateUser(ann.id, UserChange(isActive: false), by: ada)
      #expect(try await store.principal(token: secret) == nil)
      #expect(try await store.beginSignIn(organization: "Example", address: "ann@example.com") == nil)
      let wrong = await #expect(throws: StoreError.self) {
        try await store.createToken(TokenDraft(name: "y"), role: .reader, of: ann.id, by: ada)
      }
      #expect(wrong?.description.contains("inactive") == true)
      _ = try await store.updateUser(ann.id, UserChange(isActive: true), by: ada)
      #expect(try await store.principal(token: secret)?.userID == ann.id)
      // Another role takes away tokens of the former one.
      _ = try await store.updateUser(ann.id, UserChange(role: .approver), by: ada)
      #expect(try await store.principal(token: secret) == nil)
    }
  }

  @Test("a session has the role that the user has now, ends when idle, at its end, by signing out, by a new password")
  func sessions() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let ann = try await store.createUser(UserDraft(address: "ann@example.com", role: .reader), by: ada)
      #expect(try await store.beginSignIn(organization: "Example", address: "ann@example.com") == nil)
      try await store.setPassword(Self.hash, of: ann.id, keeping: nil, by: ada)
      #expect(try await store.beginSignIn(organization: "Exampel", address: "ann@example.com") == nil)
      #expect(try await store.beginSignIn(organization: "Example", address: "bob@example.com") == nil)

      func signIn(_ life: SessionLife = SessionLife(), rehashed: Secret? = nil) async throws -> StartedSession {
        let ticket = try #require(try await store.beginSignIn(organization: "Example", address: "ANN@example.com"))
        return try #require(try await store.completeSignIn(ticket, life: life, rehashed: rehashed))
      }
      let session = try await signIn()
      #expect(session.principal.userID == ann.id && session.principal.role == .reader)
      #expect(abs(session.expiresAt.timeIntervalSinceNow - 12 * 3_600) < 60)
      #expect(try await store.principal(token: session.token)?.role == .reader)
      _ = try await store.updateUser(ann.id, UserChange(role: .approver), by: ada)
      #expect(try await store.principal(token: session.token)?.role == .approver)
      #expect(try await store.user(ann.id, for: ada).lastSignInAt != nil)

      // Half an hour without a request.
      let asAnn = try #require(try await store.principal(token: session.token))
      try await database.sql(
        "UPDATE api_token SET last_used_at = now() - interval '29 minutes' WHERE kind = 'session'")
      #expect(try await store.principal(token: session.token) == asAnn)
      #expect(
        try await database.int(
          "SELECT count(*) FROM api_token WHERE kind = 'session' AND last_used_at > now() - interval '1 minute'") == 1)
      try await database.sql(
        "UPDATE api_token SET last_used_at = now() - interval '31 minutes' WHERE kind = 'session'")
      #expect(try await store.principal(token: session.token) == nil)
      try await database.sql(
        "UPDATE api_token SET last_used_at = now(), expires_at = now() - interval '1 s' WHERE kind = 'session'")
      #expect(try await store.principal(token: session.token) == nil)

      let second = try await signIn(rehashed: Self.other)
      try await store.endSession(second.token, by: asAnn)
      #expect(try await store.principal(token: second.token) == nil)
      let made = await #expect(throws: StoreError.self) { try await store.endSession(database.token, by: ada) }
      #expect(made?.description.contains("made by a person") == true)

      // A new password ends the other sessions, and what was begun with the old one comes to nothing.
      let third = try await signIn()
      let fourth = try await signIn()
      let ticket = try #require(try await store.beginPasswordCheck(by: asAnn))
      #expect(ticket.hash == Self.other)
      try await store.setPassword(Self.hash, of: ann.id, keeping: third.token, by: asAnn)
      #expect(try await store.principal(token: third.token) == asAnn)
      #expect(try await store.principal(token: fourth.token) == nil)
      #expect(try await store.completeSignIn(ticket, life: SessionLife(), rehashed: nil) == nil)
      try await store.setPassword(nil, of: ann.id, keeping: nil, by: ada)
      #expect(try await store.principal(token: third.token) == nil)
      #expect(try await store.beginSignIn(organization: "Example", address: "ann@example.com") == nil)
    }
  }

  @Test("wrong passwords lock an account for longer and longer, whoever counts them, also many at once")
  func lock() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let ann = try await store.createUser(UserDraft(address: "ann@example.com"), by: ada)
      try await store.setPassword(Self.hash, of: ann.id, keeping: nil, by: ada)
      @Sendable func attempt() async throws -> SignInTicket? {
        try await store.beginSignIn(organization: "Example", address: "ann@example.com")
      }
      // Twenty at once: exactly as many are let through to the password as one after the other.
      let passed = try await withThrowingTaskGroup(of: Bool.self) { group in
        for _ in 0..<20 { group.addTask { try await attempt() != nil } }
        return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
      }
      #expect(passed == PasswordRules.freeFailures)
      func locked() async throws -> Double {
        try await store.user(ann.id, for: ada).lockedUntil?.timeIntervalSinceNow ?? 0
      }
      /// Whether that is a lock of so many seconds, some of which have passed: one of half as many is none.
      func isLocked(for seconds: Double) async throws -> Bool {
        (seconds - 25...seconds + 1).contains(try await locked())
      }
      #expect(try await isLocked(for: 30))
      for expected in [60.0, 120, 240, 480, 900, 900] {
        try await database.sql("UPDATE user_password SET locked_until = now() - interval '1 s'")
        #expect(try await attempt() != nil)
        #expect(try await attempt() == nil)
        #expect(try await isLocked(for: expected))
      }
      #expect(
        (0...12).map { PasswordRules.lockSeconds(failures: $0) } == [
          0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900,
        ])
      // The right one ends it, once it may be tried.
      try await database.sql("UPDATE user_password SET locked_until = now() - interval '1 s'")
      let ticket = try #require(try await attempt())
      _ = try await store.completeSignIn(ticket, life: SessionLife(), rehashed: nil)
      #expect(try await database.int("SELECT failures FROM user_password") == 0)
      #expect(try await locked() == 0)
      // Old ones are forgotten.
      try await database.sql("UPDATE user_password SET failures = 9, failed_at = now() - interval '25 hours'")
      #expect(try await attempt() != nil)
      #expect(try await database.int("SELECT failures FROM user_password") == 1)
      // An administrator's new password ends a lock.
      try await database.sql("UPDATE user_password SET locked_until = now() + interval '1 hour'")
      #expect(try await attempt() == nil)
      try await store.setPassword(Self.other, of: ann.id, keeping: nil, by: ada)
      #expect(try await attempt()?.hash == Self.other)
    }
  }

  @Test("the audit is listed newest first, page by page and filtered; it holds refusals, and no secret")
  func audit() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      _ = try await database.profile()
      let mailbox = try await database.mailbox("a@example.com", password: "hunter2-secret")
      let ann = try await store.createUser(UserDraft(address: "ann@example.com", role: .reader), by: ada)
      let asAnn = Principal(organizationID: ada.organizationID, userID: ann.id, name: "Ann", role: .reader)
      let refusal = RefusedRequest(
        method: "POST", route: "/api/v1/mailboxes", right: "mailboxes.write", role: .reader)
      try await store.recordRefusal(refusal, of: asAnn)
      try await store.setPassword(Self.hash, of: ann.id, keeping: nil, by: ada)
      func list(_ filter: AuditFilter) async throws -> [String] {
        try await store.auditRecords(filter, PageRequest(), for: ada).items.map(\.action)
      }
      let all = ["user.set-password", "request.refused", "user.create", "mailbox.create", "profile.create"]
      #expect(try await list(AuditFilter()) == all)
      #expect(try await list(AuditFilter(action: "user")) == ["user.set-password", "user.create"])
      #expect(try await list(AuditFilter(action: "user.create")) == ["user.create"])
      #expect(try await list(AuditFilter(action: "use")) == [])
      #expect(try await list(AuditFilter(entity: "mailbox", entityID: mailbox.id.value)) == ["mailbox.create"])
      #expect(try await list(AuditFilter(userID: ann.id)) == ["request.refused"])
      let record = try await store.auditRecords(AuditFilter(userID: ann.id), PageRequest(), for: ada).items[0]
      #expect(record.entityID == nil && record.userName == "Ann")
      #expect(
        record.after
          == .object([
            "method": .string("POST"), "route": .string("/api/v1/mailboxes"), "right": .string("mailboxes.write"),
            "role": .string("reader"),
          ]))
      #expect(try await list(AuditFilter(from: record.at)) == ["user.set-password", "request.refused"])
      #expect(try await list(AuditFilter(to: record.at)) == ["user.create", "mailbox.create", "profile.create"])
      var pages: [String] = []
      var cursor: String?
      repeat {
        let page = try await store.auditRecords(AuditFilter(), PageRequest(limit: 2, cursor: cursor), for: ada)
        #expect(page.total == 5)
        pages += page.items.map(\.action)
        cursor = page.nextCursor
      } while cursor != nil
      #expect(pages == all)
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE concat(before, after) ~ 'hunter2|scrypt'") == 0)
      let stranger = try await database.otherPrincipal()
      #expect(try await store.auditRecords(AuditFilter(), PageRequest(), for: stranger).total == 0)
    }
  }
}
