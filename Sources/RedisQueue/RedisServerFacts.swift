import FoundationEssentials
import Logging
import PostriderCore

/// What one server of the queue says of itself, and why the queue cannot work with it.
public struct RedisServerFacts: Hashable, Sendable {
  /// Where it is, without credentials.
  public var place: String
  /// `Redis 7.0.15` or `Valkey 8.0.1`; empty when it was not reached.
  public var version = ""
  /// Octets in use.
  public var usedMemory: Int64 = 0
  /// Octets that it may use; 0 for no limit.
  public var maximumMemory: Int64 = 0
  /// How long a round trip took, in seconds, the shortest first.
  public var roundTrips: [Double] = []
  /// The server's clock minus this machine's, in seconds; right to half of the shortest round trip.
  public var clockOffset: Double?
  /// What is wrong; each text says what to do where it is a setting.
  public var problems: [JobQueueError] = []

  init(place: String) { self.place = place }
}

extension RedisQueueConfiguration {
  /// Looks at the servers as `postrider doctor` does: settings, memory, latency, clock, and the rights of our user, for
  /// which a key of its own is written and removed. One entry a server; of a Cluster the nodes that the URL names.
  public func examine() async -> [RedisServerFacts] {
    switch url.kind {
    case .server: return [await examine(server, as: .server)]
    case .cluster:
      var all: [RedisServerFacts] = []
      for endpoint in url.endpoints { all.append(await examine(server.at(endpoint), as: .clusterNode)) }
      return all
    case .sentinel(let master):
      var address = server
      (address.user, address.password, address.database) = (sentinelUser, sentinelPassword, 0)
      let sentinels = RedisSentinels(
        url.endpoints.map(address.at), master: master, configuration: self, logger: Logger(label: "postrider.redis"))
      do throws(JobQueueError) {
        return [await examine(server.at(try await sentinels.master()), as: .sentinelMaster)]
      } catch {
        var facts = RedisServerFacts(place: "the master \(master) of the Sentinels")
        facts.problems = [error]
        return [facts]
      }
    }
  }

  private func examine(_ address: RedisServerAddress, as role: RedisServer.Role) async -> RedisServerFacts {
    var facts = RedisServerFacts(place: "\(address)")
    do throws(JobQueueError) {
      let connection = try await RedisConnection.open(address, timeout: callTimeout)
      defer { connection.close() }
      // What is wrong with one of them says nothing of the other.
      do throws(JobQueueError) {
        facts.read(RedisServer.fields(of: try await connection.command(["INFO"])))
        try await RedisServer.check(connection, as: role)
      } catch { facts.problems.append(error) }
      try await facts.measure(connection)
      try await checkRights(connection)
    } catch {
      if !facts.problems.contains(error) { facts.problems.append(error) }
    }
    return facts
  }

  /// Does with a key of its own what the scripts do with theirs, and listens for wake-ups, which is the connection's end.
  private func checkRights(_ connection: RedisConnection) async throws(JobQueueError) {
    let prefix = "\(keyPrefix):{0}:"
    let key = prefix + "doctor:" + String(UInt64.random(in: .min ... .max), radix: 36)
    let script = """
      local key = KEYS[1]
      redis.call('TIME')
      redis.call('SET', key, 1); redis.call('PEXPIRE', key, 1000); redis.call('PTTL', key); redis.call('DEL', key)
      redis.call('HSET', key, 'a', 1); redis.call('TYPE', key); redis.call('UNLINK', key)
      redis.call('ZADD', key, 1, 'a'); redis.call('DEL', key)
      redis.call('SADD', key, 'a'); redis.call('DEL', key)
      redis.call('RPUSH', key, 'a'); redis.call('DEL', key)
      redis.call('PFADD', key, 'a'); redis.call('PFCOUNT', key); redis.call('DEL', key)
      redis.call('PUBLISH', ARGV[1], 'doctor')
      return redis.call('EXISTS', key)
      """
    let commands = [
      ["SCRIPT", "LOAD", "return 1"], ["EVAL", script, "1", key, prefix + "doctor"], ["SCAN", "0", "MATCH", key],
      ["SUBSCRIBE", prefix + "doctor"],
    ]
    for command in commands {
      let reply = try await connection.send(command)
      // Another node of a Cluster has the key; it is asked itself.
      guard case .error(let text) = reply, RedisRedirection(text) == nil else { continue }
      throw RedisConnection.refusal(of: command[0], text)
    }
  }
}

extension RedisServerFacts {
  fileprivate mutating func read(_ info: [String: String]) {
    // Valkey tells a Redis version too, for programs that look for it.
    version = info["valkey_version"].map { "Valkey \($0)" } ?? info["redis_version"].map { "Redis \($0)" } ?? ""
    usedMemory = info["used_memory"].flatMap { Int64($0) } ?? 0
    maximumMemory = info["maxmemory"].flatMap { Int64($0) } ?? 0
  }

  /// Twenty round trips; the quickest tells the clock best.
  fileprivate mutating func measure(_ connection: RedisConnection) async throws(JobQueueError) {
    var quickest = Double.infinity
    for _ in 0..<20 {
      let start = ContinuousClock.now
      let reply = try await connection.command(["TIME"])
      let seconds = (ContinuousClock.now - start) / .seconds(1)
      let now = Date().timeIntervalSince1970
      guard let parts = reply.array, parts.count == 2, let whole = parts[0].integer, let rest = parts[1].integer else {
        throw .unavailable(reason: "TIME was not answered with a time")
      }
      roundTrips.append(seconds)
      if seconds < quickest {
        quickest = seconds
        clockOffset = Double(whole) + Double(rest) / 1_000_000 - (now - seconds / 2)
      }
    }
    roundTrips.sort()
  }
}
