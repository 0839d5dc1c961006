import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite("postrider email send")
struct EmailSendTests {
  static let outgoing = OutgoingEmail(
    id: OutgoingEmailID(7), mailboxID: MailboxID(1), state: .pendingSend, priority: .normal, sendAfter: nil,
    nextTryAt: nil, attempts: 0, failure: nil, messageID: "1@example.com", idempotencyKey: nil, subject: "x",
    sender: "support@example.com", sizeOctets: 1, createdAt: Date(timeIntervalSince1970: 1_772_442_000),
    updatedAt: Date(timeIntervalSince1970: 1_772_442_000), sentAt: nil)

  /// Answers as the API would: one mailbox, and every message is taken.
  static func answer(_ request: SeenRequest) -> StubAnswer {
    switch request.name {
    case "POST /outgoing-emails": .json(outgoing, status: 201)
    case "GET /mailboxes/1": .json(Sample.mailbox(1))
    default: .json(Sample.page([Sample.mailbox(1)]))
    }
  }

  @Test("text or HTML, every option as the API reads it")
  func composed() async throws {
    try await withFolder { folder in
      #expect(FileManager.default.createFile(atPath: "\(folder)/x.html", contents: Data("<p>ü</p>".utf8)))
      try await StubAPI.run(answer: Self.answer) { stub in
        let result = try await stub.run(
          "email", "send", "--from", "1", "--to", "b@example.org", "--to", "c@example.org", "--bcc", "d@example.org",
          "--reply-to", "r@example.org", "--subject", "Re: x", "--text-file", "-", "--html-file", "\(folder)/x.html",
          "--in-reply-to", "<1@example.org>", "--references", "0@example.org", "--references", "1@example.org",
          "--header", "X-Ticket: 17: a", "--auto-submitted", "auto-replied", "--priority", "high", "--send-at",
          "2026-03-02T08:00:00Z", "--idempotency-key", "k", "--hold", input: "Hello.\n")
        #expect(result.exitCode == 0, "\(result.errors)")
        #expect(result.output == "Message 7 is pending-send.\n")
        let request = try #require(stub.requests.last)
        #expect(request.contentType == "application/json")
        let draft: OutgoingDraft = try request.decoded()
        var expected = OutgoingDraft(
          mailboxID: MailboxID(1), to: ["b@example.org", "c@example.org"], cc: [], bcc: ["d@example.org"],
          replyTo: ["r@example.org"], subject: "Re: x", text: "Hello.\n", html: "<p>ü</p>",
          inReplyTo: "<1@example.org>", references: ["0@example.org", "1@example.org"],
          headers: [OutgoingHeader(name: "X-Ticket", value: "17: a")], autoSubmitted: .replied)
        expected.priority = .high
        expected.sendAfter = Date(timeIntervalSince1970: 1_772_438_400)
        expected.idempotencyKey = "k"
        expected.hold = true
        #expect(draft == expected)
        #expect(throws: Never.self) { try draft.check() }
      }
    }
  }

  @Test("the text in the command; not together with one from a file")
  func inlineText() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let result = try await stub.run(
        "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--text", "Grüße")
      #expect(result.exitCode == 0, "\(result.errors)")
      let draft: OutgoingDraft = try #require(stub.requests.last).decoded()
      #expect(draft.text == "Grüße" && draft.html == nil)
      let refused = try await stub.run(
        "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--text", "y", "--text-file", "-")
      #expect(refused.exitCode == 64 && refused.errors.contains("not both"))
    }
  }

  @Test("files: the message is composed and sent as it stands, to everybody, blind copies included")
  func files() async throws {
    try await withFolder { folder in
      let octets = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 11) }
      #expect(FileManager.default.createFile(atPath: "\(folder)/Übersicht.pdf", contents: Data(octets)))
      #expect(FileManager.default.createFile(atPath: "\(folder)/b.png", contents: Data([1, 2])))
      try await StubAPI.run(answer: Self.answer) { stub in
        let result = try await stub.run(
          "email", "send", "--from", "1", "--to", "b@example.org", "--bcc", "d@example.org", "--subject", "x",
          "--attach", "\(folder)/Übersicht.pdf", "\(folder)/b.png", "--send-after", "2026-03-02T08:00:00Z",
          environment: ["TMPDIR": folder])
        #expect(result.exitCode == 0, "\(result.errors)")
        let request = try #require(stub.requests.last)
        #expect(request.contentType == "message/rfc822")
        #expect(
          request.query == [
            "mailbox": "1", "to": "b@example.org,d@example.org", "priority": "normal",
            "sendAfter": "2026-03-02T08:00:00.000Z",
          ])
        let parsed = try MessageReader.parse(request.body)
        #expect(parsed.envelope.to.map(\.address) == ["b@example.org"] && parsed.attachments.count == 2)
        #expect(parsed.attachments.map(\.content) == [octets, [1, 2]])
        #expect(parsed.attachments.map(\.record.fileName) == ["Übersicht.pdf", "b.png"])
        #expect(!String(decoding: request.body, as: UTF8.self).contains("d@example.org"))
      }
      let left = try FileManager.default.contentsOfDirectory(atPath: folder)
      #expect(left.sorted() == ["b.png", "Übersicht.pdf"].sorted())
    }
  }

  @Test("a whole message from a file and from standard input", arguments: [false, true])
  func raw(fromInput: Bool) async throws {
    try await withFolder { folder in
      let text = "From: a@example.com\nTo: b@example.org\n\n" + String(repeating: "line\n", count: 40_000)
      #expect(FileManager.default.createFile(atPath: "\(folder)/m.eml", contents: Data(text.utf8)))
      try await StubAPI.run(answer: Self.answer) { stub in
        let result = try await stub.run(
          "email", "send", "--from", "1", "--raw", fromInput ? "-" : "\(folder)/m.eml", "--idempotency-key", "a b",
          "--json", input: fromInput ? text : "")
        #expect(result.exitCode == 0, "\(result.errors)")
        let request = try #require(stub.requests.last)
        #expect(request.contentType == "message/rfc822" && request.body == Array(text.utf8))
        #expect(request.query == ["mailbox": "1", "priority": "normal", "idempotencyKey": "a b"])
        #expect(result.output.contains("\"messageID\" : \"1@example.com\"") || result.output.contains("1@example.com"))
      }
    }
  }

  @Test("what is refused is told with its place, and what to do")
  func refused() async throws {
    try await withFolder { folder in
      #expect(FileManager.default.createFile(atPath: "\(folder)/m.eml", contents: Data("hello\n".utf8)))
      try await StubAPI.run { request in
        request.method == "GET"
          ? Self.answer(request)
          : .problem(
            422, "invalid", "One value is not allowed",
            errors: [FieldProblem("header:from", "required", "must name the author")])
      } _: { stub in
        let result = try await stub.run("email", "send", "--from", "1", "--raw", "\(folder)/m.eml")
        #expect(result.exitCode == 1 && result.errors.contains("header:from: must name the author"))
        let missing = try await stub.run("email", "send", "--from", "1", "--raw", "\(folder)/none.eml")
        #expect(missing.exitCode == 1 && missing.errors.contains("none.eml cannot be read: No such file"))
        let folderItself = try await stub.run("email", "send", "--from", "1", "--raw", folder)
        #expect(folderItself.exitCode == 1 && folderItself.errors.contains("directory"))
        let attached = try await stub.run(
          "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--attach", "\(folder)/none")
        #expect(attached.exitCode == 1 && attached.errors.contains("none cannot be read"))
        let injected = try await stub.run(
          "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--attach", "\(folder)/m.eml",
          "--header", "X-A: b\r\nBcc: z@example.org")
        #expect(injected.exitCode == 64 && injected.errors.contains("control characters"))
      }
    }
  }

  @Test("wrong calls end with 64 before anything is asked")
  func wrongCalls() async throws {
    let sent = ["email", "send", "--from", "1"]
    for arguments in [
      [], ["--to", "b@example.org", "--text-file", "x"], ["--to", "b@example.org", "--subject", "x"],
      ["--raw", "x", "--subject", "y"], ["--raw", "x", "--attach", "y"],
      ["--to", "b@example.org", "--subject", "x", "--text-file", "-", "--header", "X-A"],
      ["--to", "b@example.org", "--subject", "x", "--text-file", "-", "--send-at", "soon"],
      ["--to", "b@example.org", "--subject", "x", "--text-file", "-", "--auto-submitted", "no"],
    ] {
      #expect(try await Program.run(sent + arguments).exitCode == 64, "\(arguments)")
    }
  }

  @Test("what bounced is shown")
  func bounced() async throws {
    var email = Self.outgoing
    email.state = .sent
    email.bounced = 1
    email.recipients = [
      OutgoingRecipient(
        address: "b@example.org", state: .accepted,
        report: DeliveryReport(
          action: .failed, status: "5.1.1", diagnostic: "550 no \u{1B}[2J", emailID: EmailID(12), reportedAt: nil)),
      OutgoingRecipient(address: "c@example.org", state: .accepted, report: DeliveryReport(action: .delayed)),
    ]
    let shown = email
    try await StubAPI.run { request in
      request.path == "/outgoing-emails" ? .json(Sample.page([shown])) : .json(shown)
    } _: { stub in
      let show = try await stub.run("email", "outgoing", "show", "7")
      #expect(show.output.contains("sent, 1 bounced"))
      #expect(show.output.contains("b@example.org: accepted, bounced 5.1.1 (550 no"))
      #expect(show.output.contains("says message 12") && !show.output.contains("\u{1B}"))
      #expect(show.output.contains("c@example.org: accepted, delayed"))
      #expect(try await stub.run("email", "outgoing", "list").output.contains("sent, 1 bounced"))
    }
  }
}
