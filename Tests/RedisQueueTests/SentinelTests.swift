import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import RedisQueue

/// Three Sentinels that watch a master and its replica, all of them real.
@Suite("Redis Sentinel", .gated, .serialized, .timeLimit(.minutes(10)))
struct SentinelTests {
  private struct Site {
    var master: PrivateRedis
    var replica: PrivateRedis
    var sentinels: [PrivateRedis]

    var url: String {
      "redis-sentinel://" + sentinels.map { "127.0.0.1:\($0.port ?? 0)" }.joined(separator: ",") + "/mail"
    }

    func stop() async {
      for server in sentinels + [replica, master] { await server.stop() }
    }

    /// Returns when every Sentinel knows the replica and the other two: before that none of them fails over.
    func waitUntilKnown() async throws {
      _ = try await eventually("the Sentinels know each other", within: .seconds(120)) { () -> Bool? in
        for sentinel in sentinels {
          var known = false
          try await withRawConnection("unix://\(sentinel.socketPath)") { connection in
            let answer = try await connection.send(["SENTINEL", "CKQUORUM", "mail"]).string ?? ""
            let replicas = try await connection.command(["SENTINEL", "REPLICAS", "mail"]).array?.count
            known = answer.hasPrefix("OK 3 usable") && replicas == 1
          }
          if !known { return nil }
        }
        return true
      }
    }

    func waitUntilReplicating() async throws {
      _ = try await eventually("the replica follows", within: .seconds(120)) {
        var isUp = false
        try await withRawConnection("unix://\(replica.socketPath)") {
          isUp = try await $0.command(["INFO", "replication"]).string?.contains("master_link_status:up") == true
        }
        return isUp ? true : nil
      }
    }
  }

  private func site(server: [String] = [], sentinel: [String] = [], servers: Int = 3) async throws -> Site {
    let data = try await TestServers.shared.dedicatedDirectory()
    func start(_ name: String, _ role: PrivateRedis.Role, _ settings: [String]) async throws -> PrivateRedis {
      var options = PrivateRedis.Options()
      (options.name, options.role, options.settings) = (name, role, settings)
      options.keepsData = false
      options.port = 0
      return try await PrivateRedis.start(in: data, options: options)
    }
    let master = try await start("master", .server, server)
    let port = master.port ?? 0
    let replica = try await start("replica", .server, server + ["replicaof 127.0.0.1 \(port)"])
    var sentinels: [PrivateRedis] = []
    // A master that a busy machine held up for a moment must not be taken for dead.
    let patience = ["sentinel down-after-milliseconds mail 5000"]
    for number in 0..<servers {
      sentinels.append(
        try await start("sentinel\(number)", .sentinel(master: "mail", port: port, quorum: 2), patience + sentinel))
    }
    return Site(master: master, replica: replica, sentinels: sentinels)
  }

  @Test("a killed master is followed by its replica: the epoch is lost, a new one works")
  func failover() async throws {
    let site = try await site()
    try await site.waitUntilReplicating()
    try await site.waitUntilKnown()
    let configuration = try RedisQueueConfiguration(
      url: site.url, leaseDuration: .seconds(600), callTimeout: .seconds(15))
    try await withRedisQueue(configuration) { scheduler in
      try await withRedisQueue(configuration) { worker in
        try await recover(scheduler, epoch: 1)
        try await scheduler.enqueue([job(1), job(2)])
        let old = try await worker.claim(limit: 1, worker: "w").leases
        #expect(old.count == 1)
        #expect(
          try await worker.shards[0].session().connection.endpoint.description.hasSuffix(":\(site.master.port ?? 0)"))

        await site.master.kill9()
        _ = try await eventually("the replica is found, and its epoch refused", within: .seconds(120)) { () -> Bool? in
          do {
            _ = try await worker.renew(old)
          } catch JobQueueError.unavailable {
            return nil
          } catch JobQueueError.epochLost {
            return true
          }
          return nil
        }
        _ = try await eventually("the scheduler finds it too") { () -> Bool? in
          do { return try await scheduler.currentEpoch() == nil } catch JobQueueError.unavailable { return nil }
        }
        await expectEpochLost("claim") { _ = try await worker.claim(limit: 1, worker: "w") }
        try await recover(scheduler, epoch: 2)
        try await scheduler.enqueue([job(1), job(2)])
        #expect(try await worker.renew(old).isEmpty)
        let new = try await worker.claim(limit: 8, worker: "w").leases
        #expect(new.map(\.fence.epoch) == [2, 2])
        #expect(try await worker.complete(old + new) == [.lost, .ended, .ended])
        let port = site.replica.port ?? 0
        #expect(try await worker.shards[0].session().connection.endpoint.description.hasSuffix(":\(port)"))
        // The wake-ups come from there too.
        _ = try await eventually("the workers listen") {
          site.replica.ask("PUBSUB NUMSUB pr:{0}:wake") == "*2" ? true : nil
        }
      }
    }
    await site.stop()
  }

  @Test("a switch while the old master lives is followed at once")
  func switched() async throws {
    let site = try await site()
    try await site.waitUntilReplicating()
    try await site.waitUntilKnown()
    try await withRedisQueue(
      try RedisQueueConfiguration(url: site.url, leaseDuration: .seconds(600), callTimeout: .seconds(15))
    ) { queue in
      try await recover(queue, epoch: 1)
      let port = site.replica.port ?? 0
      _ = try await eventually("the Sentinels switch", within: .seconds(120)) {
        site.sentinels[0].ask("SENTINEL FAILOVER mail") == "+OK" ? true : nil
      }
      _ = try await eventually("the new master is used", within: .seconds(120)) { () -> Bool? in
        do {
          return try await queue.shards[0].session().connection.endpoint.description.hasSuffix(":\(port)") ? true : nil
        } catch { return nil }
      }
      #expect(try await queue.currentEpoch() == nil)
      try await recover(queue, epoch: 2)
      #expect(try await queue.enqueue([job(1)]) == 1)
    }
    await site.stop()
  }

  @Test("a stale replica, whose data are of an older epoch, is refused")
  func stale() async throws {
    let site = try await site()
    try await site.waitUntilReplicating()
    try await site.waitUntilKnown()
    try await withRedisQueue(
      try RedisQueueConfiguration(url: site.url, leaseDuration: .seconds(600), callTimeout: .seconds(15))
    ) { queue in
      try await recover(queue, epoch: 1)
      try await queue.enqueue([job(1)])
      let old = try await queue.claim(limit: 1, worker: "w").leases
      _ = try await eventually("the replica has the first epoch") {
        site.replica.ask("EXISTS pr:{0}:1:owners") == ":1" ? true : nil
      }
      // From now on nothing reaches it: it cannot log in to its master any more. The Sentinels accept a replica as
      // successor that has been without its master for up to ten times as long as they wait for a dead one.
      #expect(site.replica.ask("CONFIG SET masterauth wr0ng masteruser nobody") == "+OK")
      #expect(site.replica.ask("CLIENT KILL TYPE master") == ":1")
      try await queue.open(epoch: 2, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let new = try await queue.claim(limit: 1, worker: "w").leases
      #expect(new.count == 1)
      await site.master.kill9()
      _ = try await eventually("the stale replica is found", within: .seconds(120)) { () -> Bool? in
        do {
          _ = try await queue.renew(new)
        } catch JobQueueError.unavailable {
          return nil
        } catch JobQueueError.epochLost {
          return true
        }
        return nil
      }
      // It holds the old lease, an old epoch and work.
      #expect(site.replica.ask("EXISTS pr:{0}:1:owners") == ":1")
      #expect(site.replica.ask("EXISTS pr:{0}:2:owners") == ":0")
      for leases in [old, new] { await expectEpochLost("renew") { _ = try await queue.renew(leases) } }
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 1, worker: "w") }
      // Not even the epoch that it never heard of is opened twice in the same place: the store gives a greater one.
      try await recover(queue, epoch: 3)
      #expect(try await queue.claim(limit: 1, worker: "w").leases.isEmpty)
      #expect(try await queue.enqueue([job(1)]) == 1)
      #expect(try await queue.complete(old + new) == [.lost, .lost])
    }
    await site.stop()
  }

  @Test("Sentinels and servers have users of their own; what is wrong is told")
  func credentials() async throws {
    let site = try await site(
      server: ["requirepass server-s3cret", "masterauth server-s3cret"],
      sentinel: ["requirepass sentinel-s3cret", "sentinel auth-pass mail server-s3cret"], servers: 1)
    let port = site.sentinels[0].port ?? 0
    func trouble(_ url: String, _ password: String?) async throws -> JobQueueError? {
      var trouble: JobQueueError?
      let credentials = RedisQueueConfiguration.Credentials(
        password: url.contains("@") ? nil : Secret("server-s3cret"), sentinelPassword: password.map { Secret($0) })
      try await withRedisQueue(
        try RedisQueueConfiguration(url: url, credentials: credentials, callTimeout: .seconds(20))
      ) { queue in
        do { try await queue.open(epoch: 1, delay: .zero) } catch let error as JobQueueError { trouble = error }
      }
      return trouble
    }
    let url = "redis-sentinel://127.0.0.1:1,127.0.0.1:\(port)/mail"
    #expect(try await trouble(url, "sentinel-s3cret") == nil)
    var words = try await trouble(url, nil)?.description ?? ""
    #expect(words.contains("NOAUTH"))
    words = try await trouble(url, "wr0ng")?.description ?? ""
    #expect(words.contains("WRONGPASS"))
    #expect(!words.contains("wr0ng"))
    words = try await trouble("redis-sentinel://127.0.0.1:\(port)/other", "sentinel-s3cret")?.description ?? ""
    #expect(words.contains("watches no master named `other`"))
    words =
      try await trouble("redis-sentinel://:wr0ng@127.0.0.1:\(port)/mail", "sentinel-s3cret")?.description ?? ""
    #expect(words.contains("WRONGPASS"))
    // The wrong kind of URL, in both directions.
    words = try await trouble("redis://:sentinel-s3cret@127.0.0.1:\(port)", nil)?.description ?? ""
    #expect(words.contains("is a Sentinel; write redis-sentinel://"))
    words =
      try await trouble("redis-sentinel://127.0.0.1:\(site.master.port ?? 0)/mail", "server-s3cret")?.description ?? ""
    #expect(words.contains("is no Sentinel"))
    words = try await trouble("redis://127.0.0.1:\(site.replica.port ?? 0)", nil)?.description ?? ""
    #expect(words.contains("read-only replica of 127.0.0.1"))
    await site.stop()
  }
}
