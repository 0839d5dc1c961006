import FoundationEssentials
import MailMessage
import PostriderCore
import Testing

/// A message nobody should have sent, with a name to print.
struct OddMessage: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let bytes: [UInt8]

  init(_ name: String, _ bytes: [UInt8]) {
    testDescription = name
    self.bytes = bytes
  }

  init(_ name: String, _ text: String) { self.init(name, Array(text.utf8)) }

  static let all = [
    OddMessage("nothing", ""), OddMessage("a line end", "\r\n"), OddMessage("line ends", "\n\n\n"),
    OddMessage("no header", "no header at all\r\njust text\r\n"), OddMessage("only headers", "Subject: x\r\n\r\n"),
    OddMessage("no end of header", "Subject: x"), OddMessage("a NUL", [0]),
    OddMessage("NULs", [UInt8](repeating: 0, count: 5_000)),
    OddMessage("8-bit garbage", [UInt8](repeating: 0xFF, count: 5_000)),
    OddMessage("colons", "::::\r\n: :\r\n\r\n"),
    OddMessage("mbox", "From x@y Mon Mar  2 09:00:00 2026\r\nSubject: mbox\r\n\r\nbody"),
    OddMessage("no boundary parameter", "Content-Type: multipart/mixed\r\n\r\nx"),
    OddMessage("empty boundary", "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----"),
    OddMessage("no delimiter", "Content-Type: multipart/mixed; boundary=x\r\n\r\ny"),
    OddMessage("only a delimiter", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x"),
    OddMessage("odd type", "Content-Type: ;;;=;\r\n\r\nx"),
    OddMessage("NUL in a charset", "Content-Type: text/plain; charset=\"\0\"\r\n\r\nx"),
    OddMessage("odd encoding", "Content-Transfer-Encoding: x\r\n\r\nx"),
    OddMessage("bad base64", "Content-Transfer-Encoding: base64\r\n\r\n====!!!!\0\r\n"),
    OddMessage("empty inner message", "Content-Type: message/rfc822\r\n\r\n"),
    OddMessage("partial", "Content-Type: message/partial; number=1\r\n\r\nx"),
    OddMessage("external body", "Content-Type: message/external-body; access-type=anon-ftp\r\n\r\nx"),
  ]
}

@Suite("Broken and hostile messages")
struct HostileMessageTests {
  @Test("anything parses to something", arguments: OddMessage.all)
  func anything(message: OddMessage) throws {
    let parsed = try MessageReader.parse(message.bytes)
    #expect(parsed.allTexts.allSatisfy { !$0.contains("\0") })
  }

  @Test func headersOnlyHaveAnEnvelope() throws {
    #expect(try MessageReader.parse(Array("Subject: no end of header".utf8)).envelope.subject == "no end of header")
    #expect(
      try MessageReader.parse(Array("no header at all\r\njust text\r\n".utf8)).text == "no header at all\njust text\n")
    let mbox = try MessageReader.parse(Array("From x@y Mon Mar  2 09:00:00 2026\nSubject: mbox\n\nbody".utf8))
    #expect(mbox.envelope.subject == "mbox")
    #expect(mbox.text == "body")
  }

  @Test func randomDamageNeverCrashes() throws {
    let seed = UInt64.random(in: 0 ... .max)
    var generator = SeededGenerator(state: seed)
    let original = message(
      "From: =?utf-8?Q?J=C3=BC?= <a@example.com>", "Received: x; Mon, 2 Mar 2026 09:00:00 +0000",
      "Content-Type: multipart/mixed; boundary=\"m\"", "", "--m", "Content-Type: text/plain; charset=iso-8859-1",
      "Content-Transfer-Encoding: quoted-printable", "", "Gr=FC=DFe", "--m", "Content-Type: image/png; name*=utf-8''a",
      "Content-Transfer-Encoding: base64", "", "AAECAw==", "--m", "Content-Type: message/rfc822", "", "Subject: s", "",
      "x", "--m--")
    for _ in 0..<2_000 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...12, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.remove(at: index)
        case 2: bytes.insert(contentsOf: bytes[index...].prefix(40), at: index)
        default: bytes.removeLast(min(bytes.count - 1, Int.random(in: 0..<30, using: &generator)))
        }
      }
      let parsed = try MessageReader.parse(bytes)
      #expect(parsed.allTexts.allSatisfy { !$0.contains("\0") }, "seed \(seed)")
    }
  }

  @Test func deepNestingIsBounded() throws {
    var text = ""
    for level in 0..<3_000 { text += "Content-Type: multipart/mixed; boundary=b\(level)\r\n\r\n--b\(level)\r\n" }
    text += "Content-Type: text/plain\r\n\r\ndeep\r\n"
    let parsed = try MessageReader.parse(Array(text.utf8))
    #expect(parsed.text == nil)
    #expect(parsed.problems.contains { $0.contains("nested deeper") })
  }

  @Test func nestedMessagesAreNotLookedInto() throws {
    var text = ""
    for _ in 0..<3_000 { text += "Content-Type: message/rfc822\r\n\r\n" }
    let parsed = try MessageReader.parse(Array((text + "Subject: inner\r\n\r\nx").utf8))
    #expect(parsed.attachments.count <= 1)
    #expect(parsed.envelope.subject == "")
  }

  @Test func manyPartsAreBounded() throws {
    var text = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    for index in 0..<1_500 { text += "--b\r\nContent-Type: image/png\r\n\r\n\(index)\r\n" }
    let parsed = try MessageReader.parse(Array((text + "--b--\r\n").utf8))
    #expect(parsed.attachments.count == 999)
    #expect(parsed.problems.contains { $0.contains("more than 1000 parts") })
  }

  @Test func floodsOfDelimitersAndHeadersAreCutBeforeTheyCostMemory() throws {
    let before = residentOctets()
    let delimiters = "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + String(repeating: "--b\n", count: 2_000_000)
    let parts = try MessageReader.parse(Array(delimiters.utf8))
    #expect(parts.problems.contains { $0.contains("look like part delimiters") })
    let headers = "Subject: flood\r\n" + String(repeating: "a:b\n", count: 1_000_000)
    let parsed = try MessageReader.parse(Array(headers.utf8))
    #expect(parsed.envelope.subject == "flood")
    #expect(parsed.problems.contains { $0.contains("header lines") })
    #expect(residentOctets() - before < 300 << 20)
  }

  @Test func linesThatOnlyLookLikeDelimitersDoNotCount() throws {
    let text =
      "Content-Type: multipart/mixed; boundary=\"=_real\"\r\n\r\n--=_real\r\n\r\n"
      + String(repeating: "-- old\r\n--- a/file\r\n", count: 30_000)
      + "--=_real\r\nContent-Type: image/png\r\n\r\nx\r\n--=_real--\r\n"
    let parsed = try MessageReader.parse(Array(text.utf8))
    #expect(parsed.problems.isEmpty && parsed.attachments.count == 1, "\(parsed.problems)")
  }

  @Test(
    "delimiters count however their boundary is written",
    arguments: [
      "boundary=b", "BOUNDARY=\"b\"", "boundary = b", "boundary=(c)b", "boundary=\r\n \"b\"", "boundary*=utf-8''b",
      "boundary*0=b", "boundary=\"=?utf-8?q?b?=\"", "boundary=\"\\b\"", "boundary=\"\"", "x=y; boundary=b;z=w",
    ])
  func boundaries(parameter: String) throws {
    let text = "Content-Type: multipart/mixed; \(parameter)\r\n\r\n" + String(repeating: "--b\n", count: 10_000)
    let parsed = try MessageReader.parse(Array(text.utf8))
    #expect(parsed.problems.contains { $0.contains("look like part delimiters") }, "\(parsed.problems)")
  }

  @Test func manyBoundariesAreAllCounted() throws {
    var text = ""
    for level in 0..<40 { text += "Content-Type: multipart/mixed; boundary=n\(level)x\r\n\r\n--n\(level)x\r\n" }
    text += String(repeating: "--n39x\r\n\r\n", count: 5_000)
    #expect(try MessageReader.parse(Array(text.utf8)).problems.contains { $0.contains("look like part delimiters") })
  }

  @Test func headersOfNestedMessagesAreCountedToo() throws {
    let text = "Content-Type: message/rfc822\r\n\r\n" + String(repeating: "a:b\n", count: 100_000)
    #expect(try MessageReader.parse(Array(text.utf8)).problems.contains { $0.contains("header lines") })
  }

  @Test func memoryDoesNotGrowOverManyParses() throws {
    let bytes = message(
      "From: a@example.com", "References: <a@b> <c@d>", "Content-Type: multipart/mixed; boundary=m", "", "--m",
      "Content-Type: text/plain; charset=iso-8859-1", "", String(repeating: "text ", count: 2_000), "--m",
      "Content-Type: application/x-a; name=a", "Content-Transfer-Encoding: base64", "",
      String(repeating: "QUJD", count: 2_000), "--m", "Content-Type: message/rfc822", "", "Subject: s", "", "x", "--m--"
    )
    // A leak grows in every round; the heap settling, or another test, does not.
    var growths: [Int] = []
    for _ in 0..<12 {
      let before = residentOctets()
      for _ in 0..<1_000 { #expect(try MessageReader.parse(bytes).attachments.count == 2) }
      growths.append(residentOctets() - before)
      if growths.count > 1, growths.last ?? 0 < 128 << 10 { return }
    }
    Issue.record("resident memory grew in every round of 1,000 parses: \(growths)")
  }

  private func residentOctets() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    return (status.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4_096
  }
}

@Suite("Messages in files")
struct MessageFileTests {
  @Test func fileAndMemoryReadAlike() throws {
    let bytes = message(
      "Subject: spooled", "Content-Type: multipart/mixed; boundary=m", "", "--m", "", "text", "--m",
      "Content-Type: application/x-a", "Content-Transfer-Encoding: base64", "",
      Array(repeating: String(repeating: "QUJD", count: 18), count: 20_000).joined(separator: "\r\n"), "--m--")
    let path = FileManager.default.temporaryDirectory.appending(path: "message-\(UUID().uuidString)").path
    #expect(FileManager.default.createFile(atPath: path, contents: Data(bytes)))
    defer { try? FileManager.default.removeItem(atPath: path) }
    let parsed = try MessageReader.parse(file: path)
    #expect(try MessageReader.parse(bytes) == parsed)
    #expect(parsed.attachments.first?.record.sizeOctets == Int64(1_080_000))
    let descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
    for _ in 0..<20 { _ = try MessageReader.parse(file: path) }
    // Other tests open files meanwhile; a leak would be one for each parse.
    #expect(try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count < descriptors + 20)
  }

  @Test func largeAttachmentsGoToFilesOfTheirOwn() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "spool-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    func part(_ octets: Int) -> String {
      "--m\r\nContent-Type: application/x-a\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + Data(repeating: 9, count: octets).base64EncodedString(options: [.lineLength76Characters]) + "\r\n"
    }
    let inner = "Subject: inner\r\n\r\n" + String(repeating: "x", count: 200_000) + "\r\n"
    let text =
      "Content-Type: multipart/mixed; boundary=m\r\n\r\n" + part(10) + part(300_000) + part(600_000)
      + "--m\r\nContent-Type: message/rfc822\r\n\r\n" + inner + "--m--\r\n"
    var limits = MessageLimits()
    limits.maximumAttachmentOctets = 500_000
    let whole = try MessageReader.parse(Array(text.utf8), limits: limits)
    limits.spoolDirectory = folder
    let parsed = try MessageReader.parse(Array(text.utf8), limits: limits)
    #expect(parsed.attachments.map(\.record) == whole.attachments.map(\.record))
    #expect(parsed.attachments.map { $0.content?.count } == [10, nil, nil, nil])
    var files: [Data] = []
    for case .file(let path, let size)? in parsed.attachments.map(\.spooled) {
      let data = try #require(FileManager.default.contents(atPath: path))
      #expect(Int64(data.count) == size)
      files.append(data)
    }
    #expect(files == [1, 3].map { Data(whole.attachments[$0].content ?? []) })
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 2, "none is left of what is dropped")
    limits.spoolDirectory = "/nonexistent"
    #expect(throws: MessageError.self) { try MessageReader.parse(Array(text.utf8), limits: limits) }
  }

  @Test func missingFileIsAnError() {
    #expect(throws: MessageError.unreadable(reason: "No such file or directory")) {
      try MessageReader.parse(file: "/nonexistent/message")
    }
    #expect(throws: MessageError.self) { try MessageReader.parse(file: "/tmp") }
  }
}
