import NIOCore
import NIOSSL
import NIOTLS

/// One connection's dialogue: many requests in flight, replies matched in order.
///
/// Lives on its channel's event loop. When anything goes wrong (a closed socket, a malformed or late reply) every
/// waiting request fails and the channel is closed: after that nobody can tell which reply belongs to which request.
final class RESPHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private struct Request {
    /// `nil` when nobody waits for the reply.
    var promise: EventLoopPromise<RedisValue>?
    var timer: Scheduled<Void>
  }

  /// More are refused at once. The server answers in order, so a longer queue would only hide that it is too slow.
  static let maximumInFlight = 1_024

  private let reader = RESPReader()
  private var waiting = CircularBuffer<Request>(initialCapacity: 64)
  private var context: ChannelHandlerContext?
  private var failure: RedisConnectionFailure?
  /// Whether the server ever said anything.
  private var answered = false
  /// The handler below, asked for the server's certificate.
  let tls: NIOSSLClientHandler?
  private let serverName: String
  /// Succeeds when commands may be sent, which over TLS is after the handshake.
  private let ready: EventLoopPromise<Void>
  /// Takes pub/sub messages (channel name and text) of a subscribed connection.
  private let message: @Sendable (String, String) -> Void

  init(
    tls: NIOSSLClientHandler?, serverName: String, ready: EventLoopPromise<Void>,
    message: @escaping @Sendable (String, String) -> Void
  ) {
    self.tls = tls
    self.ready = ready
    self.serverName = serverName
    self.message = message
  }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    fail(.closed)
    self.context = nil
  }

  /// Sends one command; the promise gets its reply, or a ``RedisConnectionFailure``.
  func send(_ arguments: [String], timeout: TimeAmount, promise: EventLoopPromise<RedisValue>?) {
    guard failure == nil, let context, context.channel.isActive else {
      promise?.fail(failure ?? .closed)
      return
    }
    guard waiting.count < Self.maximumInFlight else {
      promise?.fail(RedisConnectionFailure.tooManyRequests)
      return
    }
    var buffer = context.channel.allocator.buffer(capacity: 256)
    do {
      try writeCommand(arguments, to: &buffer)
    } catch {
      promise?.fail(error)
      return
    }
    let timer = context.eventLoop.assumeIsolated().scheduleTask(in: timeout) { self.fail(.timedOut) }
    waiting.append(Request(promise: promise, timer: timer))
    context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    do throws(RedisConnectionFailure) {
      let buffer = unwrapInboundIn(data)
      let result = buffer.withUnsafeReadableBytes { bytes -> Result<Void, RedisConnectionFailure> in
        do throws(RedisConnectionFailure) {
          return .success(try reader.feed(bytes))
        } catch {
          return .failure(error)
        }
      }
      try result.get()
      while failure == nil, let value = try reader.next() { try take(value) }
    } catch {
      fail(error)
    }
  }

  private func take(_ value: RedisValue) throws(RedisConnectionFailure) {
    // A published message may come between a request and its reply, but only on a connection that subscribed.
    answered = true
    if case .array(let parts) = value, parts.count == 3, parts[0] == .string("message"), let channel = parts[1].string {
      return message(channel, parts[2].string ?? "")
    }
    guard let request = waiting.popFirst() else {
      // Too many clients, protected mode: said before the first question.
      if case .error(let text) = value { throw .refused(text) }
      throw .malformedReply("a reply that nobody asked for")
    }
    request.timer.cancel()
    request.promise?.succeed(value)
  }

  func channelActive(context: ChannelHandlerContext) {
    if tls == nil { ready.succeed() }
    context.fireChannelActive()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let tls, case .handshakeCompleted? = event as? TLSUserEvent {
      if RedisTLSSettings.isFor(serverName, tls.peerCertificate) {
        ready.succeed()
      } else {
        fail(.untrusted("the server's certificate is not for \(serverName)"))
      }
    }
    context.fireUserInboundEventTriggered(event)
  }

  /// Closes the connection from this side.
  func close() { fail(.closed) }

  func channelInactive(context: ChannelHandlerContext) {
    fail(hungUp)
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if let tls, error is NIOSSLError || error is NIOSSLExtraError || error is BoringSSLError {
      fail(RedisTLSSettings.failure(error, certificate: tls.peerCertificate, name: serverName))
    } else {
      fail(hungUp)
    }
  }

  /// What it means that the other side closed the connection.
  private var hungUp: RedisConnectionFailure { answered || waiting.isEmpty ? .closed : .neverAnswered }

  /// Ends the connection and everything that waits.
  func fail(_ reason: RedisConnectionFailure) {
    guard failure == nil else { return }
    failure = reason
    ready.fail(reason)
    let requests = waiting
    waiting.removeAll()
    for request in requests {
      request.timer.cancel()
      request.promise?.fail(reason)
    }
    context?.close(promise: nil)
  }
}
