import NIOCore
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

/// Servers that answer what they were not asked yet. Followed further, each of their answers would be taken for that of the
/// next command: one message for another, a refused recipient for one that was taken.
@Suite("Answers that come before their command (feature N6)")
struct EarlyAnswerTests {
  private func pop3(_ capabilities: String = "") -> Driver<POP3Dialogue> {
    var driver = Driver(POP3Dialogue(tls: .none))
    driver.begin(.greeting)
    driver.server("+OK\r\n")
    driver.begin(.capabilities)
    driver.server("+OK\r\n\(capabilities).\r\n")
    _ = driver.take()
    return driver
  }

  private func smtp(_ extensions: String = "") -> Driver<SMTPDialogue> {
    var driver = Driver(SMTPDialogue(tls: .none))
    driver.begin(.greeting)
    driver.server("220 mx\r\n")
    driver.begin(.hello("client.example"))
    driver.server("250-mx\r\n\(extensions)250 HELP\r\n")
    _ = driver.take()
    return driver
  }

  private func send(_ driver: inout Driver<SMTPDialogue>, to: [String] = ["b@x.example"]) {
    driver.begin(.send(from: "a@x.example", to: to, message: SMTPMessage(Array("x\n".utf8))))
  }

  @Test("RETR: a message that comes twice is not taken for the next one", arguments: ["", "PIPELINING\r\n"])
  func retrieve(capabilities: String) {
    var driver = pop3(capabilities)
    driver.begin(.retrieve([1, 2], maximumOctets: 1_000, budget: RetrievalBudget()))
    let window = driver.take()
    driver.server("+OK\r\nfirst\r\n.\r\n+OK\r\nfirst\r\n.\r\n")
    if capabilities.isEmpty {
      let log = driver.take()
      #expect(window == ["RETR 1\r\n"] && log.last == "broken protocol.syntax", "\(log)")
      #expect(!log.contains { $0.contains("RETR 2") || $0.hasPrefix("message(2") })
    } else {
      // Both were asked for. What comes behind them is seen with the next command.
      #expect(window == ["RETR 1\r\nRETR 2\r\n"] && driver.take().last == "done")
      driver.server("+OK\r\n")
      driver.begin(.quit)
      #expect(driver.take().last == "broken protocol.syntax")
    }
  }

  @Test("DELE: an answer too many does not confirm the next deletion")
  func delete() {
    var driver = pop3()
    driver.begin(.delete([1, 2]))
    driver.server("+OK\r\n+OK\r\n")
    #expect(driver.take() == ["DELE 1\r\n", "broken protocol.syntax"])
  }

  @Test("a password is not sent to a server that has answered it already")
  func login() {
    var user = pop3()
    user.begin(.login(.userPass(anna)))
    user.server("+OK\r\n+OK\r\n")
    #expect(user.take() == ["USER anna\r\n", "broken protocol.syntax"])
    var challenge = pop3()
    challenge.begin(.login(.sasl(LoginMechanism(anna), anna)))
    challenge.server("+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n")
    #expect(challenge.take() == ["AUTH LOGIN\r\n", "broken protocol.syntax"])
    var submission = smtp("250-AUTH LOGIN\r\n")
    submission.begin(.login(LoginMechanism(anna), anna))
    submission.server("334 VXNlcm5hbWU6\r\n235 2.7.0 welcome\r\n")
    #expect(submission.take() == ["AUTH LOGIN\r\n", "broken protocol.syntax"])
  }

  @Test("SMTP: commands in lockstep and in groups, and the message itself")
  func transaction() {
    var lockstep = smtp()
    send(&lockstep)
    lockstep.server("250 ok\r\n250 ok\r\n")
    #expect(lockstep.take() == ["MAIL FROM:<a@x.example>\r\n", "broken protocol.syntax"])
    var group = smtp("250-PIPELINING\r\n250-CHUNKING\r\n")
    send(&group)
    group.server("250 ok\r\n250 ok\r\n250 taken\r\n")
    #expect(group.take().last == "broken protocol.syntax" && group.failure?.context?.contains("a chunk") == true)
    var many = smtp("250-PIPELINING\r\n")
    send(&many, to: (0..<150).map { "b\($0)@x.example" })
    many.server(String(repeating: "250 ok\r\n", count: 101))
    #expect(many.take().last == "broken protocol.syntax")
    // The answer to a message that has not been sent.
    var early = smtp("250-PIPELINING\r\n")
    send(&early)
    early.server("250 ok\r\n250 ok\r\n354 go on\r\n250 2.0.0 taken\r\n")
    let log = early.take()
    #expect(log.last == "broken protocol.syntax" && !log.contains { $0.hasSuffix(".\r\n") }, "\(log)")
  }

  @Test("a server that closes the session may say so at any time")
  func closing() {
    var driver = smtp()
    send(&driver)
    driver.server("250 ok\r\n421 4.3.2 shutting down\r\n")
    #expect(driver.take().last == "broken smtp.busy" && driver.failure?.scope == .server)
    var early = smtp("250-PIPELINING\r\n")
    send(&early)
    early.server("250 ok\r\n250 ok\r\n354 go on\r\n421 4.3.2 shutting down\r\n")
    #expect(early.take().last == "broken smtp.busy")
  }
}
