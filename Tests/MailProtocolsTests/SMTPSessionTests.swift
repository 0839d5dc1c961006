import NIOCore
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import MailProtocols

@Suite("SMTP sessions over sockets", .serialized, .timeLimit(.minutes(5)))
struct SMTPSessionTests {
  typealias Step = ScriptedMailServer.Step

  static let hello: [Step] = [
    .send("220 mx.example\r\n"), .expect("EHLO client.example"),
    .send("250-mx.example\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n"),
  ]

  private func open(
    _ server: ScriptedMailServer, answer: Duration = .seconds(60),
    trace: SessionTrace = SessionTrace(direction: .outgoing)
  ) async throws -> SMTPSession {
    try await makeClient().openSMTP(
      .test(.smtp, server, answer: answer), heloName: "client.example", trace: trace)
  }

  @Test("a whole session with partial recipients")
  func whole() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("AUTH PLAIN AGFubmEAY29ycmVjdCBob3JzZQ=="), .send("235 2.7.0 in\r\n"),
        .expect("MAIL FROM:<a@x.example> SIZE=22"), .expect("RCPT TO:<b@x.example>"), .expect("RCPT TO:<c@x.example>"),
        .expect("DATA"), .send("250 ok\r\n250 ok\r\n550 5.1.1 no such user\r\n354 go\r\n"), .readMessage,
        .send("250 2.0.0 queued\r\n"), .expect("QUIT"), .send("221 bye\r\n"), .close,
      ])
    let trace = SessionTrace(direction: .outgoing)
    let session = try await open(server, trace: trace)
    #expect(session.extensions.maximumSizeOctets == 50_000_000)
    try await session.authenticate(anna, mechanism: .plain)
    let delivery = try await session.send(
      from: "a@x.example", to: ["b@x.example", "c@x.example"], message: Array("Subject: x\n\n.\nend".utf8))
    #expect(delivery.isAccepted)
    #expect(delivery.recipients.map { $0.failure?.code } == [nil, .smtpRecipient])
    try await session.quit()
    #expect(server.mismatches.isEmpty)
    #expect(server.lines.contains("Subject: x\r\n\r\n..\r\nend\r\n.\r\n"))
    #expect(
      trace.steps.map(\.name) == [.resolve, .connect, .greeting, .capabilities, .authenticate, .send, .quit])
  }

  @Test("a large message goes out whole, and only as fast as the server takes it")
  func large() async throws {
    let line = String(repeating: "0123456789", count: 7) + "\n"
    let text = String(repeating: line, count: 60_000)
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n250 ok\r\n354 go\r\n"), .readMessage,
        .send("250 queued\r\n"),
      ])
    let session = try await open(server, answer: .seconds(60))
    _ = try await session.send(from: "a@x.example", to: ["b@x.example"], message: Array(text.utf8))
    #expect(server.lines.last?.utf8.count == 60_000 * 72 + 3)
    session.abort()
  }

  /// How many pieces were asked for.
  private final class Fetched: Sendable {
    private let number = Mutex(0)
    var count: Int { number.withLock { $0 } }

    func next() -> Int {
      number.withLock { number in
        number += 1
        return number
      }
    }
  }

  /// A message of so many pieces of a million octets each.
  private func pieces(
    _ count: Int, announced: Int64? = nil, fetched: Fetched, failing: (any Error)? = nil
  ) -> SMTPMessage {
    let piece = Array(String(repeating: String(repeating: ".", count: 98) + "\r\n", count: 10_000).utf8)
    return SMTPMessage(
      sizeOctets: announced ?? Int64(count * piece.count), encoding: .sevenBit,
      octets: AsyncThrowingStream {
        if fetched.next() > count {
          if let failing { throw failing }
          return nil
        }
        return piece
      })
  }

  @Test("a message is read as the server takes it, and arrives whole")
  func streamed() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL FROM:<a@x.example> SIZE=3000000"), .expect("RCPT"), .expect("DATA"),
        .send("250 ok\r\n250 ok\r\n354 go\r\n"), .readMessage, .send("250 queued\r\n"),
      ])
    let session = try await open(server, answer: .seconds(60))
    let fetched = Fetched()
    let delivery = try await session.send(from: "a@x.example", to: ["b@x.example"], pieces(3, fetched: fetched))
    #expect(delivery.isAccepted && fetched.count == 4)
    #expect(server.lines.last?.utf8.count == 3_000_000 + 30_000 + 3)
    session.abort()
  }

  @Test("a server that takes nothing more is not read ahead for")
  func bounded() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .stopReading, .send("250 ok\r\n250 ok\r\n354 go\r\n"),
      ])
    let session = try await open(server, answer: .seconds(8))
    let fetched = Fetched()
    let failure = await failure {
      _ = try await session.send(from: "a@x.example", to: ["b@x.example"], pieces(40, fetched: fetched))
    }
    #expect(failure?.code == .tcpTimeout || failure?.code == .tcpTooSlow)
    // What the sockets' buffers hold, and little more.
    #expect((1...20).contains(fetched.count), "\(fetched.count) pieces")
  }

  struct Away: Error {}

  @Test("a message whose rest cannot be had, or is missing, never ends with a dot", arguments: [true, false])
  func notWhole(throwing: Bool) async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n250 ok\r\n354 go\r\n"), .readMessage,
        .send("250 queued\r\n"),
      ])
    let session = try await open(server)
    do {
      _ = try await session.send(
        from: "a@x.example", to: ["b@x.example"],
        pieces(2, announced: 2_000_001, fetched: Fetched(), failing: throwing ? Away() : nil))
      Issue.record("it was sent")
    } catch is Away {
      #expect(throwing)
    } catch let failure as Failure {
      #expect(!throwing && failure.code == .internalError)
    }
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(!server.lines.contains { $0.hasSuffix("\r\n.\r\n") })
    let next = await failure { _ = try await session.send(from: "a@x.example", to: ["b@x.example"], message: [0x61]) }
    #expect(next?.code == .runAborted)
  }

  @Test("a refusal in the middle of a message is the answer")
  func refusedInTheMiddle() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n250 ok\r\n354 go\r\n"),
        .expect(".."), .send("552 5.3.4 too big\r\n"),
      ])
    let session = try await open(server)
    let failure = await failure {
      _ = try await session.send(from: "a@x.example", to: ["b@x.example"], pieces(1_000, fetched: Fetched()))
    }
    #expect(failure?.code == .smtpTooLarge)
  }

  @Test("cancelled in the middle of a message: nothing was handed over")
  func cancelledInTheMiddle() async throws {
    let started = ScriptSignal()
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n250 ok\r\n354 go\r\n"),
        .expect(".."), .signal(started), .readMessage, .send("250 queued\r\n"),
      ])
    let session = try await open(server)
    let message = SMTPMessage(
      sizeOctets: 40_000_000, encoding: .sevenBit,
      octets: AsyncThrowingStream {
        // More and more of it, until the task is cancelled; then the stream ends as if that were all.
        Array(".\r\n".utf8)
      })
    let task = Task { try await session.send(from: "a@x.example", to: ["b@x.example"], message) }
    await started.wait()
    task.cancel()
    await #expect(throws: (any Error).self) { try await task.value }
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(!server.lines.contains { $0.hasSuffix("\r\n.\r\n") })
  }

  @Test("the server stops taking the message")
  func stalled() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [
        .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .stopReading, .send("250 ok\r\n250 ok\r\n354 go\r\n"),
      ])
    let session = try await open(server, answer: .seconds(6))
    let failure = await failure {
      _ = try await session.send(
        from: "a@x.example", to: ["b@x.example"], message: [UInt8](repeating: 0x61, count: 30_000_000))
    }
    #expect(failure?.code == .tcpTimeout || failure?.code == .tcpTooSlow)
  }

  @Test("lost before the final dot")
  func lost() async throws {
    let server = try await ScriptedMailServer.start(
      Self.hello + [.expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n"), .close])
    let session = try await open(server)
    let failure = await failure {
      _ = try await session.send(from: "a@x.example", to: ["b@x.example"], message: [0x61])
    }
    #expect(failure?.code == .smtpLost)
  }

  static let untilDot: [Step] = [
    .expect("MAIL"), .expect("RCPT"), .expect("DATA"), .send("250 ok\r\n250 ok\r\n354 go\r\n"), .readMessage,
  ]

  @Test("lost, silent, unreadable or interrupted after the final dot", arguments: ["close", "silent", "junk", "abort"])
  func uncertain(what: String) async throws {
    let dot = ScriptSignal()
    let end: [Step] = what == "close" ? [.close] : what == "junk" ? [.send("what?\r\n")] : []
    let server = try await ScriptedMailServer.start(Self.hello + Self.untilDot + [.signal(dot)] + end)
    var endpoint = try await MailEndpoint.test(.smtp, server)
    // Long enough for the answers before the dot.
    if what == "silent" { (endpoint.answerTimeout, endpoint.finalAnswerTimeout) = (.seconds(8), .seconds(8)) }
    let session = try await makeClient().openSMTP(
      endpoint, heloName: "client.example", trace: SessionTrace(direction: .outgoing))
    async let sent = failure {
      _ = try await session.send(from: "a@x.example", to: ["b@x.example"], message: [0x61])
    }
    if what == "abort" {
      await dot.wait()
      session.abort()
    }
    #expect(await sent?.code == .smtpUncertain)
  }

  @Test("cancelled after the final dot is uncertain too")
  func cancelled() async throws {
    let dot = ScriptSignal()
    let server = try await ScriptedMailServer.start(Self.hello + Self.untilDot + [.signal(dot)])
    let session = try await open(server)
    let task = Task { try await session.send(from: "a@x.example", to: ["b@x.example"], message: [0x61]) }
    await dot.wait()
    task.cancel()
    let failure = await failure { _ = try await task.value }
    #expect(failure?.code == .smtpUncertain)
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test(
    "greetings that are none",
    arguments: [
      ("554 go away\r\n", FailureCode.smtpGreeting), ("421 busy\r\n", .smtpBusy), ("+OK pop\r\n", .protocolSyntax),
    ])
  func greeting(text: String, code: FailureCode) async throws {
    let server = try await ScriptedMailServer.start([.send(text)])
    let failure = await failure { _ = try await open(server) }
    #expect(failure?.code == code)
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("closed without a greeting")
  func noGreeting() async throws {
    let server = try await ScriptedMailServer.start([.close])
    let failure = await failure { _ = try await open(server) }
    #expect(failure?.code == .smtpGreeting)
  }
}
