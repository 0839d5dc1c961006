import FoundationEssentials
import MailMessage
import PostriderCore
import Testing

@Suite("Composing messages")
struct MessageBuilderTests {
  private func builder(_ change: (inout MessageBuilder) -> Void = { _ in }) -> MessageBuilder {
    var builder = MessageBuilder(
      from: EmailAddress(name: "Jürgen Ünal", address: "j@example.com"), to: [EmailAddress(address: "t@example.com")],
      subject: "Grüße", text: "Übung\nzwei", messageID: "one@example.com",
      date: Date(timeIntervalSince1970: 1_772_442_000))
    change(&builder)
    return builder
  }

  @Test func whatIsBuiltReadsBack() throws {
    let bytes = try builder {
      $0.html = "<p>Übung</p>"
      $0.headers = [("Auto-Submitted", "auto-generated"), ("X-Postrider-Test", "run 7")]
    }.build()
    let parsed = try MessageReader.parse(bytes)
    #expect(parsed.envelope.from == [EmailAddress(name: "Jürgen Ünal", address: "j@example.com")])
    #expect(parsed.envelope.to == [EmailAddress(address: "t@example.com")])
    #expect(parsed.envelope.subject == "Grüße")
    #expect(parsed.envelope.messageID == "one@example.com")
    #expect(parsed.envelope.date?.timeIntervalSince1970 == 1_772_442_000)
    #expect(parsed.text == "Übung\nzwei\n")
    #expect(parsed.html == "<p>Übung</p>\n")
    #expect(parsed.messageClass == .automatic)
    #expect(parsed.problems == [])
  }

  @Test func onTheWireItIsASCIIWithCRLF() throws {
    let bytes = try builder().build()
    let text = String(decoding: bytes, as: UTF8.self)
    #expect(bytes.allSatisfy { $0 < 0x80 })
    #expect(text.replacing("\r\n", with: "").utf8.allSatisfy { $0 != 0x0D && $0 != 0x0A })
    #expect(text.contains("Content-Transfer-Encoding: quoted-printable\r\n"))
    #expect(text.contains("MIME-Version: 1.0\r\n") || text.contains("Mime-Version: 1.0\r\n"))
    #expect(text.contains("Message-Id: <one@example.com>\r\n") || text.contains("Message-ID: <one@example.com>\r\n"))
    #expect(text.contains("=C3=9Cbung\r\nzwei\r\n"))
    #expect(text.split(separator: "\r\n").allSatisfy { $0.utf8.count <= 998 })
  }

  @Test func plainTextStaysReadable() throws {
    let text = String(decoding: try builder { $0.text = "short line\r\n.dot" }.build(), as: UTF8.self)
    #expect(text.contains("\r\n\r\nshort line\r\n.dot\r\n"))
  }

  @Test("header injection", arguments: ["a\r\nBcc: x@evil.example", "a\nX: y", "a\0b"])
  func injection(value: String) throws {
    let parsed = try MessageReader.parse(
      builder {
        $0.subject = value
        $0.from.name = value
      }.build())
    #expect(!parsed.envelope.subject.contains("\n"))
    let raw = String(
      decoding: try builder {
        $0.subject = value; $0.from.name = value
      }.build(), as: UTF8.self)
    #expect(!raw.contains("\nBcc:") && !raw.contains("\nX:"))
    #expect(throws: MessageError.self) { try builder { $0.headers = [("X-Test", value)] }.build() }
    #expect(throws: MessageError.self) { try builder { $0.headers = [(value, "x")] }.build() }
    #expect(throws: MessageError.self) { try builder { $0.from.address = "a@example.com\(value)" }.build() }
    #expect(throws: MessageError.self) { try builder { $0.messageID = "\(value)@example.com" }.build() }
  }

  @Test func withoutRecipientsNothingIsBuilt() {
    #expect(throws: MessageError.invalid(field: "the list of recipients", reason: "must not be empty")) {
      try builder { $0.to = [] }.build()
    }
  }

  @Test func messageIDsAreFresh() {
    let id = MessageBuilder.newMessageID(for: "a@example.com")
    #expect(id.hasSuffix("@example.com"))
    #expect(id != MessageBuilder.newMessageID(for: "a@example.com"))
  }
}
