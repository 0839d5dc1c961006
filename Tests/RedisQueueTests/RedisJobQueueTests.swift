import Foundation
import PostriderCore
import Testing

@testable import RedisQueue

/// What only a real server does: it is emptied, restarted, cut off or set up wrongly.
@Suite("Redis as the queue's server", .gated, .timeLimit(.minutes(3)))
struct RedisJobQueueTests {
  @Test("FLUSHALL loses the epoch; a new one works")
  func flushed() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRedisQueue(on: server) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let old = try await queue.claim(limit: 1, worker: "a").leases
      try await queue.shards[0].session().connection.command(["FLUSHALL"])
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 1, worker: "a") }
      await expectEpochLost("renew") { _ = try await queue.renew(old) }
      try await queue.open(epoch: 2, delay: .zero)
      #expect(try await queue.renew(old).isEmpty)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let new = try await queue.claim(limit: 1, worker: "a").leases
      #expect(try await queue.complete(old + new) == [.lost, .ended])
    }
  }

  @Test("a server restarted from its file is another one")
  func restarted() async throws {
    let server = try RedisServerProcess(arguments: ["--appendonly", "yes", "--appendfsync", "always"])
    defer { server.stop() }
    try await withRedisQueue(on: server, prefix: "again") { queue in
      try await queue.open(epoch: 5, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      server.stop(keeping: true)
      _ = try await eventually("the loss is noticed") {
        do { _ = try await queue.statistics() } catch JobQueueError.unavailable { return true }
        return nil
      }
      let start = ContinuousClock.now
      await #expect(throws: JobQueueError.self) { try await queue.enqueue([job(2)]) }
      #expect(ContinuousClock.now - start < .seconds(15), "calls fail at once while the server is away")

      try server.start()
      _ = try await eventually("the connection is back") {
        do { return try await queue.currentEpoch() == nil } catch JobQueueError.unavailable { return nil }
      }
      // Its keys are all there.
      let keys = try await queue.shards[0].session().connection.command(["KEYS", "again:*"]).array
      #expect((keys?.count ?? 0) > 2)
      for _ in 0..<2 { await expectEpochLost("claim") { _ = try await queue.claim(limit: 1, worker: "a") } }
      // The same epoch once more changes nothing: its leases may still be held.
      try await queue.open(epoch: 5, delay: .zero)
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 1, worker: "a") }
      try await queue.open(epoch: 6, delay: .zero)
      #expect(try await queue.statistics().totalReady == 0)
      _ = try await eventually("the old epoch's keys are removed") {
        let old = try await queue.shards[0].session().connection.command(["KEYS", "again:{0}:5:*"]).array
        return old == [] ? true : nil
      }
    }
  }

  @Test("another process learns the new epoch by itself")
  func learnedEpoch() async throws {
    try await withRedisQueue(prefix: "learn") { leader in
      try await withRedisQueue(prefix: "learn") { worker in
        try await leader.open(epoch: 1, delay: .zero)
        try await leader.update(profiles: [profile()])
        try await leader.enqueue([job(1)])
        let old = try await worker.claim(limit: 1, worker: "w").leases
        #expect(old.count == 1)
        try await leader.open(epoch: 2, delay: .zero)
        try await leader.update(profiles: [profile()])
        try await leader.enqueue([job(1)])
        // Told once, so that it closes its sessions.
        await expectEpochLost("renew") { _ = try await worker.renew(old) }
        #expect(try await worker.renew(old).isEmpty)
        #expect(try await worker.claim(limit: 1, worker: "w").leases.map(\.fence.epoch) == [2])
      }
    }
  }

  @Test("forgotten scripts are loaded again")
  func scriptFlush() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRedisQueue(on: server) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.shards[0].session().connection.command(["SCRIPT", "FLUSH"])
      try await queue.update(profiles: [profile()])
      #expect(try await queue.enqueue([job(1)]) == 1)
      #expect(try await queue.claim(limit: 1, worker: "a").leases.count == 1)
    }
  }

  @Test("a lost connection is made again and the leases hold")
  func reconnect() async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let leases = try await queue.claim(limit: 1, worker: "a").leases
      let id = try #require(try await queue.shards[0].session().connection.command(["CLIENT", "ID"]).string)
      try await withRawConnection { try await $0.command(["CLIENT", "KILL", "ID", id]) }
      let renewed = try await eventually("renewing works again") {
        do { return try await queue.renew(leases) } catch JobQueueError.unavailable { return nil }
      }
      #expect(renewed.map(\.fence) == leases.map(\.fence))
      #expect(try await queue.shards[0].session().connection.command(["CLIENT", "ID"]).string != id)
    }
  }

  @Test("a silent server ends a call with its timeout, and later calls work")
  func timeout() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    let proxy = try await TCPProxy.start(to: server.directory + "/s")
    defer { proxy.stop() }
    let configuration = try RedisQueueConfiguration(
      url: "redis://127.0.0.1:\(proxy.port)", callTimeout: .seconds(1))
    try await withRedisQueue(configuration) { queue in
      // On a busy machine the first connection alone may take longer than this call timeout.
      _ = try await eventually("the queue opens") {
        do { return try await queue.open(epoch: 1, delay: .zero) } catch JobQueueError.unavailable { return nil }
      }
      // A connection that such a machine has just lost fails otherwise: then once more, over the next one.
      _ = try await eventually("a call gets no answer in time") { () -> Bool? in
        do { try await queue.checkHealth() } catch JobQueueError.unavailable { return nil }
        proxy.set(.silent)
        defer { proxy.set(.open) }
        do { try await queue.update(profiles: [profile()]) } catch JobQueueError.unavailable(let reason) {
          return reason == "no answer in time" ? true : nil
        }
        return nil
      }
      _ = try await eventually("calls work again") {
        do { return try await queue.enqueue([job(1)]) } catch JobQueueError.unavailable { return nil }
      }
    }
  }

  @Test("a server that evicts keys is refused with the fix, until it is fixed")
  func evictionPolicy() async throws {
    let server = try RedisServerProcess(arguments: ["--maxmemory-policy", "allkeys-lru"])
    defer { server.stop() }
    try await withRedisQueue(on: server) { queue in
      let error = await #expect(throws: JobQueueError.self) { try await queue.open(epoch: 1, delay: .zero) }
      guard case .misconfigured(let reason)? = error else {
        Issue.record("threw \(String(describing: error))")
        return
      }
      #expect(reason.contains("allkeys-lru"))
      #expect(reason.contains("CONFIG SET maxmemory-policy noeviction"))
      await #expect(throws: JobQueueError.misconfigured(reason: reason)) { try await queue.checkHealth() }
      try await withRawConnection(to: server) {
        try await $0.command(["CONFIG", "SET", "maxmemory-policy", "noeviction"])
      }
      _ = try await eventually("the fix is seen") {
        do { return try await queue.checkHealth() } catch JobQueueError.misconfigured { return nil }
      }
    }
  }

  @Test("a restricted user without CONFIG works; wrong credentials are told without the password")
  func credentials() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRawConnection(to: server) {
      try await $0.command(
        ["ACL", "SETUSER", "post", "on", ">s3cret/@", "~pr:*", "&pr:*", "+@all", "-config", "-@dangerous", "+info"])
    }
    func queue(_ credentials: String) throws -> RedisJobQueue {
      let url = "unix://\(credentials)@\(server.directory)/s?db=3"
      return RedisJobQueue(
        configuration: try RedisQueueConfiguration(url: url, callTimeout: .seconds(20)), logger: quiet)
    }
    let good = try queue("post:s3cret%2F%40")
    let bad = try queue("post:wr0ng")
    await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await good.run() }
      group.addTask { try await bad.run() }
      await #expect(throws: Never.self) {
        try await good.open(epoch: 1, delay: .zero)
        try await good.update(profiles: [profile()])
        try await good.enqueue([job(1)])
        #expect(try await good.claim(limit: 1, worker: "a").leases.count == 1)
      }
      let error = await #expect(throws: JobQueueError.self) { try await bad.checkHealth() }
      guard case .misconfigured(let reason)? = error else {
        Issue.record("threw \(String(describing: error))")
        return group.cancelAll()
      }
      #expect(reason.contains("WRONGPASS"))
      #expect(!reason.contains("wr0ng"))
      group.cancelAll()
    }
  }

  @Test("used-up fences end the epoch")
  func fencesUsedUp() async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 3, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1), job(2)])
      let connection = try await queue.shards[0].session().connection
      try await connection.command(["HSET", queue.shards[0].epochKey, "fence", "4294967290"])
      let last = try await queue.claim(limit: 1, worker: "a").leases
      #expect(last.first?.fence == Fence(3 << 32 | 4_294_967_291))
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 8, worker: "a") }
      await expectEpochLost("claim") { _ = try await queue.claim(limit: 8, worker: "a") }
      try await queue.open(epoch: 4, delay: .zero)
      #expect(try await queue.enqueue([job(1)]) == 1)
    }
  }

  @Test("calls before run() fail clearly")
  func beforeRun() async throws {
    let configuration = try RedisQueueConfiguration(
      url: try RedisServerProcess.shared.get().url, callTimeout: .milliseconds(50))
    let queue = RedisJobQueue(configuration: configuration, logger: quiet)
    let error = await #expect(throws: JobQueueError.self) { try await queue.checkHealth() }
    #expect(error?.description.contains("run() was not called") == true)
  }

  @Test("an enqueue of another process wakes a worker at once")
  func wakeAcrossProcesses() async throws {
    try await withRedisQueue(prefix: "wake") { scheduler in
      try await withRedisQueue(prefix: "wake") { worker in
        try await scheduler.open(epoch: 1, delay: .zero)
        try await scheduler.update(profiles: [profile()])
        _ = try await eventually("the worker listens") {
          try await withSubscriberCount(of: scheduler.shards[0].wakeChannel) == 2 ? true : nil
        }
        _ = try await worker.claim(limit: 1, worker: "w")
        let start = ContinuousClock.now
        async let woken: Void = worker.waitForWork(timeout: .seconds(60))
        try await scheduler.enqueue([job(1)])
        try await woken
        #expect(ContinuousClock.now - start < .seconds(30))
        #expect(try await worker.claim(limit: 1, worker: "w").leases.count == 1)
      }
    }
  }

  @Test("a large batch goes in parts", arguments: [1, 300])
  func largeBatch(profiles: Int64) async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: (1...profiles).map { profile($0, limit: 300) })
      let jobs = (1...2_300).map { job($0, profile: 1 + $0 % profiles, due: $0) }
      #expect(try await queue.enqueue(jobs + jobs) == 2_300)
      #expect(try await queue.enqueue(jobs.map { job($0.id.mailbox.value, profile: $0.profile.value, as: .send) }) == 0)
      #expect(try await queue.statistics().ready == ["interactive": 0, "send": 2_300, "poll": 0, "batch-test": 0])
      var leases: [Lease] = []
      while leases.count < 2_300 {
        let more = try await queue.claim(limit: 1_000, worker: "a").leases
        try #require(!more.isEmpty)
        leases += more
      }
      #expect(Set(leases.map(\.job)).count == 2_300)
      #expect(try await queue.renew(leases).count == 2_300)
      #expect(try await queue.verify() == [])
      #expect(try await queue.withdraw(jobs).count == 2_300)
      #expect(try await queue.complete(leases).allSatisfy { $0 == .ended })
      #expect(try await queue.statistics().inFlight == 0)
    }
  }

  @Test("held and full lanes cost claims nothing while that lasts")
  func waitingIsFree() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRedisQueue(on: server) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      let connection = try await queue.shards[0].session().connection
      // What connections and the removal of older epochs send beside.
      let connections: Set = ["config", "info", "ping", "subscribe", "scan", "unlink", "script", "select", "client"]
      /// The commands that ten claims run inside the server.
      func commandsOfTenClaims() async throws -> [String] {
        try await connection.command(["CONFIG", "RESETSTAT"])
        for _ in 0..<10 { #expect(try await queue.claimed().isEmpty) }
        let info = try await connection.command(["INFO", "commandstats"]).string ?? ""
        return info.split(separator: "\r\n").filter { $0.hasPrefix("cmdstat_") }
          .map { String($0.dropFirst("cmdstat_".count).prefix { $0 != "," }) }
          .filter { !connections.contains(String($0.prefix { !":|".contains($0) })) }.sorted()
      }
      let idle = try await commandsOfTenClaims()
      #expect(idle.contains("evalsha:calls=10"))
      try await queue.update(profiles: (1...80).map { profile($0, limit: 1, incoming: true, outgoing: true) })
      try await queue.hold(
        (1...40).map {
          LaneHold(profile: ProfileID($0), direction: .incoming, duration: .seconds(600), reason: "breaker")
        })
      try await queue.enqueue((1...80).flatMap { id in (0..<20).map { job(id * 100 + $0, profile: id) } })
      // One visit to each finds out; profiles 41 to 80 are full after it.
      var held: [Lease] = []
      for _ in 0..<4 { held += try await queue.claimed() }
      #expect(held.count == 40)
      let waiting = try await commandsOfTenClaims()
      #expect(waiting == idle)
      try await queue.hold(
        (1...40).map { LaneHold(profile: ProfileID($0), direction: .incoming, duration: .zero, reason: "") })
      try await queue.complete(held)
      for _ in 0..<4 { held += try await queue.claimed() }
      #expect(held.count == 120)
    }
  }

  private func withSubscriberCount(of channel: String) async throws -> Int64? {
    var count: Int64?
    try await withRawConnection { count = try await $0.command(["PUBSUB", "NUMSUB", channel]).array?.last?.integer }
    return count
  }
}
