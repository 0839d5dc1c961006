import NIOCore
import PostriderCore
import Testing

@testable import MailProtocols

@Suite("SMTP dialogue")
struct SMTPDialogueTests {
  private func ready(_ extensions: [String] = [], tls: TLSMode = .none) -> Driver<SMTPDialogue> {
    var driver = Driver(SMTPDialogue(tls: tls))
    driver.begin(.greeting)
    driver.server("220 hello\r\n")
    driver.begin(.hello("client.example"))
    let lines = ["mx.example"] + extensions
    driver.server(
      lines.enumerated().map { "250\($0.offset == lines.count - 1 ? " " : "-")\($0.element)\r\n" }.joined())
    _ = driver.take()
    return driver
  }

  private let message = SMTPMessage(Array("Subject: x\n\n.dot\n".utf8))

  private func delivery(_ driver: Driver<SMTPDialogue>) -> SMTPDelivery? {
    if case .delivery(let delivery) = driver.outcome { delivery } else { nil }
  }

  @Test("HELO after a refused EHLO")
  func helo() {
    var driver = Driver(SMTPDialogue(tls: .none))
    driver.begin(.hello("client.example"))
    driver.server("502 what?\r\n")
    driver.server("250 fine\r\n")
    #expect(driver.take() == ["EHLO client.example\r\n", "HELO client.example\r\n", "done"])
    #expect(!driver.machine.extensions.isExtended)
  }

  @Test("a message in lockstep")
  func lockstep() {
    var driver = ready()
    driver.begin(.send(from: "a@x.example", to: ["b@x.example", "c@x.example"], message: message))
    #expect(driver.take() == ["MAIL FROM:<a@x.example>\r\n"])
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["RCPT TO:<b@x.example>\r\n"])
    driver.server("550 5.1.1 unknown\r\n")
    #expect(driver.take() == ["RCPT TO:<c@x.example>\r\n"])
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["DATA\r\n"])
    driver.server("354 go\r\n")
    #expect(driver.take() == ["Subject: x\r\n\r\n..dot\r\n.\r\n"])
    driver.server("250 2.0.0 queued as 42\r\n")
    #expect(driver.take() == ["done"])
    #expect(delivery(driver)?.recipients.map { $0.failure?.code } == [.smtpRecipient, nil])
    #expect(delivery(driver)?.reply?.lines == ["2.0.0 queued as 42"])
  }

  @Test("a message pipelined, with SIZE and BODY")
  func pipelined() {
    var driver = ready(["PIPELINING", "SIZE 1000", "8BITMIME"])
    driver.begin(.send(from: "", to: ["b@x.example", "c@x.example"], message: SMTPMessage(Array("ä\n".utf8))))
    #expect(
      driver.take() == [
        "MAIL FROM:<> SIZE=4 BODY=8BITMIME\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"
      ])
    driver.server("250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n354 go\r\n")
    #expect(driver.take() == ["ä\r\n.\r\n"])
    driver.server("250 ok\r\n")
    #expect(delivery(driver)?.recipients.map { $0.failure?.code } == [nil, .smtpTooManyRecipients])
  }

  @Test("DATA accepted though nobody stands: a lone dot ends it, nothing is sent")
  func loneDot() {
    var driver = ready(["PIPELINING"])
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    driver.server("250 ok\r\n550 no\r\n354 go\r\n")
    #expect(driver.take().last == ".\r\n")
    driver.server("554 no valid recipients\r\n")
    #expect(delivery(driver)?.isAccepted == false)
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    #expect(driver.take().last?.hasPrefix("MAIL") == true)
  }

  @Test("MAIL refused, pipelined and not", arguments: [true, false])
  func mailRefused(pipelined: Bool) {
    var driver = ready(pipelined ? ["PIPELINING"] : [])
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    driver.server("550 5.7.1 not yours\r\n")
    if pipelined { driver.server("503 no\r\n503 no\r\n") }
    #expect(driver.failure?.code == .smtpSendAsDenied)
  }

  @Test("after refused recipients the next message begins with RSET")
  func reset() {
    var driver = ready()
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    driver.server("250 ok\r\n")
    driver.server("550 no\r\n")
    #expect(delivery(driver)?.isAccepted == false)
    _ = driver.take()
    driver.begin(.send(from: "a@x.example", to: ["c@x.example"], message: message))
    driver.server("250 ok\r\n")
    #expect(driver.take() == ["RSET\r\n", "MAIL FROM:<a@x.example>\r\n"])
  }

  @Test("more recipients than a group holds")
  func groups() {
    var driver = ready(["PIPELINING"])
    driver.begin(.send(from: "a@x.example", to: (1...150).map { "r\($0)@x.example" }, message: message))
    #expect(driver.take().joined().split(separator: "\r\n").count == 100)
    driver.server(String(repeating: "250 ok\r\n", count: 100))
    #expect(driver.take().joined().hasSuffix("RCPT TO:<r150@x.example>\r\nDATA\r\n"))
    driver.server(String(repeating: "250 ok\r\n", count: 51) + "354 go\r\n")
    driver.server("250 ok\r\n")
    #expect(delivery(driver)?.recipients.count == 150)
  }

  @Test("lost before the final dot, and after it")
  func lost() {
    var driver = ready()
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    #expect(driver.machine.lost().code == .smtpLost)
    driver.server("250 ok\r\n")
    driver.server("250 ok\r\n")
    #expect(driver.machine.lost().code == .smtpLost)
    #expect(driver.machine.interrupted() == nil)
    driver.server("354 go\r\n")
    #expect(driver.machine.lost().code == .smtpUncertain)
    #expect(driver.machine.late(.finalAnswer, tooSlow: false).code == .smtpUncertain)
    #expect(driver.machine.interrupted()?.code == .smtpUncertain)
    driver.server("what?\r\n")
    #expect(driver.failure?.code == .smtpUncertain)
  }

  @Test("a refusal after the final dot is a definite answer")
  func refusedAfterDot() {
    var driver = ready()
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    for line in ["250 ok", "250 ok", "354 go", "554 5.6.0 bad content"] { driver.server(line + "\r\n") }
    #expect(driver.failure?.code == .smtpContent)
    #expect(driver.machine.lost().code == .tcpClosed)
  }

  @Test(
    "what is refused without asking the server",
    arguments: [
      ("a@x\r\nRSET", "b@x.example", FailureCode.smtpRejected), ("a@x> SIZE=1", "b@x.example", .smtpRejected),
      ("ä@x.example", "b@x.example", .smtpRejected),
    ])
  func dangerous(from: String, to: String, code: FailureCode) {
    var driver = ready()
    driver.begin(.send(from: from, to: [to], message: message))
    #expect(driver.take() == ["failed \(code.rawValue)"])
  }

  @Test(
    "a dangerous recipient fails alone", arguments: ["b@x\r\nDATA", "b@x\nx", "b@x\u{0}", "<b@x>", "b c@x", "", "ä@x"])
  func dangerousRecipient(address: String) {
    var driver = ready(["PIPELINING"])
    driver.begin(.send(from: "a@x.example", to: [address, "c@x.example"], message: message))
    #expect(driver.take() == ["MAIL FROM:<a@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"])
    driver.server("250 ok\r\n250 ok\r\n354 go\r\n")
    driver.server("250 ok\r\n")
    #expect(delivery(driver)?.recipients.map { $0.failure?.code } == [.smtpRecipient, nil])
  }

  @Test("NUL and a known SIZE")
  func content() {
    var driver = ready(["SIZE 10"])
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: SMTPMessage([0x61, 0])))
    #expect(driver.failure?.code == .smtpContent)
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    #expect(driver.failure?.code == .smtpTooLarge)
  }

  private func stream(_ octets: Int64, _ encoding: MessageEncoding = .sevenBit) -> SMTPMessage {
    SMTPMessage(sizeOctets: octets, encoding: encoding, octets: AsyncThrowingStream { nil })
  }

  @Test("a message that comes in pieces: the dot waits for its end, and an early answer is a refusal")
  func fed() {
    var driver = ready(["SIZE 1000"])
    for refused in [false, true] {
      driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: stream(10)))
      for line in ["250 ok", "250 ok", "354 go"] { driver.server(line + "\r\n") }
      #expect(driver.take().filter { $0.hasPrefix("MAIL") } == ["MAIL FROM:<a@x.example> SIZE=10\r\n"])
      #expect(driver.machine.wantsBody)
      driver.machine.feed(Array("Subject:".utf8))
      driver.server("")
      #expect(driver.take() == ["Subject:"])
      // Cut off here, nothing was handed over.
      #expect(driver.machine.lost().code == .smtpLost && driver.machine.interrupted() == nil)
      if refused {
        driver.server("552 too much\r\n")
        #expect(driver.take() == ["broken smtp.too-large"])
      } else {
        driver.machine.feed(Array(" x".utf8))
        driver.machine.feed(nil)
        driver.server("")
        #expect(driver.take() == [" x\r\n.\r\n"] && driver.machine.lost().code == .smtpUncertain)
        driver.server("250 ok\r\n")
        #expect(delivery(driver)?.isAccepted == true)
      }
    }
  }

  @Test("what a message needs is said, or refused without asking")
  func encodings() {
    var plain = ready(["8BITMIME", "SIZE 100"])
    plain.begin(.send(from: "a@x.example", to: ["b@x.example"], message: stream(10, .eightBit)))
    #expect(plain.take() == ["MAIL FROM:<a@x.example> SIZE=10 BODY=8BITMIME\r\n"])
    var old = ready()
    old.begin(.send(from: "a@x.example", to: ["b@x.example"], message: stream(10, .utf8)))
    #expect(old.take() == ["failed smtp.content"] && old.failure?.context?.contains("SMTPUTF8") == true)
    var modern = ready(["SMTPUTF8", "8BITMIME"])
    modern.begin(.send(from: "a@x.example", to: ["b@x.example"], message: stream(10, .utf8)))
    #expect(modern.take() == ["MAIL FROM:<a@x.example> BODY=8BITMIME SMTPUTF8\r\n"])
    modern = ready(["SMTPUTF8"])
    modern.begin(.send(from: "a@x.example", to: ["ä@x.example"], message: stream(10)))
    #expect(modern.take() == ["MAIL FROM:<a@x.example> SMTPUTF8\r\n"])
    var small = ready(["SIZE 9"])
    small.begin(.send(from: "a@x.example", to: ["b@x.example"], message: stream(10)))
    #expect(small.failure?.code == .smtpTooLarge)
  }

  @Test("421 ends the session, also between messages")
  func closing() {
    var driver = ready()
    driver.server("421 4.4.2 idle too long\r\n")
    driver.begin(.send(from: "a@x.example", to: ["b@x.example"], message: message))
    #expect(driver.take() == ["broken smtp.busy"])
  }

  @Test("AUTH PLAIN, AUTH LOGIN and a refusal")
  func authentication() {
    var driver = ready()
    driver.begin(.login(PlainMechanism(anna), anna))
    driver.server("235 2.7.0 in\r\n")
    #expect(driver.take() == ["AUTH PLAIN AGFubmEAY29ycmVjdCBob3JzZQ==\r\n", "done"])
    driver.begin(.login(LoginMechanism(anna), anna))
    driver.server("334 VXNlcm5hbWU6\r\n")
    driver.server("334 UGFzc3dvcmQ6\r\n")
    driver.server("535 5.7.8 bad: Y29ycmVjdCBob3JzZQ==\r\n")
    #expect(driver.take().last == "failed auth.rejected")
    #expect(driver.failure.map { !"\($0)".contains("Y29y") } == true)
  }

  @Test("no credentials without TLS when TLS is wanted")
  func clearText() {
    var driver = ready(tls: .starttls)
    driver.begin(.login(PlainMechanism(anna), anna))
    #expect(driver.take() == ["failed tls.starttls-missing"])
  }

  @Test("STARTTLS: injected, refused")
  func startTLS() {
    var injected = ready(tls: .starttls)
    injected.begin(.startTLS)
    injected.server("220 go\r\n250 AUTH PLAIN\r\n")
    #expect(injected.take() == ["STARTTLS\r\n", "broken tls.starttls-injection"])
    var refused = ready(tls: .starttls)
    refused.begin(.startTLS)
    refused.server("454 4.7.0 not now\r\n")
    #expect(refused.take() == ["STARTTLS\r\n", "broken tls.starttls-missing"])
  }
}
