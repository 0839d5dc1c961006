import NIOCore
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

/// A server that offers CHUNKING and does not know BDAT.
@Suite("SMTP: BDAT that is offered and then refused (feature O3)")
struct RefusedChunkTests {
  private func ready(_ extensions: [String] = ["CHUNKING", "PIPELINING"]) -> Driver<SMTPDialogue> {
    var driver = Driver(SMTPDialogue(tls: .none))
    driver.begin(.greeting)
    driver.server("220 hello\r\n")
    driver.begin(.hello("client.example"))
    driver.server(
      "250-mx.example\r\n" + extensions.dropLast().map { "250-\($0)\r\n" }.joined() + "250 \(extensions.last ?? "")\r\n"
    )
    _ = driver.take()
    return driver
  }

  private func begin(
    _ driver: inout Driver<SMTPDialogue>, _ text: String, to: [String] = ["b@x.example"]
  ) {
    driver.begin(.send(from: "a@x.example", to: to, message: SMTPMessage(Array(text.utf8))))
  }

  private func delivery(_ driver: Driver<SMTPDialogue>) -> SMTPDelivery? {
    if case .delivery(let delivery) = driver.outcome { delivery } else { nil }
  }

  @Test(
    "the message goes anew with DATA, for those who stood, and BDAT is not tried again",
    arguments: [
      "500 what?", "502 no", "502 5.5.1 not implemented", "503 5.5.1 bad sequence", "504 5.5.4 no", "500 5.5.2 syntax",
    ])
  func startsOver(answer: String) {
    var driver = ready()
    begin(&driver, "Subject: x\n\n.\nend", to: ["b@x.example", "c@x.example"])
    driver.server("250 ok\r\n550 5.1.1 no\r\n250 ok\r\n")
    #expect(driver.take().last?.hasPrefix("BDAT 22 LAST\r\n") == true)
    driver.server(answer + "\r\n")
    #expect(driver.take() == ["RSET\r\n"])
    // Nothing of it is with the server.
    #expect(driver.machine.lost().code == .smtpLost)
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["MAIL FROM:<a@x.example>\r\n"])
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["RCPT TO:<c@x.example>\r\n"])
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["DATA\r\n"])
    driver.server("354 go on\r\n")
    #expect(driver.take() == ["Subject: x\r\n\r\n..\r\nend\r\n.\r\n"])
    #expect(driver.machine.lost().code == .smtpUncertain)
    driver.server("250 2.0.0 taken\r\n")
    #expect(driver.take() == ["done"])
    #expect(delivery(driver)?.recipients.map { $0.failure?.code } == [.smtpRecipient, nil])
    begin(&driver, "x\n")
    #expect(driver.take() == ["MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"])
  }

  @Test(
    "a refusal of the message, or one that comes once a chunk was taken, stays the message's",
    arguments: [
      ("552 5.3.4 too large", FailureCode.smtpTooLarge), ("554 5.6.0 no", .smtpContent), ("554 no", .smtpRejected),
      ("550 5.7.1 no", .smtpRejected), ("503 5.7.0 no", .smtpRejected), ("452 4.3.1 no room", .smtpStorage),
      ("451 4.3.0 later", .smtpBusy),
    ])
  func ofTheMessage(answer: String, code: FailureCode) {
    var driver = ready()
    begin(&driver, "x\n")
    driver.server("250 ok\r\n250 ok\r\n")
    driver.server(answer + "\r\n")
    #expect(driver.take().last == "failed \(code.rawValue)")
    begin(&driver, "x\n")
    driver.server("250 ok\r\n250 ok\r\n250 ok\r\n")
    #expect(driver.take().last?.hasPrefix("BDAT") == true)
    // Now it takes one, and later says that it does not know the command.
    driver.server("250 ok\r\n")
    begin(&driver, "x\n")
    driver.server("250 ok\r\n250 ok\r\n")
    _ = driver.take()
    driver.server("503 5.5.1 bad sequence\r\n")
    #expect(driver.take().last?.hasPrefix("failed smtp.") == true)
  }

  @Test("a server that reads the message's text as commands is not followed further")
  func textAsCommands() {
    var driver = ready()
    begin(&driver, "Subject: x\n\nRSET\n")
    driver.server("250 ok\r\n250 ok\r\n")
    driver.server("500 BDAT?\r\n")
    #expect(driver.take().last == "RSET\r\n")
    driver.server("500 Subject:?\r\n500 ?\r\n250 reset\r\n250 reset\r\n")
    #expect(driver.take() == ["broken protocol.syntax"])
    #expect(driver.failure?.context?.contains("takes the text of a message for commands") == true)
    // The same where all of its answers come at once.
    var quick = ready()
    begin(&quick, "Subject: x\n\nRSET\n")
    quick.server("250 ok\r\n250 ok\r\n")
    _ = quick.take()
    quick.server("500 BDAT?\r\n500 Subject:?\r\n500 ?\r\n250 reset\r\n")
    #expect(quick.take() == ["broken protocol.syntax"])
  }

  @Test("everything may be refused again, and the session goes on")
  func refusedAgain() {
    var driver = ready()
    begin(&driver, "x\n")
    driver.server("250 ok\r\n250 ok\r\n")
    driver.server("502 no\r\n")
    driver.server("250 ok\r\n")
    driver.server("250 ok\r\n")
    driver.server("550 5.1.1 no\r\n")
    #expect(driver.take().last == "done" && delivery(driver)?.isAccepted == false)
    begin(&driver, "y\n")
    #expect(driver.take().last == "RSET\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
    driver.server("250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n")
    #expect(driver.take() == ["y\r\n.\r\n"])
  }

  /// Everything that a dialogue writes of a message in these pieces, the answer to its first chunk given.
  private func written(_ pieces: [[UInt8]], _ answer: String) -> String {
    var driver = ready()
    driver.begin(
      .send(
        from: "a@x.example", to: ["b@x.example"],
        message: SMTPMessage(sizeOctets: 1, encoding: .sevenBit, octets: AsyncThrowingStream { nil })))
    driver.server("250 ok\r\n250 ok\r\n")
    _ = driver.take()
    var left = pieces[...]
    var log: [String] = []
    while log.isEmpty {
      driver.machine.feed(left.popFirst())
      driver.server("")
      log = driver.take()
    }
    #expect(log.count == 1 && log[0].hasPrefix("BDAT"))
    driver.server(answer)
    for reply in ["250 ok\r\n", "250 ok\r\n", "250 ok\r\n"] {
      // What was asked for before comes while the commands are under way.
      if let piece = left.popFirst() { driver.machine.feed(piece) }
      driver.server(reply)
    }
    _ = driver.take()
    driver.server("354 go on\r\n")
    while let piece = left.popFirst() {
      driver.machine.feed(piece)
      driver.server("")
    }
    driver.machine.feed(nil)
    driver.server("")
    log = driver.take()
    return log.joined()
  }

  @Test("of a message that is read while it is sent nothing is lost or doubled, wherever it is cut")
  func stream() {
    let line = "." + String(repeating: "x", count: 97) + "\r\n"
    let octets = Array(String(repeating: line, count: 700).utf8) + Array("..\rlone\nend".utf8)
    let wanted = String(repeating: "." + line, count: 700) + "...\r\nlone\r\nend\r\n.\r\n"
    // 65,536 octets are a chunk: cuts around it, also between CR and LF.
    for first in [65_536, 65_599, 65_600, 65_601, 69_999] {
      for size in [1_000, 16_384] {
        var pieces = [Array(octets[..<first])]
        var index = first
        while index < octets.count {
          pieces.append(Array(octets[index..<min(index + size, octets.count)]))
          index += size
        }
        #expect(written(pieces, "503 no\r\n") == wanted, "\(first) \(size)")
      }
    }
  }

  @Test("a message that was handed out in part is handed out from its beginning again")
  func encoder() {
    let octets = Array(".a\r\n.b\r.c\n\r\n..\r\rend".utf8)
    var direct = MessageEncoder(octets, .dots)
    var wanted = ""
    while let piece = direct.next(target: 100) { wanted += String(buffer: piece) }
    for cut in 0...octets.count {
      for target in 1...octets.count {
        var first = MessageEncoder(.chunks)
        first.append(Array(octets[..<cut]))
        guard let out = first.next(target: target) else { continue }
        var second = first.again(Array(out.readableBytesView), .dots)
        second.append(Array(octets[cut...]))
        second.end()
        var text = ""
        while let piece = second.next(target: 100) { text += String(buffer: piece) }
        #expect(text == wanted, "\(cut) \(target)")
      }
    }
  }

  @Test("over a socket: two messages of a stored stream arrive whole, the second without another try")
  func overSocket() async throws {
    let server = try await ScriptedMailServer.start([
      .send("220 mx\r\n"),
      .serve { line in
        let words = line.split(separator: " ")
        switch words.first?.uppercased() {
        case "EHLO": return .text("250-mx\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 CHUNKING\r\n")
        case "BDAT": return .readOctets(Int(words[1]) ?? 0, "502 5.5.1 not implemented\r\n")
        case "DATA": return .readMessage("354 go on\r\n")
        case "QUIT": return .close("221 bye\r\n")
        default: return .text("250 ok\r\n")
        }
      },
    ])
    let session = try await makeClient().openSMTP(
      .test(.smtp, server), heloName: "client.example", trace: SessionTrace(direction: .outgoing))
    let text = (0..<4_000).map { "line \($0) " + String(repeating: "x", count: 40) + "\r\n" }.joined()
    for _ in 0..<2 {
      let (octets, continuation) = AsyncThrowingStream<[UInt8], any Error>.makeStream()
      for start in stride(from: 0, to: text.utf8.count, by: 10_000) {
        continuation.yield(Array(text.utf8.dropFirst(start).prefix(10_000)))
      }
      continuation.finish()
      let delivery = try await session.send(
        from: "a@x.example", to: ["b@x.example"],
        SMTPMessage(sizeOctets: Int64(text.utf8.count), encoding: .sevenBit, octets: octets))
      #expect(delivery.isAccepted)
    }
    try await session.quit()
    #expect(server.lines.count { $0.hasPrefix("BDAT") } == 1 && server.lines.count { $0 == "DATA" } == 2)
    #expect(server.lines.count { $0 == "RSET" } == 1)
    #expect(server.lines.count { $0 == text + ".\r\n" } == 2)
    await server.stop()
  }
}
