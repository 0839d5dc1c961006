import Foundation
import HTTPTypes
import MailMessage
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
      (#""to":["b@example.org"],"subject":"x""#, "/text"),
      (#""to":["b@example.org"],"subject":"x","text":"y","replyTo":["a b"]"#, "/replyTo/0"),
      (#""to":["b@example.org"],"subject":"x","text":"y","inReplyTo":"<a@b>\r\nX: y""#, "/inReplyTo"),
      (#""to":["b@example.org"],"subject":"x","text":"y","references":["a@b","c"]"#, "/references/1"),
      (
        #""to":["b@example.org"],"subject":"x","text":"y","headers":[{"name":"Bcc","value":"z@example.org"}]"#,
        "/headers/0/name"
      ),
      (
        #""to":["b@example.org"],"subject":"x","text":"y","headers":[{"name":"X-A: b\r\nBcc","value":"z"}]"#,
        "/headers/0/name"
      ),
      (
        #""to":["b@example.org"],"subject":"x","text":"y","headers":[{"name":"X-A","value":"b\r\nBcc: z@example.org"}]"#,
        "/headers/0/value"
      ),
      (
        #""to":["b@example.org"],"subject":"x","attachments":[{"fileName":"../x","content":"YQ=="}]"#,
        "/attachments/0/fileName"
      ),
      (
        #""to":["b@example.org"],"subject":"x","attachments":[{"fileName":"x\r\ny","content":"YQ=="}]"#,
        "/attachments/0/fileName"
      ),
      (
        #""to":["b@example.org"],"subject":"x","attachments":[{"fileName":"x","content":"YQ="}]"#,
        "/attachments/0/content"
      ),
      (
        #""to":["b@example.org"],"subject":"x","attachments":[{"fileName":"x","contentType":"a/b; c=d","content":""}]"#,
        "/attachments/0/contentType"
      ),
      (
        #""to":["b@example.org"],"subject":"x","attachments":[{"fileName":"x","contentType":"message/rfc822","content":""}]"#,
        "/attachments/0/contentType"
      ), (#""to":["b@example.org"],"subject":"x","text":"y","autoSubmitted":"yes""#, "/autoSubmitted"),
      (#""to":["b@example.org"],"subject":"x","text":"y","sendAfter":"soon""#, "/sendAfter"),
      (#""to":["b@\u00FC-.example"],"subject":"x","text":"y""#, "/to/0"),
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

  @Test("files, HTML alone, an answer's fields, priority, send-later and key in one message")
  func everything() async throws {
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@bücher.example"}"#).status == 201)
      let file = Data((0..<900_000).map { UInt8(truncatingIfNeeded: $0) })
      let made = try await client.post(
        "/outgoing-emails",
        """
        {"mailboxID":1,"to":["info@bücher.example","INFO@xn--bcher-kva.example"],"replyTo":["r@example.org"],
        "subject":"Grüße","html":"<p>x</p>",
        "attachments":[{"fileName":"Übersicht.pdf","content":"\(file.base64EncodedString())"},
        {"fileName":"b","contentType":"text/x-b","content":""}],
        "inReplyTo":"<1@example.org>","references":["0@example.org","<1@example.org>"],
        "headers":[{"name":"X-Ticket","value":"17"}],"autoSubmitted":"auto-replied","priority":"low",
        "sendAfter":"2026-03-02T08:00:00Z","idempotencyKey":"k1","hold":true}
        """)
      #expect(made.status == 201, "\(made.text)")
      let sent = try #require(api.store.state.withLock { $0.submissions.first })
      #expect(sent.recipients == ["info@xn--bcher-kva.example"] && sent.sender == "a@xn--bcher-kva.example")
      #expect(sent.priority == .low && sent.idempotencyKey == "k1" && sent.hold && sent.encoding == .sevenBit)
      #expect(sent.sendAfter == APICoding.date("2026-03-02T08:00:00Z"))
      let parsed = try MessageReader.parse(Array(api.store.state.withLock { $0.composed }.utf8))
      #expect(parsed.html == "<p>x</p>\n" && parsed.text == nil && parsed.messageClass == .automatic)
      #expect(parsed.envelope.references == ["0@example.org", "1@example.org"])
      #expect(
        parsed.envelope.inReplyTo == "1@example.org" && parsed.envelope.replyTo.map(\.address) == ["r@example.org"])
      #expect(parsed.attachments.map(\.record.fileName) == ["Übersicht.pdf", "b"])
      #expect(parsed.attachments.map(\.record.contentType) == ["application/pdf", "text/x-b"])
      #expect(parsed.attachments.map(\.content) == [Array(file), []])
      // The message waited in a file, which is gone.
      guard case .file(let path, _) = sent.raw else {
        Issue.record("in memory")
        return
      }
      #expect(!FileManager.default.fileExists(atPath: path))
    }
  }

  @Test("only the body of this route may be large, and only so large")
  func bounds() async throws {
    var api = api
    api.configuration.maximumFilesOctets = 2_000_000
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let big = String(repeating: "QUFB", count: 400_000)
      let fields = #""mailboxID":1,"to":["b@example.org"],"subject":"x","attachments":[{"fileName":"x","content":""#
      #expect(try await client.post("/outgoing-emails", "{\(fields)\(big)\"}]}").status == 201)
      let tooBig = try await client.post("/outgoing-emails", "{\(fields)\(big)\(big)\"}]}")
      #expect(tooBig.status == 413)
      #expect(try await client.post("/mailboxes", #"{"address":"\#(big)"}"#).status == 413)
    }
  }

  static let message: HTTPFields = [.contentType: "message/rfc822"]

  @Test("a whole message goes as it stands, to those in its header or those named")
  func raw() async throws {
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let text =
        "From: A <a@example.com>\nTo: b@example.org\nBcc: c@bücher.example\nSubject: =?utf-8?q?=C3=BC?=\n\n.\rx"
      let made = try await client.post(
        "/outgoing-emails?mailbox=1&priority=high&sendAfter=2026-03-02T08:00:00Z&idempotencyKey=k&hold=true",
        headers: Self.message, text)
      #expect(made.status == 201, "\(made.text)")
      let email = try made.decode(OutgoingEmail.self)
      #expect(email.recipients.map(\.address) == ["b@example.org", "c@xn--bcher-kva.example"])
      #expect(email.subject == "ü" && email.priority == .high && email.state == .draft && email.idempotencyKey == "k")
      let composed = api.store.state.withLock { $0.composed }
      #expect(composed.hasSuffix("\r\n\r\n.\r\nx\r\n") && !composed.contains("Bcc"))
      #expect(composed.contains("Message-ID: <\(email.messageID)>\r\n") && composed.contains("\r\nDate: "))
      // The bücher in the blind copy left with it.
      #expect(api.store.state.withLock { $0.submissions.last?.sender } == "a@example.com")

      let named = try await client.post(
        "/outgoing-emails?mailbox=1&to=d@example.org,%20e%40example.org", headers: Self.message, text)
      #expect(try named.decode(OutgoingEmail.self).recipients.map(\.address) == ["d@example.org", "e@example.org"])
      #expect(!api.store.state.withLock { $0.composed }.contains("bücher"))
    }
  }

  @Test(
    "a message that cannot be sent is refused with its place",
    arguments: [
      ("?mailbox=1", "To: b@example.org\n\nx", 422, "header:from"),
      ("?mailbox=1", "From: a@example.com\n\nx", 422, ""),
      ("?mailbox=1", "From: a@example.com\nTo: nobody\n\nx", 422, "header:to"),
      ("?mailbox=1&to=nobody", "From: a@example.com\n\nx", 422, "?to"),
      ("?mailbox=1", "From: a@example.com\nTo: b@example.org\n\nx\0", 422, "line:4"),
      ("", "From: a@example.com\nTo: b@example.org\n\nx", 422, "?mailbox"),
      ("?mailbox=1&sendAfter=soon", "From: a@example.com\nTo: b@example.org\n\nx", 422, "?sendAfter"),
      ("?mailbox=1&subject=x", "From: a@example.com\nTo: b@example.org\n\nx", 422, "?subject"),
      ("?mailbox=9", "From: a@example.com\nTo: b@example.org\n\nx", 404, nil),
    ])
  func rawRefused(query: String, text: String, status: Int, pointer: String?) async throws {
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let answer = try await client.post("/outgoing-emails\(query)", headers: Self.message, text)
      #expect(answer.status == status, "\(answer.text)")
      #expect(try answer.problem().errors?.first?.pointer == pointer)
    }
    #expect(api.store.state.withLock { $0.outgoing }.isEmpty)
  }

  @Test("a message has a bound too; other routes and readers are refused before anything is read")
  func rawBounds() async throws {
    var api = api
    api.configuration.maximumMessageOctets = 10_000
    try await api.with { client in
      #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
      let text = "From: a@example.com\nTo: b@example.org\n\n" + String(repeating: "x\n", count: 10_000)
      let large = try await client.post("/outgoing-emails?mailbox=1", headers: Self.message, text)
      #expect(large.status == 413 && large.text.contains("10000 octets"))
      #expect(try await client.post("/mailboxes", headers: Self.message, text).status == 415)
      #expect(
        try await client.post("/outgoing-emails?mailbox=1", as: "reader", headers: Self.message, text).status == 403)
      let other = try await client.post("/outgoing-emails", headers: [.contentType: "text/plain"], text)
      #expect(other.status == 415 && other.text.contains("message/rfc822"))
    }
    #expect(api.store.state.withLock { $0.outgoing }.isEmpty)
  }
}
