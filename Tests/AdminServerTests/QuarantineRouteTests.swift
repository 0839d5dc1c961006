import PostriderCore
import Testing

@testable import AdminServer

@Suite("Messages in quarantine over the API (feature R5)")
struct QuarantineRouteTests {
  let api = TestAPI(channel: .unixSocket)

  struct Results: Decodable {
    let results: [QuarantineResult]
    let dryRun: Bool
  }

  init() {
    let kept = QuarantinedMessage(
      id: QuarantineID(1), mailboxID: MailboxID(3), uidl: "u1",
      failure: Failure(.messageUnparsable, context: "no structure"), attempts: 3, sizeOctets: 5,
      quarantinedAt: FakeAdminStore.date)
    let refused = QuarantinedMessage(
      id: QuarantineID(2), mailboxID: MailboxID(3), uidl: "u2", failure: Failure(.pop3Retrieve), attempts: 3,
      sizeOctets: nil, quarantinedAt: FakeAdminStore.date)
    api.store.change { state in
      state.quarantine = [kept, refused]
      state.keptRaw[kept.id] = [Array("abc".utf8), [0, 0xFF]]
    }
  }

  @Test("list with filters and pages, show; another organization sees nothing")
  func read() async throws {
    try await api.with { client in
      let page = try await client.get("/quarantine?mailbox=3&reason=message.unparsable&limit=1")
        .decode(Page<QuarantinedMessage>.self)
      #expect(page.items.map(\.id) == [QuarantineID(1)] && page.total == 2 && page.nextCursor == "1")
      let filter = QuarantineFilter(mailboxID: MailboxID(3), reason: .messageUnparsable)
      #expect(api.store.state.withLock { $0.lastQuarantineFilter } == filter)
      let shown = try await client.get("/quarantine/1")
      #expect(try shown.decode(QuarantinedMessage.self).failure.context == "no structure")
      #expect(shown.text.contains("\"code\":\"message.unparsable\"") && shown.text.contains("\"sizeOctets\":5"))
      let wrong = try await client.get("/quarantine?mailbox=x&reason=boredom&x=1")
      #expect(wrong.status == 422)
      #expect(try await client.get("/quarantine?reason=boredom").problem().errors?.first?.code == "not-a-choice")
      #expect(try await client.get("/quarantine", as: "foreign").decode(Page<QuarantinedMessage>.self).total == 0)
      for path in ["/quarantine/1", "/quarantine/1/raw", "/quarantine/9", "/quarantine/9/raw"] {
        let token = path.contains("1") ? "foreign" : "administrator"
        #expect(try await client.get(path, as: token).problem().code == "not-found")
      }
    }
  }

  @Test("raw octets arrive as they are kept; where nothing is kept the answer says so")
  func raw() async throws {
    try await api.with { client in
      let raw = try await client.get("/quarantine/1/raw")
      #expect(raw.body == Array("abc".utf8) + [0, 0xFF])
      #expect(raw.headers[.contentType] == "message/rfc822")
      #expect(raw.headers[.contentDisposition] == "attachment; filename=\"quarantine-1.eml\"")
      let none = try await client.get("/quarantine/2/raw")
      #expect(none.status == 409)
      #expect(try none.problem().code == "not-kept")
    }
  }

  @Test("reprocess and discard answer row by row, a row named twice once; a dry run says that it is one")
  func verbs() async throws {
    try await api.with { client in
      let again = try await client.post("/quarantine/reprocess", as: "mailbox-manager", #"{"ids":[1,9,1]}"#)
      #expect(again.status == 202)
      let results = try again.decode(Results.self)
      #expect(results.results.map(\.id) == [QuarantineID(1), QuarantineID(9)] && !results.dryRun)
      #expect(results.results.map(\.ok) == [true, false] && results.results[1].code == "not-found")
      let dry = try await client.post("/quarantine/discard", #"{"ids":[2],"dryRun":true}"#)
      #expect(dry.status == 200)
      #expect(try dry.decode(Results.self).dryRun)
      let foreign = try await client.post("/quarantine/discard", as: "foreign", #"{"ids":[2]}"#)
      #expect(try foreign.decode(Results.self).results.map(\.code) == ["not-found"])
      for body in ["{}", #"{"ids":[]}"#, #"{"ids":[0]}"#, #"{"ids":[1],"all":true}"#] {
        #expect(try await client.post("/quarantine/discard", body).status == 422)
      }
      #expect(
        api.store.state.withLock { $0.writes } == [
          "reprocess 1,9 by mailbox-manager", "discard 2 dry by administrator", "discard 2 by foreign",
        ])
    }
  }
}
