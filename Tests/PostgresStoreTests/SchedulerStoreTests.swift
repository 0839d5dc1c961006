import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("SchedulerStore: leadership, due rows, announcements")
struct SchedulerStoreTests {
  @Test("one leads; another takes over when the term ends or is resigned")
  func leadership() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let start = ContinuousClock.now
      let long = Duration.seconds(300)
      let first = try #require(try await store.lead(holder: "a", duration: long))
      #expect(first.trustedUntil <= ContinuousClock.now + long && first.trustedUntil >= start + long)
      #expect(try await store.lead(holder: "b", duration: long) == nil)
      let renewed = try #require(try await store.lead(holder: "a", duration: long))
      #expect(renewed.term == first.term)
      #expect(try await store.scheduleStatistics(for: database.principal).leader == "a")

      try await store.resign(holder: "b")
      #expect(try await store.lead(holder: "b", duration: long) == nil)
      try await store.resign(holder: "a")
      #expect(try await store.scheduleStatistics(for: database.principal).leader == nil)
      let second = try #require(try await store.lead(holder: "b", duration: .milliseconds(100)))
      #expect(second.term > first.term)
      try await eventually("the term of b ended") { try await store.lead(holder: "a", duration: long) != nil }
    }
  }

  @Test("epochs grow by one")
  func epochs() async throws {
    try await TestDatabase.with { (database) async throws in
      #expect(try await database.store.nextEpoch() == 1)
      #expect(try await database.store.nextEpoch() == 2)
    }
  }

  @Test("due rows come page by page in order, each once")
  func paging() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      var ids: [MailboxID] = []
      for index in 0..<7 { ids.append(try await database.mailbox("m\(index)@example.com").id) }
      _ = try await database.store.setApproval(.approved, of: ids, by: database.principal)
      // Several rows share a due time, so that the order within it counts.
      try await database.sql(
        """
        UPDATE mailbox_schedule SET enabled = true, next_due_at = now() - interval '1 hour' * (mailbox_id % 3)
        WHERE kind IN ('p', 's')
        """)
      var jobs: [Job] = []
      var position: DuePage.Position? = DuePage.Position(dueMicroseconds: 0)
      var pages = 0
      while let from = position {
        let page = try await database.store.due(after: from, limit: 4)
        jobs += page.jobs
        position = page.next
        pages += 1
      }
      #expect(pages == 4)
      #expect(jobs.count == 14 && Set(jobs.map(\.id)).count == 14)
      #expect(jobs.map(\.dueMilliseconds) == jobs.map(\.dueMilliseconds).sorted())
      #expect(jobs.allSatisfy { $0.profile == profile.id })

      // The watermark: nothing new after now, until a row becomes due.
      let now = try await database.store.due(after: DuePage.Position(dueMicroseconds: 0), limit: 100).nowMicroseconds
      let mark = DuePage.Position(dueMicroseconds: now)
      #expect(try await database.store.due(after: mark, limit: 100).jobs.isEmpty)
      #expect(try await database.store.nextDueMicroseconds() == nil)
      _ = try await database.store.requestTest(of: [ids[0]], by: database.principal)
      let test = try await database.store.due(after: mark, limit: 100).jobs
      #expect(test.map(\.id) == [JobID(mailbox: ids[0], kind: .test)])
      #expect(test.first?.jobClass == .interactive)
      try await database.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '1 hour' WHERE mailbox_id = $1 AND kind = 'p'",
        [.id(ids[0])])
      #expect(try await database.store.nextDueMicroseconds() ?? 0 > now)
    }
  }

  @Test("rows say whether they may run now; absent ones are left out")
  func scheduled() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let running = try await database.runningMailbox("a@example.com")
      let pending = try await database.mailbox("b@example.com")
      let ids = [
        JobID(mailbox: running.id, kind: .poll), JobID(mailbox: running.id, kind: .send),
        JobID(mailbox: pending.id, kind: .poll), JobID(mailbox: MailboxID(99_999), kind: .poll),
      ]
      let rows = try await database.store.scheduled(ids)
      let runnable = Dictionary(uniqueKeysWithValues: rows.map { ($0.job.id, $0.runnable) })
      #expect(runnable == [ids[0]: true, ids[1]: false, ids[2]: false])
    }
  }

  @Test("profiles tell where connections count, and grant nothing when inactive or gone")
  func queueProfiles() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      #expect(try await database.store.queueProfiles().isEmpty)
      _ = try await database.mailbox("a@example.com")
      #expect(try await database.store.queueProfiles() == [QueueProfile(id: profile.id, limit: 10)])
      try await database.sql(
        "UPDATE server_profile SET is_active = false, incoming_credentials = 'profile', outgoing_credentials = 'integrated'"
      )
      let stopped = QueueProfile(
        id: profile.id, limit: 0, countsIncomingOnProfile: true, countsOutgoingOnProfile: true)
      #expect(try await database.store.queueProfile(profile.id) == stopped)
      #expect(try await database.store.queueProfile(ProfileID(99_999)).limit == 0)
    }
  }

  @Test("what people and outcomes change is announced; a lost connection asks for a rescan")
  func signals() async throws {
    try await TestDatabase.with { database in
      var signals = database.store.signals().makeAsyncIterator()
      #expect(await signals.next() == .rescan)
      let profile = try await database.profile()
      #expect(await signals.next() == .profile(profile.id))
      let mailbox = try await database.mailbox("a@example.com")
      // The test's row takes the profile, then the queue learns of the profile.
      var seen: Set<ScheduleSignal> = []
      while !seen.contains(.profile(profile.id)) { seen.insert(try #require(await signals.next())) }
      _ = try await database.store.setApproval(.approved, of: [mailbox.id], by: database.principal)
      try await database.pass(mailbox)
      #expect(await signals.next() == .jobs([JobID(mailbox: mailbox.id, kind: .test)]))
      guard case .jobs(let enabled) = await signals.next() else {
        Issue.record("no announcement of the enabled directions")
        return
      }
      #expect(
        Set(enabled) == [JobID(mailbox: mailbox.id, kind: .poll), JobID(mailbox: mailbox.id, kind: .send)])

      try await database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postrider listen' AND datname = $1",
        [.text(database.name)])
      #expect(await signals.next() == .rescan)
      _ = try await database.store.requestPoll(of: [mailbox.id], by: database.principal)
      #expect(await signals.next() == .jobs([JobID(mailbox: mailbox.id, kind: .poll)]))
    }
  }

  @Test("a cancelled reader ends the listening connection")
  func signalsEnd() async throws {
    try await TestDatabase.with { database in
      let listeners = { @Sendable in
        try await database.int(
          "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postrider listen' AND datname = $1",
          [.text(database.name)])
      }
      let task = Task { for await _ in database.store.signals() {} }
      try await eventually("it listens") { try await listeners() == 1 }
      task.cancel()
      await task.value
      try await eventually("it stopped") { try await listeners() == 0 }
    }
  }

  @Test(
    "payloads",
    arguments: [
      (
        "j 12p 13t",
        ScheduleSignal.jobs([JobID(mailbox: MailboxID(12), kind: .poll), JobID(mailbox: MailboxID(13), kind: .test)])
      ),
      ("p 5", .profile(ProfileID(5))), ("r", .rescan), ("", .rescan), ("j 12p nonsense", .rescan), ("p x", .rescan),
    ])
  func payload(_ text: String, _ signal: ScheduleSignal) { #expect(SchedulePayload.parse(text) == signal) }
}
