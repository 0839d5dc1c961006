import NIOCore
import NIOPosix
import Synchronization

/// An SMTP server (RFC 5321) that takes every message and keeps none, on one thread.
///
/// As cheap as one can be, so that what is measured is whoever sends: an end of data is looked for only where a read
/// ends, since neither client sends anything behind it before it is answered.
final class SendSink: Sendable {
  /// The loopback port.
  let port: Int
  private let listener: any Channel
  private let group: MultiThreadedEventLoopGroup
  private let counted: Counted

  private init(listener: any Channel, group: MultiThreadedEventLoopGroup, counted: Counted) {
    self.listener = listener
    self.group = group
    self.counted = counted
    port = listener.localAddress?.port ?? 0
  }

  static func start() async throws -> SendSink {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let counted = Counted()
    let listener = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 1_024)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(SendSinkSession(counted))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return SendSink(listener: listener, group: group, counted: counted)
  }

  /// Messages taken so far.
  var messages: Int { counted.value }

  /// Stops it with every session.
  func stop() async {
    try? await listener.close().get()  // Closed already is fine.
    try? await group.shutdownGracefully()  // Its thread ends with the process at the latest.
  }
}

private final class SendSinkSession: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let counted: Counted
  private var buffer = ByteBuffer()
  private var isInBody = false
  /// The last octets of the body, up to five.
  private var tail: [UInt8] = []

  private static let end = Array("\r\n.\r\n".utf8)
  private static let hello = "250-sink\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n"

  init(_ counted: Counted) { self.counted = counted }

  func channelActive(context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "220 sink\r\n")), promise: nil)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    var answers = ByteBuffer()
    if isInBody {
      take(&bytes, &answers)
    } else {
      buffer.writeBuffer(&bytes)
      while !isInBody, let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
        let verb = buffer.getString(at: buffer.readerIndex, length: min(4, end - buffer.readerIndex)) ?? ""
        buffer.moveReaderIndex(to: end + 1)
        answer(verb.uppercased(), &answers, context)
      }
      if isInBody { take(&buffer, &answers) }
      buffer.discardReadBytes()
    }
    if answers.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(answers), promise: nil) }
  }

  private func answer(_ verb: String, _ answers: inout ByteBuffer, _ context: ChannelHandlerContext) {
    switch verb {
    case "EHLO": answers.writeString(Self.hello)
    case "AUTH": answers.writeStaticString("235 in\r\n")
    case "DATA":
      (isInBody, tail) = (true, Array(Self.end.prefix(2)))
      answers.writeStaticString("354 go ahead\r\n")
    case "QUIT":
      answers.writeStaticString("221 bye\r\n")
      context.writeAndFlush(wrapOutboundOut(answers), promise: nil)
      answers.clear()
      context.close(promise: nil)
    default: answers.writeStaticString("250 ok\r\n")
    }
  }

  private func take(_ bytes: inout ByteBuffer, _ answers: inout ByteBuffer) {
    let last = bytes.readableBytesView.suffix(Self.end.count)
    if last.isEmpty { return }
    tail = (tail + last).suffix(Self.end.count)
    bytes.clear()
    guard tail == Self.end else { return }
    isInBody = false
    counted.add()
    answers.writeStaticString("250 taken\r\n")
  }
}
