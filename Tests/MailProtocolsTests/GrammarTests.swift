import NIOCore
import PostriderCore
import Testing

@testable import MailProtocols

private func buffer(_ text: String) -> LineBuffer {
  var buffer = LineBuffer()
  buffer.append(ByteBuffer(string: text))
  return buffer
}

@Suite("Lines of a server")
struct LineBufferTests {
  @Test("A line is found wherever the network cuts it", arguments: 1...6)
  func cuts(size: Int) throws {
    var lines: [String] = []
    var buffer = LineBuffer()
    let octets = Array("+OK one\r\n\r\nthree\r\n".utf8)
    for start in stride(from: 0, to: octets.count, by: size) {
      buffer.append(ByteBuffer(bytes: octets[start..<min(start + size, octets.count)]))
      while let line = try buffer.nextLine(limit: 100) { lines.append(line) }
    }
    #expect(lines == ["+OK one", "", "three"])
    #expect(buffer.isEmpty)
  }

  @Test("A line may be as long as its bound and no longer, ended or not")
  func bound() throws {
    var exact = buffer("12345678\r\n")
    #expect(try exact.nextLine(limit: 10) == "12345678")
    var ended = buffer("123456789\r\n")
    #expect(throws: Failure.self) { try ended.nextLine(limit: 10) }
    var endless = buffer(String(repeating: "x", count: 10))
    #expect(throws: Failure.self) { try endless.nextLine(limit: 10) }
    var notYet = buffer(String(repeating: "x", count: 9))
    #expect(try notYet.nextLine(limit: 10) == nil)
  }

  @Test("What was taken makes room, also when every piece ends within a line")
  func room() throws {
    var buffer = LineBuffer()
    var lines = 0
    let piece = String(repeating: "x", count: 98) + "\r\n" + "xxx"
    buffer.append(ByteBuffer(string: "xxx"))
    for _ in 0..<10_000 {
      buffer.append(ByteBuffer(string: piece))
      while try buffer.nextLine(limit: 200) != nil { lines += 1 }
    }
    #expect(lines == 10_000 && buffer.readableOctets == 3)
    #expect(buffer.capacity <= 4_096, "\(buffer.capacity) octets for three")
  }

  @Test("Bare LF and NUL are refused", arguments: ["+OK\n", "\n", "+O\u{0}K\r\n"])
  func bad(text: String) {
    var input = buffer(text)
    #expect { try input.nextLine(limit: 100) } throws: { ($0 as? Failure)?.code == .protocolSyntax }
  }
}

@Suite("POP3 grammar (RFC 1939 section 3, RFC 2449)")
struct POP3GrammarTests {
  @Test(
    "status lines parse",
    arguments: [
      ("+OK", POP3StatusLine.ok("")), ("+OK ready", .ok("ready")), ("-ERR", .error(POP3Error(""))),
      ("-ERR [IN-USE] busy", .error(POP3Error("[IN-USE] busy"))), ("+ ", .challenge("")), ("+", .challenge("")),
      ("+ dXNlcg==", .challenge("dXNlcg==")),
    ])
  func status(line: String, expected: POP3StatusLine) throws {
    #expect(try POP3StatusLine(line) == expected)
  }

  @Test("other lines are refused", arguments: ["", "OK", "+OKAY", "-ERROR", "220 hello", "ok", "* OK", "+x"])
  func noStatus(line: String) {
    #expect { try POP3StatusLine(line) } throws: { ($0 as? Failure)?.code == .protocolSyntax }
  }

  @Test(
    "response codes",
    arguments: [
      ("[IN-USE] x", "IN-USE"), ("[sys/temp] x", "SYS/TEMP"), ("[] x", nil), ("[no end", nil), ("x [AUTH]", nil),
    ])
  func codes(text: String, code: String?) { #expect(POP3Error(text).code == code) }

  @Test("unique-id listings")
  func unique() throws {
    func read(_ line: String) -> POP3ListLine { Array(line.utf8).withUnsafeBytes(POP3ListLine.init) }
    func entry(_ number: Int, _ uidl: String) throws -> POP3ListLine {
      .unique(number: number, try #require(UniqueID(uidl)))
    }
    let longest = String(repeating: "x", count: 70)
    #expect(try read("2 whqtswO00WBw418f9t5JxYwZ") == entry(2, "whqtswO00WBw418f9t5JxYwZ"))
    #expect(try read("2 " + longest) == entry(2, longest))
    #expect(try read(" 007  a.b  and 3 words ") == entry(7, "a.b"))
    #expect(try read("\(Int.max) .") == entry(.max, "."))
    #expect(read(".") == .end)
    for bad in [
      "", " ", "..", "2", "2 ", "2 \(longest)x", "2 ä", "0 x", "-1 x", "+1 x", "1x x", "9223372036854775808 x",
    ] {
      #expect(read(bad) == .malformed(bad), "\(bad)")
    }
    #expect([UInt8](arrayLiteral: 0x31, 0x20, 0xFF).withUnsafeBytes(POP3ListLine.init) == .malformed("1 \u{FFFD}"))
  }

  @Test("capabilities")
  func capabilities() {
    let it = POP3Capabilities(lines: [
      "TOP", "user", "SASL PLAIN login", "PIPELINING", "UIDL", "STLS", "LOGIN-DELAY 900 USER", "EXPIRE 0",
      "IMPLEMENTATION Some Server v1", "X-OTHER", "",
    ])
    #expect(it.top && it.user && it.pipelining && it.uidl && it.stls && it.isKnown && !it.responseCodes)
    #expect(it.sasl == ["PLAIN", "LOGIN"])
    #expect(it.loginDelaySeconds == 900)
    #expect(it.expireDays == 0)
    #expect(it.implementation == "Some Server v1")
  }
}

@Suite("SMTP grammar (RFC 5321 section 4.2)")
struct SMTPGrammarTests {
  @Test("a reply of several lines, cut anywhere", arguments: 1...9)
  func cuts(size: Int) throws {
    let octets = Array("250-mail.example\r\n250-SIZE 100\r\n250 8BITMIME\r\n354\r\n".utf8)
    var input = LineBuffer()
    var parser = SMTPReplyParser()
    var replies: [SMTPReply] = []
    for start in stride(from: 0, to: octets.count, by: size) {
      input.append(ByteBuffer(bytes: octets[start..<min(start + size, octets.count)]))
      while let reply = try parser.next(&input, lineLimit: 512) { replies.append(reply) }
    }
    #expect(replies.map(\.code) == [250, 354])
    #expect(replies.first?.lines == ["mail.example", "SIZE 100", "8BITMIME"])
  }

  @Test("wrong replies", arguments: ["hello\r\n", "25 x\r\n", "2500 x\r\n", "099 x\r\n", "250-a\r\n251 b\r\n", "\r\n"])
  func bad(text: String) {
    var input = buffer(text)
    var parser = SMTPReplyParser()
    #expect { try parser.next(&input, lineLimit: 512) } throws: { ($0 as? Failure)?.code == .protocolSyntax }
  }

  @Test("a reply without end")
  func endless() {
    var input = buffer(String(repeating: "250-x\r\n", count: 101))
    var parser = SMTPReplyParser()
    #expect { try parser.next(&input, lineLimit: 512) } throws: { ($0 as? Failure)?.code == .protocolLimit }
  }

  @Test("extensions")
  func extensions() {
    let it = SMTPExtensions(
      ehlo: SMTPReply(
        code: 250,
        lines: [
          "mx.example hello", "SIZE 35882577", "pipelining", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING",
          "AUTH PLAIN LOGIN", "AUTH=XOAUTH2", "STARTTLS", "ENHANCEDSTATUSCODES", "X-OTHER",
        ]))
    #expect(it.maximumSizeOctets == 35_882_577 && it.serverName == "mx.example")
    #expect(it.pipelining && it.eightBitMIME && it.smtpUTF8 && it.dsn && it.chunking && it.startTLS)
    #expect(it.authenticationMechanisms == ["PLAIN", "LOGIN", "XOAUTH2"])
  }

  @Test("enhanced codes")
  func enhanced() {
    #expect(EnhancedStatusCode(leading: "5.7.139 no") == EnhancedStatusCode(5, 7, 139))
    for bad in ["", "5.7", "3.1.1 x", "5.7.1234 x", "5.7.1x", "5..1"] {
      #expect(EnhancedStatusCode(leading: bad) == nil, "\(bad)")
    }
  }
}

@Suite("Message bodies")
struct BodyTests {
  @Test("dots are unstuffed and the end is found, cut anywhere", arguments: 1...8)
  func unstuff(size: Int) {
    let wire = "a\r\n..b\r\n.c\r\n\n.\r\nd\r.\r\n..\r\n.\r.\r\n\r\n.\r\nNEXT"
    let expected = "a\r\n.b\r\nc\r\n\n.\r\nd\r.\r\n.\r\n\r.\r\n\r\n"
    var unstuffer = DotUnstuffer()
    var output: [UInt8] = []
    var rest = Array(wire.utf8)[...]
    var finished = false
    while !finished, !rest.isEmpty {
      let part = Array(rest.prefix(size))
      let progress = part.withUnsafeBytes { unstuffer.read($0, into: &output) }
      rest = rest.dropFirst(progress.taken)
      finished = progress.finished
      if !finished { #expect(progress.taken == part.count) }
    }
    #expect(finished)
    #expect(String(decoding: output, as: UTF8.self) == expected)
    #expect(String(decoding: rest, as: UTF8.self) == "NEXT")
  }

  @Test("an empty body")
  func empty() {
    var unstuffer = DotUnstuffer()
    var output: [UInt8] = []
    let progress = Array(".\r\n".utf8).withUnsafeBytes { unstuffer.read($0, into: &output) }
    #expect(progress.finished && progress.taken == 3 && output.isEmpty)
  }

  @Test(
    "a message on its way out",
    arguments: [
      ("", ".\r\n", 0), ("a", "a\r\n.\r\n", 3), ("a\r\n", "a\r\n.\r\n", 3), (".a\n..\r\n", "..a\r\n...\r\n.\r\n", 8),
      ("a\rb\n.\nc", "a\r\nb\r\n..\r\nc\r\n.\r\n", 12), ("a\r\r\n.\r", "a\r\n\r\n..\r\n.\r\n", 8),
      ("\n", "\r\n.\r\n", 2),
    ])
  func stuff(message: String, wire: String, size: Int) {
    for target in [1, 2, 3, 65_536] {
      var encoder = MessageEncoder(Array(message.utf8))
      var output = ""
      while let piece = encoder.next(target: target) { output += String(buffer: piece) }
      #expect(output == wire, "in pieces of \(target)")
    }
    #expect(MessageEncoder.transferSize(of: Array(message.utf8)) == size)
  }

  @Test("a message that comes in pieces leaves as if it had come whole", arguments: 1...20)
  func fedInPieces(seed: UInt64) {
    var random = SeededGenerator(state: seed)
    let alphabet = Array("\r\n.ab".utf8)
    let message = (0..<Int.random(in: 0...400, using: &random)).map { _ in
      alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
    }
    var whole = MessageEncoder(message)
    var expected: [UInt8] = []
    while let piece = whole.next(target: 65_536) { expected += piece.readableBytesView }
    var encoder = MessageEncoder()
    var output: [UInt8] = []
    var start = 0
    while start < message.count {
      let end = min(message.count, start + Int.random(in: 1...9, using: &random))
      encoder.append(Array(message[start..<end]))
      start = end
      if Bool.random(using: &random) { continue }
      while let piece = encoder.next(target: Int.random(in: 1...5, using: &random)) {
        output += piece.readableBytesView
      }
      #expect(encoder.heldOctets == 0 && !encoder.isFinished, "seed \(seed)")
    }
    encoder.end()
    while let piece = encoder.next(target: 3) { output += piece.readableBytesView }
    #expect(output == expected && encoder.isFinished, "seed \(seed)")
  }

  @Test("what goes out comes in again, for random messages", arguments: 1...20)
  func roundTrip(seed: UInt64) {
    var random = SeededGenerator(state: seed)
    let alphabet = Array("\r\n.ab".utf8)
    let message = (0..<Int.random(in: 0...400, using: &random)).map { _ in
      alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
    }
    var encoder = MessageEncoder(message)
    var wire: [UInt8] = []
    while let piece = encoder.next(target: Int.random(in: 1...50, using: &random)) {
      wire += piece.readableBytesView
    }
    var unstuffer = DotUnstuffer()
    var output: [UInt8] = []
    let progress = wire.withUnsafeBytes { unstuffer.read($0, into: &output) }
    #expect(progress.finished && progress.taken == wire.count, "seed \(seed)")
    #expect(output.count == MessageEncoder.transferSize(of: message), "seed \(seed)")
    let bareCR = zip(output, output.dropFirst() + [0]).contains { $0 == 13 && $1 != 10 }
    let bareLF = zip([0] + output, output).contains { $0 != 13 && $1 == 10 }
    #expect(!bareCR && !bareLF, "seed \(seed)")
  }
}

struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
