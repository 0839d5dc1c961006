import Logging

/// A Redis Cluster of one's own: primaries on loopback ports that share the slots evenly, without replicas.
public final class PrivateRedisCluster: Sendable {
  /// The primaries, in the order of their slots.
  public let nodes: [PrivateRedis]

  private init(nodes: [PrivateRedis]) { self.nodes = nodes }

  /// Starts the nodes and returns when each of them serves.
  ///
  /// - Parameters:
  ///   - count: How many primaries, at least one.
  ///   - options: For each of them; its name gets a number.
  public static func start(
    in data: DataDirectory, count: Int = 3, options: PrivateRedis.Options = PrivateRedis.Options(),
    logger: Logger = .silent
  ) async throws -> PrivateRedisCluster {
    var nodes: [PrivateRedis] = []
    for number in 0..<count {
      var options = options
      options.name += "-\(number)"
      options.role = .clusterNode
      nodes.append(try await PrivateRedis.start(in: data, options: options, logger: logger))
    }
    let cluster = PrivateRedisCluster(nodes: nodes)
    try cluster.join()
    try await cluster.waitUntilServing()
    return cluster
  }

  private func join() throws {
    for (number, node) in nodes.enumerated() {
      let first = number * 16_384 / nodes.count
      let last = (number + 1) * 16_384 / nodes.count - 1
      // Distinct, or two nodes that both say 0 have to resolve that first.
      var commands = ["CLUSTER SET-CONFIG-EPOCH \(number + 1)", "CLUSTER ADDSLOTSRANGE \(first) \(last)"]
      if number > 0, let port = nodes[0].port {
        commands.append("CLUSTER MEET 127.0.0.1 \(port) \(nodes[0].busPort)")
      }
      for command in commands {
        let answer = node.ask(command)
        guard answer == "+OK" else {
          throw PrivateServerError.command(name: command, reason: answer ?? "Redis does not answer", output: "")
        }
      }
    }
  }

  /// Returns when every node knows all slots and serves its own; throws after half a minute.
  public func waitUntilServing() async throws {
    let serves = await ChildProcess.wait(atMost: .seconds(30)) {
      nodes.allSatisfy { node in
        let answer = node.ask("EXISTS key") ?? "-"
        return node.ask("CLUSTER SLOTS") == "*\(nodes.count)" && (answer == ":0" || answer.hasPrefix("-MOVED"))
      }
    }
    guard serves else {
      throw PrivateServerError.notStarted(server: "cluster", reason: "it did not serve within 30 s", log: [])
    }
  }
}
