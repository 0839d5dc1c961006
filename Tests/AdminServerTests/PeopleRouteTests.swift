import FoundationEssentials
import PostriderCore
import Testing

@testable import AdminServer

@Suite("People: users, shared queues, tokens, the audit and signing in over the API")
struct PeopleRouteTests {
  /// Users with the numbers that the fake's tokens have, so that each role's token is somebody.
  private func api(_ channel: ChannelKind = .unixSocket) -> TestAPI {
    var api = TestAPI(channel: channel)
    api.configuration.passwordCost = PasswordCost(logN: 4)
    api.store.change { state in
      for (index, role) in Role.allCases.enumerated() {
        state.people.users.append(
          User(
            id: UserID(Int64(index + 1)), organizationID: OrganizationID(1), name: role.rawValue,
            address: "\(role.rawValue)@example.com", role: role, createdAt: FakeAdminStore.date,
            updatedAt: FakeAdminStore.date))
      }
    }
    return api
  }

  @Test("users and shared queues are entered, listed with filters, changed and deleted; wrong fields are named")
  func people() async throws {
    let api = api()
    try await api.with { client in
      let made = try await client.post("/users", #"{"address":"ann@example.com","role":"approver"}"#)
      #expect(made.status == 201)
      let user: User = try made.decode()
      #expect(made.headers[.location] == "/api/v1/users/\(user.id)" && user.name == "ann@example.com")
      let wrong = try await client.post("/users", #"{"address":"ann","name":"","role":"god"}"#)
      #expect(try wrong.problem().errors?.map(\.pointer) == ["/role"])
      let other = try await client.post("/users", #"{"address":"ann","name":""}"#)
      #expect(try other.problem().errors?.map(\.pointer) == ["/name", "/address"])
      #expect(try await client.get("/users?active=true&text=ann").status == 200)
      #expect(api.store.state.withLock { $0.people.lastFilter } == PeopleFilter(isActive: true, text: "ann"))
      #expect(try await client.patch("/users/\(user.id)", #"{"name":"Ann","version":9}"#).problem().code == "stale")
      let changed: User = try await client.patch("/users/\(user.id)", #"{"isActive":false,"version":1}"#).decode()
      #expect(!changed.isActive && changed.version == 2)
      let nothing = try await client.patch("/users/\(user.id)", #"{"version":2}"#).problem()
      #expect(nothing.status == 422 && nothing.errors?.first?.code == "required")
      #expect(try await client.post("/users/\(user.id)/delete", "{}").status == 200)
      #expect(try await client.get("/users/\(user.id)").status == 404)
      // Those of another organization are not there.
      #expect(try await client.get("/users/1", as: "foreign").status == 404)

      let queue: SharedQueue = try await client.post(
        "/shared-queues", #"{"address":"support@example.com","ownerID":3,"memberIDs":[1,2]}"#
      ).decode()
      #expect(queue.owner?.id == UserID(3))
      #expect(try await client.patch("/shared-queues/\(queue.id)", #"{"name":"Support"}"#).status == 200)
      #expect(try await client.get("/shared-queues?address=support@example.com").status == 200)
      #expect(try await client.post("/shared-queues/\(queue.id)/delete", "{}").status == 200)
    }
  }

  @Test("roles are listed with their rights; who may give which role follows from them")
  func roles() async throws {
    struct Roles: Decodable {
      struct Row: Decodable {
        let role: Role
        let rights: [Right]
        let seesOnlyOwn: Bool
      }
      let roles: [Row]
    }
    let roles: Roles = try await api().get("/roles", as: "owner").decode()
    #expect(roles.roles.map(\.role) == Role.allCases)
    #expect(roles.roles.allSatisfy { Set($0.rights) == $0.role.rights && $0.seesOnlyOwn == ($0.role == .owner) })
    let covered: [Role: Set<Role>] = [
      .administrator: Set(Role.allCases), .mailboxManager: [.mailboxManager, .reader, .owner], .approver: [.approver],
      .reader: [.reader], .owner: [.owner],
    ]
    for (role, others) in covered { #expect(Set(Role.allCases.filter(role.covers)) == others, "\(role)") }
  }

  @Test("a token is of one's own role or a weaker one, for oneself unless one manages users; it is shown once")
  func tokens() async throws {
    let api = api()
    try await api.with { client in
      let made = try await client.post("/tokens", as: "mailbox-manager", #"{"name":"report","role":"reader"}"#)
      #expect(made.status == 201 && made.text.contains(#""token":"made-1""#) && made.text.contains(#""role":"reader""#))
      let strong = try await client.post("/tokens", as: "reader", #"{"name":"x","role":"mailbox-manager"}"#)
      #expect(try strong.problem().errors?.first?.pointer == "/role")
      #expect(try await client.post("/tokens", as: "reader", #"{"name":"x","userID":1}"#).status == 403)
      let other = try await client.post("/tokens", #"{"name":"x","userID":4,"expiresAt":"2030-01-01T00:00:00Z"}"#)
      #expect(other.status == 201)

      #expect(try await client.get("/tokens?kind=token&ended=true", as: "reader").text.contains("made") == false)
      #expect(
        api.store.state.withLock { $0.people.lastTokenFilter }
          == TokenFilter(userID: UserID(4), kind: .token, includesEnded: true))
      #expect(try await client.get("/tokens?user=1", as: "reader").status == 403)
      #expect(try await client.get("/tokens?user=4").status == 200)
      // Token 1 is the manager's; to the reader it is not there.
      #expect(try await client.post("/tokens/1/revoke", as: "reader", "{}").status == 404)
      #expect(try await client.post("/tokens/1/revoke", as: "mailbox-manager", "{}").status == 200)
      #expect(try await client.post("/tokens/2/revoke", "{}").status == 200)
    }
  }

  @Test("the audit is filtered; a refusal is a 403 also when it cannot be written down, and that is logged")
  func audit() async throws {
    let api = api()
    let answer = try await api.get(
      "/audit?action=mailbox&entity=mailbox&id=7&user=2&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z")
    #expect(answer.status == 200)
    let filter = api.store.state.withLock { $0.people.lastAuditFilter }
    #expect(filter?.action == "mailbox" && filter?.entityID == 7 && filter?.userID == UserID(2))
    #expect(
      filter?.from == APICoding.date("2026-01-01T00:00:00Z") && filter?.to == APICoding.date("2026-02-01T00:00:00Z"))
    #expect(try await api.get("/audit?from=yesterday").problem().errors?.first?.pointer == "?from")
    api.store.change { $0.people.auditFailure = StoreError.unavailable(reason: "away") }
    #expect(try await api.get("/audit", as: "reader").status == 403)
    #expect(api.log.text.contains("A refusal could not be written into the audit"))
  }

  private func signIn(_ address: String, _ password: String, organization: String = "Example") -> String {
    #"{"organization":"\#(organization)","address":"\#(address)","password":"\#(password)"}"#
  }

  @Test("signing in gives a session that signing out ends; whatever is wrong is answered with the same words")
  func sessions() async throws {
    let api = api()
    try await api.with { client in
      let first = try await client.post("/users/4/password", #"{"password":"correct horse battery"}"#)
      #expect(first.status == 200 && first.text.contains(#""passwordSet":true"#))
      let stored = try #require(api.store.state.withLock { $0.people.passwords[UserID(4)] }).revealed
      #expect(stored.hasPrefix("$scrypt$ln=4,r=8,p=1$") && !stored.contains("correct"))

      struct Session: Decodable {
        let token: String
        let principal: Principal
        let idleSeconds: Int
      }
      let answer = try await client.post("/sessions", as: nil, signIn("reader@example.com", "correct horse battery"))
      #expect(answer.status == 201)
      let session: Session = try answer.decode()
      #expect(session.principal.role == .reader && session.idleSeconds == 1_800)
      #expect(try await client.get("/whoami", as: session.token).status == 200)
      #expect(try await client.send(.delete, "/sessions/current", as: session.token, body: nil).status == 200)
      // Also where the token was remembered.
      #expect(try await client.get("/whoami", as: session.token).status == 401)
      let token = try await client.send(.delete, "/sessions/current", as: "reader", body: nil)
      #expect(try token.problem().code == "not-a-session")

      var answers: Set<String> = []
      for body in [
        signIn("reader@example.com", "correct horse batterz"), signIn("nobody@example.com", "correct horse battery"),
        signIn("reader@example.com", "correct horse battery", organization: "Exampel"),
        signIn("approver@example.com", "correct horse battery"), signIn("", ""),
        signIn("reader@example.com", String(repeating: "x", count: 5_000)),
      ] {
        let refused = try await client.post("/sessions", as: nil, body)
        #expect(refused.status == 401)
        answers.insert(refused.text)
      }
      #expect(answers.count == 1)
      #expect(api.store.state.withLock { $0.people.failures } == 1)
      #expect(api.store.state.withLock { $0.people.refusedSignIns } == 1)
      #expect(!api.log.text.contains("correct horse"))
    }
  }

  @Test("what is stored under other parameters is right and stored anew")
  func rehash() async throws {
    let api = api()
    let old = try await PasswordHasher(cost: PasswordCost(logN: 5)).hash(Secret("correct horse battery"))
    api.store.change { $0.people.passwords[UserID(4)] = old }
    let answer = try await api.post("/sessions", as: nil, signIn("reader@example.com", "correct horse battery"))
    #expect(answer.status == 201)
    let stored = api.store.state.withLock { $0.people.passwords[UserID(4)] }?.revealed
    #expect(stored?.hasPrefix("$scrypt$ln=4,") == true)
  }

  @Test("passwords go over secure channels only, both the new and the present one")
  func insecure() async throws {
    let api = api(.plain)
    for (path, token, body) in [
      ("/sessions", nil as String?, signIn("reader@example.com", "correct horse battery")),
      ("/users/1/password", "administrator", #"{"password":"correct horse battery"}"#),
      ("/users/1/password", "administrator", #"{"currentPassword":"correct horse battery"}"#),
    ] {
      #expect(try await api.post(path, as: token, body).problem().code == "insecure-channel", "\(path)")
    }
  }

  @Test("one's own password needs the present one; a weak token of a strong person sets no first one")
  func ownPassword() async throws {
    let api = api()
    try await api.with { client in
      let path = "/users/4/password"
      #expect(try await client.post(path, as: "approver", #"{"password":"correct horse battery"}"#).status == 403)
      // The reader's token, and the person is an administrator.
      api.store.change { $0.people.users[3].role = .administrator }
      #expect(try await client.post(path, as: "reader", #"{"password":"correct horse battery"}"#).status == 403)
      api.store.change { $0.people.users[3].role = .reader }
      #expect(try await client.post(path, as: "reader", #"{"password":"correct horse battery"}"#).status == 200)

      let without = try await client.post(path, as: "reader", #"{"password":"another long one"}"#)
      #expect(try without.problem().errors?.first?.pointer == "/currentPassword")
      let wrong = try await client.post(
        path, as: "reader", #"{"password":"another long one","currentPassword":"a wrong one"}"#)
      #expect(try wrong.problem().errors?.first?.code == "wrong")
      #expect(api.store.state.withLock { $0.people.failures } == 1)
      let right = try await client.post(
        path, as: "reader", #"{"password":"another long one","currentPassword":"correct horse battery"}"#)
      #expect(right.status == 200)
      for (password, code) in [("short", "too-short"), ("reader@example.com", "not-allowed")] {
        let bad = try await client.post(path, #"{"password":"\#(password)"}"#)
        #expect(try bad.problem().errors?.map(\.code) == [code])
      }
      // Without one it is taken away.
      let gone = try await client.post(path, "{}")
      #expect(gone.text.contains(#""passwordSet":false"#))
    }
  }

  @Test("a token counts in the Authorization header alone: not as a cookie, nor in the query, which sites can make up")
  func onlyHeader() async throws {
    try await api().with { client in
      #expect(try await client.get("/whoami").status == 200)
      for cookie in ["token=administrator", "Authorization=Bearer administrator", "session=administrator"] {
        #expect(try await client.get("/whoami", as: nil, headers: [.cookie: cookie]).status == 401)
        let change = try await client.post(
          "/mailboxes", as: nil, headers: [.cookie: cookie, .contentType: "application/json"],
          #"{"address":"a@example.com"}"#)
        #expect(change.status == 401)
      }
      #expect(try await client.get("/whoami?access_token=administrator", as: nil).status == 401)
    }
  }

  @Test("too many attempts from one address are refused before anything is computed; others go on")
  func limit() async throws {
    var api = api()
    api.configuration.signInLimit = SignInLimiter.Limit(burst: 2, refill: .seconds(3_600))
    try await api.with { client in
      for _ in 0..<2 { #expect(try await client.post("/sessions", as: nil, signIn("a", "b")).status == 401) }
      let refused = try await client.post("/sessions", as: nil, signIn("a", "b"))
      #expect(try refused.problem().code == "too-many-requests")
      #expect(refused.status == 429 && Int(refused.headers[.retryAfter] ?? "") ?? 0 > 3_000)
    }
    let limiter = SignInLimiter(SignInLimiter.Limit(burst: 2, refill: .seconds(10)))
    let now = ContinuousClock.now
    #expect([0, 0, 0].map { limiter.refusal(of: "a", now: now + .seconds($0)) } == [nil, nil, 11])
    #expect(limiter.refusal(of: "b", now: now) == nil)
    #expect(limiter.refusal(of: "a", now: now + .seconds(10)) == nil)
    #expect(limiter.refusal(of: "a", now: now + .seconds(11)) != nil)
  }

  @Test("a stored password reads as it was written; what is not one is refused")
  func phc() throws {
    // RFC 7914 section 12, the vector of N = 1024 with its first half.
    let key = try PasswordHash.key(
      Secret("password"), Array("NaCl".utf8), PasswordCost(logN: 10, blockSize: 8, parallelism: 16))
    #expect(
      key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        == "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162")
    let hash = PasswordHash(cost: PasswordCost(), salt: [UInt8](1...16), key: [UInt8](repeating: 200, count: 32))
    #expect(PasswordHash(hash.description) == hash)
    for text in [
      "", "$scrypt$", "$scrypt$ln=40,r=8,p=1$AQIDBAUGBwgJCgsMDQ4PEA$yMg", "$argon2$ln=15,r=8,p=1$a$b",
      hash.description + "$", hash.description.replacing("r=8", with: "r=0"),
    ] { #expect(PasswordHash(text) == nil, "\(text)") }
  }
}
