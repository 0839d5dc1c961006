import FoundationEssentials
import HTTPTypes
import PostriderCore
import Testing

@testable import AdminServer

@Suite("API: batches, imports and repeated requests")
struct BatchRouteTests {
  private static let csv: HTTPFields = [.contentType: "text/csv"]

  private func csv(_ api: TestAPI, _ path: String, _ text: String) async throws -> TestAPI.Answer {
    try await api.post(path, headers: Self.csv, text)
  }

  @Test("a batch takes the right of its verb, a verb, and either ids or a filter")
  func creating() async throws {
    let api = TestAPI(channel: .unixSocket)
    try await api.with { (client: TestAPI.Client) async throws in
      let made = try await client.post(
        "/batches",
        #"{"verb":"approve","filter":{"view":"failing","profileID":3,"ownerKind":"queue","addressText":"@x"},"dryRun":true}"#
      )
      #expect(made.status == 202 && made.headers[.location] == "/api/v1/batches/1")
      let batch: Batch = try made.decode()
      #expect(
        batch.filter == BatchFilter(view: .failing, profileID: ProfileID(3), ownerKind: .queue, addressText: "@x"))
      #expect(batch.dryRun && batch.state == .running && batch.remaining == 9)
      for (body, pointer) in [
        (#"{"verb":"approve"}"#, ""), (#"{"verb":"approve","ids":[1],"filter":{}}"#, ""),
        (#"{"verb":"import","filter":{}}"#, "/verb"), (#"{"verb":"destroy","filter":{}}"#, "/verb"),
        (#"{"verb":"test","ids":[]}"#, "/ids"), (#"{"verb":"test","filter":{"view":"new"}}"#, "/filter/view"),
        (#"{"verb":"test","filter":{"addressText":""}}"#, "/filter/addressText"),
      ] {
        let answer = try await client.post("/batches", body)
        #expect(answer.status == 422, "\(body)")
        #expect(try answer.problem().errors?.map(\.pointer) == [pointer], "\(body)")
      }
      for (role, verb, status) in [
        ("approver", "approve", 202), ("approver", "test", 403), ("mailbox-manager", "test", 202),
        ("mailbox-manager", "reject", 403), ("reader", "approve", 403), ("reader", "poll", 403),
      ] {
        let answer = try await client.post("/batches", as: role, #"{"verb":"\#(verb)","ids":[1]}"#)
        #expect(answer.status == status, "\(role) \(verb)")
      }
      // Batch 1 approves.
      #expect(try await client.post("/batches/1/cancel", as: "mailbox-manager", "").status == 403)
      #expect(try await client.post("/batches/1/cancel", as: "approver", "").status == 200)
      #expect(try await client.post("/batches/99/cancel", "").status == 404)
      #expect(try await client.get("/batches/1", as: "foreign").status == 404)
      // More ids than the body of other requests may hold.
      let ids = (1...100_000).map { String(9_000_000_000 + $0) }.joined(separator: ",")
      #expect(try await client.post("/batches", #"{"verb":"approve","ids":[\#(ids)]}"#).status == 202)
    }
  }

  @Test("results are filtered and paged")
  func results() async throws {
    let api = TestAPI(channel: .unixSocket)
    _ = try await api.store.createBatch(
      BatchDraft(verb: .approve, filter: BatchFilter()),
      by: Principal(organizationID: OrganizationID(1), userID: UserID(1), name: "a", role: .administrator))
    api.store.batches.state.withLock { state in
      state.results[BatchID(1)] = [
        BatchResult(row: 1, result: .done), BatchResult(row: 2, result: .failed, code: "not-found"),
      ]
    }
    let page: Page<BatchResult> = try await api.get("/batches/1/results?result=failed").decode()
    #expect(page.items.map(\.row) == [2])
    #expect(try await api.get("/batches/1/results?result=lost").status == 422)
  }

  // MARK: Events

  private func step(_ version: Int64, _ done: Int, _ state: BatchState = .running) -> Batch {
    Batch(
      id: BatchID(1), verb: .approve, state: state, total: 4, done: done, requestedBy: "a",
      createdAt: FakeAdminStore.date, version: version)
  }

  @Test("events tell each new version once, and end with the batch")
  func events() async throws {
    var api = TestAPI()
    api.configuration.eventInterval = .milliseconds(1)
    api.store.batches.state.withLock {
      $0.steps = [step(1, 0), step(2, 1), step(2, 1), step(3, 3), step(4, 4, .finished)]
    }
    let answer = try await api.get("/batches/1/events")
    #expect(answer.status == 200 && answer.headers[.contentType] == "text/event-stream; charset=utf-8")
    let events = answer.text.split(separator: "\n\n")
    #expect(events.first == "retry: 2000")
    #expect(
      events.dropFirst().map { $0.split(separator: "\n").prefix(2).joined(separator: " ") } == [
        "id: 1 event: progress", "id: 2 event: progress", "id: 3 event: progress", "id: 4 event: finished",
      ])
    #expect(events[2].contains(#""done":1"#))

    // A client that comes again is told what it does not know; one that knows the end gets it again, and closes.
    api.store.batches.state.withLock { $0.steps = [step(2, 1), step(3, 2), step(4, 4, .canceled)] }
    let again = try await api.get("/batches/1/events", headers: [.lastEventID: "2"])
    #expect(again.text.contains("id: 3\n") && !again.text.contains("id: 2\n") && again.text.contains("event: finished"))
    api.store.batches.state.withLock { $0.steps = [step(4, 4, .finished)] }
    #expect(try await api.get("/batches/1/events", headers: [.lastEventID: "4"]).text.contains("event: finished"))
    #expect(try await api.get("/batches/7/events").status == 404)
  }

  @Test("a stream ends after its time, or when the store is away; the batch goes on")
  func endOfStream() async throws {
    var api = TestAPI()
    api.configuration.eventInterval = .milliseconds(1)
    api.configuration.eventStreamDuration = .zero
    api.store.batches.state.withLock { $0.steps = [step(1, 0), step(2, 1)] }
    let short = try await api.get("/batches/1/events")
    #expect(short.text.contains("id: 1\n") && !short.text.contains("id: 2\n") && !short.text.contains("finished"))
    api.configuration.eventStreamDuration = .seconds(90)
    // After the second step the store knows no such batch.
    api.store.batches.state.withLock { $0.steps = [step(1, 0), step(2, 1)] }
    let cut = try await api.get("/batches/1/events")
    #expect(cut.text.contains("id: 2\n") && !cut.text.contains("finished"))
  }

  // MARK: Imports

  @Test("a file becomes rows; what is wrong stands in its row, never a password")
  func importing() async throws {
    let api = TestAPI(channel: .unixSocket)
    let text = """
      \u{FEFF}Address,password,ownerKind,ownerName,allowsCredentials,processEmailFrom,deleteAfterProcessing\r
      ada@example.com,"a ""quoted"", word",,,,,\r
      support@example.com,x,queue,"Support, EU",false,2026-03-01,true\r
      \r
      nonsense,hunter2,nobody,,yes,soon,\r
      bob@example.com,hunter2,user,,,,true
      ADA@example.com,hunter2,,,,,
      short@example.com,hunter2
      bad"quote@example.com,hunter2,,,,,
      """
    let answer = try await csv(api, "/mailbox-imports?dryRun=true", text)
    #expect(answer.status == 202 && answer.headers[.location] == "/api/v1/batches/1")
    let batch: Batch = try answer.decode()
    #expect(batch.verb == .importMailboxes && batch.dryRun && batch.total == 7)
    let rows = api.store.batches.state.withLock(\.rows)
    #expect(rows.map(\.row) == [2, 3, 5, 6, 7, 8, 9])
    #expect(rows[0].mailbox?.address == "ada@example.com" && rows[0].password?.revealed == "a \"quoted\", word")
    let queue = try #require(rows[1].mailbox)
    #expect(queue.ownerKind == .queue && queue.ownerName == "Support, EU" && queue.allowsCredentials == false)
    #expect(queue.deleteAfterProcessing == true && queue.processEmailFrom == APICoding.date("2026-03-01T00:00:00Z"))
    #expect(
      rows[2].problems.map { "\($0.pointer) \($0.code)" } == [
        "/ownerKind not-a-choice", "/allowsCredentials wrong-type", "/processEmailFrom not-a-date",
      ])
    #expect(rows[2].problems[0].message.contains("it is `nobody`") && rows[2].address == "nonsense")
    #expect(rows[3].problems.map(\.pointer) == ["/deleteAfterProcessing"])
    #expect(rows[4].problems.map(\.code) == ["duplicate"] && rows[4].problems[0].message.contains("row 2"))
    #expect(rows[5].problems.map(\.code) == ["wrong-count"] && rows[6].problems.map(\.code) == ["malformed"])
    #expect(rows[2...].allSatisfy { $0.mailbox == nil && $0.password == nil })
    #expect(!rows.flatMap(\.problems).map(\.description).joined().contains("hunter2"))
  }

  @Test(
    "what is wrong with a file as a whole is refused, and nothing of it stays",
    arguments: [
      ("", "", "required"), ("address\r\n", "", "required"), ("name,address\na,b@example.com", "row:1", "unknown"),
      ("address;userName\na@example.com;x", "row:1", "unknown"), ("userName\nx", "row:1", "required"),
      ("address,address\na,b", "row:1", "duplicate"),
      ("address\na@example.com\n\"b@example.com", "row:3", "unclosed-quote"),
      ("address\n" + String(repeating: "a", count: 70_000), "row:2", "too-long"),
    ])
  func refused(_ text: String, _ pointer: String, _ code: String) async throws {
    let api = TestAPI(channel: .unixSocket)
    let answer = try await csv(api, "/mailbox-imports", text)
    #expect(answer.status == 422)
    #expect(
      try answer.problem().errors?.contains { $0.pointer == pointer && $0.code == code } == true, "\(answer.text)")
    api.store.batches.state.withLock { state in
      #expect(state.batches.isEmpty && state.abandoned == [BatchID(1)])
    }
  }

  @Test("passwords need a secure channel, files the right type; large files come in parts")
  func border() async throws {
    let plain = TestAPI()
    let refused = try await csv(plain, "/mailbox-imports", "address,password\na@example.com,x")
    #expect(refused.status == 403)
    #expect(try refused.problem().code == "insecure-channel")
    #expect(plain.store.batches.state.withLock { $0.rows.isEmpty && $0.abandoned.count == 1 })
    #expect(try await csv(plain, "/mailbox-imports", "address\na@example.com").status == 202)
    for type in ["application/json", "message/rfc822"] {
      let answer = try await plain.post("/mailbox-imports", headers: [.contentType: type], "{}")
      #expect(answer.status == 415 && answer.text.contains("text/csv"))
    }
    var api = TestAPI(channel: .unixSocket)
    let lines = (1...2_500).map { "m\($0)@example.com\n" }.joined()
    #expect(try await csv(api, "/mailbox-imports", "address\n" + lines).status == 202)
    #expect(api.store.batches.state.withLock(\.parts) == [1_000, 1_000, 500])
    api.configuration.maximumMessageOctets = 100
    #expect(try await csv(api, "/mailbox-imports", "address\n" + lines).status == 413)
  }

  @Test("a file may be cut anywhere on its way")
  func cutAnywhere() throws {
    let text = Array("\u{FEFF}address,userName\r\na@example.com,\"x\r\n\"\"y\"\"\"\rb@example.com,\n".utf8)
    for cut in 0...text.count {
      var reader = CSVReader()
      var records: [CSVReader.Record] = []
      try reader.append(text[..<cut]) { records.append($0) }
      try reader.append(text[cut...]) { records.append($0) }
      try reader.finish { records.append($0) }
      #expect(records.map(\.row) == [1, 2, 3])
      #expect(
        records.flatMap(\.fields).map { String(decoding: $0, as: UTF8.self) } == [
          "address", "userName", "a@example.com", "x\r\n\"y\"", "b@example.com", "",
        ], "\(cut)")
    }
  }

  // MARK: Idempotency

  @Test("the same key answers as before; for another body, or while it runs, it is refused; refusals are not kept")
  func keys() async throws {
    let api = TestAPI(channel: .unixSocket)
    try await api.with { (client: TestAPI.Client) async throws in
      func post(_ path: String, _ body: String, key: String) async throws -> TestAPI.Answer {
        try await client.post(
          path, headers: [.contentType: "application/json", .idempotencyKey: key], body)
      }
      let approve = #"{"verb":"approve","ids":[1,2]}"#
      let first = try await post("/batches", approve, key: "k1")
      let second = try await post("/batches", approve, key: "k1")
      #expect(first.status == 202 && second.status == 202 && first.body == second.body)
      #expect(second.headers[.location] == "/api/v1/batches/1" && second.headers[.idempotencyReplayed] == "true")
      #expect(first.headers[.idempotencyReplayed] == nil)
      #expect(api.store.batches.state.withLock { $0.batches.count } == 1)
      let other = try await post("/batches", #"{"verb":"reject","ids":[1,2]}"#, key: "k1")
      #expect(other.status == 422)
      #expect(try other.problem().code == "idempotency-key-reused")
      #expect(try await post("/mailboxes", #"{"address":"a@example.com"}"#, key: "k1").status == 422)
      let mailbox = try await post("/mailboxes", #"{"address":"a@example.com"}"#, key: "k2")
      #expect(mailbox.status == 201)
      #expect(try await post("/mailboxes", #"{"address":"a@example.com"}"#, key: "k2").body == mailbox.body)
      // Refused: nothing was done, so the key may be used for what is right.
      #expect(try await post("/mailboxes", #"{"address":"nonsense"}"#, key: "k3").status == 422)
      #expect(try await post("/mailboxes", #"{"address":"b@example.com"}"#, key: "k3").status == 201)
      // Nobody knows what became of it: the key stays taken.
      api.store.batches.state.withLock { $0.failure = StoreError.unavailable(reason: "x") }
      #expect(try await post("/batches", approve, key: "k4").status == 503)
      api.store.batches.state.withLock { $0.failure = nil }
      let busy = try await post("/batches", approve, key: "k4")
      #expect(busy.status == 409)
      #expect(try busy.problem().code == "request-in-progress")
      #expect(try await post("/batches", approve, key: String(repeating: "k", count: 201)).status == 422)
    }
  }
}
