import NIOCore

/// One connection's dialogue: many requests in flight, replies matched in order.
///
/// Lives on its channel's event loop. When anything goes wrong (a closed socket, a malformed or late reply) every
/// waiting request fails and the channel is closed: after that nobody can tell which reply belongs to which request.
final class RESPHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private struct Request {
    var promise: EventLoopPromise<RedisValue>
    var timer: Scheduled<Void>
  }

  /// More are refused at once. The server answers in order, so a longer queue would only hide that it is too slow.
  static let maximumInFlight = 1_024

  private let reader = RESPReader()
  private var waiting = CircularBuffer<Request>(initialCapacity: 64)
  private var context: ChannelHandlerContext?
  private var failure: RedisConnectionFailure?
  /// Takes pub/sub messages (channel name) of a subscribed connection.
  private let message: @Sendable (String) -> Void

  init(message: @escaping @Sendable (String) -> Void) { self.message = message }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    fail(.closed)
    self.context = nil
  }

  /// Sends one command; the promise gets its reply, or a ``RedisConnectionFailure``.
  func send(_ arguments: [String], timeout: TimeAmount, promise: EventLoopPromise<RedisValue>) {
    guard failure == nil, let context, context.channel.isActive else { return promise.fail(failure ?? .closed) }
    guard waiting.count < Self.maximumInFlight else {
      return promise.fail(RedisConnectionFailure.tooManyRequests)
    }
    var buffer = context.channel.allocator.buffer(capacity: 256)
    do {
      try writeCommand(arguments, to: &buffer)
    } catch {
      return promise.fail(error)
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
    if case .array(let parts) = value, parts.count == 3, parts[0] == .string("message"), let channel = parts[1].string {
      return message(channel)
    }
    guard let request = waiting.popFirst() else { throw .malformedReply("a reply that nobody asked for") }
    request.timer.cancel()
    request.promise.succeed(value)
  }

  func channelInactive(context: ChannelHandlerContext) {
    fail(.closed)
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { fail(.closed) }

  private func fail(_ reason: RedisConnectionFailure) {
    guard failure == nil else { return }
    failure = reason
    let requests = waiting
    waiting.removeAll()
    for request in requests {
      request.timer.cancel()
      request.promise.fail(reason)
    }
    context?.close(promise: nil)
  }
}
