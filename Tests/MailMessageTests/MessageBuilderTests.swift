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

  @Test("files with names of every kind come back as they were", arguments: [false, true])
  func files(inFile: Bool) throws {
    let octets = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    let long = "Rechnung über \"alles\" mit einem sehr langen Namen, der nicht in eine Zeile passt – ja.pdf"
    let builder = builder {
      $0.html = "<p>Übung</p>"
      $0.attachments = [
        MessageAttachment(fileName: long, content: .bytes(octets)),
        MessageAttachment(
          fileName: "dir/a.txt", contentType: "text/x-log", content: .bytes(Array("From me\n.\n".utf8))),
        MessageAttachment(fileName: "original.eml", content: .bytes(Array("Subject: x\n\ny".utf8))),
      ]
    }
    let bytes: [UInt8]
    if inFile {
      let path = MessageFiles.newPath(in: FileManager.default.temporaryDirectory.path)
      let size = try builder.write(toFile: path)
      bytes = Array(try Data(contentsOf: URL(filePath: path)))
      #expect(Int64(bytes.count) == size)
      MessageFiles.remove(.file(path: path, sizeOctets: size))
      #expect(!FileManager.default.fileExists(atPath: path))
    } else {
      bytes = try builder.build()
    }
    #expect(bytes.allSatisfy { $0 < 0x80 })
    let parsed = try MessageReader.parse(bytes)
    #expect(parsed.text == "Übung\nzwei\n" && parsed.html == "<p>Übung</p>\n")
    #expect(parsed.attachments.map(\.record.fileName) == [long, "a.txt", "original.eml"])
    #expect(
      parsed.attachments.map(\.record.contentType) == [
        "application/pdf", "text/x-log", "application/octet-stream",
      ])
    #expect(
      parsed.attachments.map(\.content) == [octets, Array("From me\n.\n".utf8), Array("Subject: x\n\ny".utf8)])
    #expect(parsed.problems == [])
    // RFC 2231: in pieces, with a charset.
    #expect(String(decoding: bytes, as: UTF8.self).contains("filename*0*=UTF-8''Rechnung%20%C3%BCber"))
  }

  @Test("a file is read while the message is written; one that is not there is named")
  func fileOnDisk() throws {
    let path = MessageFiles.newPath(in: FileManager.default.temporaryDirectory.path)
    #expect(FileManager.default.createFile(atPath: path, contents: Data([1, 2, 3, 0, 255])))
    let attachment = MessageAttachment(fileName: "x.bin", content: .file(path: path, sizeOctets: 5))
    let parsed = try MessageReader.parse(try builder { $0.attachments = [attachment] }.build())
    #expect(parsed.attachments.map(\.content) == [[1, 2, 3, 0, 255]])
    MessageFiles.remove(attachment.content)
    let error = #expect(throws: MessageError.self) { try builder { $0.attachments = [attachment] }.build() }
    #expect(error?.description.contains("x.bin cannot be read") == true)
  }

  @Test("HTML alone, a file alone")
  func alone() throws {
    let html = try MessageReader.parse(
      try builder {
        $0.text = nil
        $0.html = "<p>x</p>"
      }.build())
    #expect(html.text == nil && html.html == "<p>x</p>\n")
    let file = try MessageReader.parse(
      try builder {
        $0.text = nil
        $0.attachments = [MessageAttachment(fileName: "a.png", content: .bytes([1]))]
      }.build())
    #expect(file.text == nil && file.html == nil && file.attachments.map(\.record.contentType) == ["image/png"])
  }

  @Test("a draft: who answers what, and that a program wrote it")
  func draft() throws {
    let draft = OutgoingDraft(
      mailboxID: MailboxID(1), to: ["b@example.org"], bcc: ["secret@example.org"], replyTo: ["r@example.org"],
      subject: "Re: x", text: "y", inReplyTo: "<one@example.org>",
      headers: [OutgoingHeader(name: "X-Ticket", value: "über 17")], autoSubmitted: .generated)
    var builder = MessageBuilder(draft, from: "a@example.com", messageID: "2@example.com", date: Date())
    let text = String(decoding: try builder.build(), as: UTF8.self)
    #expect(text.contains("In-Reply-To: <one@example.org>\r\n") && text.contains("References: <one@example.org>\r\n"))
    #expect(text.contains("Reply-To: r@example.org\r\n") && text.contains("Auto-Submitted: auto-generated\r\n"))
    #expect(text.contains("X-Ticket: =?") && !text.contains("secret@"))
    builder.references = (1...100).map { "message-number-\($0)@a-rather-long-domain-name.example.org" }
    let parsed = try MessageReader.parse(try builder.build())
    #expect(parsed.envelope.references == builder.references && parsed.envelope.inReplyTo == "one@example.org")
    builder.references = ["a\r\nBcc: x@example.org"]
    #expect(throws: MessageError.self) { try builder.build() }
  }

  @Test("domains in other scripts are written in A-labels; only a local part needs SMTPUTF8")
  func international() throws {
    var domain = builder { $0.to = [EmailAddress(name: "Bücher", address: "info@bücher.example")] }
    #expect(domain.encoding == .sevenBit)
    let text = String(decoding: try domain.build(), as: UTF8.self)
    #expect(text.contains("<info@xn--bcher-kva.example>") && text.utf8.allSatisfy { $0 < 0x80 })
    domain.cc = [EmailAddress(address: "jürgen@example.com")]
    #expect(domain.encoding == .utf8)
    #expect(String(decoding: try domain.build(), as: UTF8.self).contains("Cc: jürgen@example.com\r\n"))
  }
}
