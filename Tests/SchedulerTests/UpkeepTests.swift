import FoundationEssentials
import PostgresStore
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import Scheduler

@Suite("The leading scheduler keeps the queue in order", .serialized, .timeLimit(.minutes(5)))
struct UpkeepTests {
  let profileDraft = ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none)

  /// A cluster's database with leaders that work on one memory queue.
  func withLeaders(
    _ count: Int = 1, lease: Duration = .seconds(15), configure: (inout SchedulerConfiguration) -> Void = { _ in },
    _ body: @escaping @Sendable (TestCluster, ScriptedQueue) async throws -> Void
  ) async throws {
    let cluster = try await TestCluster.make()
    let queue = ScriptedQueue(lease: lease)
    var configuration = SchedulerConfiguration(holder: "test")
    configuration.upkeep = .milliseconds(200)
    configuration.check = .milliseconds(50)
    configuration.lateness = .milliseconds(200)
    configure(&configuration)
    let stores = (0..<count).map { _ in cluster.makeStore(poolSize: 4) }
    let result = await withTaskGroup(of: Void.self, returning: Result<Void, any Error>.self) { group in
      for store in stores {
        let term = SchedulerTerm(store: store, queue: queue, configuration: configuration, logger: cluster.logger)
        group.addTask { await term.run() }
      }
      defer { group.cancelAll() }
      do { return .success(try await body(cluster, queue)) } catch { return .failure(error) }
    }
    for store in stores { await store.close() }
    await cluster.close()
    try result.get()
  }

  func claimed(_ queue: ScriptedQueue) async throws -> [Lease] {
    try await eventually("a job") {
      guard let claim = try? await queue.claim(limit: 100, worker: "test") else { return nil }
      return claim.leases.isEmpty ? nil : claim.leases
    }
  }

  func place(_ queue: ScriptedQueue, _ job: JobID, _ profile: ProfileID) async throws -> JobLocation {
    try await queue.inspect([Job(id: job, profile: profile, jobClass: .poll, dueMilliseconds: 0)])[0]
  }

  @Test("a moved mailbox runs under its new profile only after its lease on the old one has ended", arguments: [1, 2])
  func move(leaders: Int) async throws {
    try await withLeaders(leaders) { cluster, queue in
      let old = try await cluster.profile("Old", incoming: self.profileDraft)
      let new = try await cluster.profile("New", incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: old)
      try await cluster.enable(id)
      let lease = try #require(try await self.claimed(queue).first)
      #expect(lease.profile == old.id)
      _ = try await cluster.store.updateMailbox(id, MailboxChange(profileID: new.id), by: cluster.principal)
      _ = try await cluster.store.requestTest(of: [id], by: cluster.principal)
      try await eventually("the lease is lost") { try await queue.renew([lease]).isEmpty }
      // Several rounds of the upkeep: the lease is still there, so nothing runs under the new profile.
      let rounds = queue.script.withLock { $0.withdrawn.count }
      try await eventually("more rounds") { queue.script.withLock { $0.withdrawn.count } >= rounds + 9 }
      let test = JobID(mailbox: id, kind: .test)
      #expect(try await self.place(queue, test, new.id).state == "absent")
      #expect(!queue.enqueuedJobs.contains { $0.profile == new.id })
      try await queue.complete([lease])
      let next = try await self.claimed(queue)
      #expect(next.map(\.job) == [test] && next.map(\.profile) == [new.id])
      #expect(try await self.place(queue, lease.job, old.id).state == "absent")
      #expect(queue.memory.verify().isEmpty)
    }
  }

  @Test("a moved mailbox whose job only waits is withdrawn from the old profile at once")
  func moveWaiting() async throws {
    try await withLeaders { cluster, queue in
      let old = try await cluster.profile("Old", incoming: self.profileDraft)
      let new = try await cluster.profile("New", incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: old)
      try await cluster.enable(id)
      let job = JobID(mailbox: id, kind: .poll)
      try await eventually("it waits") { try await self.place(queue, job, old.id).state == "ready" }
      _ = try await cluster.store.updateMailbox(id, MailboxChange(profileID: new.id), by: cluster.principal)
      try await eventually("it is gone") { try await self.place(queue, job, old.id).state == "absent" }
      try await eventually("the move is finished") { try await cluster.store.moves(limit: 1).isEmpty }
    }
  }

  @Test("a poison job is set aside in PostgreSQL and leaves the queue; released, it is enqueued")
  func poison() async throws {
    try await withLeaders { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: profile)
      try await cluster.enable(id)
      let lease = try #require(try await self.claimed(queue).first)
      let job = lease.job
      try await queue.complete([lease])
      queue.script.withLock {
        $0.poisoned = [
          PoisonedJob(
            job: job.description, profileID: profile.id, reclaims: 3, worker: "w", sinceMilliseconds: 1_700_000_000_000)
        ]
      }
      try await eventually("it left the queue") { queue.script.withLock(\.poisoned).isEmpty }
      #expect(
        try await cluster.store.setAsideJobs(PageRequest(), for: cluster.principal).items.map(\.job) == ["\(job)"])
      #expect(try await cluster.alerts(of: id).map(\.code) == ["job.poisoned"])
      #expect(queue.script.withLock(\.withdrawn).contains { $0.id == job && $0.profile == profile.id })
      queue.forget()
      try await cluster.makeDue([id])
      #expect(try await cluster.store.releaseJobs([job], by: cluster.principal) == [job])
      #expect(try await self.claimed(queue).map(\.job) == [job])
    }
  }

  @Test("a repair that a person asked for goes twice to the end, in small steps, and is reported")
  func repair() async throws {
    try await withLeaders { cluster, queue in
      queue.script.withLock {
        $0.repairs = [
          RepairReport(examined: 10, mended: ["job-in-two-places": 1], isComplete: true),
          RepairReport(examined: 500, mended: ["slot-without-lease": 2]),
          RepairReport(examined: 7, mended: ["slot-without-lease": 1], isComplete: true),
        ]
      }
      let asked = try await cluster.store.requestRepair(by: cluster.principal)
      let done = try await eventually("it is done", within: .seconds(40)) {
        let repair = try await cluster.store.repairRequest(asked.id, for: cluster.principal)
        return repair.finishedAt == nil ? nil : repair
      }
      let report = try #require(done.report)
      #expect(report.examined == 517 && report.isComplete)
      #expect(report.mended == ["job-in-two-places": 1, "slot-without-lease": 3])
      // Asked for once, so its last answer is not taken again.
      let big = queue.script.withLock { $0.repairSizes.count { $0 > 500 } }
      #expect(big == 3)
    }
  }

  @Test("the invariants are checked again and again while nothing else waits")
  func continuousCheck() async throws {
    try await withLeaders { _, queue in
      try await eventually("checks") { queue.script.withLock(\.repairSizes).count >= 5 }
    }
  }

  @Test("two thousand profiles are paused and resumed at once; a request made meanwhile does not wait for them")
  func pauseThousands() async throws {
    try await withLeaders { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: profile)
      try await cluster.enable(id)
      try await eventually("it waits") { try await queue.statistics().totalReady == 1 }
      // A profile reaches the queue with its first mailbox.
      try await cluster.sql(
        """
        INSERT INTO server_profile (organization_id, name, name_key, type, incoming_host, incoming_port, incoming_tls,
          incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
          outgoing_mechanism)
        SELECT organization_id, 'p' || n, 'p' || n, type, incoming_host, incoming_port, incoming_tls,
          incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
          outgoing_mechanism
        FROM server_profile, generate_series(1, 2000) n WHERE server_profile.id = \(profile.id);
        INSERT INTO mailbox (organization_id, address, address_key, user_id, profile_id, incoming_method, outgoing_method)
        SELECT m.organization_id, 'b' || p.id, 'b' || p.id, m.user_id, p.id, m.incoming_method, m.outgoing_method
        FROM server_profile p, mailbox m WHERE m.id = \(id) AND p.id <> \(profile.id)
        """)
      func paused(_ paused: Bool) async throws -> Bool {
        let known = queue.script.withLock(\.profiles)
        let last = Dictionary(known.map { ($0.id, $0.paused) }, uniquingKeysWith: { $1 })
        return last.count == 2_001 && last.values.allSatisfy { $0 == paused }
      }
      queue.script.withLock { $0.profiles = [] }
      try await cluster.store.setPaused(true, .organization, by: cluster.principal)
      try await eventually("all are paused") { try await paused(true) }
      #expect(try await queue.claim(limit: 10, worker: "test").leases.isEmpty)
      #expect(try await queue.statistics().totalReady == 1)
      let began = ContinuousClock.now
      try await cluster.store.setPaused(false, .organization, by: cluster.principal)
      _ = try await cluster.store.requestPoll(of: [id], by: cluster.principal)
      #expect(try await self.claimed(queue).map(\.job.mailbox) == [id])
      #expect(ContinuousClock.now - began < .seconds(30))
      try await eventually("all are resumed") { try await paused(false) }

      // One by one: their announcements are taken together.
      queue.script.withLock {
        $0.profiles = []
        $0.updateCalls = 0
      }
      try await cluster.sql(
        """
        BEGIN; UPDATE server_profile SET paused_at = now();
        SELECT pg_notify('postrider_schedule', 'p ' || id) FROM server_profile; COMMIT
        """)
      try await eventually("all are paused") { try await paused(true) }
      #expect(queue.script.withLock(\.updateCalls) < 500)
    }
  }

  @Test("a paused mailbox's session is not withdrawn")
  func pausedMailbox() async throws {
    try await withLeaders(lease: .seconds(600)) { cluster, queue in
      let id = try await cluster.mailbox(on: try await cluster.profile(incoming: self.profileDraft))
      try await cluster.enable(id)
      let lease = try #require(try await self.claimed(queue).first)
      queue.script.withLock { $0.withdrawn = [] }
      try await cluster.store.setPaused(true, .mailbox(id), by: cluster.principal)
      // A later announcement of another mailbox shows that the first was carried out.
      let other = try await cluster.mailbox(
        "o@example.org", on: try await cluster.profile("B", incoming: self.profileDraft))
      try await cluster.enable(other)
      #expect(try await self.claimed(queue).map(\.job.mailbox) == [other])
      #expect(try await queue.renew([lease]).count == 1)
      #expect(!queue.script.withLock(\.withdrawn).contains { $0.id == lease.job })
    }
  }

  @Test("an emptied queue is filled with what is urgent first, and at once; an ordinary rescan takes its time")
  func fillOrder() async throws {
    try await withLeaders(configure: {
      $0.pageSize = 5
      $0.rescanRowsPerSecond = 5
      $0.rescan = .milliseconds(100)
    }) { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft, connections: 300)
      let ids = try await cluster.mailboxes((1...40).map { "m\($0)@example.org" }, on: profile)
      try await cluster.enable(ids)
      try await eventually("all wait") { try await queue.statistics().totalReady == 40 }
      // Overdue for an hour: no leader's watermark finds them again. The last one is asked for by a person.
      try await cluster.sql(
        """
        UPDATE mailbox_schedule SET next_due_at = now() - interval '1 hour' WHERE kind = 'p';
        UPDATE mailbox_schedule SET next_due_at = now() - interval '1 minute', job_class = 0, requested = 1
        WHERE kind = 'p' AND mailbox_id = \(ids[39])
        """)
      queue.forget()
      queue.memory.empty()
      try await eventually("all wait again") { (try? await queue.statistics().totalReady) == 40 }
      // All at once, which no page of the rescan under way is. Such a page may come first.
      let calls = try await eventually("the filling is noted") { () -> [[Job]]? in
        let noted = queue.script.withLock(\.enqueued)
        return noted.firstIndex { $0.count > 5 }.map { Array(noted[..<$0]) }
      }
      #expect(calls.contains { $0.map(\.id.mailbox) == [ids[39]] })
      // Now by the rescan alone: eight pages of five rows, a second each.
      try await queue.withdraw(
        ids.map { Job(id: JobID(mailbox: $0, kind: .poll), profile: profile.id, jobClass: .poll, dueMilliseconds: 0) })
      let began = ContinuousClock.now
      try await eventually("all wait once more") { try await queue.statistics().totalReady == 40 }
      #expect(ContinuousClock.now - began > .seconds(4))
    }
  }

  @Test("polls that stay late raise an alert with the cause, which ends with the lateness")
  func stretched() async throws {
    try await withLeaders { cluster, queue in
      let profile = try await cluster.profile(incoming: self.profileDraft)
      let id = try await cluster.mailbox(on: profile)
      queue.script.withLock {
        $0.numbers = [
          ProfileQueueStatistics(
            profileID: profile.id, ready: ["poll": 5], slotsInUse: 10, limit: 10, limitIsPerProfile: true,
            blocked: ["limit": 4, "breaker": 1])
        ]
      }
      try await cluster.enable(id)
      try await cluster.sql("UPDATE mailbox_schedule SET next_due_at = now() - interval '125 seconds' WHERE kind = 'p'")
      let alert = try await eventually("an alert") { try await cluster.alerts().first }
      #expect(alert.code == "schedule.stretched" && alert.level == .warning && alert.profileID == profile.id)
      #expect(alert.parameters["cause"] == "limit" && alert.parameters["effectiveIntervalSeconds"] == "180")
      queue.script.withLock { $0.numbers[0].blocked = [:] }
      queue.script.withLock { $0.numbers[0].slotsInUse = 1 }
      try await eventually("another cause") { try await cluster.alerts().first?.parameters["cause"] == "overload" }
      queue.script.withLock { $0.numbers[0].blocked = ["breaker": 9] }
      try await eventually("a third cause") { try await cluster.alerts().first?.parameters["cause"] == "breaker" }
      // A poll under way for longer than its interval is nobody's overload.
      queue.script.withLock { $0.numbers[0].ready = [:] }
      try await eventually("what runs is not late") { try await cluster.alerts().isEmpty }
      queue.script.withLock { $0.numbers[0].ready = ["poll": 1] }
      try await eventually("an alert again") { try await cluster.alerts().count == 1 }
      try await cluster.sql("UPDATE mailbox_schedule SET next_due_at = now() + interval '1 minute' WHERE kind = 'p'")
      try await eventually("the alert is over") { try await cluster.alerts().isEmpty }
    }
  }

  @Test("what became due while nobody led is enqueued at once by the next leader")
  func overlap() async throws {
    // The rescan would need minutes for what stands before it.
    try await withLeaders(configure: {
      $0.pageSize = 1
      $0.rescanRowsPerSecond = 1
    }) { cluster, queue in
      // Leaders begin with the cluster, so this one is made by a term of its own.
      let profile = try await cluster.profile(incoming: self.profileDraft, connections: 300)
      let ids = try await cluster.mailboxes((1...30).map { "m\($0)@example.org" }, on: profile)
      try await cluster.enable(ids)
      try await eventually("all wait") { try await queue.statistics().totalReady == 30 }
      try await cluster.sql("UPDATE mailbox_schedule SET next_due_at = now() - interval '20 seconds' WHERE kind = 'p'")
      let second = ScriptedQueue()
      try await second.open(epoch: 99, delay: .zero)
      var configuration = SchedulerConfiguration(holder: "second")
      // The rescan's second page, of one row, comes half a minute after the first.
      configuration.pageSize = 29
      configuration.rescanRowsPerSecond = 1
      let store = cluster.makeStore()
      let term = SchedulerTerm(store: store, queue: second, configuration: configuration, logger: cluster.logger)
      let running = Task { await term.run() }
      try await eventually("the second queue has all", within: .seconds(25)) {
        try await second.statistics().totalReady == 30
      }
      running.cancel()
      await running.value
      await store.close()
    }
  }
}

@Suite("Parts of the scheduler")
struct SchedulerPartTests {
  @Test("settling waits for no passage that began later, nor for one that nobody holds any more")
  func gate() async throws {
    let gate = PassageGate()
    await gate.settle()
    var dropped: PassageGate.Passage? = gate.begin()
    #expect(dropped != nil)
    dropped = nil
    await gate.settle()
    let first = gate.begin()
    let settled = Flag()
    let waiting = Task {
      await gate.settle()
      settled.value.withLock { $0 = true }
    }
    // A passage begun after the settling: known by the settling that needs it to end.
    try await eventually("the settling has begun") { gate.waiterCount == 1 }
    let later = gate.begin()
    first.end()
    await waiting.value
    #expect(settled.value.withLock { $0 })
    later.end()
  }

  @Test("a passage under way keeps the settling back")
  func gateWaits() async throws {
    let gate = PassageGate()
    let passage = gate.begin()
    let ended = Flag()
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask {
        await gate.settle()
        return ended.value.withLock { $0 }
      }
      group.addTask {
        try await eventually("somebody waits") { gate.waiterCount == 1 }
        ended.value.withLock { $0 = true }
        passage.end()
        return true
      }
      for try await result in group { #expect(result) }
    }
  }

  @Test("the lag is the oldest row of either reader and grows while nothing moves")
  func lag() async throws {
    let lag = ScheduleLag()
    #expect(lag.seconds == 0)
    let began = ContinuousClock.now
    /// Seconds of this test so far: by no more may a lag have grown.
    func passed() -> Double { (ContinuousClock.now - began) / .seconds(1) }
    lag.note(.watermark, dueMicroseconds: 5_000_000, nowMicroseconds: 7_000_000)
    lag.note(.rescan, dueMicroseconds: 1_000_000, nowMicroseconds: 61_000_000)
    let oldest = lag.seconds
    #expect(oldest >= 60 && oldest <= 60 + passed())
    lag.note(.rescan, dueMicroseconds: nil, nowMicroseconds: 0)
    let before = lag.seconds
    #expect(before >= 2 && before <= 2 + passed())
    try await eventually("it grows") { lag.seconds > before }
    lag.note(.watermark, dueMicroseconds: nil, nowMicroseconds: 0)
    #expect(lag.seconds == 0)
  }

  @Test("a late profile's effective interval is a whole number of intervals")
  func effective() {
    func effective(_ late: Int) -> Int {
      LateProfile(profileID: ProfileID(1), intervalSeconds: 300, mailboxes: 1, lateSeconds: late)
        .effectiveIntervalSeconds
    }
    #expect([301, 600, 601, 3_000].map(effective) == [600, 600, 900, 3_000])
  }
}

private final class Flag: Sendable {
  let value = Mutex(false)
}
