import NIOCore

/// The handler nearest to the socket, below TLS: looks at the first octets and closes without ceremony.
///
/// TLS libraries report plain text as some handshake error; here it is still recognizable. And a close from above TLS
/// would wait for the peer's close notification, while a lost lease must free the socket at once.
final class TransportHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundOut = ByteBuffer

  enum Expectation {
    case plainText
    case tls
    case checked
  }

  private var expectation = Expectation.plainText
  private var context: ChannelHandlerContext?
  /// What came of a TLS server's first message so far, while it is not whole.
  private var opening: ByteBuffer?
  /// What a TLS server chose.
  private(set) var serverHello: ServerHello?
  /// Whether anything has come from the server.
  private(set) var hasReceived = false

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }
  func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

  /// From now on TLS records are expected.
  func expectTLS() { expectation = .tls }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    hasReceived = true
    if case .tls = expectation {
      let bytes = unwrapInboundIn(data)
      // Content types of TLS records: 20 change_cipher_spec … 23 application_data (RFC 8446 section 5.1).
      guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self), (20...23).contains(first) else {
        context.fireErrorCaught(NotTLSError())
        return
      }
      expectation = .checked
      opening = ByteBuffer()
    }
    if opening != nil { look(at: unwrapInboundIn(data)) }
    context.fireChannelRead(data)
  }

  /// Reads the server's first message from its first octets, which TLS takes as well.
  private func look(at bytes: ByteBuffer) {
    opening?.writeImmutableBuffer(bytes)
    guard let octets = opening else { return }
    switch ServerHello.read(octets) {
    case .incomplete: return
    case .none: break
    case .hello(let hello): serverHello = hello
    }
    opening = nil
  }

  /// Writes below TLS.
  func writeRaw(_ bytes: ByteBuffer) {
    context?.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
  }

  /// Closes the socket at once.
  func closeNow() { context?.close(mode: .all, promise: nil) }
}

/// The server sent something that is no TLS record where one was expected.
struct NotTLSError: Error {}
