import NIOCore
import NIOPosix
import PostriderCore

/// Makes the channel that a connection speaks over. TLS and other ways to find a server take its place here.
struct RedisChannelMaker: Sendable {
  typealias Initializer = @Sendable (any Channel) -> EventLoopFuture<Void>

  let connect: @Sendable (RedisServerAddress.Endpoint, TimeAmount, @escaping Initializer) async throws -> any Channel

  /// Plain TCP or a Unix socket.
  static let plain = RedisChannelMaker { endpoint, timeout, initialize in
    let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connectTimeout(timeout)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelInitializer(initialize)
    switch endpoint {
    case .tcp(let host, let port): return try await bootstrap.connect(host: host, port: port).get()
    case .unix(let path):
      // TCP_NODELAY means nothing to a Unix socket and is refused by some systems.
      return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .connectTimeout(timeout)
        .channelInitializer(initialize)
        .connect(unixDomainSocketPath: path).get()
    }
  }
}

/// One open connection. Commands are sent in the order of the calls and may wait for their answers together.
struct RedisConnection: Sendable {
  let channel: any Channel
  private let handler: NIOLoopBound<RESPHandler>
  private let timeout: TimeAmount

  /// Connects, authenticates and selects the database.
  ///
  /// - Parameter message: called on the event loop with the channel name of each published message.
  /// - Throws: ``JobQueueError/unavailable(reason:)``, or ``JobQueueError/misconfigured(reason:)`` when the server
  ///   refuses the credentials or the database.
  static func open(
    _ address: RedisServerAddress, through maker: RedisChannelMaker = .plain, timeout: Duration,
    message: @escaping @Sendable (String) -> Void = { _ in }
  ) async throws(JobQueueError) -> RedisConnection {
    let timeout = TimeAmount(timeout)
    let connection: RedisConnection
    do {
      let channel = try await maker.connect(address.endpoint, timeout) { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(RESPHandler(message: message))
        }
      }
      let handler = try await channel.eventLoop.submit {
        NIOLoopBound(
          try channel.pipeline.syncOperations.handler(type: RESPHandler.self), eventLoop: channel.eventLoop)
      }.get()
      connection = RedisConnection(channel: channel, handler: handler, timeout: timeout)
    } catch {
      throw .unavailable(reason: "connecting to \(address) failed: \(error)")
    }
    do throws(JobQueueError) {
      if let password = address.password {
        try await connection.command(["AUTH"] + (address.user.map { [$0] } ?? []) + [password.revealed])
      }
      if address.database != 0 { try await connection.command(["SELECT", String(address.database)]) }
    } catch {
      connection.close()
      throw error
    }
    return connection
  }

  /// Sends a command and waits for its reply, which may be an error of the server.
  ///
  /// Not ended by cancellation: it is short, ends with the timeout at the latest, and giving leases back while a worker
  /// stops must still work.
  func send(_ arguments: [String]) async throws(JobQueueError) -> RedisValue {
    let promise = channel.eventLoop.makePromise(of: RedisValue.self)
    channel.eventLoop.execute { [handler, timeout] in
      handler.value.send(arguments, timeout: timeout, promise: promise)
    }
    do {
      return try await promise.futureResult.get()
    } catch {
      throw .unavailable(reason: "\(error)")
    }
  }

  /// Sends a command whose refusal is an error.
  @discardableResult
  func command(_ arguments: [String]) async throws(JobQueueError) -> RedisValue {
    let reply = try await send(arguments)
    if case .error(let text) = reply { throw Self.refusal(of: arguments[0], text) }
    return reply
  }

  /// Sorts what the server refused a command with by what to do about it.
  static func refusal(of command: String, _ text: String) -> JobQueueError {
    switch text.prefix(while: { $0 != " " }) {
    case "NOAUTH", "WRONGPASS", "NOPERM", "DENIED":
      .misconfigured(reason: "the server refused \(command): \(text)")
    case _ where command == "AUTH" || command == "SELECT":
      // A command still running, a server still loading or full: those pass.
      ["LOADING", "BUSY", "MASTERDOWN"].contains { text.hasPrefix($0) }
        ? .unavailable(reason: "the server refused \(command): \(text)")
        : .misconfigured(reason: "the server refused \(command): \(text)")
    default: .unavailable(reason: "the server refused \(command): \(text)")
    }
  }

  func close() { channel.close(promise: nil) }

  /// Returns when the connection is closed; closes it when the task is cancelled.
  func closed() async {
    await withTaskCancellationHandler {
      // Fails only if the channel never was open, which is closed as well.
      try? await channel.closeFuture.get()
    } onCancel: {
      close()
    }
  }
}
