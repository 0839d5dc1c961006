import FoundationEssentials
import Hummingbird
import PostriderCore
import Testing

@testable import AdminServer

@Suite("Problems")
struct ProblemTests {
  let api = TestAPI(channel: .unixSocket)

  @Test("no, malformed and unknown tokens")
  func tokens() async throws {
    try await api.with { client in
      let none = try await client.get("/whoami", as: nil)
      #expect(none.status == 401)
      #expect(none.headers[.wwwAuthenticate] == "Bearer realm=\"postrider\"")
      #expect(try none.problem().code == "unauthorized")
      let basic = try await client.get("/whoami", as: nil, headers: [.authorization: "Basic YTpi"])
      #expect(basic.status == 401)
      let unknown = try await client.get("/whoami", as: "nobody")
      #expect(unknown.status == 401)
      #expect(unknown.headers[.wwwAuthenticate]?.contains("invalid_token") == true)
      let asked = api.store.state.withLock { $0.tokenCalls }
      #expect(try await client.get("/whoami", as: String(repeating: "x", count: 600)).status == 401)
      #expect(try await client.get("/whoami", as: "two words").status == 401)
      #expect(api.store.state.withLock { $0.tokenCalls } == asked, "junk costs no query")
      #expect(try await client.get("/whoami", as: nil, headers: [.authorization: "bEARER reader"]).status == 200)
    }
  }

  @Test("a token is asked for once in its lifetime; an unknown one every time; a revoked one ends")
  func tokenCache() async throws {
    var api = api
    // Longer than this test takes on a busy machine.
    api.configuration.tokenLifetime = .seconds(600)
    let store = api.store
    try await api.with { client in
      for _ in 0..<5 { _ = try await client.get("/whoami", as: "reader") }
      #expect(store.state.withLock { $0.tokenCalls } == 1)
      for _ in 0..<2 { _ = try await client.get("/whoami", as: "new") }
      #expect(store.state.withLock { $0.tokenCalls } == 3)
      let reader = store.state.withLock { $0.tokens["reader"] }
      store.change { $0.tokens["new"] = reader }
      let accepted = try await client.get("/whoami", as: "new")
      #expect(accepted.status == 200)
    }
    var impatient = api
    impatient.configuration.tokenLifetime = .zero
    try await impatient.with { client in
      let before = try await client.get("/whoami", as: "new")
      #expect(before.status == 200)
      store.change { $0.tokens["new"] = nil }
      let after = try await client.get("/whoami", as: "new")
      #expect(after.status == 401)
    }
  }

  @Test("unknown paths and methods")
  func routing() async throws {
    try await api.with { client in
      for path in ["/nothing", "//api/v2/whoami", "/mailboxes/1/extra", "//favicon.ico"] {
        let answer = try await client.get(path)
        #expect(answer.status == 404)
        #expect(try answer.problem().code == "not-found")
      }
      let answer = try await client.send(.delete, "/mailboxes", as: "administrator", body: nil)
      #expect(answer.status == 405)
      #expect(answer.headers[.allow] == "GET, HEAD, PATCH, POST")
      #expect(try answer.problem().code == "method-not-allowed")
      #expect(try await client.send(.get, "/mailboxes/approve", as: "administrator", body: nil).status == 405)
    }
  }

  @Test("ids in the path", arguments: ["abc", "0", "-1", "1.5", "99999999999999999999", "%31"])
  func ids(_ id: String) async throws {
    try await api.with { client in
      for path in ["/mailboxes/", "/server-profiles/", "/runs/", "/emails/"] {
        let answer = try await client.get(path + id)
        #expect(answer.status == 422)
        #expect(try answer.problem().errors?.first?.pointer == "{id}")
        #expect(try answer.problem().errors?.first?.code == "not-an-id")
      }
    }
  }

  @Test("unknown ids", arguments: ["/mailboxes/7", "/server-profiles/7", "/runs/7", "/emails/7", "/emails/7/raw"])
  func notFound(_ path: String) async throws {
    let answer = try await api.get(path)
    #expect(answer.status == 404)
    #expect(try answer.problem().code == "not-found")
  }

  @Test(
    "wrong parameters of the query, each by name",
    arguments: [
      ("/mailboxes?limit=0", "?limit out-of-range"), ("/mailboxes?limit=501", "?limit out-of-range"),
      ("/runs?limit=x", "?limit wrong-type"), ("/alerts?limit=", "?limit wrong-type"),
      ("/emails?cursor=", "?cursor required"), ("/mailboxes?view=none", "?view not-a-choice"),
      ("/mailboxes?profile=a", "?profile not-an-id"), ("/alerts?level=bad", "?level not-a-choice"),
      ("/alerts?resolved=1", "?resolved wrong-type"), ("/runs?kind=p", "?kind not-a-choice"),
      ("/runs?result=ok", "?result not-a-choice"), ("/emails?mailbox=0", "?mailbox not-an-id"),
      ("/whoami?limit=1", "?limit unknown"), ("/mailboxes?Limit=1", "?Limit unknown"),
      ("/mailboxes?limit=1&limit=2", "?limit duplicate"), ("/mailboxes?address=%zz", "? malformed"),
      ("/mailboxes?address=%ff", "? malformed"), ("/mailboxes?address=a%0Ab", "?address control-character"),
      ("/mailboxes?limit=0&view=none", "?view not-a-choice ?limit out-of-range"),
    ])
  func queries(_ path: String, _ expected: String) async throws {
    let answer = try await api.get(path)
    #expect(answer.status == 422)
    let problem = try answer.problem()
    #expect(problem.code == "invalid")
    #expect(problem.errors?.map { "\($0.pointer) \($0.code)" }.joined(separator: " ") == expected)
  }

  @Test(
    "malformed JSON",
    arguments: [
      "", "{", "{\"name\":}", "{\"a\":1,}", "{'a':1}", "{\"a\":01}", "{\"a\":1}x", "[1,2", "{\"a\":\"\u{1}\"}", "nul",
      "{\"a\":\"\\ud800\"}", "{\"a\":\"\\x\"}", "{\"a\":.5}", "{\"a\":1.}", "{\"a\":NaN}", "// c\n{}",
      String(repeating: "[", count: 100_000),
    ])
  func malformed(_ body: String) async throws {
    let answer = try await api.post("/mailboxes", body)
    #expect(answer.status == 400)
    #expect(try answer.problem().code == "malformed-json")
    #expect(try answer.problem().detail.contains("line "))
  }

  @Test("bytes that are not UTF-8")
  func notUTF8() async throws {
    let body = Array("{\"address\":\"".utf8) + [0xFF] + Array("\"}".utf8)
    let answer = try await api.with { try await $0.send(.post, "/mailboxes", as: "administrator", body: body) }
    #expect(try answer.problem().code == "malformed-json")
  }

  @Test(
    "unknown, missing, double and mistyped fields, all at once with a pointer to each",
    arguments: [
      ("/server-profiles", "{}", "/name required /type required"),
      ("/server-profiles", "[]", " wrong-type"),
      ("/server-profiles", #"{"name":null,"type":"gmail"}"#, "/name required"),
      ("/server-profiles", #"{"name":"a","type":"imap"}"#, "/type not-a-choice"),
      (
        "/server-profiles", #"{"name":1,"type":"gmail","incoming":{"port":"995","tsl":"none"},"color":"red"}"#,
        "/name wrong-type /incoming/port wrong-type /incoming/tsl unknown /color unknown"
      ),
      ("/server-profiles", #"{"name":"a","type":"gmail","incoming":[]}"#, "/incoming wrong-type"),
      ("/server-profiles", #"{"name":"a","name":"b","type":"gmail"}"#, "/name duplicate"),
      ("/server-profiles", #"{"name":"a","type":"gmail","a/b~c":1}"#, "/a~1b~0c unknown"),
      (
        "/server-profiles", #"{"name":"a","type":"gmail","processEmailFrom":"tomorrow"}"#,
        "/processEmailFrom not-a-date"
      ),
      ("/server-profiles", #"{"name":"a","type":"gmail","processEmailFrom":1}"#, "/processEmailFrom wrong-type"),
      ("/server-profiles", #"{"name":"a","type":"gmail","isDefault":"true"}"#, "/isDefault wrong-type"),
      (
        "/server-profiles", #"{"name":"a","type":"gmail","connectionTimeoutSeconds":1.5}"#,
        "/connectionTimeoutSeconds wrong-type"
      ),
      (
        "/server-profiles", #"{"name":"a","type":"gmail","connectionTimeoutSeconds":99999999999999999999}"#,
        "/connectionTimeoutSeconds wrong-type"
      ),
      (
        "/server-profiles", #"{"name":"a","type":"gmail","connectionTimeoutSeconds":101}"#,
        "/connectionTimeoutSeconds out-of-range"
      ),
      ("/server-profiles", #"{"name":"a","type":"pop3-smtp"}"#, "/incoming/host required /outgoing/host required"),
      ("/server-profiles", #"{"name":"a","type":"gmail","incoming":{"tls":"none"}}"#, "/incoming/tls not-allowed"),
      ("/mailboxes", #"{"address":"nobody"}"#, "/address not-an-address"),
      ("/mailboxes", #"{"address":"a@b.c","owner":{"name":"x"}}"#, "/owner/kind required"),
      ("/mailboxes", #"{"address":"a@b.c","profileID":0}"#, "/profileID out-of-range"),
      ("/mailboxes", #"{"address":"a@b.c","incomingStatus":"success"}"#, "/incomingStatus unknown"),
      ("/mailboxes/test", #"{"ids":[]}"#, "/ids out-of-range"),
      ("/mailboxes/test", #"{"ids":[1,"2",-3]}"#, "/ids/1 wrong-type /ids/2 out-of-range"),
      ("/mailboxes/poll", #"{"ids":7}"#, "/ids wrong-type"),
    ])
  func fields(_ path: String, _ body: String, _ expected: String) async throws {
    let answer = try await api.post(path, body)
    #expect(answer.status == 422)
    let problem = try answer.problem()
    #expect(problem.code == "invalid")
    #expect(problem.errors?.map { "\($0.pointer) \($0.code)" }.joined(separator: " ") == expected)
    #expect(problem.errors?.allSatisfy { !$0.message.isEmpty } == true)
  }

  @Test("null is the same as left out, unless the field is required")
  func null() async throws {
    let answer = try await api.post("/mailboxes", #"{"address":"a@example.com","owner":null,"password":null}"#)
    #expect(answer.status == 201)
  }

  @Test("more than a thousand rows, and a list of wrong fields without end")
  func bounds() async throws {
    let ids = (1...1_001).map { String($0) }.joined(separator: ",")
    #expect(try await api.post("/mailboxes/approve", "{\"ids\":[\(ids)]}").status == 422)
    let fields = (0..<5_000).map { "\"f\($0)\":1" }.joined(separator: ",")
    let answer = try await api.post("/mailboxes", "{\(fields)}")
    #expect(try answer.problem().errors?.count == 100)
  }

  @Test("bodies over the limit, with and without a length; other media types")
  func bodies() async throws {
    let big = "{\"address\":\"" + String(repeating: "a", count: 1 << 20) + "\"}"
    let answer = try await api.post("/mailboxes", big)
    #expect(answer.status == 413)
    #expect(try answer.problem().code == "too-large")
    let form = try await api.post("/mailboxes", headers: [.contentType: "application/x-www-form-urlencoded"], "a=b")
    #expect(form.status == 415)
    let good = ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
    for (index, type) in good.enumerated() {
      let body = #"{"address":"a\#(index)@example.com"}"#
      #expect(try await api.post("/mailboxes", headers: [.contentType: type], body).status == 201)
    }
    #expect(try await api.post("/mailboxes", headers: [:], #"{"address":"z@example.com"}"#).status == 201)
  }

  @Test("what the store throws, in one table")
  func storeErrors() async throws {
    let table: [(any Error & Sendable, Int, String)] = [
      (StoreError.unavailable(reason: "10.0.0.5 refused"), 503, "unavailable"),
      (StoreError.notFound("server profile"), 404, "not-found"),
      (StoreError.conflict(code: "name-taken", message: "There is one."), 409, "name-taken"),
      (StoreError.invalid([FieldProblem("/cursor", "malformed", "x")]), 422, "invalid"),
      (StoreError.stale, 409, "stale"),
      (StoreError.schema(reason: "run postrider migrate"), 503, "schema"),
      (StoreError.missingKey(id: "k1"), 500, "missing-key"),
      (StoreError.statement(sqlState: "42P01", message: "relation x"), 500, "internal"),
      (JobQueueError.unavailable(reason: "refused"), 503, "unavailable"),
      (JobQueueError.epochLost(reason: "emptied"), 503, "unavailable"),
      (JobQueueError.notOpenYet(milliseconds: 7_500), 503, "unavailable"),
      (JobQueueError.misconfigured(reason: "allkeys-lru"), 503, "unavailable"),
      (CancellationError(), 503, "unavailable"),
      (FakeFailure(), 500, "internal"),
    ]
    for (error, status, code) in table {
      let api = TestAPI()
      api.store.change { $0.failure = error }
      let answer = try await api.post("/mailboxes/approve", #"{"ids":[1]}"#)
      #expect(answer.status == status, "\(error)")
      let problem = try answer.problem()
      #expect(problem.code == code, "\(error)")
      #expect((answer.headers[.retryAfter] != nil) == (status == 503), "\(error)")
      for inside in ["10.0.0.5", "42P01", "relation", "FakeFailure", "inside"] {
        #expect(!answer.text.contains(inside))
      }
      if code == "internal" {
        #expect(problem.requestID == answer.headers[.requestID])
        #expect(api.log.text.contains("A request failed unexpectedly"))
      }
    }
  }

  struct FakeFailure: Error, CustomStringConvertible { let description = "the inside" }

  @Test("a database that is away while the token is checked; a queue that is away")
  func away() async throws {
    api.store.change { $0.tokenFailure = StoreError.unavailable(reason: "x") }
    let answer = try await api.get("/whoami")
    #expect(answer.status == 503 && answer.headers[.retryAfter] == "2")
    let other = TestAPI()
    other.queue.failure.withLock { $0 = .notOpenYet(milliseconds: 7_500) }
    #expect(try await other.get("/queue/stats").headers[.retryAfter] == "8")
  }

  @Test("a request that takes too long is answered, though the store is not")
  func timeout() async throws {
    let (gate, opening) = AsyncStream<Void>.makeStream()
    var api = TestAPI(store: FakeAdminStore(gate: gate))
    api.configuration.requestTimeout = .milliseconds(50)
    let answer = try await api.get("/server-profiles")
    #expect(answer.status == 503)
    #expect(try answer.problem().code == "timeout")
    opening.finish()
  }

  @Test("names are unique: a second profile of the name is a conflict")
  func conflict() async throws {
    try await api.with { client in
      let body = #"{"name":"a","type":"gmail"}"#
      #expect(try await client.post("/server-profiles", body).status == 201)
      let answer = try await client.post("/server-profiles", body)
      #expect(answer.status == 409)
      #expect(try answer.problem().code == "name-taken")
    }
  }
}

@Suite("Insecure channels")
struct InsecureChannelTests {
  static let bodies = [
    ("/mailboxes", #"{"address":"a@example.com","password":"pw"}"#),
    (
      "/server-profiles",
      #"{"name":"a","type":"pop3-smtp","incoming":{"host":"a.b","credentials":"profile","userName":"u","password":"pw"},"outgoing":{"host":"a.b"}}"#
    ),
  ]

  @Test("a password over plain TCP is refused, wherever it stands", arguments: bodies)
  func plain(_ path: String, _ body: String) async throws {
    let api = TestAPI(channel: .plain)
    let answer = try await api.post(path, body)
    #expect(answer.status == 403)
    #expect(try answer.problem().code == "insecure-channel")
    #expect(!answer.text.contains("\"pw\""))
    #expect(api.store.state.withLock { $0.passwords.isEmpty && $0.mailboxes.isEmpty && $0.profiles.isEmpty })
    // Even where a password does not belong: it went over the wire.
    #expect(try await api.post("/mailboxes", #"{"x":[{"password":"pw"}]}"#).status == 403)
  }

  @Test("over a Unix socket, TLS or with the deployment property it is taken", arguments: bodies)
  func secure(_ path: String, _ body: String) async throws {
    for kind in [ChannelKind.unixSocket, .tls] {
      #expect(try await TestAPI(channel: kind).post(path, body).status == 201)
    }
    var open = TestAPI(channel: .plain)
    open.configuration.allowsCredentialsEntryViaNonSecureChannels = true
    #expect(try await open.post(path, body).status == 201)
    #expect(open.store.state.withLock { $0.passwords.contains(Secret("pw")) })
  }

  @Test("no password, no question")
  func without() async throws {
    let api = TestAPI(channel: .plain)
    #expect(try await api.post("/mailboxes", #"{"address":"a@example.com","password":null}"#).status == 201)
  }

  @Test("X-Forwarded-Proto is not believed from anybody")
  func forged() async throws {
    let answer = try await TestAPI(channel: .plain).post(
      "/mailboxes", headers: [.forwardedProtocol: "https"], #"{"address":"a@example.com","password":"pw"}"#)
    #expect(answer.status == 403)
  }

  @Test("the deployment property allowNonTLSMail lets profiles go without TLS")
  func nonTLS() async throws {
    var api = TestAPI()
    let body = #"{"name":"a","type":"gmail","incoming":{"tls":"none"}}"#
    #expect(try await api.post("/server-profiles", body).status == 422)
    api.configuration.allowsNonTLSMail = true
    #expect(try await api.post("/server-profiles", body).status == 201)
  }
}

@Suite("Shapes of bodies")
struct ShapeTests {
  /// The stored properties of a value, which are the JSON keys of the core's types.
  func properties(_ value: Any) -> Set<String> { Set(Mirror(reflecting: value).children.compactMap(\.label)) }

  func names(_ shape: JSONShape) -> Set<String> {
    if case .object(let fields) = shape { Set(fields.map(\.name)) } else { [] }
  }

  @Test("each shape has the fields of its type, no more and no fewer")
  func complete() {
    #expect(names(.serverDraft) == properties(ServerDraft()))
    #expect(names(.profileDraft) == properties(ProfileDraft(name: "", type: .gmail)))
    #expect(names(.ownerDraft) == properties(OwnerDraft(kind: .user)))
    #expect(names(.mailboxDraft) == properties(MailboxDraft(address: "")))
    #expect(names(.sendQuota) == properties(SendQuota()))
    #expect(names(.profileChange) == properties(ProfileChange()))
    #expect(names(.mailboxChange) == properties(MailboxChange()))
    #expect(names(.outgoingDraft) == properties(OutgoingDraft(mailboxID: MailboxID(1), to: [], subject: "")))
    #expect(names(.alertMailChange) == properties(AlertMailChange()))
  }

  @Test("the parser reads what JSON has")
  func parser() throws {
    let text = #" {"a":[1,-0.5e+3,true,false,null],"b":"\u00e9\ud83d\ude00\n\/","b2":{}} "#
    #expect(
      try JSONParser.parse(Array(text.utf8))
        == .object([
          .init(key: "a", value: .array([.number("1"), .number("-0.5e+3"), .boolean(true), .boolean(false), .null])),
          .init(key: "b", value: .string("é😀\n/")), .init(key: "b2", value: .object([])),
        ]))
    let error = #expect(throws: JSONSyntaxError.self) { try JSONParser.parse(Array("{\n \"a\": x}".utf8)) }
    #expect(error?.description == "expected a value at line 2, column 7")
  }

  @Test("dates with and without a fraction, in any zone, and nothing else")
  func dates() {
    let date = Date(timeIntervalSince1970: 1_772_352_000)
    #expect(APICoding.date("2026-03-01T08:00:00Z") == date)
    #expect(APICoding.date("2026-03-01T09:00:00+01:00") == date)
    #expect(APICoding.date("2026-03-01T08:00:00.000Z") == date)
    #expect(APICoding.text(date) == "2026-03-01T08:00:00.000Z")
    for text in ["", "2026-03-01", "2026-03-01T08:00:00", "2026-13-01T08:00:00Z", "now"] {
      #expect(APICoding.date(text) == nil, "\(text)")
    }
  }
}
