import Logging
import NIOCore
import PostriderCore

/// Where the keys are: one server, the master that Sentinels name, or the nodes of a Cluster.
protocol RedisTopology: Sendable {
  /// The checked connection to the server that holds a slot.
  func session(slot: Int) async throws(JobQueueError) -> RedisSession

  /// The connection to follow a redirection of `session` with.
  func session(
    slot: Int, after redirection: RedisRedirection, of session: RedisSession
  ) async throws(JobQueueError) -> RedisSession

  /// Something answered as if another server should be asked: what is known is looked up anew.
  func doubt(_ session: RedisSession, _ reason: String)

  /// Opens a connection for published messages, which reach every server of the topology.
  func subscription(
    _ message: @escaping @Sendable (String, String) -> Void
  ) async throws(JobQueueError) -> RedisConnection

  /// Keeps the connections until the task is cancelled.
  func run() async
}

extension RedisTopology {
  /// Redirections followed for one command.
  private static var maximumRedirections: Int { 6 }

  /// Sends a command to the server that holds a slot, following redirections. Returns the reply, which may be an error,
  /// and the connection it came from.
  ///
  /// - Parameter command: makes the command for a connection; it is asked again for each.
  func send(
    slot: Int, _ command: (RedisSession) -> [String]
  ) async throws(JobQueueError) -> (RedisValue, RedisSession) {
    var session = try await session(slot: slot)
    var before: [[String]] = []
    for _ in 0..<Self.maximumRedirections {
      let command = command(session)
      var reply = try await session.connection.send(command, before: before)
      if case .error(let text) = reply, text.hasPrefix("NOSCRIPT"), let source = session.server.source(of: command) {
        // SCRIPT FLUSH of somebody. The whole text in one command, as another one could come after SCRIPT LOAD.
        reply = try await session.connection.send(["EVAL", source] + command.dropFirst(2), before: before)
      }
      guard case .error(let text) = reply else { return (reply, session) }
      guard let redirection = RedisRedirection(text) else {
        if text.contains("READONLY") || text.hasPrefix("CLUSTERDOWN") || text.hasPrefix("MASTERDOWN") {
          doubt(session, text)
        }
        return (reply, session)
      }
      if redirection == .tryAgain {
        // Ends when the keys have moved: some milliseconds. Cancelled: the redirections are used up a little faster.
        try? await Task.sleep(for: .milliseconds(20))
        continue
      }
      session = try await self.session(slot: slot, after: redirection, of: session)
      // The node that is taking the slot over answers for it already if ASKING goes before.
      if case .ask = redirection { before = [["ASKING"]] } else { before = [] }
    }
    throw .unavailable(reason: "slot \(slot) is being moved; its nodes point at each other")
  }
}

/// One server, at an address of the configuration or the one that Sentinels name.
final class RedisSingleServer: RedisTopology {
  private let link: RedisLink
  private let sentinels: RedisSentinels?
  private let configuration: RedisQueueConfiguration

  /// - Parameter address: the server's; with Sentinels only its credentials and TLS count.
  init(
    _ address: RedisServerAddress, sentinels: RedisSentinels?, configuration: RedisQueueConfiguration, tools: RedisTools
  ) {
    self.sentinels = sentinels
    self.configuration = configuration
    link = RedisLink(as: sentinels == nil ? .server : .sentinelMaster, configuration: configuration, tools: tools) {
      () throws(JobQueueError) in
      guard let sentinels else { return address }
      return address.at(try await sentinels.master())
    }
  }

  func session(slot: Int) async throws(JobQueueError) -> RedisSession { try await link.session() }

  func session(
    slot: Int, after redirection: RedisRedirection, of session: RedisSession
  ) async throws(JobQueueError) -> RedisSession {
    throw .misconfigured(
      reason: "the server is part of a Redis Cluster; write redis-cluster://host1,host2,host3 instead")
  }

  func doubt(_ session: RedisSession, _ reason: String) { link.drop(reason) { $0 == session.connection.endpoint } }

  func subscription(
    _ message: @escaping @Sendable (String, String) -> Void
  ) async throws(JobQueueError) -> RedisConnection {
    // Once the link is up its server is a checked one.
    _ = try await link.session()
    return try await RedisConnection.open(
      try await link.locate(), timeout: configuration.callTimeout, message: message)
  }

  func run() async {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.link.run() }
      if let sentinels {
        group.addTask {
          await sentinels.watch { master in
            self.link.drop("the Sentinels name \(master) as the master") { $0 != master }
          }
        }
      }
    }
  }
}

/// What every connection of a queue shares.
struct RedisTools: Sendable {
  let eventLoop: any EventLoop
  let logger: Logger
}
