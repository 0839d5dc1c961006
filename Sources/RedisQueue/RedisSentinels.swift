import Logging
import PostriderCore
import Synchronization

/// The Sentinels that watch a master and agree on its successor.
final class RedisSentinels: Sendable {
  private let addresses: [RedisServerAddress]
  /// What the Sentinels call the master.
  private let name: String
  private let timeout: Duration
  private let maximumReconnectDelay: Duration
  private let logger: Logger
  /// Which one to ask first: the one that answered last, and another one after each failure.
  private let first = Mutex(0)

  init(_ addresses: [RedisServerAddress], master name: String, configuration: RedisQueueConfiguration, logger: Logger) {
    self.addresses = addresses
    self.name = name
    self.logger = logger
    timeout = configuration.callTimeout
    maximumReconnectDelay = configuration.maximumReconnectDelay
  }

  /// Where the master is, by the first Sentinel that answers. The caller must check that it is one (ROLE): a Sentinel cut
  /// off from the others does not know better.
  func master() async throws(JobQueueError) -> RedisServerAddress.Endpoint {
    let start = first.withLock { first in
      // The next caller begins elsewhere: it comes because this answer did not help.
      defer { first = (first + 1) % addresses.count }
      return first
    }
    var troubles: [JobQueueError] = []
    for step in addresses.indices {
      let address = addresses[(start + step) % addresses.count]
      do throws(JobQueueError) {
        let connection = try await RedisConnection.open(address, timeout: timeout)
        defer { connection.close() }
        return try await master(from: connection)
      } catch {
        troubles.append(error)
      }
    }
    // A wrong name or password is worth more to a person than a Sentinel that is down.
    if let trouble = troubles.first(where: { if case .misconfigured = $0 { true } else { false } }) { throw trouble }
    let reasons = zip(addresses.indices, troubles).map { "\($1)" }.joined(separator: "; ")
    throw .unavailable(reason: "no Sentinel answers: \(reasons)")
  }

  private func master(from connection: RedisConnection) async throws(JobQueueError) -> RedisServerAddress.Endpoint {
    let reply = try await connection.send(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])
    if case .error(let text) = reply {
      if text.contains("unknown command") || text.contains("unknown subcommand") {
        throw .misconfigured(reason: "the server at \(connection.endpoint) is no Sentinel; write redis:// instead")
      }
      throw RedisConnection.refusal(of: "SENTINEL", text)
    }
    guard let parts = reply.array, parts.count == 2, let host = parts[0].string,
      let port = parts[1].integer.flatMap({ Int(exactly: $0) })
    else {
      throw .misconfigured(reason: "the Sentinel at \(connection.endpoint) watches no master named `\(name)`")
    }
    return .tcp(host: host, port: port)
  }

  /// Listens to the Sentinels until the task is cancelled. Calls back with the master's place at each switch, and when
  /// listening begins, as a switch may have been missed.
  func watch(_ found: @escaping @Sendable (RedisServerAddress.Endpoint) -> Void) async {
    var delay = ReconnectDelay(maximum: maximumReconnectDelay)
    var turn = Int.random(in: addresses.indices)
    while !Task.isCancelled {
      do throws(JobQueueError) {
        let address = addresses[turn]
        turn = (turn + 1) % addresses.count
        let connection = try await RedisConnection.open(address, timeout: timeout) { [name] channel, text in
          // <master name> <old address> <old port> <new address> <new port>
          let words = text.split(separator: " ")
          guard channel == "+switch-master", words.count == 5, words[0] == name, let port = Int(words[4]) else {
            return
          }
          found(.tcp(host: String(words[3]), port: port))
        }
        defer { connection.close() }
        let known = try await master(from: connection)
        try await connection.command(["SUBSCRIBE", "+switch-master"])
        delay.reset()
        found(known)
        await connection.keepAlive()
      } catch {
        logger.debug("A Sentinel is not heard", metadata: ["error": "\(error)"])
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: delay.next())
    }
  }
}
