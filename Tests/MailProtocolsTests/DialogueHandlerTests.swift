import NIOCore
import NIOEmbedded
import PostriderCore
import Testing

@testable import MailProtocols

/// TLS that must not be reached.
private struct NoTLS: TLSProvider {
  func secure(
    _ channel: any Channel, above transport: TransportHandler, _ requirement: TLSRequirement
  ) -> EventLoopFuture<TLSAnswer> {
    channel.eventLoop.makeFailedFuture(Failure(.internalError, context: "the handshake began"))
  }
}

/// An embedded channel belongs to one thread, so it is finished before the first `await` of each test.
@Suite("Channel handler")
struct DialogueHandlerTests {
  private func make(isUpgrade: Bool, startsWithTLS: Bool) throws -> (EmbeddedChannel, DialogueHandler<POP3Dialogue>) {
    let requirement = TLSRequirement(serverName: "h", caCertificatesPEM: nil, isUpgrade: isUpgrade)
    let deadlines = SessionDeadlines(
      answer: .seconds(1), finalAnswer: .seconds(1), handshake: .seconds(1), minimumOctetsPerSecond: 1)
    let handler = DialogueHandler(
      machine: POP3Dialogue(tls: isUpgrade ? .starttls : .implicit), deadlines: deadlines, tls: NoTLS(),
      requirement: requirement, startsWithTLS: startsWithTLS)
    let channel = EmbeddedChannel()
    try channel.pipeline.syncOperations.addHandlers([handler.transport, handler])
    channel.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 995), promise: nil)
    return (channel, handler)
  }

  private func outcome(_ box: OperationBox<POP3Dialogue>) async -> Failure? {
    await failure {
      _ = try await withCheckedThrowingContinuation { box.outcome($0) }
    }
  }

  @Test("plain text that comes before our handshake begins is not kept for after it")
  func earlyPlainText() async throws {
    let (channel, handler) = try make(isUpgrade: false, startsWithTLS: true)
    try channel.writeInbound(ByteBuffer(string: "+OK injected\r\n"))
    let box = OperationBox<POP3Dialogue>()
    handler.begin(.secure, box)
    _ = try channel.finish(acceptAlreadyClosed: true)
    #expect(await outcome(box)?.code == .tlsPortMismatch)
  }

  @Test("octets in the buffer stop any handshake")
  func bufferedOctets() async throws {
    let (channel, handler) = try make(isUpgrade: true, startsWithTLS: false)
    try channel.writeInbound(ByteBuffer(string: "+OK injected\r\n"))
    let box = OperationBox<POP3Dialogue>()
    handler.begin(.secure, box)
    _ = try channel.finish(acceptAlreadyClosed: true)
    #expect(await outcome(box)?.code == .tlsStartTLSInjection)
  }

  @Test("two operations at once: the second one fails, the first one goes on")
  func twoOperations() async throws {
    let (channel, handler) = try make(isUpgrade: true, startsWithTLS: false)
    let first = OperationBox<POP3Dialogue>()
    let second = OperationBox<POP3Dialogue>()
    handler.begin(.greeting, first)
    handler.begin(.capabilities, second)
    try channel.writeInbound(ByteBuffer(string: "+OK hello\r\n"))
    #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
    _ = try channel.finish(acceptAlreadyClosed: true)
    #expect(await outcome(second)?.code == .internalError)
    let done = try await withCheckedThrowingContinuation { first.outcome($0) }
    guard case .done(let words) = done else {
      Issue.record("no greeting")
      return
    }
    #expect(words == "+OK hello")
  }

  @Test("what the server sends without being asked is bounded")
  func unasked() async throws {
    let (channel, handler) = try make(isUpgrade: true, startsWithTLS: false)
    try channel.writeInbound(ByteBuffer(string: String(repeating: "x", count: 65_537)))
    let box = OperationBox<POP3Dialogue>()
    handler.begin(.greeting, box)
    _ = try channel.finish(acceptAlreadyClosed: true)
    #expect(await outcome(box)?.code == .protocolLimit)
  }
}
