import Logging
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import RedisQueue

struct TimedOut: Error, CustomStringConvertible {
  var description: String
}

/// Asks until the answer is there; fails after a while.
func eventually<Value>(
  _ what: String, within limit: Duration = .seconds(60), _ body: () async throws -> Value?
) async throws -> Value {
  let deadline = ContinuousClock.now + limit
  while ContinuousClock.now < deadline {
    if let value = try await body() { return value }
    try await Task.sleep(for: .milliseconds(5))
  }
  throw TimedOut(description: what)
}

/// A silent logger.
let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Runs a Redis queue with keys of its own for the time of `body`. Its leases do not end before the test, however slow
/// the machine is; see ``RedisJobQueue/age(by:)``.
func withRedisQueue(
  on server: RedisServerProcess? = nil, prefix: String? = nil, shards: Int = 1, lease: Duration = .seconds(600),
  callTimeout: Duration = .seconds(30), _ body: (RedisJobQueue) async throws -> Void
) async throws {
  let server = try server ?? RedisServerProcess.shared.get()
  let prefix = prefix ?? "t\(UInt32.random(in: 0...UInt32.max))"
  try await withRedisQueue(
    try RedisQueueConfiguration(
      url: server.url, keyPrefix: prefix, shards: shards, leaseDuration: lease, callTimeout: callTimeout), body)
}

/// Runs a Redis queue for the time of `body`.
func withRedisQueue(
  _ configuration: RedisQueueConfiguration, _ body: (RedisJobQueue) async throws -> Void
) async throws {
  let queue = RedisJobQueue(configuration: configuration, logger: quiet)
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { try await queue.run() }
    defer { group.cancelAll() }
    try await body(queue)
  }
}

/// Opens epochs as the leading scheduler does until the queue works again: a lost epoch is followed by the next one.
/// Fails after a minute.
func recover(_ queue: RedisJobQueue, epoch: Int64, profiles: [QueueProfile] = [profile()]) async throws {
  _ = try await eventually("epoch \(epoch) is open", within: .seconds(60)) { () -> Bool? in
    do {
      if try await queue.currentEpoch() == nil { try await queue.open(epoch: epoch, delay: .zero) }
      try await queue.update(profiles: profiles)
      return try await queue.currentEpoch() == epoch ? true : nil
    } catch JobQueueError.unavailable, JobQueueError.epochLost {
      return nil
    }
  }
}

/// The reason of a refusal, which must be one.
func expectMisconfigured(
  _ what: String, sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async -> String {
  do {
    try await body()
    Issue.record("\(what) did not throw", sourceLocation: sourceLocation)
  } catch {
    if case .misconfigured(let reason)? = error as? JobQueueError { return reason }
    Issue.record("\(what) threw \(error)", sourceLocation: sourceLocation)
  }
  return ""
}

/// A Cluster none of whose nodes is taken for dead because a busy machine held it up.
func startCluster() async throws -> PrivateRedisCluster {
  let data = try await TestServers.shared.dedicatedDirectory()
  var options = PrivateRedis.Options()
  options.keepsData = false
  let cluster = try await PrivateRedisCluster.start(in: data, options: options)
  for node in cluster.nodes { try await bePatient(node) }
  return cluster
}

/// Makes a node of a Cluster wait longer than any test before it takes another one for dead.
func bePatient(_ node: PrivateRedis) async throws {
  try await withRawConnection("unix://\(node.socketPath)") {
    _ = try await $0.command(["CONFIG", "SET", "cluster-node-timeout", "300000"])
  }
}

/// A connection of the test's own.
func withRawConnection(
  to server: RedisServerProcess? = nil, _ body: (RedisConnection) async throws -> Void
) async throws {
  let server = try server ?? RedisServerProcess.shared.get()
  try await withRawConnection(server.url, body)
}

/// A connection of the test's own to any server.
func withRawConnection(_ url: String, _ body: (RedisConnection) async throws -> Void) async throws {
  let connection = try await RedisConnection.open(
    try RedisQueueConfiguration(url: url).server, timeout: .seconds(20))
  defer { connection.close() }
  try await body(connection)
}

func expectEpochLost(
  _ what: String, sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async {
  do {
    try await body()
    Issue.record("\(what) did not throw epochLost", sourceLocation: sourceLocation)
  } catch {
    guard case .epochLost? = error as? JobQueueError else {
      Issue.record("\(what) threw \(error)", sourceLocation: sourceLocation)
      return
    }
  }
}

/// The queues the contract holds for.
enum QueueKind: String, CaseIterable, CustomTestStringConvertible {
  case memory, redis
  /// Four shards; profiles 1 and 2 fall to different ones.
  case shardedRedis

  /// Those in which all profiles take turns with each other and share one row of fences.
  static let unsharded: [QueueKind] = [.memory, .redis]

  var testDescription: String { rawValue }

  /// Runs `body` with an open, empty queue of epoch 7, and something that lets its time pass. A lease outlives every test
  /// on every machine, unless the test itself lets it end.
  func withQueue(
    lease: Duration = .seconds(600), opened: Bool = true, _ body: (QueueUnderTest) async throws -> Void
  ) async throws {
    switch self {
    case .memory:
      let queue = MemoryJobQueue(leaseDuration: lease, frozenAt: 1_700_000_000_000)
      if opened { try await queue.open(epoch: 7, delay: .zero) }
      try await body(
        QueueUnderTest(
          queue: queue, expire: { queue.advance(by: lease + .milliseconds(1)) }, pass: { queue.advance(by: $0) },
          agePresence: { queue.advance(by: $0) }, endLeases: { queue.endLeases(of: $0) }, empty: { queue.empty() },
          verify: { queue.verify() }))
      #expect(queue.verify().filter { !$0.hasPrefix("limit:") } == [])
    case .redis, .shardedRedis:
      try await withRedisQueue(shards: self == .redis ? 1 : 4, lease: lease) { queue in
        if opened { try await queue.open(epoch: 7, delay: .zero) }
        try await body(
          QueueUnderTest(
            queue: queue,
            expire: { try await queue.age(by: lease + .milliseconds(1)) }, pass: { try await queue.age(by: $0) },
            agePresence: { try await queue.age(by: $0) },
            endLeases: { try await queue.endLeases(of: $0) },
            empty: {
              // The keys of this test only; other tests share the server.
              for shard in queue.shards {
                let connection = try await shard.session().connection
                let keys = try await connection.command(["KEYS", shard.prefix + "*"]).array ?? []
                try await connection.command(["DEL"] + keys.compactMap(\.string))
              }
            },
            verify: { try await queue.verify() },
            breakKeys: { try await queue.shards[0].breakKeys(&$0) }))
        if try await queue.currentEpoch() != nil {
          #expect(try await queue.verify().filter { !$0.hasPrefix("limit:") } == [])
        }
      }
    }
  }
}

struct QueueUnderTest {
  let queue: any JobQueue
  /// Returns when every present lease has expired without renewal.
  let expire: () async throws -> Void
  /// Returns when this much of the queue's time has passed.
  let pass: (Duration) async throws -> Void
  /// Makes what workers announced this much older.
  let agePresence: (Duration) async throws -> Void
  /// Ends leases now, as if nobody had renewed them for long.
  let endLeases: ([JobID]) async throws -> Void
  let empty: () async throws -> Void
  let verify: () async throws -> [String]
  /// Removes something that must not be lost, where that is possible; says what.
  var breakKeys: ((inout SeededGenerator) async throws -> String)?
}

extension RedisJobQueue {
  /// Makes everything that the queue's epoch holds so much older, in one step of each shard: leases, holds, jobs set aside
  /// and workers. The server's clock cannot be set, but it makes no difference whether the clock moves on or the past
  /// moves back; and what ends later than that still stands, however long the test itself takes.
  func age(by duration: Duration) async throws {
    let script = """
      local base, by = ARGV[1], tonumber(ARGV[2])
      for _, name in ipairs({ 'leases', 'wait', 'poison', 'workers' }) do
        for _, member in ipairs(redis.call('ZRANGE', base .. name, 0, -1)) do
          redis.call('ZINCRBY', base .. name, -by, member)
        end
      end
      local function older(time) return string.format('%.0f', math.max(0, tonumber(time) - by)) end
      local profiles = redis.call('HGETALL', base .. 'profiles')
      for i = 1, #profiles, 2 do
        local head, held_in, held_out, reasons = string.match(profiles[i + 1], '^(%d+:%d:%d:%d+:%d):(%d+):(%d+):(.*)$')
        local text = table.concat({ head, older(held_in), older(held_out), reasons }, ':')
        redis.call('HSET', base .. 'profiles', profiles[i], text)
      end
      local owners = redis.call('HGETALL', base .. 'owners')
      for i = 1, #owners, 2 do
        local head, since = string.match(owners[i + 1], '^(.*@)(%d+)$')
        redis.call('HSET', base .. 'owners', owners[i], head .. older(since))
      end
      return redis.status_reply('OK')
      """
    let epoch = try #require(try await currentEpoch())
    for shard in shards {
      let arguments = ["\(shard.prefix)\(epoch):", String(duration.milliseconds)]
      try await shard.session().connection.command(["EVAL", script, "1", shard.epochKey] + arguments)
    }
  }

  func endLeases(of jobs: [JobID]) async throws {
    let epoch = try #require(try await currentEpoch())
    for shard in shards {
      let connection = try await shard.session().connection
      for job in jobs {
        try await connection.command(["ZADD", "\(shard.prefix)\(epoch):leases", "XX", "1", job.description])
      }
    }
  }
}

extension RedisShard {
  /// Removes a key, or a member of one, that the queue does not lose by itself. What only advises (reclaims, jobs set
  /// aside, workers) and the epoch, whose loss is noticed, are left alone.
  func breakKeys(_ random: inout SeededGenerator) async throws -> String {
    let connection = try await session().connection
    let base = "\(prefix)\(try #require(try await currentEpoch())):"
    let all = try await connection.command(["KEYS", base + "*"]).array?.compactMap(\.string) ?? []
    let spared = ["reclaims", "poison", "poison-of", "workers", "worker-slots", "repair", "repair-profiles"]
    let keys = all.filter { key in !spared.contains { key == base + $0 } }.sorted()
    guard let key = keys.randomElement(using: &random) else { return "nothing" }
    let type = try await connection.command(["TYPE", key]).string
    let whole = Bool.random(using: &random)
    if whole || type == "string" {
      try await connection.command(["DEL", key])
      return key
    }
    let read = type == "hash" ? ["HKEYS", key] : ["ZRANGE", key, "0", "-1"]
    let members = try await connection.command(read).array?.compactMap(\.string) ?? []
    guard let member = members.sorted().randomElement(using: &random) else { return "nothing" }
    try await connection.command([type == "hash" ? "HDEL" : "ZREM", key, member])
    return "\(member) of \(key)"
  }
}

extension JobQueue {
  /// The jobs of one claim.
  func claimed(_ limit: Int = 32, by worker: String = "w") async throws -> [Lease] {
    try await claim(limit: limit, worker: worker).leases
  }

  /// Holds one direction of one profile.
  func hold(
    _ direction: Direction, of profile: Int64 = 1, for duration: Duration, reason: String = "breaker"
  ) async throws {
    try await hold([
      LaneHold(profile: ProfileID(profile), direction: direction, duration: duration, reason: reason)
    ])
  }
}

func job(
  _ mailbox: Int64, _ kind: JobKind = .poll, lane: Int = 0, profile: Int64 = 1, as jobClass: JobClass? = nil,
  due: Int64 = 1_000
) -> Job {
  let natural: JobClass =
    switch kind {
    case .poll: .poll
    case .send: .send
    case .test: .batchTest
    }
  return Job(
    id: JobID(mailbox: MailboxID(mailbox), kind: kind, lane: lane), profile: ProfileID(profile),
    jobClass: jobClass ?? natural, dueMilliseconds: due)
}

func profile(
  _ id: Int64 = 1, limit: Int = 10, incoming: Bool = false, outgoing: Bool = false, weight: Int = 1,
  paused: Bool = false
) -> QueueProfile {
  QueueProfile(
    id: ProfileID(id), limit: limit, countsIncomingOnProfile: incoming, countsOutgoingOnProfile: outgoing,
    weight: weight, paused: paused)
}
