import PostriderCore
import Testing

@testable import AdminServer

@Suite("Outgoing messages over the API")
struct OutgoingRouteTests {
  let api = TestAPI(channel: .unixSocket)

  @Test("submit composes a message without blind copies; list, show, cancel")
  func submit() async throws {
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let made = try await client.post(
        "/outgoing-emails",
        """
        {"mailboxID":1,"to":["b@example.org"],"cc":["c@example.org"],"bcc":["d@example.org","B@example.org"],
        "subject":"Hi","text":"Hello.","priority":"high"}
        """)
      #expect(made.status == 201)
      #expect(made.headers[.location] == "/api/v1/outgoing-emails/1")
      let email = try made.decode(OutgoingEmail.self)
      #expect(email.recipients.map(\.address) == ["b@example.org", "c@example.org", "d@example.org"])
      #expect(email.priority == .high && email.state == .pendingSend)
      let text = api.store.state.withLock { $0.composed }
      #expect(text.contains("To: b@example.org\r\n") && text.contains("Cc: c@example.org\r\n"))
      #expect(!text.contains("d@example.org") && text.contains("Message-Id: <\(email.messageID)>\r\n"))
      let page = try await client.get("/outgoing-emails?state=pending-send").decode(Page<OutgoingEmail>.self)
      #expect(page.items.count == 1)
      #expect(try await client.get("/outgoing-emails/1").decode(OutgoingEmail.self).subject == "Hi")
      #expect(try await client.post("/outgoing-emails/1/cancel", "{}").decode(OutgoingEmail.self).state == .canceled)
      #expect(try await client.get("/outgoing-emails/9").status == 404)
      #expect(try await client.post("/outgoing-emails/1/retry", "{}").status == 200)
      #expect(try await client.post("/outgoing-emails/1/retry", #"{"resendUncertain":true}"#).status == 200)
      #expect(api.store.state.withLock { $0.writes }.suffix(2) == ["retry 1 false", "retry 1 true"])
    }
  }

  @Test(
    "line breaks, NUL, wrong addresses and no recipients are refused at the edge",
    arguments: [
      (#""to":["b@example.org\r\nX: y"],"subject":"x","text":"y""#, "/to/0"),
      (#""to":["b@example.org"],"subject":"x\r\nBcc: z@example.org","text":"y""#, "/subject"),
      (#""to":["b@example.org"],"subject":"x","text":"a\u0000b""#, "/text"),
      (#""to":["nobody"],"subject":"x","text":"y""#, "/to/0"), (#""to":[],"subject":"x","text":"y""#, "/to"),
    ])
  func refused(fields: String, pointer: String) async throws {
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let answer = try await client.post("/outgoing-emails", "{\"mailboxID\":1,\(fields)}")
      #expect(answer.status == 422)
      #expect(try answer.problem().errors?.first?.pointer == pointer)
    }
    #expect(api.store.state.withLock { $0.outgoing }.isEmpty)
  }
}
