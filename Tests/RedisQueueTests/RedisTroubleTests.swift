import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization
import Testing

@testable import RedisQueue

/// A server that is not what it should be is refused with words that help, and used once it is.
@Suite("Redis that must not be used", .gated, .timeLimit(.minutes(3)))
struct RedisRefusalTests {
  private func trouble(
    _ url: String, _ credentials: RedisQueueConfiguration.Credentials = .init()
  ) async throws -> JobQueueError? {
    var trouble: JobQueueError?
    try await withRedisQueue(try RedisQueueConfiguration(url: url, credentials: credentials, callTimeout: .seconds(20)))
    {
      queue in
      do { try await queue.checkHealth() } catch let error as JobQueueError { trouble = error }
    }
    return trouble
  }

  @Test("no password, a wrong one, one too many, a database that is not there")
  func credentials() async throws {
    let open = try RedisServerProcess()
    let closed = try RedisServerProcess(arguments: ["--requirepass", "s3cret"])
    defer {
      open.stop()
      closed.stop()
    }
    func words(_ url: String) async throws -> String {
      let error = try await trouble(url)
      guard case .misconfigured(let reason)? = error else {
        Issue.record("\(url): \(String(describing: error))")
        return ""
      }
      #expect(!reason.contains("wr0ng"))
      return reason
    }
    #expect(try await words(closed.url).contains("NOAUTH"))
    #expect(try await words("unix://:wr0ng@\(closed.directory)/s").contains("WRONGPASS"))
    #expect(try await words("unix://:wr0ng@\(open.directory)/s").contains("without any password configured"))
    #expect(try await words(open.url + "?db=16").contains("DB index is out of range"))
    #expect(
      try await trouble(closed.url, RedisQueueConfiguration.Credentials(password: Secret("s3cret"))) == nil)
    // Two databases of one server are two queues.
    func database(_ number: Int) throws -> RedisQueueConfiguration {
      try RedisQueueConfiguration(url: open.url + "?db=\(number)", callTimeout: .seconds(20))
    }
    try await withRedisQueue(try database(1)) { first in
      try await first.open(epoch: 1, delay: .zero)
      try await withRedisQueue(try database(2)) { second in
        let held = try await second.currentEpoch()
        #expect(held == nil)
      }
    }
  }

  @Test("a user with the documented rights and no others can do everything the queue does")
  func leastRights() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    let prefix = "least"
    try await withRawConnection(to: server) {
      try await $0.command(["ACL", "SETUSER", "post", "on", ">s3cret"] + RedisRights.rule(prefix: prefix))
    }
    let configuration = try RedisQueueConfiguration(
      url: "unix://\(server.directory)/s?db=1",
      credentials: RedisQueueConfiguration.Credentials(user: "post", password: Secret("s3cret")), keyPrefix: prefix,
      shards: 2, leaseDuration: .seconds(600), callTimeout: .seconds(20))
    try await withRedisQueue(configuration) { queue in
      try await queue.checkHealth()
      for epoch in [Int64(1), 2] {
        try await queue.open(epoch: epoch, delay: .zero)
        #expect(try await queue.currentEpoch() == epoch)
        try await queue.update(profiles: (1...4).map { profile($0, limit: 2, incoming: true) })
        try await queue.enqueue((1...40).map { job($0, profile: 1 + $0 % 4) })
        try await queue.enqueue([job(1, .send, profile: 2), job(1, .test, profile: 2)])
        try await queue.announce(worker: "w", slots: 8)
        var leases = try await queue.claim(limit: 16, worker: "w").leases
        #expect(!leases.isEmpty)
        leases = try await queue.renew(leases)
        #expect(try await queue.statistics().inFlight == leases.count)
        #expect(try await queue.inspect([job(1, profile: 2)]).count == 1)
        try #require(leases.count > 2)
        try await queue.giveBack([leases[0]])
        try await queue.complete([leases[1]])
        try await queue.withdraw([job(2, profile: 3)])
        try await queue.hold([
          LaneHold(profile: ProfileID(3), direction: .incoming, duration: .seconds(60), reason: "breaker")
        ])
        #expect(try await queue.poisoned(limit: 8).isEmpty)
        #expect(try await !queue.profiles(limit: 8).isEmpty)
        // Every kind of entry is looked at.
        while try await !queue.repair(limit: 1_000).isComplete {}
      }
      try await queue.age(by: .seconds(601))
      #expect(try await queue.claim(limit: 16, worker: "w").reclaimed > 0)
      _ = try await eventually("old epochs are removed") {
        let keys = try await queue.shards[0].session().connection.command([
          "SCAN", "0", "MATCH", "least:{0}:1:*", "COUNT", "1000",
        ])
        return keys.array?.last?.array?.isEmpty == true ? true : nil
      }
      _ = try await eventually("the wake-ups are heard") {
        var heard: Int64?
        try await withRawConnection(to: server) {
          heard = try await $0.command(["PUBSUB", "NUMSUB", "least:{1}:wake"]).array?.last?.integer
        }
        return heard == 1 ? true : nil
      }
    }
    // And not more than that.
    try await withRawConnection("unix://post:s3cret@\(server.directory)/s") { connection in
      for command in [
        ["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "maxmemory"], ["GET", "other:key"], ["SUBSCRIBE", "other"],
        ["SHUTDOWN"], ["SCRIPT", "FLUSH"], ["ACL", "LIST"], ["EVAL", "return 1", "1", "other:key"],
      ] {
        guard case .error(let text) = try await connection.send(command) else {
          Issue.record("\(command) is allowed")
          continue
        }
        #expect(text.hasPrefix("NOPERM"))
      }
    }
  }

  @Test("a user who lacks a right is told the rule")
  func missingRights() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRawConnection(to: server) {
      let rule = RedisRights.rule(prefix: "pr")
      try await $0.command(["ACL", "SETUSER", "noinfo", "on", ">p"] + rule + ["-info"])
      try await $0.command(["ACL", "SETUSER", "nozset", "on", ">p"] + rule + ["-@sortedset"])
      try await $0.command(["ACL", "SETUSER", "nokeys", "on", ">p"] + rule + ["resetkeys", "~other:*"])
    }
    for user in ["noinfo", "nozset", "nokeys"] {
      let configuration = try RedisQueueConfiguration(
        url: "unix://\(user):p@\(server.directory)/s", callTimeout: .seconds(20))
      try await withRedisQueue(configuration) { queue in
        let words = await expectMisconfigured(user) {
          try await queue.open(epoch: 1, delay: .zero)
          try await queue.update(profiles: [profile()])
          try await queue.enqueue([job(1)])
        }
        #expect(words.contains("ACL SETUSER name on >password resetkeys ~pr:*"), "\(user): \(words)")
      }
    }
  }

  @Test("a replica is refused, also one that was the primary until now")
  func replica() async throws {
    let primary = try RedisServerProcess(arguments: ["--port", "0"])
    let server = try RedisServerProcess()
    defer {
      primary.stop()
      server.stop()
    }
    try await withRedisQueue(on: server) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile()])
      // Nobody answers there, which leaves the data as they are.
      try await withRawConnection(to: server) { try await $0.command(["REPLICAOF", "127.0.0.1", "1"]) }
      let words = try await eventually("the replica is refused") { () -> String? in
        do {
          try await queue.enqueue([job(1)])
        } catch JobQueueError.misconfigured(let reason) {
          return reason
        } catch JobQueueError.unavailable {
          return nil
        }
        return nil
      }
      #expect(words.contains("read-only replica of 127.0.0.1"))
      try await withRawConnection(to: server) { try await $0.command(["REPLICAOF", "NO", "ONE"]) }
      _ = try await eventually("it is used again") {
        do { return try await queue.enqueue([job(1)]) } catch is JobQueueError { return nil }
      }
    }
  }

  @Test("too many clients: told, and used when there is room")
  func maximumClients() async throws {
    let server = try RedisServerProcess(arguments: ["--maxclients", "2"])
    defer { server.stop() }
    let first = try await RedisConnection.open(
      try RedisQueueConfiguration(url: server.url).server, timeout: .seconds(20))
    let second = try await RedisConnection.open(
      try RedisQueueConfiguration(url: server.url).server, timeout: .seconds(20))
    for connection in [first, second] { try await connection.command(["PING"]) }
    try await withRedisQueue(on: server) { queue in
      let error = try await eventually("the refusal") { () -> JobQueueError? in
        do { try await queue.checkHealth() } catch let error as JobQueueError {
          return error.description.contains("max number of clients") ? error : nil
        }
        return nil
      }
      guard case .unavailable = error else {
        Issue.record("threw \(error)")
        return
      }
      first.close()
      second.close()
      _ = try await eventually("there is room") { () -> Bool? in
        do {
          try await queue.checkHealth()
          return true
        } catch JobQueueError.unavailable { return nil }
      }
    }
  }

  @Test("a server that is still loading is waited for")
  func loading() async throws {
    let server = try RedisServerProcess(arguments: ["--enable-debug-command", "yes"])
    defer { server.stop() }
    try await withRawConnection(to: server) { connection in
      try await connection.command(["DEBUG", "POPULATE", "20000", "filler"])
      try await connection.command(["SAVE"])
    }
    server.stop(keeping: true)
    // Each key takes 500 µs to load, so that loading lasts for ten seconds: a busy machine must not sleep through it.
    try server.start(with: ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"])
    try await withRedisQueue(on: server) { queue in
      let words = try await eventually("it says that it loads") { () -> String? in
        do { try await queue.checkHealth() } catch JobQueueError.unavailable(let reason) {
          return reason.contains("load") ? reason : nil
        }
        return ""
      }
      #expect(words.contains("loading"))
      _ = try await eventually("it has loaded", within: .seconds(120)) { () -> Bool? in
        do {
          try await queue.checkHealth()
          return true
        } catch JobQueueError.unavailable { return nil }
      }
    }
  }

  @Test(
    "what the server says of itself",
    arguments: [
      ("run_id:a\r\nredis_version:6.0.16\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n", "too old"),
      ("redis_version:7.0.0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n", "run_id"),
      ("run_id:a\r\nredis_version:7.0.0\r\nrole:slave\r\nmaxmemory_policy:noeviction\r\n", "read-only replica"),
      ("run_id:a\r\nredis_version:7.0.0\r\nrole:master\r\nmaxmemory_policy:volatile-lru\r\n", "noeviction"),
      ("run_id:a\r\nredis_version:7.0.0\r\nredis_mode:cluster\r\nmaxmemory_policy:noeviction\r\n", "redis-cluster://"),
      ("run_id:a\r\nredis_version:7.0.0\r\nloading:1\r\nloading_eta_seconds:7\r\n", "7 s"),
      (
        "server_name:valkey\r\nrun_id:a\r\nredis_version:7.2.4\r\nvalkey_version:8.1.0\r\nrole:master\r\n"
          + "maxmemory_policy:noeviction\r\n", ""
      ),
    ])
  func information(_ text: String, _ words: String) async throws {
    let stub = try await StubServer.start { $0.first == "INFO" ? "$\(text.utf8.count)\r\n\(text)\r\n" : "-ERR no\r\n" }
    defer { stub.stop() }
    try await withRawConnection("redis://127.0.0.1:\(stub.port)") { connection in
      var said = ""
      do { _ = try await RedisServer.check(connection, as: .server) } catch { said = "\(error)" }
      #expect(words.isEmpty ? said.isEmpty : said.contains(words), "\(said)")
    }
  }
}

/// The queue resumes by itself after each loss.
@Suite("Redis that fails", .gated, .timeLimit(.minutes(3)))
struct RedisLossTests {
  @Test("SCRIPT FLUSH again and again under load costs nothing")
  func scriptFlush() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRedisQueue(on: server) { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile(limit: 300)])
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await withRawConnection(to: server) { connection in
            while !Task.isCancelled { try await connection.command(["SCRIPT", "FLUSH"]) }
          }
        }
        defer { group.cancelAll() }
        var done = 0
        for number in Int64(1)...200 {
          try await queue.enqueue([job(number)])
          done += try await queue.complete(try await queue.claim(limit: 8, worker: "w").leases).count
        }
        #expect(done == 200)
      }
    }
  }

  /// What happens to the server, and whether the queue must begin a new epoch after it.
  enum Loss: String, CaseIterable, CustomTestStringConvertible {
    case flushed = "FLUSHALL"
    case restartedEmpty = "a restart without data"
    case restartedOld = "a restart from an old RDB file"
    case restartedComplete = "a restart from an append-only file"
    var testDescription: String { rawValue }
  }

  @Test("work resumes by itself", arguments: Loss.allCases)
  func resumes(_ loss: Loss) async throws {
    let server = try RedisServerProcess(
      arguments: loss == .restartedComplete ? ["--appendonly", "yes", "--appendfsync", "always"] : [])
    defer { server.stop() }
    try await withRedisQueue(on: server, prefix: "pr") { scheduler in
      try await withRedisQueue(on: server, prefix: "pr") { worker in
        try await recover(scheduler, epoch: 1)
        try await scheduler.enqueue([job(1), job(2)])
        var old = try await worker.claim(limit: 1, worker: "w").leases
        if loss == .restartedOld {
          // The file is of the first epoch; the second one never reaches it.
          try await withRawConnection(to: server) { try await $0.command(["SAVE"]) }
          try await scheduler.open(epoch: 2, delay: .zero)
          try await scheduler.update(profiles: [profile()])
          try await scheduler.enqueue([job(1), job(2)])
          await expectEpochLost("renew") { _ = try await worker.renew(old) }
          old = try await worker.claim(limit: 1, worker: "w").leases
        }
        #expect(old.count == 1)
        switch loss {
        case .flushed: try await withRawConnection(to: server) { try await $0.command(["FLUSHALL"]) }
        case .restartedEmpty, .restartedOld, .restartedComplete:
          server.stop(keeping: true)
          try server.start()
        }
        _ = try await eventually("the worker notices") { () -> Bool? in
          do {
            _ = try await worker.renew(old)
          } catch JobQueueError.epochLost {
            return true
          } catch JobQueueError.unavailable {
            return nil
          }
          return nil
        }
        try await withRawConnection(to: server) { connection in
          let held = try await connection.command(["HGET", "pr:{0}:epoch", "epoch"]).string
          #expect(held == [.flushed: nil, .restartedEmpty: nil, .restartedOld: "1", .restartedComplete: "1"][loss])
        }
        await expectEpochLost("claim") { _ = try await worker.claim(limit: 1, worker: "w") }
        _ = try await eventually("the scheduler notices") { () -> Bool? in
          do { return try await scheduler.currentEpoch() == nil } catch JobQueueError.unavailable { return nil }
        }
        try await recover(scheduler, epoch: 3)
        try await scheduler.enqueue([job(1), job(2)])
        let new = try await eventually("the worker works again") { () -> [Lease]? in
          do { return try await worker.claim(limit: 8, worker: "w").leases } catch JobQueueError.epochLost {
            return nil
          }
        }
        #expect(new.map(\.fence.epoch) == [3, 3])
        #expect(try await worker.complete(old + new) == [.lost, .ended, .ended])
      }
    }
  }

  @Test("a wire that is cut for a moment or falls silent costs no lease", arguments: [true, false])
  func shortCut(_ falls: Bool) async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    let proxy = try await TCPProxy.start(to: server.directory + "/s")
    defer { proxy.stop() }
    let lease = Duration.seconds(600)
    // Only the calls that are to fail go through the short timeout: a claim whose answer is late would keep its lease.
    let configuration = try RedisQueueConfiguration(
      url: "redis://127.0.0.1:\(proxy.port)", leaseDuration: lease, callTimeout: .seconds(2))
    try await withRedisQueue(configuration) { queue in
      var leases: [Lease] = []
      try await withRedisQueue(on: server, prefix: "pr", lease: lease) { direct in
        try await recover(direct, epoch: 1)
        try await direct.enqueue([job(1)])
        leases = try await direct.claim(limit: 1, worker: "w").leases
      }
      #expect(leases.count == 1)
      _ = try await eventually("the wire works") { () -> Bool? in
        do { return try await queue.renew(leases).count == 1 ? true : nil } catch JobQueueError.unavailable {
          return nil
        }
      }
      proxy.set(falls ? .silent : .cut)
      let error = try await eventually("calls fail") { () -> JobQueueError? in
        do { _ = try await queue.renew(leases) } catch let error as JobQueueError { return error }
        return nil
      }
      guard case .unavailable = error else {
        Issue.record("threw \(error)")
        return
      }
      // While the wire is cut, calls fail at once and nobody waits for them.
      _ = try await eventually("calls fail at once") { () -> Bool? in
        let start = ContinuousClock.now
        do { _ = try await queue.statistics() } catch is JobQueueError {
          return ContinuousClock.now - start < .milliseconds(500) ? true : nil
        }
        return nil
      }
      proxy.set(.open)
      let renewed = try await eventually("the lease is renewed") { () -> [Lease]? in
        do { return try await queue.renew(leases) } catch JobQueueError.unavailable { return nil }
      }
      #expect(renewed.map(\.fence) == leases.map(\.fence))
      let epoch = try await eventually("the epoch is read") { () -> Int64? in
        do { return try await queue.currentEpoch() } catch JobQueueError.unavailable { return nil }
      }
      #expect(epoch == 1)
      try await withRedisQueue(on: server, prefix: "pr", lease: lease) { direct in
        let ends = try await direct.complete(renewed)
        #expect(ends == [.ended])
      }
    }
  }

  @Test("a wire that is cut for longer than a lease costs the leases and nothing else")
  func longCut() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    let proxy = try await TCPProxy.start(to: server.directory + "/s")
    defer { proxy.stop() }
    let lease = Duration.milliseconds(600)
    let configuration = try RedisQueueConfiguration(
      url: "redis://127.0.0.1:\(proxy.port)", keyPrefix: "pr", leaseDuration: lease, callTimeout: .seconds(15))
    try await withRedisQueue(configuration) { lonely in
      try await withRedisQueue(on: server, prefix: "pr", lease: lease) { other in
        try await recover(other, epoch: 1)
        try await other.enqueue([job(1)])
        let old = try await lonely.claim(limit: 1, worker: "lonely").leases
        let trusted = try #require(old.first?.trustedUntil)
        proxy.set(.cut)
        // Its own clock tells the worker that it lost the lease, before anyone else can have it.
        let taken = try await eventually("another worker takes the job") { () -> Lease? in
          try await other.claim(limit: 1, worker: "other").leases.first
        }
        #expect(trusted < .now)
        proxy.set(.open)
        let ends = try await eventually("the wire is back") { () -> [LeaseEnd]? in
          do { return try await lonely.complete(old) } catch JobQueueError.unavailable { return nil }
        }
        #expect(ends == [.lost])
        #expect(try await other.complete([taken]) == [.ended])
        #expect(try await lonely.currentEpoch() == 1)
      }
    }
  }
}
