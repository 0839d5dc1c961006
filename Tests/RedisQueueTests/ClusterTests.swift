import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization
import Testing

@testable import RedisQueue

/// Three primaries, real ones, that hold four shards.
@Suite("Redis Cluster", .gated, .serialized, .timeLimit(.minutes(10)))
struct ClusterTests {
  private func url(_ nodes: [PrivateRedis]) -> String {
    "redis-cluster://" + nodes.map { "127.0.0.1:\($0.port ?? 0)" }.joined(separator: ",")
  }

  private var profiles: [QueueProfile] { ShardTests.profileOfShard.map { profile($0, limit: 300) } }

  private static func jobs(_ numbers: ClosedRange<Int64>) -> [Job] {
    numbers.map { job($0, profile: ShardTests.profileOfShard[Int($0 % 4)]) }
  }

  /// The node that holds a shard.
  private func node(of shard: Int, in cluster: PrivateRedisCluster) -> PrivateRedis {
    cluster.nodes[RedisSlot.number(of: "{\(shard)}") * 3 / RedisSlot.count]
  }

  /// What the load of a test has come to.
  private final class Load: Sendable {
    let epoch = Mutex(Int64(1))
    let done = Mutex<[Int64: Int]>([:])
  }

  private func ask(_ node: PrivateRedis, _ command: String...) async throws -> RedisValue {
    var reply = RedisValue.null
    try await withRawConnection("unix://\(node.socketPath)") { reply = try await $0.command(command) }
    return reply
  }

  @Test("shards live on different nodes; leases, limits, wake-ups and numbers work across them")
  func basics() async throws {
    let cluster = try await startCluster()
    // One node is enough to find the others, also when another one named is not there.
    let configuration = try RedisQueueConfiguration(
      url: "redis-cluster://127.0.0.1:1,127.0.0.1:\(cluster.nodes[1].port ?? 0)", shards: 4,
      leaseDuration: .seconds(600), callTimeout: .seconds(15))
    try await withRedisQueue(configuration) { scheduler in
      try await withRedisQueue(configuration) { worker in
        try await recover(scheduler, epoch: 1, profiles: profiles)
        #expect(try await scheduler.enqueue(Self.jobs(1...40)) == 40)
        let used = try await worker.shards.asyncMap { try await $0.session().connection.endpoint }
        #expect(Set(used).count == 3)
        for shard in worker.shards {
          let slot = try await ask(cluster.nodes[0], "CLUSTER", "KEYSLOT", shard.epochKey).integer
          #expect(slot == Int64(shard.slot))
        }
        #expect(try await worker.statistics().ready["poll"] == 40)
        var leases: [Lease] = []
        while leases.count < 40 {
          let more = try await worker.claim(limit: 16, worker: "w").leases
          try #require(!more.isEmpty)
          leases += more
        }
        #expect(Set(leases.map(\.fence)).count == 40)
        #expect(try await worker.renew(leases).count == 40)
        #expect(try await worker.verify() == [])
        try await scheduler.update(profiles: [profile(ShardTests.profileOfShard[0], limit: 1, incoming: true)])
        try await scheduler.enqueue((100...110).map { job($0, profile: ShardTests.profileOfShard[0]) })
        #expect(try await worker.claim(limit: 16, worker: "w").leases.isEmpty)
        #expect(try await worker.complete(leases).allSatisfy { $0 == .ended })
        #expect(try await worker.claim(limit: 16, worker: "w").leases.count == 1)

        // A wake-up of each node reaches the one connection that listens.
        for shard in 0..<4 {
          let profile = ShardTests.profileOfShard[shard]
          try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
              for number in Int64(1)... {
                try await scheduler.enqueue([job(1_000 * Int64(shard + 1) + number, profile: profile)])
                try await Task.sleep(for: .milliseconds(20))
              }
            }
            defer { group.cancelAll() }
            _ = try await worker.claim(limit: 16, worker: "w")
            let start = ContinuousClock.now
            try await worker.waitForWork(timeout: .seconds(60))
            #expect(ContinuousClock.now - start < .seconds(30))
          }
        }
      }
    }
    for node in cluster.nodes { await node.stop() }
  }

  @Test("one server of a Cluster, and one that is none, are told with the right URL")
  func wrongKind() async throws {
    let cluster = try await startCluster()
    let port = cluster.nodes[0].port ?? 0
    func trouble(_ url: String) async throws -> String {
      var words = ""
      try await withRedisQueue(try RedisQueueConfiguration(url: url, callTimeout: .seconds(20))) { queue in
        words = await expectMisconfigured(url) { try await queue.open(epoch: 1, delay: .zero) }
      }
      return words
    }
    #expect(try await trouble("redis://127.0.0.1:\(port)").contains("write redis-cluster://"))
    let single = try await TestServers.shared.dedicatedDirectory()
    var options = PrivateRedis.Options()
    options.port = 0
    let server = try await PrivateRedis.start(in: single, options: options)
    #expect(try await trouble("redis-cluster://127.0.0.1:\(server.port ?? 0)").contains("write redis:// instead"))
    await server.stop()
    for node in cluster.nodes { await node.stop() }
  }

  @Test("a slot that is moved under load ends the epoch, and work goes on at its new node while keys still move")
  func movedSlot() async throws {
    let cluster = try await startCluster()
    try await withRedisQueue(
      try RedisQueueConfiguration(
        url: url(cluster.nodes), shards: 4, leaseDuration: .seconds(600), callTimeout: .seconds(15))
    ) { queue in
      let load = Load()
      try await recover(queue, epoch: 1, profiles: profiles)
      // Keeps all shards busy and opens the next epoch whenever one is lost, as the scheduler does.
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { [profiles] in
          var number = Int64(0)
          while !Task.isCancelled {
            do {
              if try await queue.currentEpoch() == nil {
                let next = load.epoch.withLock { epoch in
                  epoch += 1
                  return epoch
                }
                try await queue.open(epoch: next, delay: .zero)
                try await queue.update(profiles: profiles)
              }
              number += 8
              try await queue.enqueue(Self.jobs(number...number + 7))
              let leases = try await queue.claim(limit: 16, worker: "w").leases
              for (lease, end) in zip(leases, try await queue.complete(leases)) where end == .ended {
                load.done.withLock { $0[lease.profile.value, default: 0] += 1 }
              }
            } catch JobQueueError.epochLost {
              continue
            } catch JobQueueError.unavailable {
              // Cancelled: the loop's condition sees it.
              try? await Task.sleep(for: .milliseconds(20))
            } catch JobQueueError.misconfigured(let reason) {
              Issue.record("misconfigured: \(reason)")
              return
            }
          }
        }
        func progress(_ what: String, of shard: Int = 0) async throws {
          let profile = ShardTests.profileOfShard[shard]
          let before = load.done.withLock { $0[profile] ?? 0 }
          _ = try await eventually(what, within: .seconds(60)) {
            load.done.withLock { $0[profile] ?? 0 } > before + 20 ? true : nil
          }
        }
        try await progress("work before the move")
        let source = node(of: 0, in: cluster)
        let target = cluster.nodes.first { $0 !== source } ?? source
        let slot = String(RedisSlot.number(of: "{0}"))
        let sourceID = try await ask(source, "CLUSTER", "MYID").string ?? ""
        let targetID = try await ask(target, "CLUSTER", "MYID").string ?? ""
        _ = try await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID)
        // Before: the load may lose it as soon as the source has carried this out.
        let lost = load.epoch.withLock { $0 }
        _ = try await ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", targetID)
        try await progress("work while the slot is moving")
        #expect(load.epoch.withLock { $0 } > lost)
        #expect(try await queue.shards[0].session().connection.endpoint.description.hasSuffix(":\(source.port ?? 0)"))
        #expect(try await ask(target, "CLUSTER", "COUNTKEYSINSLOT", slot).integer ?? 0 > 0)
        // The old epoch's keys follow one by one.
        while let keys = try await ask(source, "CLUSTER", "GETKEYSINSLOT", slot, "10").array, !keys.isEmpty {
          for key in keys.compactMap(\.string) {
            _ = try await ask(source, "MIGRATE", "127.0.0.1", String(target.port ?? 0), key, "0", "20000", "REPLACE")
          }
        }
        try await progress("work when the keys have moved")
        for node in [target, source] { _ = try await ask(node, "CLUSTER", "SETSLOT", slot, "NODE", targetID) }
        try await progress("work after the move")
        _ = try await eventually("the new node is known") {
          try await queue.shards[0].session().connection.endpoint.description.hasSuffix(":\(target.port ?? 0)")
            ? true : nil
        }
        for shard in 1..<4 { try await progress("work elsewhere", of: shard) }
        group.cancelAll()
      }
      #expect(try await queue.verify() == [])
    }
    for node in cluster.nodes { await node.stop() }
  }

  @Test("one primary killed and started again: its shards' loss is noticed, work resumes in all")
  func killedPrimary() async throws {
    let cluster = try await startCluster()
    try await withRedisQueue(
      try RedisQueueConfiguration(
        url: url(cluster.nodes), shards: 4, leaseDuration: .seconds(600), callTimeout: .seconds(15))
    ) { queue in
      try await recover(queue, epoch: 1, profiles: profiles)
      try await queue.enqueue(Self.jobs(1...40))
      var old: [Lease] = []
      while old.count < 40 { old += try await queue.claim(limit: 16, worker: "w").leases }
      let dead = node(of: 0, in: cluster)
      let alive = (0..<4).filter { node(of: $0, in: cluster) !== dead }
      await dead.kill9()
      // Before the Cluster itself has noticed, the other shards work and their leases hold; those of the dead node are
      // not lost before their time.
      let renewed = try await queue.renew(old)
      #expect(renewed.count == 40)
      let before = try #require(old.map(\.trustedUntil).max())
      #expect(renewed.count { $0.trustedUntil > before } >= 10 * alive.count)
      await #expect(throws: JobQueueError.self) { try await queue.checkHealth() }
      await #expect(throws: JobQueueError.self) { try await queue.currentEpoch() }
      // No new epoch is opened in a part of the shards.
      await #expect(throws: JobQueueError.self) { try await queue.open(epoch: 2, delay: .zero) }
      #expect(try await queue.shards[alive[0]].currentEpoch() == 1)

      try await dead.start()
      try await bePatient(dead)
      _ = try await eventually("the lost shard is noticed", within: .seconds(60)) {
        do { return try await queue.currentEpoch() == nil ? true : nil } catch JobQueueError.unavailable { return nil }
      }
      await expectEpochLost("renew") { _ = try await queue.renew(old) }
      try await recover(queue, epoch: 2, profiles: profiles)
      #expect(try await queue.enqueue(Self.jobs(1...40)) == 40)
      #expect(try await queue.claim(limit: 64, worker: "w").leases.count == 40)
      #expect(try await queue.complete(old).allSatisfy { $0 == .lost })
      #expect(try await queue.verify() == [])
    }
    for node in cluster.nodes { await node.stop() }
  }
}

extension Array {
  func asyncMap<Value>(_ body: (Element) async throws -> Value) async rethrows -> [Value] {
    var values: [Value] = []
    for element in self { values.append(try await body(element)) }
    return values
  }
}
