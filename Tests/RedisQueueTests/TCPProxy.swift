import NIOCore
import NIOPosix
import Synchronization

/// A wire to a server that can be cut, kept cut, or left silent.
final class TCPProxy: Sendable {
  enum Mode: Sendable {
    case open
    /// Connections are closed, also new ones.
    case cut
    /// Nothing is delivered in either direction; connections stay.
    case silent
  }

  private struct State {
    var mode = Mode.open
    var channels: [ObjectIdentifier: any Channel] = [:]
    var listener: (any Channel)?
    var accepted = 0
  }

  private let state = Mutex(State())
  private let target: String

  private init(target: String) { self.target = target }

  /// Listens on a free loopback port and leads each connection to a Unix socket.
  static func start(to path: String) async throws -> TCPProxy {
    let proxy = TCPProxy(target: path)
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelOption(.autoRead, value: false)
      .childChannelInitializer { proxy.accept($0) }
      .bind(host: "127.0.0.1", port: 0).get()
    proxy.state.withLock { $0.listener = listener }
    return proxy
  }

  var port: Int { state.withLock { $0.listener?.localAddress?.port ?? 0 } }
  /// How many connections were let through.
  var accepted: Int { state.withLock { $0.accepted } }

  func set(_ mode: Mode) {
    let channels = state.withLock { state in
      state.mode = mode
      return Array(state.channels.values)
    }
    for channel in channels {
      switch mode {
      case .open: channel.setOption(.autoRead, value: true).whenComplete { _ in }
      case .silent: channel.setOption(.autoRead, value: false).whenComplete { _ in }
      case .cut: channel.close(promise: nil)
      }
    }
  }

  func stop() {
    set(.cut)
    state.withLock { $0.listener }?.close(promise: nil)
  }

  private func accept(_ channel: any Channel) -> EventLoopFuture<Void> {
    let mode = state.withLock { state in
      if state.mode != .cut { state.accepted += 1 }
      return state.mode
    }
    guard mode != .cut else { return channel.close() }
    // The same event loop for both ends, so that each may call the other.
    return ClientBootstrap(group: channel.eventLoop)
      .channelOption(.autoRead, value: false)
      .connect(unixDomainSocketPath: target)
      .flatMap { other in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(Forwarder(to: other))
          try other.pipeline.syncOperations.addHandler(Forwarder(to: channel))
        }.map { self.keep([channel, other]) }
      }
  }

  private func keep(_ channels: [any Channel]) {
    let mode = state.withLock { state in
      for channel in channels { state.channels[ObjectIdentifier(channel)] = channel }
      return state.mode
    }
    for channel in channels {
      channel.closeFuture.whenComplete { _ in
        _ = self.state.withLock { $0.channels.removeValue(forKey: ObjectIdentifier(channel)) }
      }
      if mode == .open { channel.setOption(.autoRead, value: true).whenComplete { _ in } }
    }
  }

  private final class Forwarder: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel

    init(to other: any Channel) { self.other = other }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      other.writeAndFlush(unwrapInboundIn(data), promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }
}
