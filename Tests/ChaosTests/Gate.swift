import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// What becomes of a unit of traffic and of what follows it.
enum Passage: Sendable {
  case pass
  /// It and everything after it on this connection is lost.
  case drop
  /// It and everything after it waits for ``Gate/release()``.
  case hold
}

/// The only way of one process to Redis or to PostgreSQL: a TCP port that leads to a Unix socket, watches what passes,
/// and can fall silent.
final class Gate: Sendable {
  typealias Watcher = @Sendable (WirePoint, TrafficUnit) -> Passage

  /// The loopback port.
  let port: Int
  private let listener: any Channel
  private let state: NIOLoopBound<GateState>

  private init(port: Int, listener: any Channel, state: NIOLoopBound<GateState>) {
    self.port = port
    self.listener = listener
    self.state = state
  }

  /// Opens a gate on an event loop of a group with one thread.
  static func open(
    to path: String, on loop: any EventLoop, reader: @escaping @Sendable () -> any TrafficReader,
    watcher: @escaping Watcher
  ) async throws -> Gate {
    let state = try await loop.submit {
      NIOLoopBound(GateState(path: path, loop: loop, reader: reader, watcher: watcher), eventLoop: loop)
    }.get()
    let listener = try await ServerBootstrap(group: loop, childGroup: loop)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture { try state.value.accept(channel) }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return Gate(port: listener.localAddress?.port ?? 0, listener: listener, state: state)
  }

  /// Lets nothing through, in both directions, while connections stay open: a network that was cut.
  func silence() { run { $0.isSilent = true } }

  /// Ends ``silence()``: what was sent meanwhile arrives late.
  func heal() {
    run { state in
      state.isSilent = false
      for connection in Array(state.connections.values) { connection.goOn() }
    }
  }

  /// Closes every connection and refuses new ones.
  func cut() {
    run { state in
      state.isRefusing = true
      for connection in Array(state.connections.values) { connection.close() }
    }
  }

  /// Ends ``cut()``.
  func mend() { run { $0.isRefusing = false } }

  /// Lets what ``Passage/hold`` kept back go on.
  func release() {
    run { state in
      for connection in Array(state.connections.values) {
        connection.isHeld = false
        connection.goOn()
      }
    }
  }

  /// Closes everything.
  func close() {
    listener.close(promise: nil)
    cut()
  }

  private func run(_ body: @escaping @Sendable (GateState) -> Void) {
    state.eventLoop.execute { [state] in body(state.value) }
  }
}

/// A gate's connections. Confined to its event loop.
private final class GateState {
  let path: String
  let loop: any EventLoop
  let reader: @Sendable () -> any TrafficReader
  let watcher: Gate.Watcher
  var connections: [ObjectIdentifier: GateConnection] = [:]
  var isSilent = false
  var isRefusing = false

  init(
    path: String, loop: any EventLoop, reader: @escaping @Sendable () -> any TrafficReader,
    watcher: @escaping Gate.Watcher
  ) {
    self.path = path
    self.loop = loop
    self.reader = reader
    self.watcher = watcher
  }

  func accept(_ channel: any Channel) throws {
    if isRefusing {
      channel.close(promise: nil)
      return
    }
    let connection = GateConnection(client: channel, reader: reader(), gate: self)
    connections[ObjectIdentifier(connection)] = connection
    try channel.pipeline.syncOperations.addHandler(GateHandler(connection, isClient: true))
    let bound = NIOLoopBound(connection, eventLoop: loop)
    ClientBootstrap(group: loop)
      .channelInitializer { server in
        server.eventLoop.makeCompletedFuture {
          try server.pipeline.syncOperations.addHandler(GateHandler(bound.value, isClient: false))
        }
      }
      .connect(unixDomainSocketPath: path)
      .whenComplete { result in
        switch result {
        case .success(let server): bound.value.connected(to: server)
        case .failure: bound.value.close()
        }
      }
  }
}

/// One connection through a gate. Confined to its event loop.
private final class GateConnection {
  let client: any Channel
  private let reader: any TrafficReader
  private let gate: GateState
  private var server: (any Channel)?
  private var isClosed = false
  private var isDropping = false
  var isHeld = false
  /// Not read yet: the gate is silent, or the server is not reached yet.
  private var fromClient: [ByteBuffer] = []
  private var fromServer: [ByteBuffer] = []
  /// Read and held back.
  private var held: [TrafficUnit] = []
  private var clientLeft = false
  private var serverLeft = false

  init(client: any Channel, reader: any TrafficReader, gate: GateState) {
    self.client = client
    self.reader = reader
    self.gate = gate
  }

  func connected(to server: any Channel) {
    if isClosed {
      server.close(promise: nil)
      return
    }
    self.server = server
    goOn()
  }

  func received(_ bytes: ByteBuffer, fromClient isClient: Bool) {
    if isClient { fromClient.append(bytes) } else { fromServer.append(bytes) }
    goOn()
  }

  func left(client isClient: Bool) {
    if isClient { clientLeft = true } else { serverLeft = true }
    goOn()
  }

  /// Passes on what may pass.
  func goOn() {
    guard !isClosed, !gate.isSilent else { return }
    guard let server else {
      if clientLeft { close() }
      return
    }
    if !isHeld {
      let units = held
      held = []
      for unit in units { pass(unit, to: server) }
    }
    let requests = fromClient
    fromClient = []
    for bytes in requests {
      for unit in reader.clientSent(bytes) { offer(unit, to: server) }
    }
    let replies = fromServer
    fromServer = []
    for bytes in replies {
      for unit in reader.serverSent(bytes) { offer(unit, to: client) }
    }
    if serverLeft || (clientLeft && !isHeld) { close() }
  }

  private func offer(_ unit: TrafficUnit, to channel: any Channel) {
    if isDropping { return }
    let isRequest = channel !== client
    if isHeld && isRequest {
      held.append(unit)
      return
    }
    guard let point = unit.point else { return pass(unit, to: channel) }
    switch gate.watcher(point, unit) {
    case .pass: pass(unit, to: channel)
    case .drop: isDropping = true
    case .hold:
      isHeld = true
      held.append(unit)
    }
  }

  private func pass(_ unit: TrafficUnit, to channel: any Channel) { channel.writeAndFlush(unit.bytes, promise: nil) }

  func close() {
    guard !isClosed else { return }
    isClosed = true
    client.close(promise: nil)
    server?.close(promise: nil)
    gate.connections[ObjectIdentifier(self)] = nil
  }
}

/// Hands what happens on a channel to its connection.
private final class GateHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  private let connection: GateConnection
  private let isClient: Bool

  init(_ connection: GateConnection, isClient: Bool) {
    self.connection = connection
    self.isClient = isClient
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    connection.received(unwrapInboundIn(data), fromClient: isClient)
  }

  func channelInactive(context: ChannelHandlerContext) { connection.left(client: isClient) }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
