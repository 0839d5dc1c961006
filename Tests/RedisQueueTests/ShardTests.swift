import PostriderCore
import Testing

@testable import RedisQueue

/// What is different when the queue has several shards.
@Suite("Shards", .gated, .timeLimit(.minutes(3)))
struct ShardTests {
  /// The first profiles that fall to each of four shards.
  static let profileOfShard: [Int64] = (0..<4).map { shard in
    (1...).first { RedisShard.number(of: ProfileID($0), among: 4) == shard } ?? 0
  }

  private func withShards(
    prefix: String? = nil, _ body: (RedisJobQueue) async throws -> Void
  ) async throws {
    try await withRedisQueue(prefix: prefix, shards: 4) { queue in
      try await queue.open(epoch: 7, delay: .zero)
      try await queue.update(profiles: Self.profileOfShard.map { profile($0, limit: 300) })
      try await body(queue)
    }
  }

  private func jobs(_ count: Int64) -> [Job] {
    (0..<4 * count).map { job(1 + $0, profile: Self.profileOfShard[Int($0 % 4)]) }
  }

  @Test("the shard of a profile never changes and profiles are spread evenly")
  func hash() {
    // Fixed for ever: another number would lead to other keys after an update.
    #expect((1...12).map { RedisShard.number(of: ProfileID($0), among: 4) } == [1, 2, 1, 2, 2, 0, 3, 2, 0, 2, 1, 3])
    for count in [1, 2, 3, 4, 16, 64] {
      var counts = [Int](repeating: 0, count: count)
      for profile in 1...Int64(count * 1_000) { counts[RedisShard.number(of: ProfileID(profile), among: count)] += 1 }
      #expect(counts.allSatisfy { (850...1_150).contains($0) }, "\(counts)")
    }
  }

  @Test("fences of different shards are never equal, and each comes back to its shard")
  func fences() async throws {
    try await withShards { queue in
      try await queue.enqueue(jobs(8))
      let leases = try await queue.claim(limit: 64, worker: "w").leases
      #expect(leases.count == 32)
      #expect(Set(leases.map(\.fence)).count == 32)
      #expect(leases.allSatisfy { $0.fence.epoch == 7 })
      // Answers stand in the order of the leases, whatever shards they come from.
      let mixed = leases.shuffled()
      try await queue.complete(Array(mixed.prefix(5)))
      #expect(try await queue.renew(mixed).map(\.fence).count == 27)
      #expect(
        try await queue.complete(mixed) == Array(repeating: .lost, count: 5) + Array(repeating: .ended, count: 27))
    }
  }

  @Test("a shard with much work does not keep the others waiting")
  func rotation() async throws {
    try await withShards { queue in
      for shard in 0..<4 {
        let profile = Self.profileOfShard[shard]
        try await queue.enqueue((1...(shard == 0 ? 200 : 5)).map { job($0 + Int64(shard) * 1_000, profile: profile) })
      }
      var seen: [Int64: Int] = [:]
      for _ in 0..<8 {
        for lease in try await queue.claim(limit: 8, worker: "w").leases { seen[lease.profile.value, default: 0] += 1 }
      }
      #expect(seen.count == 4, "\(seen)")
    }
  }

  @Test("a claim begins where work was announced, every second time")
  func order() {
    let rotation = ShardRotation(count: 4)
    let orders = (0..<16).map { _ in rotation.order(announced: [2]) }
    #expect(orders.allSatisfy { $0.sorted() == [0, 1, 2, 3] })
    #expect(orders.count { $0.first == 2 } >= 8)
    #expect(Set(orders.compactMap(\.first)) == [0, 1, 2, 3])
    #expect(ShardRotation(count: 1).order(announced: []) == [0])
  }

  @Test("numbers and places of all shards are put together in order")
  func merged() async throws {
    try await withShards { queue in
      try await queue.enqueue(
        jobs(3).map { job($0.id.mailbox.value, profile: $0.profile.value, due: 100 + $0.id.mailbox.value) })
      var statistics = try await queue.statistics()
      #expect(statistics.ready["poll"] == 12)
      #expect(statistics.oldestDueMilliseconds["poll"] == 101)
      let first = try await queue.claim(limit: 5, worker: "w").leases
      statistics = try await queue.statistics()
      #expect(statistics.inFlight == 5)
      #expect(statistics.epoch == 7)
      let wanted = jobs(3).shuffled()
      let places = try await queue.inspect(wanted)
      #expect(places.map(\.job) == wanted.map(\.id.description))
      let fences = Dictionary(uniqueKeysWithValues: first.map { ($0.job.description, $0.fence) })
      for place in places { #expect(place.fence == fences[place.job]) }
      #expect(Set(try await queue.withdraw(jobs(3))) == Set(first.map(\.job)))
    }
  }

  @Test("one emptied shard is a lost epoch; a new one opens all")
  func oneShardLost() async throws {
    try await withShards { queue in
      try await queue.enqueue(jobs(2))
      let old = try await queue.claim(limit: 8, worker: "w").leases
      let lost = queue.shards[2]
      let connection = try await lost.session().connection
      let keys = try await connection.command(["KEYS", lost.prefix + "*"]).array ?? []
      try await connection.command(["DEL"] + keys.compactMap(\.string))
      #expect(try await queue.currentEpoch() == nil)
      await expectEpochLost("renew") { _ = try await queue.renew(old) }
      await expectEpochLost("statistics") { _ = try await queue.statistics() }
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 8, worker: "w") }
      try await queue.open(epoch: 8, delay: .zero)
      #expect(try await queue.currentEpoch() == 8)
      #expect(try await queue.renew(old).isEmpty)
      #expect(try await queue.statistics().totalReady == 0)
    }
  }

  @Test("what a claim was granted before it met a lost shard is not forgotten")
  func grantedBeforeLoss() async throws {
    try await withShards { queue in
      try await queue.enqueue(jobs(2))
      try await queue.shards[3].session().connection.command(["DEL", queue.shards[3].epochKey])
      var leases: [Lease] = []
      var losses = 0
      for _ in 0..<4 {
        do { leases += try await queue.claim(limit: 64, worker: "w").leases } catch JobQueueError.epochLost {
          losses += 1
        }
      }
      #expect(leases.count == 6)
      #expect(losses == 3)
    }
  }

  @Test("shards that hold different epochs are a lost epoch")
  func differentEpochs() async throws {
    try await withShards(prefix: "differ") { queue in
      try await queue.shards[1].open(epoch: 9, delay: .zero)
      #expect(try await queue.currentEpoch() == nil)
      try await queue.open(epoch: 10, delay: .zero)
      #expect(try await queue.currentEpoch() == 10)
    }
  }

  @Test("a process set to another number of shards is refused with the fix", arguments: [1, 2, 8])
  func otherCount(_ count: Int) async throws {
    let prefix = "count\(UInt32.random(in: 0...UInt32.max))"
    try await withShards(prefix: prefix) { queue in
      try await queue.enqueue(jobs(1))
      try await withRedisQueue(prefix: prefix, shards: count) { other in
        func expectRefusal(_ body: () async throws -> Void) async {
          let error = await #expect(throws: JobQueueError.self) { try await body() }
          guard case .misconfigured(let reason)? = error else {
            Issue.record("threw \(String(describing: error))")
            return
          }
          #expect(reason.contains("4 shards"))
          #expect(reason.contains("set to \(count)"))
        }
        await expectRefusal { _ = try await other.currentEpoch() }
        await expectRefusal { _ = try await other.claim(limit: 1, worker: "w") }
        await expectRefusal { try await other.open(epoch: 99, delay: .zero) }
      }
      #expect(try await queue.currentEpoch() == 7)
      #expect(try await queue.claim(limit: 8, worker: "w").leases.count == 4)
    }
  }

  @Test("an idle worker with many shards makes few calls")
  func idle() async throws {
    try await withRedisQueue(shards: 16) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      _ = try await queue.claim(limit: 8, worker: "w")
      let start = ContinuousClock.now
      // Right after the start, and when the subscription comes up, a wait may end at once.
      var waits = 0
      while ContinuousClock.now - start < .seconds(3) {
        try await queue.waitForWork(timeout: .milliseconds(500))
        _ = try await queue.claim(limit: 8, worker: "w")
        waits += 1
      }
      // 16 calls every 4 s: five a second for a timer of 1 s.
      #expect(waits <= 3)
    }
  }
}
