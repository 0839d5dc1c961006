import FoundationEssentials
import HTTPTypes
import Hummingbird
import PostriderCore
import Telemetry
import Testing

@testable import AdminServer

@Suite("Routes")
struct RouteTests {
  let api = TestAPI(channel: .unixSocket)

  @Test("whoami")
  func whoami() async throws {
    let answer = try await api.get("/whoami", as: "approver")
    #expect(answer.status == 200)
    #expect(try answer.decode(Principal.self).role == .approver)
    #expect(answer.headers[.contentType] == "application/json; charset=utf-8")
  }

  @Test("profiles: create with warnings and Location, list, show")
  func profiles() async throws {
    try await api.with { client in
      let made = try await client.post(
        "/server-profiles",
        """
        {"name":"G","type":"gmail","incoming":{"credentials":"mailbox"},"processEmailFrom":"2026-03-01T09:00:00+01:00"}
        """)
      #expect(made.status == 201)
      #expect(made.headers[.location] == "/api/v1/server-profiles/1")
      let profile = try made.decode(ServerProfile.self)
      #expect(profile.incoming.host == "pop.gmail.com")
      #expect(profile.processEmailFrom == Date(timeIntervalSince1970: 1_772_352_000))
      #expect(made.text.contains("\"warnings\":[\"gmail.password\"]"))
      #expect(made.text.contains("\"createdAt\":\"2026-03-01T08:00:00.125Z\""))
      #expect(made.text.contains("\"id\":1,"))
      #expect(!made.text.contains("caCertificatesPEM"))

      let plain = try await client.post("/server-profiles", #"{"name":"H","type":"microsoft365"}"#)
      #expect(plain.text.contains("\"warnings\":[]"))
      let page = try await client.get("/server-profiles?limit=1").decode(Page<ServerProfile>.self)
      #expect(page.items.count == 1 && page.total == 2)
      let next = try await client.get("/server-profiles?limit=1&cursor=\(page.nextCursor ?? "")")
      #expect(try next.decode(Page<ServerProfile>.self).nextCursor == nil)
      #expect(try await client.get("/server-profiles/2").decode(ServerProfile.self).name == "H")
    }
  }

  @Test("mailboxes: create, list with filters, show")
  func mailboxes() async throws {
    try await api.with { client in
      let made = try await client.post(
        "/mailboxes",
        #"{"address":"sales@example.com","owner":{"kind":"queue","name":"Sales"},"profileID":5,"password":"pw"}"#)
      #expect(made.status == 201)
      #expect(made.headers[.location] == "/api/v1/mailboxes/1")
      let mailbox = try made.decode(Mailbox.self)
      #expect(mailbox.passwordSet && mailbox.owner.kind == .queue && mailbox.profileID == ProfileID(5))
      #expect(!made.text.contains("\"pw\""))
      #expect(api.store.state.withLock { $0.passwords } == [Secret("pw")])
      let list = try await client.get(
        "/mailboxes?view=pending-approval&address=sales+eu%40example.com&profile=5&limit=500")
      #expect(try list.decode(Page<Mailbox>.self).total == 1)
      let filter = MailboxFilter(view: .pendingApproval, address: "sales+eu@example.com", profileID: ProfileID(5))
      #expect(api.store.state.withLock { $0.lastMailboxFilter } == filter)
      #expect(api.store.state.withLock { $0.lastPage } == PageRequest(limit: 500))
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).address == "sales@example.com")
      #expect(try await client.get("/mailboxes/1", as: "foreign").status == 404)
    }
  }

  struct Results: Decodable { let results: [BulkResult] }

  @Test("bulk verbs", arguments: [("approve", 200), ("reject", 200), ("test", 202), ("poll", 202)])
  func bulk(_ verb: String, _ status: Int) async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com"}"#)
      let answer = try await client.post("/mailboxes/\(verb)", #"{"ids":[1,77,1]}"#)
      #expect(answer.status == status)
      let results = try answer.decode(Results.self).results
      #expect(results.map(\.id) == [MailboxID(1), MailboxID(77)])
      #expect(results.map(\.ok) == [true, false])
      #expect(results[1].code == "not-found")
      let approval = api.store.state.withLock { $0.lastApproval }
      #expect(approval == (verb == "approve" ? .approved : verb == "reject" ? .rejected : nil))
    }
  }

  @Test("a test takes an address over from another organization only when it is told to")
  func takeOver() async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com"}"#)
      for body in [#"{"ids":[1]}"#, #"{"ids":[1],"takeOver":false}"#, #"{"ids":[1],"takeOver":null}"#] {
        #expect(try await client.post("/mailboxes/test", body).status == 202)
      }
      #expect(api.store.state.withLock { $0.writes }.isEmpty)
      #expect(try await client.post("/mailboxes/test", #"{"ids":[1],"takeOver":true}"#).status == 202)
      #expect(api.store.state.withLock { $0.writes } == ["take over"])
      let wrong = try await client.post("/mailboxes/test", #"{"ids":[1],"takeOver":"yes"}"#)
      #expect(wrong.status == 422)
      #expect(try wrong.problem().errors?.map { "\($0.pointer) \($0.code)" } == ["/takeOver wrong-type"])
      // Other verbs take nothing over.
      let poll = try await client.post("/mailboxes/poll", #"{"ids":[1],"takeOver":true}"#)
      #expect(try poll.problem().errors?.map { "\($0.pointer) \($0.code)" } == ["/takeOver unknown"])
      #expect(try await client.post("/mailboxes/test", as: "reader", #"{"ids":[1],"takeOver":true}"#).status == 403)
    }
  }

  @Test("reimport takes one of two choices")
  func reimport() async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com"}"#)
      let answer = try await client.post("/mailboxes/reimport", #"{"ids":[1,77],"choice":"missing"}"#)
      #expect(answer.status == 202)
      #expect(try answer.decode(Results.self).results.map(\.ok) == [true, false])
      #expect(api.store.state.withLock { $0.writes } == ["reimport missing"])
      let wrong = try await client.post("/mailboxes/reimport", #"{"ids":[1],"choice":"some"}"#)
      #expect(try wrong.problem().errors?.first?.pointer == "/choice")
      #expect(try await client.post("/mailboxes/reimport", #"{"ids":[1]}"#).status == 422)
    }
  }

  @Test("alerts, runs and mails with their filters")
  func history() async throws {
    let date = FakeAdminStore.date
    let step = TraceStep(
      direction: .incoming, name: .connect, tried: "a:995", result: .ok, startedAt: date, milliseconds: 3)
    api.store.change { state in
      state.alerts = [
        Alert(id: AlertID(1), level: .error, code: "auth.rejected", text: "x", firstSeen: date, lastSeen: date)
      ]
      state.runs = [
        RunRecord(
          id: RunID(3), mailboxID: MailboxID(1), kind: .test, trigger: .request, worker: "w", fence: Fence(9),
          dueAt: date, startedAt: date, finishedAt: date, result: .failure, failure: Failure(.authRejected),
          steps: [step])
      ]
      state.emails = [
        EmailRecord(
          id: EmailID(8), mailboxID: MailboxID(1), uidl: "u", envelope: MessageEnvelope(subject: "s"), sizeOctets: 6,
          storedAt: date)
      ]
      state.raw[EmailID(8)] = [Array("abc".utf8), Array("\r\n\0".utf8)]
      state.raw[EmailID(9)] = []
    }
    try await api.with { client in
      let alerts = try await client.get("/alerts?mailbox=1&level=error&resolved=true")
      #expect(try alerts.decode(Page<Alert>.self).items.first?.code == "auth.rejected")
      let filter = AlertFilter(mailboxID: MailboxID(1), level: .error, includeResolved: true)
      #expect(api.store.state.withLock { $0.lastAlertFilter } == filter)
      _ = try await client.get("/alerts?resolved=false")
      #expect(api.store.state.withLock { $0.lastAlertFilter } == AlertFilter())

      let runs = try await client.get("/runs?mailbox=1&kind=test&result=failure")
      #expect(try runs.decode(Page<RunRecord>.self).total == 1)
      let runFilter = RunFilter(mailboxID: MailboxID(1), kind: .test, result: .failure)
      #expect(api.store.state.withLock { $0.lastRunFilter } == runFilter)
      let run = try await client.get("/runs/3")
      #expect(try run.decode(RunRecord.self).steps == [step])
      #expect(run.text.contains("\"kind\":\"test\""))

      #expect(try await client.get("/emails?mailbox=1").decode(Page<EmailRecord>.self).total == 1)
      #expect(try await client.get("/emails?mailbox=2").decode(Page<EmailRecord>.self).total == 0)
      #expect(try await client.get("/emails/8").decode(EmailRecord.self).envelope.subject == "s")
      let raw = try await client.get("/emails/8/raw")
      #expect(raw.body == Array("abc\r\n\0".utf8))
      #expect(raw.headers[.contentType] == "message/rfc822")
      #expect(raw.headers[.contentDisposition] == "attachment; filename=\"email-8.eml\"")
      #expect(try await client.get("/emails/9/raw").body.isEmpty)
      #expect(try await client.get("/emails/10/raw").problem().code == "not-found")
    }
  }

  struct Stats: Decodable {
    let queue: QueueStatistics
    let schedule: ScheduleStatistics
  }

  @Test("queue numbers are read once in a while, however many ask")
  func statistics() async throws {
    var api = api
    // Longer than this test takes on a busy machine.
    api.configuration.statisticsLifetime = .seconds(600)
    let queue = api.queue
    let store = api.store
    try await api.with { client in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<30 {
          group.addTask {
            let stats = try await client.get("/queue/stats").decode(Stats.self)
            #expect(stats.queue.ready == ["poll": 3] && stats.schedule.leader == "s1")
          }
        }
        try await group.waitForAll()
      }
      _ = try await client.get("//metrics", as: nil)
    }
    #expect(queue.statisticsCalls.withLock { $0 } == 1)
    #expect(store.state.withLock { $0.scheduleCalls } == 1)
    #expect(store.state.withLock { $0.tokenCalls } <= 30)
  }

  struct Jobs: Decodable { let jobs: [JobLocation] }

  @Test("inspect: the three jobs of a mailbox and the lanes that are open, of the own organization alone")
  func inspect() async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com","profileID":5}"#)
      _ = try await client.post("/mailboxes", #"{"address":"b@example.com"}"#)
      let jobs = try await client.get("/queue/inspect?mailbox=1").decode(Jobs.self).jobs
      #expect(jobs.map(\.job) == ["1p", "1s", "1s1", "1t"] && jobs.allSatisfy { $0.fence == Fence(7) })
      #expect(api.queue.inspected.withLock { $0 }.allSatisfy { $0.profile == ProfileID(5) })
      #expect(jobs.allSatisfy { $0.state == "leased" })
      let absent = try await client.get("/queue/inspect?mailbox=2").decode(Jobs.self).jobs
      #expect(absent.map(\.state) == ["absent", "absent", "absent"])
      #expect(try await client.get("/queue/inspect?mailbox=1", as: "foreign").status == 404)
      #expect(try await client.get("/queue/inspect").problem().errors?.first?.pointer == "?mailbox")
    }
  }

  @Test("index, health and metrics need no token")
  func open() async throws {
    var api = api
    api.configuration.version = "9.9"
    try await api.with { client in
      let index = try await client.get("//", as: nil)
      #expect(index.text.contains("\"name\":\"postrider\"") && index.text.contains("\"version\":\"9.9\""))
      #expect(try await client.get("//healthz", as: nil).text == #"{"status":"ok"}"#)
      #expect(try await client.get("//readyz", as: nil).status == 200)
      let metrics = try await client.get("//metrics", as: nil)
      #expect(metrics.headers[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
      #expect(metrics.text.contains("postrider_queue_oldest_due_seconds{class=\"poll\"} 2\n"))
    }
  }

  @Test("readiness names what fails and why")
  func readiness() async throws {
    var api = api
    api.configuration.readinessLifetime = .zero
    let queue = api.queue
    queue.failure.withLock { $0 = .unavailable(reason: "connection refused") }
    try await api.with { client in
      let answer = try await client.get("//readyz", as: nil)
      #expect(answer.status == 503)
      #expect(answer.text.contains(#"{"name":"postgresql","ok":true}"#))
      #expect(answer.text.contains("the queue cannot be reached: connection refused"))
      #expect(try await client.get("//healthz", as: nil).status == 200)
      #expect(try await client.get("//readyz", as: nil).status == 503)
      queue.failure.withLock { $0 = nil }
      #expect(try await client.get("//readyz", as: nil).status == 200)
    }
    #expect(api.log.text.split(separator: "\n").count { $0.contains("A health check fails") } == 1)
    #expect(api.log.text.contains("A health check passes again"))
  }

  @Test("a path with a name of its own is not a thing of that number, whatever the method")
  func literalPaths() async throws {
    try await api.with { client in
      for (method, path) in [
        (HTTPRequest.Method.patch, "/mailboxes/test"), (.get, "/mailboxes/approve"), (.get, "/quarantine/discard"),
      ] {
        let answer = try await client.send(method, path, as: "administrator", body: nil)
        #expect(answer.status == 405 && answer.headers[.allow] == "POST", "\(path)")
      }
    }
  }

  @Test("lists are sorted as far as an index serves it, and refused beyond")
  func order() async throws {
    try await api.with { client in
      _ = try await client.get("/mailboxes?sort=-updated")
      #expect(api.store.state.withLock { $0.lastMailboxFilter } == MailboxFilter(sort: .updatedDescending))
      _ = try await client.get("/mailboxes?sort=-address&view=failing")
      let filter = MailboxFilter(view: .failing, sort: .addressDescending)
      #expect(api.store.state.withLock { $0.lastMailboxFilter } == filter)
      for query in ["sort=lastRun", "sort=updated&view=active", "sort=-updated&profile=1", "sort=updated&address=a"] {
        let refused = try await client.get("/mailboxes?\(query)")
        #expect(try refused.problem().errors?.first?.pointer == "?sort", "\(query)")
      }
      _ = try await client.get("/runs?order=asc&result=failure")
      #expect(api.store.state.withLock { $0.lastRunFilter } == RunFilter(result: .failure, order: .ascending))
      _ = try await client.get("/alerts?order=asc")
      #expect(api.store.state.withLock { $0.lastAlertFilter } == AlertFilter(order: .ascending))
    }
  }

  @Test("every answer carries a request id and the security headers; a harmless id is kept")
  func headers() async throws {
    try await api.with { client in
      for path in ["/whoami", "/nowhere", "//healthz"] {
        let answer = try await client.get(path)
        #expect(answer.headers[.xContentTypeOptions] == "nosniff")
        #expect(answer.headers[.cacheControl] == "no-store")
        #expect(answer.headers[.contentSecurityPolicy] != nil)
        #expect(answer.headers[.requestID]?.count == 16)
      }
      #expect(try await client.get("/whoami", headers: [.requestID: "abc-1"]).headers[.requestID] == "abc-1")
      #expect(try await client.get("/whoami", headers: [.requestID: "a b\"c"]).headers[.requestID]?.count == 16)
    }
  }

  @Test("HEAD answers as GET without a body")
  func head() async throws {
    let answer = try await api.with { try await $0.send(.head, "/whoami", as: "reader", body: nil) }
    #expect(answer.status == 200 && answer.body.isEmpty)
  }

  @Test("neither addresses nor tokens nor passwords reach the log")
  func log() async throws {
    try await api.with { client in
      _ = try await client.get("/mailboxes?address=secret%40example.com")
      _ = try await client.post("/mailboxes", #"{"address":"secret@example.com","password":"hunter2"}"#)
      _ = try await client.get("/whoami", as: "unknown-token")
      _ = try await client.get("/mailboxes/secret@example.com")
    }
    #expect(api.log.text.contains("\"http.route\":\"/api/v1/mailboxes\""))
    #expect(api.log.text.contains("\"request.id\":"))
    for word in ["secret", "hunter2", "unknown-token", "administrator"] { #expect(!api.log.text.contains(word)) }
  }
}
