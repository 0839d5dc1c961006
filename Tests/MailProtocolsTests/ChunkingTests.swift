import NIOCore
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

@Suite("SMTP: CHUNKING, DSN and 8BITMIME")
struct ChunkingTests {
  private func ready(_ extensions: [String]) -> Driver<SMTPDialogue> {
    var driver = Driver(SMTPDialogue(tls: .none))
    driver.begin(.greeting)
    driver.server("220 hello\r\n")
    driver.begin(.hello("client.example"))
    let lines = ["mx.example"] + extensions
    driver.server(
      lines.enumerated().map { "250\($0.offset == lines.count - 1 ? " " : "-")\($0.element)\r\n" }.joined())
    _ = driver.take()
    return driver
  }

  private func message(_ text: String) -> SMTPMessage { SMTPMessage(Array(text.utf8)) }

  private func begin(
    _ driver: inout Driver<SMTPDialogue>, _ message: SMTPMessage, to: [String] = ["b@x.example"]
  ) {
    driver.begin(.send(from: "a@x.example", to: to, message: message))
  }

  /// A session whose server has taken a message in chunks.
  private func proven() -> Driver<SMTPDialogue> {
    var driver = ready(["CHUNKING", "PIPELINING"])
    begin(&driver, message("x\n"))
    driver.server("250 ok\r\n250 ok\r\n")
    driver.server("250 taken\r\n")
    _ = driver.take()
    return driver
  }

  private func delivery(_ driver: Driver<SMTPDialogue>) -> SMTPDelivery? {
    if case .delivery(let delivery) = driver.outcome { delivery } else { nil }
  }

  @Test("a message in one chunk: line ends become CRLF, no dot is stuffed, none is added")
  func oneChunk() {
    var driver = ready(["CHUNKING", "PIPELINING"])
    begin(&driver, message("Subject: x\n\n.\n..dot\rend"), to: ["b@x.example", "c@x.example"])
    #expect(
      driver.take() == ["MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\n"])
    driver.server("250 ok\r\n550 5.1.1 no\r\n250 ok\r\n")
    #expect(driver.take() == ["BDAT 29 LAST\r\nSubject: x\r\n\r\n.\r\n..dot\r\nend\r\n"])
    #expect(driver.machine.lost().code == .smtpUncertain)
    driver.server("250 2.0.0 queued\r\n")
    #expect(driver.take() == ["done"])
    #expect(delivery(driver)?.recipients.map { $0.failure?.code } == [.smtpRecipient, nil])
    begin(&driver, message("x\n"))
    #expect(driver.take().first?.hasPrefix("MAIL") == true, "no RSET after a message that was taken")
  }

  @Test("nobody stands: no octet of the message leaves, RSET comes before the next one")
  func nobody() {
    var driver = ready(["CHUNKING", "PIPELINING"])
    begin(&driver, message("x\n"))
    driver.server("250 ok\r\n550 5.1.1 no\r\n")
    #expect(driver.take().last == "done" && delivery(driver)?.isAccepted == false)
    begin(&driver, message("x\n"))
    #expect(driver.take() == ["RSET\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n"])
  }

  private static let large = String(repeating: String(repeating: "a", count: 62) + "\r\n", count: 3 * 1_024)

  private func sizes(_ log: [String]) -> [String] {
    log.filter { $0.hasPrefix("BDAT") }.map { String($0.prefix { $0 != "\r\n" }) }
  }

  @Test("a large message in chunks: ahead of their answers with PIPELINING, one after the other without")
  func chunks() {
    var ahead = ready(["CHUNKING", "PIPELINING"])
    begin(&ahead, message(Self.large))
    ahead.server("250 ok\r\n250 ok\r\n")
    #expect(sizes(ahead.take()) == ["BDAT 65536"], "whether the server takes chunks is not known yet")
    ahead.server("250 ok\r\n")
    #expect(sizes(ahead.take()) == ["BDAT 65536", "BDAT 65536 LAST"])
    ahead.server("250 ok\r\n")
    ahead.server("250 taken\r\n")
    _ = ahead.take()
    begin(&ahead, message(Self.large))
    ahead.server("250 ok\r\n250 ok\r\n")
    #expect(sizes(ahead.take()) == ["BDAT 65536", "BDAT 65536", "BDAT 65536 LAST"])
    ahead.server("250 ok\r\n250 ok\r\n")
    #expect(ahead.take() == [])
    ahead.server("250 taken\r\n")
    #expect(delivery(ahead)?.isAccepted == true)

    var lockstep = ready(["CHUNKING"])
    begin(&lockstep, message(Self.large))
    lockstep.server("250 ok\r\n")
    lockstep.server("250 ok\r\n")
    #expect(sizes(lockstep.take()) == ["BDAT 65536"])
    #expect(lockstep.machine.lost().code == .smtpLost, "the end has not left")
    lockstep.server("250 ok\r\n")
    #expect(sizes(lockstep.take()) == ["BDAT 65536"])
    lockstep.server("250 ok\r\n")
    #expect(sizes(lockstep.take()) == ["BDAT 65536 LAST"] && lockstep.machine.lost().code == .smtpUncertain)
    lockstep.server("250 taken\r\n")
    #expect(delivery(lockstep)?.isAccepted == true)
  }

  @Test("a chunk is refused: no more leave, the message fails, the session goes on with RSET")
  func refusedChunk() {
    var driver = ready(["CHUNKING"])
    begin(&driver, message(Self.large))
    driver.server("250 ok\r\n")
    driver.server("250 ok\r\n")
    driver.server("552 5.3.4 too large\r\n")
    #expect(driver.take().last == "failed smtp.too-large")
    begin(&driver, message("x\n"))
    #expect(driver.take() == ["RSET\r\n"])

    // Those that were ahead are refused too; the first answer is the reason.
    var ahead = proven()
    begin(&ahead, message(Self.large))
    ahead.server("250 ok\r\n250 ok\r\n")
    ahead.server("452 4.3.1 no room\r\n503 no\r\n")
    #expect(ahead.failure == nil)
    ahead.server("503 no\r\n")
    #expect(ahead.failure?.code == .smtpStorage)
    begin(&ahead, message("x\n"))
    #expect(ahead.take().last?.hasPrefix("RSET\r\nMAIL") == true)

    // Half a message may have been taken: nobody knows.
    var strange = proven()
    begin(&strange, message(Self.large))
    strange.server("250 ok\r\n250 ok\r\n")
    strange.server("452 4.3.1 no room\r\n250 ok\r\n250 taken\r\n")
    #expect(strange.take().last == "broken smtp.uncertain")
  }

  @Test("a message that is read while it is sent: a chunk waits for its octets, the last one for the end")
  func stream() {
    var driver = ready(["CHUNKING", "PIPELINING"])
    begin(
      &driver, SMTPMessage(sizeOctets: 70_000, encoding: .sevenBit, octets: AsyncThrowingStream { nil }))
    driver.server("250 ok\r\n250 ok\r\n")
    _ = driver.take()
    driver.machine.feed([UInt8](repeating: 0x61, count: 60_000))
    driver.server("")
    #expect(driver.take() == [] && driver.machine.wantsBody)
    driver.machine.feed([UInt8](repeating: 0x61, count: 9_998) + [13, 10])
    driver.server("")
    #expect(sizes(driver.take()) == ["BDAT 70000"] && driver.machine.lost().code == .smtpLost)
    driver.machine.feed(nil)
    driver.server("250 ok\r\n")
    #expect(sizes(driver.take()) == ["BDAT 0 LAST"])
    driver.server("250 taken\r\n")
    #expect(delivery(driver)?.isAccepted == true)
  }

  @Test("reports are asked for where the server offers them, and only there")
  func reports() {
    let request = DSNRequest(notify: [.failure, .delay], returns: .headers)
    let message = message("x\n").reporting(request, envelopeID: "a+b=c@x.example")
    var driver = ready(["DSN", "PIPELINING"])
    begin(&driver, message, to: ["b+c@x.example"])
    #expect(
      driver.take() == [
        "MAIL FROM:<a@x.example> RET=HDRS ENVID=a+2Bb+3Dc@x.example\r\n"
          + "RCPT TO:<b+c@x.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2Bc@x.example\r\nDATA\r\n"
      ])
    var plain = ready(["PIPELINING"])
    begin(&plain, message)
    #expect(plain.take() == ["MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"])
    var unasked = ready(["DSN", "PIPELINING"])
    begin(&unasked, self.message("x\n"))
    #expect(unasked.take() == ["MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"])
    // An address beyond ASCII has no such form; a long ENVID is left out.
    var wide = ready(["DSN", "SMTPUTF8", "8BITMIME"])
    begin(
      &wide,
      self.message("x\n").reporting(DSNRequest(notify: [.never]), envelopeID: String(repeating: "x", count: 101)),
      to: ["ä@x.example"])
    wide.server("250 ok\r\n")
    #expect(wide.take() == ["MAIL FROM:<a@x.example> SMTPUTF8\r\n", "RCPT TO:<ä@x.example> NOTIFY=NEVER\r\n"])
  }

  @Test("8-bit text and a server without 8BITMIME: refused before a command, with what to do")
  func eightBit() {
    var driver = ready(["PIPELINING", "CHUNKING"])
    begin(&driver, message("ä\n"))
    #expect(driver.take() == ["failed smtp.content"])
    #expect(driver.failure?.context?.contains("8BITMIME") == true && driver.failure?.failureClass == .permanent)
    var modern = ready(["PIPELINING", "CHUNKING", "8BITMIME"])
    begin(&modern, message("ä\n"))
    #expect(modern.take().first?.hasPrefix("MAIL FROM:<a@x.example> BODY=8BITMIME\r\n") == true)
  }

  @Test("over a socket: 200 kB in chunks arrive with every octet, then the next message goes on the same connection")
  func overSocket() async throws {
    let server = try await ScriptedMailServer.start([
      .send("220 mx\r\n"),
      .serve { line in
        let words = line.split(separator: " ")
        switch words.first?.uppercased() {
        case "EHLO": return .text("250-mx\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 CHUNKING\r\n")
        case "BDAT": return .readOctets(Int(words[1]) ?? 0, "250 2.0.0 got it\r\n")
        case "QUIT": return .close("221 bye\r\n")
        default: return .text("250 ok\r\n")
        }
      },
    ])
    let session = try await makeClient().openSMTP(
      .test(.smtp, server), heloName: "client.example", trace: SessionTrace(direction: .outgoing))
    let lines = (0..<4_000).map { "\($0 % 7 == 0 ? "." : "")line \($0) " + String(repeating: "x", count: 40) }
    let text = lines.joined(separator: "\n")
    for _ in 0..<2 {
      let delivery = try await session.send(from: "a@x.example", to: ["b@x.example"], message: Array(text.utf8))
      #expect(delivery.isAccepted)
    }
    try await session.quit()
    let received = server.lines.enumerated().filter { index, _ in
      index > 0 && server.lines[index - 1].hasPrefix("BDAT")
    }.map(\.element).joined()
    let wanted = lines.joined(separator: "\r\n") + "\r\n"
    #expect(received == wanted + wanted)
    #expect(!server.lines.contains("DATA") && !server.lines.contains("RSET"))
    await server.stop()
  }
}
