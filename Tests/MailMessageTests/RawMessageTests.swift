import FoundationEssentials
import MailMessage
import PostriderCore
import Testing

@Suite("Taking in a whole message (RFC 5322)")
struct RawMessageTests {
  static let now = Date(timeIntervalSince1970: 1_772_442_000)

  /// Takes a message in, cut into pieces; returns it with its octets.
  static func take(
    _ text: String, pieces: Int = .max, sender: String = "me@example.com", maximum: Int64 = 1 << 20,
    memory: Int = 1 << 20
  ) throws -> (message: RawMessage, text: String) {
    let directory = FileManager.default.temporaryDirectory.path
    var intake = RawMessageIntake(
      sender: sender, now: now, maximumOctets: maximum, directory: directory, memoryOctets: memory)
    defer { intake.remove() }
    let octets = Array(text.utf8)
    var start = 0
    while start < octets.count {
      let end = min(octets.count, pieces == .max ? octets.count : start + pieces)
      try octets[start..<end].withUnsafeBytes { bytes in try intake.append(bytes) }
      start = end
    }
    let message = try intake.finish()
    defer { MessageFiles.remove(message.content) }
    switch message.content {
    case .bytes(let bytes): return (message, String(decoding: bytes, as: UTF8.self))
    case .file(let path, let size):
      let data = try Data(contentsOf: URL(filePath: path))
      #expect(Int64(data.count) == size)
      return (message, String(decoding: data, as: UTF8.self))
    }
  }

  static func problems(_ text: String, maximum: Int64 = 1 << 20) -> [FieldProblem] {
    do {
      _ = try take(text, maximum: maximum)
      return []
    } catch RawMessageError.invalid(let problems) {
      return problems
    } catch {
      return [FieldProblem("", "\(error)", "")]
    }
  }

  @Test("line ends of every kind become CRLF, wherever the octets are cut", arguments: [1, 2, 3, 7, Int.max])
  func lineEnds(pieces: Int) throws {
    let (message, text) = try Self.take(
      "From: me@example.com\nTo: b@example.org\r\nDate: Mon, 2 Mar 2026 09:00:00 +0000\rMessage-ID: <1@example.com>\r\r"
        + "one\n.\r\ntwo\r.\rthree\r\r\nfour", pieces: pieces)
    #expect(
      text
        == "From: me@example.com\r\nTo: b@example.org\r\nDate: Mon, 2 Mar 2026 09:00:00 +0000\r\n"
        + "Message-ID: <1@example.com>\r\n\r\none\r\n.\r\ntwo\r\n.\r\nthree\r\n\r\nfour\r\n")
    #expect(message.messageID == "1@example.com" && message.encoding == .sevenBit)
  }

  @Test("blind copies are recipients and leave the message; date and Message-ID are added")
  func completed() throws {
    let (message, text) = try Self.take(
      """
      Received: from elsewhere
      Return-Path: <bounces@example.com>
      From: Ada <me@example.com>
      To: b@example.org, "C, D" <c@example.org>
      Cc: group: d@example.org;
      Bcc: e@example.org,
       f@example.org
      bcc: g@example.org
      Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=

      Bcc: this is text
      """)
    #expect(
      message.recipients == [
        "b@example.org", "c@example.org", "d@example.org", "e@example.org", "f@example.org", "g@example.org",
      ])
    #expect(message.subject == "Grüße")
    #expect(!text.contains("e@example.org") && !text.contains("f@example.org") && !text.contains("g@example.org"))
    #expect(!text.contains("Return-Path") && text.hasPrefix("Received: from elsewhere\r\nFrom: Ada"))
    #expect(text.contains("\r\nDate: Mon, 02 Mar 2026 09:00:00 +0000\r\nMessage-ID: <\(message.messageID)>\r\n\r\n"))
    #expect(text.hasSuffix("\r\n\r\nBcc: this is text\r\n") && message.messageID.hasSuffix("@example.com"))
  }

  @Test("what it needs of a server")
  func encodings() throws {
    let header = "From: me@example.com\nTo: b@example.org\n"
    #expect(try Self.take(header + "\nHello.").message.encoding == .sevenBit)
    #expect(try Self.take(header + "\nÜbung.").message.encoding == .eightBit)
    #expect(try Self.take(header + "Subject: Grüße\n\nHello.").message.encoding == .utf8)
  }

  @Test(
    "what is no message is refused with its place",
    arguments: [
      ("", "", "empty"), ("\n\nbody", "", "empty"), ("To: b@example.org\n\nx", "header:from", "required"),
      ("From: a@example.com\nFrom: b@example.com\n\nx", "header:from", "duplicate"),
      ("From: a@example.com\nSubject: x\nSubject: y\n\nx", "header:subject", "duplicate"),
      ("From a@example.com Mon Mar  2\nFrom: a@example.com\n\nx", "line:1", "not-a-header"),
      ("From: a@example.com\nhello there\n\nx", "line:2", "not-a-header"),
      (" From: a@example.com\n\nx", "line:1", "not-a-header"),
      ("From: a@example.com\nMessage-ID: none\n\nx", "header:message-id", "not-a-message-id"),
      ("From: a@example.com\n\na\0b", "line:3", "control-character"),
      ("From: a@example.com\n\nx\n" + String(repeating: "x", count: 999), "line:4", "line-too-long"),
      ("From: a@example.com\n" + String(repeating: "X-A: b\n", count: 50_000) + "\nx", "", "header-too-long"),
    ])
  func refused(text: String, pointer: String, code: String) {
    let problems = Self.problems(text)
    #expect(problems.first?.pointer == pointer && problems.first?.code == code, "\(problems)")
  }

  @Test("octets of another charset in the header are refused")
  func latin() {
    var intake = RawMessageIntake(sender: "me@example.com", maximumOctets: 1 << 20, directory: "/tmp")
    let octets = Array("From: me@example.com\nSubject: Gr".utf8) + [0xFC] + Array("n\n\nx".utf8)
    #expect(throws: RawMessageError.self) {
      try octets.withUnsafeBytes { bytes in try intake.append(bytes) }
      _ = try intake.finish()
    }
  }

  @Test("a bound on the whole")
  func tooLarge() {
    let text = "From: a@example.com\n\n" + String(repeating: "x\n", count: 1_000)
    #expect(throws: RawMessageError.tooLarge(maximum: 1_000)) { try Self.take(text, maximum: 1_000) }
  }

  @Test("a large message waits in a private file that its taker removes; an abandoned one leaves nothing")
  func file() throws {
    let body = String(repeating: "0123456789\r\n", count: 50_000)
    let (message, text) = try Self.take(
      "From: a@example.com\r\nTo: b@example.org\r\n\r\n" + body, pieces: 10_000, memory: 100_000)
    guard case .file(let path, _) = message.content else {
      Issue.record("in memory")
      return
    }
    #expect(text.hasSuffix("\r\n\r\n" + body))
    #expect(!FileManager.default.fileExists(atPath: path))

    let directory = FileManager.default.temporaryDirectory.appending(path: "raw-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var intake = RawMessageIntake(
      sender: "a@example.com", maximumOctets: 1 << 20, directory: directory, memoryOctets: 10_000)
    try Array(("From: a@example.com\n\n" + body).utf8).withUnsafeBytes { bytes in try intake.append(bytes) }
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory).count == 1)
    intake.remove()
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
  }
}

@Suite("Addresses in other scripts")
struct InternationalAddressTests {
  @Test(
    "domains become A-labels",
    arguments: [
      ("a@example.com", "a@example.com"), ("info@bücher.example", "info@xn--bcher-kva.example"),
      ("a@BÜCHER.example", "a@xn--bcher-kva.example"), ("a@u\u{308}.example", "a@xn--tda.example"),
      ("jürgen@bücher.example", "jürgen@xn--bcher-kva.example"), ("jürgen@example.com", "jürgen@example.com"),
      ("a@" + String(repeating: "ü", count: 64) + ".example", nil),
    ])
  func wireForm(address: String, expected: String?) {
    #expect(InternationalAddress.wireForm(address) == expected)
  }
}
