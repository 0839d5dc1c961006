import FoundationEssentials
import MailMessage
import PostriderCore
import Testing

@Suite("Header fields (RFC 5322, RFC 2047)")
struct EnvelopeTests {
  @Test(
    "subject",
    arguments: [
      ("Subject: plain", "plain"),
      ("Subject: =?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
      ("Subject: =?iso-8859-1?Q?Gr=FC=DFe?=", "Grüße"),
      ("Subject: =?koi8-r?B?8NLJ18XU?=", "Привет"),
      ("Subject: =?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
      ("Subject: a\r\n folded\r\n\tline", "a folded line"),
      ("Subject: =?utf-8?Q?bell=07_and=0D=0ABcc:_x@y?=", "bell and  Bcc: x@y"),
      ("Subject: =?utf-8?Q?nul=00inside?=", "nulinside"),
      ("Subject: =?utf-8?B?4oCuZ3BqLmV4ZQ==?=", "gpj.exe"),
      ("Subject: Grüße roh", "Grüße roh"),
      ("Subject:", ""),
      ("X-Other: x", ""),
    ])
  func subject(field: String, expected: String) throws {
    let subject = try MessageReader.parse(headersOnly(field)).envelope.subject
    // GMime ends an encoded word at a NUL; either way none comes through.
    #expect(subject == expected || field.contains("=00") && subject.hasPrefix("nul") && !subject.contains("\0"))
  }

  @Test func subjectOfAnUnknownCharsetIsStillText() throws {
    let subject = try MessageReader.parse(headersOnly("Subject: =?x-nonsense-9?B?/v8=?= tail")).envelope.subject
    #expect(subject.hasSuffix("tail"))
  }

  @Test func subjectOfRawLatin1IsReadAsWindows1252() throws {
    let bytes = Array("Subject: Gr".utf8) + [0xFC, 0xDF] + Array("e\r\n\r\n".utf8)
    #expect(try MessageReader.parse(bytes).envelope.subject == "Grüße")
  }

  @Test func longSubjectIsBounded() throws {
    let subject = try MessageReader.parse(headersOnly("Subject: \(String(repeating: "é", count: 9_000))"))
    #expect(subject.envelope.subject.count == 2_000)
  }

  @Test func addressesAreDecodedAndGroupsFlattened() throws {
    let envelope = try MessageReader.parse(
      headersOnly(
        "From: =?utf-8?Q?J=C3=BCrgen?= <j@example.com>, \"B, C\" <b@example.com>",
        "To: friends: a@example.com, Bea <b@example.com>;, c@example.com", "Cc: undisclosed-recipients:;",
        "Reply-To: <r@example.com>")
    ).envelope
    #expect(
      envelope.from == [
        EmailAddress(name: "Jürgen", address: "j@example.com"), EmailAddress(name: "B, C", address: "b@example.com"),
      ])
    #expect(envelope.to.map(\.address) == ["a@example.com", "b@example.com", "c@example.com"])
    #expect(envelope.to[1].name == "Bea")
    #expect(envelope.cc == [])
    #expect(envelope.replyTo == [EmailAddress(address: "r@example.com")])
  }

  @Test func addressesAreBounded() throws {
    let many = (0..<3_000).map { "a\($0)@example.com" }.joined(separator: ",\r\n ")
    #expect(try MessageReader.parse(headersOnly("To: \(many)")).envelope.to.count == 1_000)
  }

  @Test func messageIDsHaveNoBrackets() throws {
    let envelope = try MessageReader.parse(
      headersOnly(
        "Message-ID: <one@example.com>", "In-Reply-To: <two@example.com>",
        "References: <root@example.com>\r\n <mid@example.com> <two@example.com>")
    ).envelope
    #expect(envelope.messageID == "one@example.com")
    #expect(envelope.inReplyTo == "two@example.com")
    #expect(envelope.references == ["root@example.com", "mid@example.com", "two@example.com"])
  }

  @Test func longConversationsKeepTheirRootAndEnd() throws {
    let ids = (0..<500).map { "<m\($0)@example.com>" }
    let references = try MessageReader.parse(headersOnly("References: \(ids.joined(separator: "\r\n "))"))
      .envelope.references
    #expect(references.count == 100)
    #expect(references.first == "m0@example.com")
    #expect(references.last == "m499@example.com")
  }

  @Test(
    "dates",
    arguments: [
      ("Mon, 2 Mar 2026 10:00:00 +0100", 1_772_442_000.0),
      ("2 Mar 2026 09:00 GMT", 1_772_442_000.0),
      ("Mon, 2 Mar 2026 09:00:00 +0000 (UTC)", 1_772_442_000.0),
      ("yesterday", nil),
      ("", nil),
      ("Mon, 99 Foo 2026 77:00:00", nil),
      ("Mon, 1 Jan 1900 00:00:00 +0000", nil),
    ] as [(String, Double?)])
  func dates(text: String, expected: Double?) throws {
    let date = try MessageReader.parse(headersOnly("Date: \(text)", "Subject: x")).envelope.date
    #expect(date?.timeIntervalSince1970 == expected)
  }

  @Test func receivedDateIsTheTopmostThatCanBeRead() throws {
    let envelope = try MessageReader.parse(
      headersOnly(
        "Received: from a by b", "Received: from a by b; nonsense",
        "Received: from c by d\r\n (x; y) id 1;\r\n Mon, 2 Mar 2026 09:00:00 +0000",
        "Received: from e by f; Sun, 1 Mar 2026 09:00:00 +0000", "Date: Tue, 3 Mar 2026 09:00:00 +0000")
    ).envelope
    #expect(envelope.receivedDate?.timeIntervalSince1970 == 1_772_442_000)
    #expect(envelope.date?.timeIntervalSince1970 == 1_772_528_400)
  }
}

@Suite("Class of a message (RFC 3464, RFC 3834)")
struct MessageClassTests {
  @Test(
    "headers",
    arguments: [
      ("Auto-Submitted: auto-replied (vacation)", MessageClass.automatic),
      ("Auto-Submitted: auto-generated; owner-email=\"a@b.c\"", .automatic),
      ("Auto-Submitted: no", .ordinary),
      ("Auto-Submitted: No (really)", .ordinary),
      ("Precedence: bulk", .automatic),
      ("Precedence: AUTO_REPLY", .automatic),
      ("Precedence: list", .ordinary),
      ("Subject: hello", .ordinary),
      ("Content-Type: multipart/report; report-type=delivery-status; boundary=x", .bounce),
      ("Content-Type: multipart/report; report-type=\"Delivery-Status\"; boundary=x", .bounce),
      ("Content-Type: multipart/report; report-type=disposition-notification; boundary=x", .automatic),
    ])
  func headers(field: String, expected: MessageClass) throws {
    let bytes = Array("\(field)\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n".utf8)
    #expect(try MessageReader.parse(bytes).messageClass == expected)
  }

  @Test func reportWithoutATypeIsABounceByItsParts() throws {
    let parsed = try MessageReader.parse(
      message(
        "Content-Type: multipart/report; boundary=x", "", "--x", "", "Your mail could not be delivered.", "--x",
        "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.example.com", "",
        "Final-Recipient: rfc822; a@example.com", "Action: failed", "Status: 5.1.1", "--x",
        "Content-Type: message/rfc822", "", "Subject: original", "", "text", "--x--"))
    #expect(parsed.messageClass == .bounce)
    #expect(parsed.text == "Your mail could not be delivered.")
    #expect(parsed.attachments.map(\.record.contentType) == ["message/delivery-status", "message/rfc822"])
    #expect(parsed.attachments.last?.record.fileName == "original.eml")
    let original = String(decoding: parsed.attachments.last?.content ?? [], as: UTF8.self)
    #expect(original.hasPrefix("Subject: original"))
  }
}
