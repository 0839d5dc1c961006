import Foundation
import PostriderCore
import PostriderTesting
import RedisQueue
import ServiceLifecycle
import Synchronization
import Testing

@testable import Scheduler

@Suite("The scheduler on real servers", .serialized)
struct SchedulerServiceTests {
  let profileDraft = ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none)

  /// A cluster with a queue that the test uses as a worker would.
  func withCluster(
    _ options: TestCluster.Options = .init(callTimeout: .seconds(30)),
    _ body: @escaping @Sendable (TestCluster, RedisJobQueue) async throws -> Void
  ) async throws {
    let cluster = try await TestCluster.make(options)
    let queue = try cluster.makeQueue()
    let result = await withTaskGroup(of: Void.self, returning: Result<Void, any Error>.self) { group in
      group.addTask { try? await queue.run() }
      defer { group.cancelAll() }
      do { return .success(try await body(cluster, queue)) } catch { return .failure(error) }
    }
    await cluster.close()
    try result.get()
  }

  func configuration(_ holder: String, leadership: Duration = .seconds(1)) -> SchedulerConfiguration {
    var configuration = SchedulerConfiguration(holder: holder)
    configuration.leadership = leadership
    configuration.retry = .milliseconds(200)
    return configuration
  }

  func leader(_ cluster: TestCluster) async throws -> String? {
    try await cluster.store.scheduleStatistics(for: cluster.principal).leader
  }

  /// Runs a scheduler with its own connections until cancelled or asked to stop.
  func schedule(
    _ cluster: TestCluster, _ configuration: SchedulerConfiguration, stop: ScriptSignal? = nil
  ) async throws {
    let store = cluster.makeStore(poolSize: 3)
    let queue = try cluster.makeQueue()
    let service = SchedulerService(store: store, queue: queue, configuration: configuration, logger: cluster.logger)
    let services = ServiceGroup(
      configuration: .init(
        services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)],
        logger: cluster.logger))
    await withTaskGroup(of: Void.self) { group in
      group.addTask { try? await queue.run() }
      if let stop {
        group.addTask {
          await stop.wait()
          await services.triggerGracefulShutdown()
        }
      }
      // A scheduler that ends early shows in what does not happen.
      try? await services.run()
      group.cancelAll()
      stop?.fire()
    }
    await store.close()
  }

  func claimed(_ queue: RedisJobQueue, limit: Int = 100) async throws -> [Lease] {
    try await eventually("a job") {
      // No epoch yet, or one that is not open yet.
      guard let claim = try? await queue.claim(limit: limit, worker: "test") else { return nil }
      return claim.leases.isEmpty ? nil : claim.leases
    }
  }

  @Test("a second scheduler stands by and takes over from one that died, and enqueues")
  func takesOver() async throws {
    try await withCluster { cluster, queue in
      let ids = try await cluster.mailboxes(
        ["a@example.org"], on: try await cluster.profile(incoming: self.profileDraft))
      try await withThrowingTaskGroup(of: Void.self) { group in
        // Long enough that a machine that stands still does not end it.
        let term = Duration.seconds(15)
        let first = Task { try await self.schedule(cluster, self.configuration("first", leadership: term)) }
        defer { first.cancel() }
        try await eventually("the first leads") { try await self.leader(cluster) == "first" }
        group.addTask { try await self.schedule(cluster, self.configuration("second", leadership: term)) }
        // Somebody who stands by asks all the time and gets nothing.
        #expect(try await cluster.store.lead(holder: "third", duration: .seconds(1)) == nil)
        first.cancel()
        _ = await first.result
        try await eventually("the second leads", within: .seconds(60)) { try await self.leader(cluster) == "second" }
        try await cluster.enable(ids)
        #expect(try await self.claimed(queue).map(\.job) == [JobID(mailbox: ids[0], kind: .poll)])
        group.cancelAll()
      }
    }
  }

  @Test("a scheduler that is stopped gives leadership up at once")
  func resigns() async throws {
    try await withCluster { cluster, _ in
      try await withThrowingTaskGroup(of: Void.self) { group in
        let stop = ScriptSignal()
        let long = self.configuration("first", leadership: .seconds(600))
        group.addTask { try await self.schedule(cluster, long, stop: stop) }
        try await eventually("the first leads") { try await self.leader(cluster) == "first" }
        group.addTask { try await self.schedule(cluster, self.configuration("second")) }
        stop.fire()
        // Long before the term of ten minutes ends.
        try await eventually("the second leads", within: .seconds(60)) { try await self.leader(cluster) == "second" }
        group.cancelAll()
      }
    }
  }

  @Test("two leaders at once do no harm: each job is there once")
  func twoLeaders() async throws {
    try await withCluster { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft, connections: 300)
      let ids = try await cluster.mailboxes((1...40).map { "m\($0)@example.org" }, on: profile)
      try await cluster.enable(ids)
      try await withThrowingTaskGroup(of: Void.self) { group in
        for name in ["first", "second"] {
          let own = try cluster.makeQueue()
          let store = cluster.makeStore(poolSize: 3)
          let term = SchedulerTerm(
            store: store, queue: own, configuration: self.configuration(name), logger: cluster.logger)
          group.addTask { try await own.run() }
          group.addTask { await term.run() }
        }
        var leases: [Lease] = []
        while leases.count < ids.count {
          leases += try await self.claimed(queue)
          // What belongs to an epoch that the other leader replaced is lost and comes again; it may do so at this moment.
          do { leases = try await queue.renew(leases) } catch JobQueueError.epochLost { leases = [] }
        }
        #expect(Set(leases.map(\.job)).count == ids.count && leases.count == ids.count)
        #expect(Set(leases.map(\.fence.epoch)).count == 1)
        #expect(try await queue.verify().isEmpty)
        group.cancelAll()
      }
    }
  }

  @Test("what may not run any more is withdrawn, waiting or leased")
  func withdraws() async throws {
    // A lease that ends with its mailbox, not by its time.
    try await withCluster(.init(lease: .seconds(600), callTimeout: .seconds(30))) { cluster, queue in
      let ids = try await cluster.mailboxes(
        ["a@example.org", "b@example.org"], on: try await cluster.profile(incoming: self.profileDraft))
      try await withThrowingTaskGroup(of: Void.self) { group in
        // One term: a second epoch would open only after such a lease.
        group.addTask { try await self.schedule(cluster, self.configuration("only", leadership: .seconds(60))) }
        try await cluster.enable(ids[0])
        let lease = try #require(try await self.claimed(queue, limit: 1).first)
        try await cluster.enable(ids[1])
        try await eventually("the second waits") { try await queue.statistics().totalReady == 1 }
        #expect(try await queue.renew([lease]).count == 1)
        try await cluster.sql(
          """
          BEGIN; UPDATE mailbox SET is_active = false;
          SELECT announce_jobs(array(SELECT refresh_may_run(array(SELECT id FROM mailbox)))); COMMIT
          """)
        try await eventually("nothing waits") { try await queue.statistics().totalReady == 0 }
        try await eventually("the lease is lost") { try await queue.renew([lease]).isEmpty }
        group.cancelAll()
      }
    }
  }

  @Test("a profile whose announcement was not heard is told at the next rescan")
  func lostAnnouncement() async throws {
    try await withCluster { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: profile)
      try await withThrowingTaskGroup(of: Void.self) { group in
        var configuration = self.configuration("only")
        configuration.rescan = .milliseconds(300)
        group.addTask { [configuration] in try await self.schedule(cluster, configuration) }
        try await eventually("an epoch") { (try? await queue.currentEpoch()) != nil }
        try await queue.update(profiles: [QueueProfile(id: profile.id, limit: 0)])
        try await cluster.enable(id)
        #expect(try await self.claimed(queue).map(\.job.mailbox) == [id])
        group.cancelAll()
      }
    }
  }

  @Test("a row that becomes due without any announcement is enqueued by its time")
  func watermark() async throws {
    try await withCluster { cluster, queue in
      let id = try await cluster.mailbox(on: try await cluster.profile(incoming: self.profileDraft))
      try await withThrowingTaskGroup(of: Void.self) { group in
        var configuration = self.configuration("only", leadership: .seconds(60))
        // What is enqueued later than at the beginning is enqueued by the watermark.
        configuration.rescan = .seconds(3_600)
        group.addTask { [configuration] in try await self.schedule(cluster, configuration) }
        try await cluster.enable(id)
        let first = try #require(try await self.claimed(queue).first)
        var second = first
        var due = Date.distantFuture
        // A page that was read before may enqueue the finished job once more; a worker's check would skip it.
        while Date() < due - 0.2 {
          try await queue.complete([second])
          let seconds = try await cluster.sql(
            """
            UPDATE mailbox_schedule SET next_due_at = now() + interval '5 s' WHERE kind = 'p'
            RETURNING extract(epoch FROM next_due_at)
            """)
          due = Date(timeIntervalSince1970: try #require(Double(seconds)))
          second = try #require(try await self.claimed(queue).first)
        }
        #expect(second.job == first.job && second.fence > first.fence)
        group.cancelAll()
      }
    }
  }

  @Test("a job that three workers in a row lose is set aside with an alert, and runs again when it is released")
  func poison() async throws {
    try await withCluster(.init(lease: .seconds(1), callTimeout: .seconds(30))) { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: profile)
      try await withThrowingTaskGroup(of: Void.self) { group in
        var configuration = self.configuration("only")
        configuration.upkeep = .milliseconds(200)
        group.addTask { [configuration] in try await self.schedule(cluster, configuration) }
        try await cluster.enable(id)
        let job = JobID(mailbox: id, kind: .poll)
        for _ in 0..<3 {
          // Renewed once and then never again: the worker died with it. One that ended before that does not count.
          try await eventually("a renewed lease") {
            let lease = try #require(try await self.claimed(queue).first)
            #expect(lease.job == job)
            return try await !queue.renew([lease]).isEmpty
          }
        }
        try await eventually("it is set aside") {
          // Whoever claims takes back what is lost.
          _ = try await queue.claim(limit: 1, worker: "test")
          return try await cluster.store.setAsideJobs(PageRequest(), for: cluster.principal).total == 1
        }
        #expect(try await cluster.alerts(of: id).map(\.code) == ["job.poisoned"])
        let place = Job(id: job, profile: profile.id, jobClass: .poll, dueMilliseconds: 0)
        try await eventually("it left the queue") { try await queue.inspect([place])[0].state == "absent" }
        #expect(try await cluster.store.releaseJobs([job], by: cluster.principal) == [job])
        #expect(try await self.claimed(queue).map(\.job) == [job])
        group.cancelAll()
      }
    }
  }

  @Test("an emptied queue is noticed although nothing is due")
  func emptied() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    try await withCluster(.init(lease: .seconds(1), callTimeout: .seconds(30), redis: redis)) { cluster, queue in
      _ = try await cluster.mailbox(on: try await cluster.profile(incoming: self.profileDraft))
      try await withThrowingTaskGroup(of: Void.self) { group in
        var configuration = self.configuration("only", leadership: .seconds(60))
        configuration.rescan = .seconds(3_600)
        group.addTask { [configuration] in try await self.schedule(cluster, configuration) }
        // The rescan after the opening may notice the first one; then there is only the watch.
        for epoch in Int64(1)...3 {
          try await eventually("epoch \(epoch)") {
            (try? await queue.currentEpoch()).flatMap { $0 } ?? 0 >= epoch
          }
          // Open: the rescan has begun, and with one mailbox it is over at once.
          try await eventually("an open queue") { (try? await queue.claim(limit: 1, worker: "test")) != nil }
          try redis.flushAll()
        }
        group.cancelAll()
      }
    }
    await redis.stop()
  }
}
