import MailMessage
import PostriderCore
import Testing

@Suite("Bodies and attachments (RFC 2045 to 2049)")
struct BodyTests {
  @Test(
    "text and charset",
    arguments: [
      ("text/plain", "7bit", "hello", "hello\n"),
      ("text/plain; charset=utf-8", "quoted-printable", "Gr=C3=BC=C3=9Fe", "Grüße\n"),
      ("text/plain; charset=iso-8859-1", "quoted-printable", "Gr=FC=DFe =80", "Grüße €\n"),
      ("text/plain; charset=utf-8", "base64", "R3LDvMOfZQ==", "Grüße"),
      ("text/plain; charset=iso-2022-jp", "base64", "GyRCRnxLXBsoQg==", "日本"),
      ("text/plain; charset=us-ascii", "8bit", "Grüße", "Grüße\n"),
      ("text/plain; charset=utf-8", "quoted-printable", "nul=00inside", "nulinside\n"),
      ("text/plain; charset=x-nonsense-9", "quoted-printable", "ok =FF", "ok \u{FFFD}\n"),
      ("text/plain; charset=utf-8", "quoted-printable", "bad =C3 end", "bad \u{FFFD} end\n"),
    ])
  func text(type: String, encoding: String, body: String, expected: String) throws {
    let parsed = try MessageReader.parse(
      message("Content-Type: \(type)", "Content-Transfer-Encoding: \(encoding)", "", body))
    #expect(parsed.text == expected)
    #expect(parsed.attachments == [])
  }

  @Test func alternativesGiveTheBestOfEach() throws {
    let parsed = try MessageReader.parse(
      message(
        "Content-Type: multipart/mixed; boundary=m", "", "preamble", "--m",
        "Content-Type: multipart/alternative; boundary=a", "", "--a", "Content-Type: text/plain", "", "simple", "--a",
        "Content-Type: text/plain; charset=utf-8", "", "better", "--a",
        "Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "", "<p>rich</p>", "--r",
        "Content-Type: image/png; name=dot.png", "Content-Disposition: inline", "Content-Transfer-Encoding: base64",
        "", "AAECAw==", "--r--", "--a--", "--m", "Content-Type: application/pdf",
        "Content-Disposition: attachment; filename*=utf-8''%C3%BCber.pdf", "", "%PDF", "--m--", "epilogue"))
    #expect(parsed.text == "better")
    #expect(parsed.html == "<p>rich</p>")
    #expect(parsed.attachments.map(\.record.fileName) == ["dot.png", "über.pdf"])
    #expect(parsed.attachments.map(\.record.contentType) == ["image/png", "application/pdf"])
    #expect(parsed.attachments.first?.content == [0, 1, 2, 3])
    #expect(parsed.attachments.first?.record.sizeOctets == 4)
  }

  @Test func textsAroundAPictureAreJoined() throws {
    let parsed = try MessageReader.parse(
      message(
        "Content-Type: multipart/mixed; boundary=m", "", "--m", "Content-Type: text/plain", "", "above", "--m",
        "Content-Type: image/png", "", "x", "--m", "Content-Type: text/plain", "", "below", "--m--"))
    #expect(parsed.text == "above\nbelow")
    #expect(parsed.attachments.count == 1)
  }

  @Test func namedTextIsAnAttachment() throws {
    let parsed = try MessageReader.parse(
      message(
        "Content-Type: multipart/mixed; boundary=m", "", "--m", "Content-Type: text/plain", "", "body", "--m",
        "Content-Type: text/plain", "Content-Disposition: attachment; filename=\"../../etc/passwd\"", "", "log",
        "--m--"))
    #expect(parsed.text == "body")
    #expect(parsed.attachments.map(\.record.fileName) == ["passwd"])
  }

  @Test func largeAttachmentsAreListedWithoutContent() throws {
    let limits = MessageLimits(maximumAttachmentOctets: 10)
    let bytes = message(
      "Content-Type: multipart/mixed; boundary=m", "", "--m", "Content-Type: application/x-a", "", "0123456789",
      "--m", "Content-Type: application/x-b", "", "0123456789A", "--m", "Content-Type: message/rfc822", "",
      "Subject: long enough", "", "body", "--m--")
    let attachments = try MessageReader.parse(bytes, limits: limits).attachments
    #expect(attachments.map(\.record.dropped) == [false, true, true])
    #expect(attachments.map { $0.content == nil } == [false, true, true])
    #expect(attachments[0].content?.count == 10)
    #expect(attachments[1].record.sizeOctets == 11)
    #expect(attachments[2].record.sizeOctets > 10)
  }

  @Test func longTextsAreCutAtACharacter() throws {
    let limits = MessageLimits(maximumTextOctets: 1_001)
    let parsed = try MessageReader.parse(
      message("Content-Type: text/plain; charset=utf-8", "", String(repeating: "é", count: 5_000)), limits: limits)
    #expect(parsed.text?.utf8.count == 1_000 || parsed.text?.hasSuffix("\u{FFFD}") == true)
    #expect((parsed.text?.utf8.count ?? 0) <= 1_001)
    #expect(parsed.problems.contains { $0.contains("longer than 1001") })
  }

  @Test func lineEndsOfEveryKindBecomeOne() throws {
    let parsed = try MessageReader.parse(Array("Subject: x\nContent-Type: text/plain\r\n\na\r\nb\nc\rd\r\r\ne".utf8))
    #expect(parsed.envelope.subject == "x")
    #expect(parsed.text == "a\nb\nc\nd\n\ne")
  }
}
