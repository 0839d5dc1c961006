import Logging
import NIOCore
import PostriderCore
import Synchronization

/// The nodes of a Redis Cluster, with a link to each that holds a slot of ours.
///
/// The map of slots is read from any node that answers: at the start, at every MOVED, when a node cannot be reached, and
/// now and then.
final class RedisCluster: RedisTopology {
  typealias Endpoint = RedisServerAddress.Endpoint

  private struct State {
    /// The primary of each range of slots; empty before it was read.
    var ranges: [(slots: ClosedRange<Int>, node: Endpoint)] = []
    var links: [Endpoint: RedisLink] = [:]
    /// Nodes that are taking slots over, and when one was last asked: the map does not show them yet.
    var asked: [Endpoint: ContinuousClock.Instant] = [:]
    /// The look-up that is under way; everybody who needs it waits for the same one.
    var lookup: Task<Result<Void, JobQueueError>, Never>?
    var lastLookup: ContinuousClock.Instant?
  }

  /// How often the map is read without a reason.
  private static let interval = Duration.seconds(15)
  /// Reads for a reason follow each other no faster.
  private static let shortestInterval = Duration.milliseconds(200)

  private let seeds: [Endpoint]
  private let configuration: RedisQueueConfiguration
  private let tools: RedisTools
  private let state = Mutex(State())
  /// Links that `run` has to run. A Cluster has at most 1,000 nodes or so.
  private let newLinks: AsyncStream<RedisLink>
  private let startLink: AsyncStream<RedisLink>.Continuation

  init(seeds: [Endpoint], configuration: RedisQueueConfiguration, tools: RedisTools) {
    self.seeds = seeds
    self.configuration = configuration
    self.tools = tools
    (newLinks, startLink) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(4_096))
  }

  func session(slot: Int) async throws(JobQueueError) -> RedisSession {
    if let link = link(of: slot) {
      do throws(JobQueueError) { return try await link.session() } catch {
        // Its slots may have another primary by now: the next call knows.
        lookUpSoon()
        throw error
      }
    }
    try await lookUp()
    guard let link = link(of: slot) else {
      throw .unavailable(reason: "no node of the Redis Cluster serves slot \(slot)")
    }
    return try await link.session()
  }

  func session(
    slot: Int, after redirection: RedisRedirection, of session: RedisSession
  ) async throws(JobQueueError) -> RedisSession {
    let node: Endpoint
    switch redirection {
    case .tryAgain: return session
    case .moved(let host, let port):
      node = Self.node(host, port, toldBy: session.connection.endpoint)
      // Only this slot is known to have moved. What the others do is read anew.
      state.withLock { state in
        if let index = state.ranges.firstIndex(where: { $0.slots.contains(slot) }) {
          let old = state.ranges.remove(at: index)
          if old.slots.lowerBound < slot { state.ranges.append((old.slots.lowerBound...slot - 1, old.node)) }
          if old.slots.upperBound > slot { state.ranges.append((slot + 1...old.slots.upperBound, old.node)) }
        }
        state.ranges.append((slot...slot, node))
      }
      lookUpSoon()
    case .ask(let host, let port):
      node = Self.node(host, port, toldBy: session.connection.endpoint)
      state.withLock { $0.asked[node] = .now }
    }
    return try await link(to: node).session()
  }

  func doubt(_ session: RedisSession, _ reason: String) { lookUpSoon() }

  func subscription(
    _ message: @escaping @Sendable (String, String) -> Void
  ) async throws(JobQueueError) -> RedisConnection {
    var trouble = JobQueueError.unavailable(reason: "no node is known")
    for node in candidates() {
      do throws(JobQueueError) {
        return try await RedisConnection.open(
          configuration.server.at(node), timeout: configuration.callTimeout, message: message)
      } catch {
        trouble = error
      }
    }
    throw trouble
  }

  func run() async {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.keepMap() }
      for await link in newLinks { group.addTask { await link.run() } }
    }
  }

  private func keepMap() async {
    var delay = ReconnectDelay(maximum: configuration.maximumReconnectDelay)
    while !Task.isCancelled {
      var wait = Self.interval
      do throws(JobQueueError) {
        try await lookUp()
        delay.reset()
      } catch {
        wait = delay.next()
        tools.logger.warning("Cannot read the slots of the Redis Cluster", metadata: ["error": "\(error)"])
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: wait)
    }
    startLink.finish()
  }

  // MARK: The map

  private func link(of slot: Int) -> RedisLink? {
    let node = state.withLock { state in state.ranges.first { $0.slots.contains(slot) }?.node }
    return node.map(link(to:))
  }

  private func link(to node: Endpoint) -> RedisLink {
    let (link, isNew) = state.withLock { state -> (RedisLink, Bool) in
      if let link = state.links[node] { return (link, false) }
      let address = configuration.server.at(node)
      let link = RedisLink(as: .clusterNode, configuration: configuration, tools: tools) {
        () throws(JobQueueError) in address
      }
      state.links[node] = link
      return (link, true)
    }
    if isNew { startLink.yield(link) }
    return link
  }

  /// Reads the map unless that was done just now; nobody waits for it.
  private func lookUpSoon() {
    let isDue = state.withLock { state in
      state.lookup == nil && state.lastLookup.map { $0 + Self.shortestInterval < .now } ?? true
    }
    if isDue { _ = lookup() }
  }

  private func lookUp() async throws(JobQueueError) { try await lookup().value.get() }

  private func lookup() -> Task<Result<Void, JobQueueError>, Never> {
    state.withLock { state in
      if let lookup = state.lookup { return lookup }
      // Not a child of any caller: several wait for it, and it ends by its own timeouts.
      let lookup = Task {
        let result = await self.read()
        self.state.withLock { state in
          state.lookup = nil
          state.lastLookup = .now
        }
        return result
      }
      state.lookup = lookup
      return lookup
    }
  }

  /// Nodes that may answer: those of the map, best known first, then the seeds.
  private func candidates() -> [Endpoint] {
    let (up, others) = state.withLock { state in
      let nodes = Set(state.ranges.map(\.node))
      return (nodes.filter { state.links[$0]?.isUp ?? false }, nodes)
    }
    var seen: Set<Endpoint> = []
    return (up.shuffled() + others.shuffled() + seeds.shuffled()).filter { seen.insert($0).inserted }
  }

  private func read() async -> Result<Void, JobQueueError> {
    var troubles: [JobQueueError] = []
    for node in candidates() {
      do throws(JobQueueError) {
        let connection = try await RedisConnection.open(
          configuration.server.at(node), timeout: configuration.callTimeout)
        defer { connection.close() }
        adopt(try await ranges(from: connection))
        return .success(())
      } catch {
        troubles.append(error)
      }
    }
    let trouble = troubles.max { $0.severity < $1.severity }
    return .failure(trouble ?? .unavailable(reason: "no node is known"))
  }

  private func ranges(
    from connection: RedisConnection
  ) async throws(JobQueueError) -> [(slots: ClosedRange<Int>, node: Endpoint)] {
    // CLUSTER SHARDS is Redis 7 and newer only; SLOTS is everywhere, Valkey included.
    let reply = try await connection.send(["CLUSTER", "SLOTS"])
    if case .error(let text) = reply {
      if text.contains("cluster support disabled") {
        throw .misconfigured(
          reason: "the server at \(connection.endpoint) is not part of a Redis Cluster; write redis:// instead")
      }
      throw RedisConnection.refusal(of: "CLUSTER", text)
    }
    var ranges: [(slots: ClosedRange<Int>, node: Endpoint)] = []
    for range in reply.array ?? [] {
      guard let fields = range.array, fields.count >= 3, let first = fields[0].integer, let last = fields[1].integer,
        first <= last, let primary = fields[2].array, primary.count >= 2,
        let port = primary[1].integer.flatMap({ Int(exactly: $0) })
      else { continue }
      let host = primary[0].string ?? ""
      ranges.append((Int(first)...Int(last), Self.node(host, port, toldBy: connection.endpoint)))
    }
    guard !ranges.isEmpty else {
      throw .unavailable(reason: "the Redis Cluster's node \(connection.endpoint) knows of no slots")
    }
    return ranges
  }

  /// A node by what another one says of it. No host, or `?`, is the one that was asked.
  private static func node(_ host: String, _ port: Int, toldBy teller: Endpoint) -> Endpoint {
    if host.isEmpty || host == "?", case .tcp(let own, _) = teller { return .tcp(host: own, port: port) }
    return .tcp(host: host, port: port)
  }

  private func adopt(_ ranges: [(slots: ClosedRange<Int>, node: Endpoint)]) {
    let retired = state.withLock { state in
      state.ranges = ranges
      state.asked = state.asked.filter { $0.value + .seconds(60) > .now }
      let nodes = Set(ranges.map(\.node)).union(state.asked.keys)
      let gone = state.links.filter { !nodes.contains($0.key) }
      for node in gone.keys { state.links[node] = nil }
      return gone.values
    }
    for link in retired { link.retire() }
  }
}
