import NIOCore
import NIOPosix
import NIOSSL
import PostriderCore

/// One open connection. Commands are sent in the order of the calls and may wait for their answers together.
struct RedisConnection: Sendable {
  let channel: any Channel
  /// Where it leads.
  let endpoint: RedisServerAddress.Endpoint
  private let handler: NIOLoopBound<RESPHandler>
  private let timeout: TimeAmount

  /// Connects, authenticates and selects the database.
  ///
  /// - Parameter message: called on the event loop with the channel's name and the text of each published message.
  /// - Throws: ``JobQueueError/unavailable(reason:)``, or ``JobQueueError/misconfigured(reason:)`` when the server
  ///   refuses the credentials or the database, or its certificate cannot be trusted.
  static func open(
    _ address: RedisServerAddress, timeout: Duration,
    message: @escaping @Sendable (String, String) -> Void = { _, _ in }
  ) async throws(JobQueueError) -> RedisConnection {
    let timeout = TimeAmount(timeout)
    // Reads the files of certificates; connections are rare.
    let context = try address.tls?.context()
    let connection: RedisConnection
    do {
      let (channel, handler) = try await connect(address, context, timeout, message)
      connection = RedisConnection(channel: channel, endpoint: address.endpoint, handler: handler, timeout: timeout)
    } catch let error as JobQueueError {
      throw error
    } catch let failure as RedisConnectionFailure {
      throw failure.error("connecting to \(address) failed: \(failure)")
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

  /// Returns when commands may be sent.
  private static func connect(
    _ address: RedisServerAddress, _ context: NIOSSLContext?, _ timeout: TimeAmount,
    _ message: @escaping @Sendable (String, String) -> Void
  ) async throws -> (any Channel, NIOLoopBound<RESPHandler>) {
    var name = ""
    if case .tcp(let host, _) = address.endpoint { name = address.tls?.name(of: host) ?? host }
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    let ready = loop.makePromise(of: Void.self)
    let handler = try await loop.submit { [name] in
      let tls = try context.map { try RedisTLSSettings.handler($0, name: name) }
      return NIOLoopBound(RESPHandler(tls: tls, serverName: name, ready: ready, message: message), eventLoop: loop)
    }.get()
    let bootstrap = ClientBootstrap(group: loop)
      .connectTimeout(timeout)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let handlers: [any ChannelHandler] = handler.value.tls.map { [$0, handler.value] } ?? [handler.value]
          try channel.pipeline.syncOperations.addHandlers(handlers)
        }
      }
    let channel: any Channel
    do {
      switch address.endpoint {
      case .tcp(let host, let port):
        channel = try await bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
          .get()
      case .unix(let path):
        // TCP_NODELAY means nothing to a Unix socket and is refused by some systems.
        channel = try await bootstrap.connect(unixDomainSocketPath: path).get()
      }
    } catch {
      ready.fail(error)
      throw error
    }
    let timer = loop.scheduleTask(in: timeout) {
      handler.value.fail(.tls("no answer to the TLS handshake in time; does this port speak plain text (redis://)?"))
    }
    defer { timer.cancel() }
    try await ready.futureResult.get()
    return (channel, handler)
  }

  /// Sends a command and waits for its reply, which may be an error of the server.
  ///
  /// Not ended by cancellation: it is short, ends with the timeout at the latest, and giving leases back while a worker
  /// stops must still work.
  ///
  /// - Parameter before: commands that go right before it, with nothing of others between; nobody looks at their replies.
  func send(_ arguments: [String], before: [[String]] = []) async throws(JobQueueError) -> RedisValue {
    let promise = channel.eventLoop.makePromise(of: RedisValue.self)
    channel.eventLoop.execute { [handler, timeout] in
      for command in before { handler.value.send(command, timeout: timeout, promise: nil) }
      handler.value.send(arguments, timeout: timeout, promise: promise)
    }
    do {
      return try await promise.futureResult.get()
    } catch {
      throw (error as? RedisConnectionFailure)?.error("\(error)") ?? .unavailable(reason: "\(error)")
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
    let refused = "the server refused \(command): \(text)"
    func says(_ words: String...) -> Bool { words.contains { text.contains($0) } }
    if says("max number of clients") {
      return .unavailable(reason: refused + "; raise `maxclients` in redis.conf or run fewer processes")
    }
    switch text.prefix(while: { $0 != " " }) {
    case "NOAUTH": return .misconfigured(reason: refused + "; give the password in the URL or its setting")
    case "NOPERM": return .misconfigured(reason: refused + "; \(RedisRights.hint)")
    case "WRONGPASS", "DENIED": return .misconfigured(reason: refused)
    // Redis 7 and newer; in older ones the word stands further back, after the script's name.
    case _ where says("executing the script can't", "NOPERM"):
      return .misconfigured(reason: refused + "; \(RedisRights.hint)")
    case "OOM": return .unavailable(reason: refused + "; raise `maxmemory`")
    case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN": return .unavailable(reason: refused)
    case _ where command == "AUTH" || command == "SELECT": return .misconfigured(reason: refused)
    default: return .unavailable(reason: refused)
    }
  }

  func close() { channel.eventLoop.execute { [handler] in handler.value.close() } }

  /// Returns when the connection is closed; closes it when the task is cancelled.
  func closed() async {
    await withTaskCancellationHandler {
      // Fails only if the channel never was open, which is closed as well.
      try? await channel.closeFuture.get()
    } onCancel: {
      close()
    }
  }

  /// Returns when the connection is closed. Asks now and then whether it is still alive: a half-open one would be silent
  /// for ever. A missing answer closes it.
  func keepAlive() async {
    await withTaskGroup { group in
      group.addTask {
        while !Task.isCancelled {
          // Cancelled: the loop's condition sees it. A refused PING closes the connection or means nothing.
          try? await Task.sleep(for: .seconds(10))
          _ = try? await send(["PING"])
        }
      }
      await closed()
      group.cancelAll()
    }
  }
}
