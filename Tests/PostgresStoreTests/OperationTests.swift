import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Poison, repairs, activity, stretched schedules", .timeLimit(.minutes(3)))
struct OperationTests {
  func poisoned(_ id: MailboxID, _ kind: JobKind = .poll, _ profile: ProfileID) -> PoisonedJob {
    PoisonedJob(
      job: JobID(mailbox: id, kind: kind).description, profileID: profile, reclaims: 3, worker: "w7",
      sinceMilliseconds: 1_700_000_000_000)
  }

  @Test("a poison job is remembered, told once, and runs again when it is released")
  func poison() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let job = JobID(mailbox: mailbox.id, kind: .poll)
      let gone = poisoned(MailboxID(99_999), .poll, profile.id)
      for _ in 0..<2 { try await store.setAside([poisoned(mailbox.id, .poll, profile.id), gone]) }
      #expect(try await store.scheduled([job]).map(\.runnable) == [false])
      #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.isEmpty)
      let aside = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(aside.incoming.notRunningReason == "set-aside" && aside.outgoing.notRunningReason == nil)
      #expect(try await store.requestPoll(of: [mailbox.id], by: database.principal).map(\.code) == ["not-running"])
      let listed = try await store.setAsideJobs(PageRequest(), for: database.principal)
      #expect(listed.total == 1)
      #expect(listed.items.map(\.job) == [job.description] && listed.items.map(\.worker) == ["w7"])
      let alert = try #require(
        try await store.alerts(AlertFilter(level: .error), PageRequest(), for: database.principal).items.first)
      #expect(alert.code == "job.poisoned" && alert.count == 1 && alert.mailboxID == mailbox.id)
      #expect(alert.remedy?.contains("postrider queue poison release \(job)") == true)

      let other = try await database.otherPrincipal()
      #expect(try await store.releaseJobs([job], by: other).isEmpty)
      #expect(try await store.setAsideJobs(PageRequest(), for: other).total == 0)
      var signals = store.signals().makeAsyncIterator()
      #expect(await signals.next() == .rescan)
      let released = try await store.releaseJobs(
        [JobID(mailbox: mailbox.id, kind: .send), job], by: database.principal)
      #expect(released == [job])
      #expect(await signals.next() == .jobs([job]))
      #expect(try await store.scheduled([job]).map(\.runnable) == [true])
      #expect(try await store.setAsideJobs(PageRequest(), for: database.principal).total == 0)
      #expect(try await store.alerts(AlertFilter(level: .error), PageRequest(), for: database.principal).total == 0)
      #expect(try await store.releaseJobs([job], by: database.principal).isEmpty)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'job.release'") == 1)
    }
  }

  @Test("a released test that a person waits for is due; the list goes page by page")
  func poisonedTests() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      var mailboxes: [Mailbox] = []
      for index in 0..<3 { mailboxes.append(try await database.runningMailbox("m\(index)@example.com")) }
      _ = try await store.requestTest(of: [mailboxes[0].id], by: database.principal)
      for mailbox in mailboxes { try await store.setAside([poisoned(mailbox.id, .test, profile.id)]) }
      #expect(try await store.requestTest(of: [mailboxes[0].id], by: database.principal)[0].code == "set-aside")
      var seen: [MailboxID] = []
      var cursor: String?
      repeat {
        let page = try await store.setAsideJobs(PageRequest(limit: 1, cursor: cursor), for: database.principal)
        seen += page.items.map(\.mailboxID)
        cursor = page.nextCursor
      } while cursor != nil
      #expect(seen == mailboxes.map(\.id))
      let job = JobID(mailbox: mailboxes[0].id, kind: .test)
      #expect(try await store.releaseJobs([job], by: database.principal) == [job])
      #expect(try await store.scheduled([job]).map(\.runnable) == [true])
    }
  }

  @Test("a repair is asked for once, done once and reported")
  func repair() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let asked = try await store.requestRepair(by: database.principal)
      #expect(asked.by == "Ada" && asked.finishedAt == nil && asked.report == nil)
      #expect(try await store.requestRepair(by: database.principal).id == asked.id)
      #expect(try await store.openRepairs() == [asked.id])
      let report = RepairReport(examined: 12, mended: ["slot-without-lease": 2], isComplete: true)
      try await store.finishRepair(asked.id, report)
      try await store.finishRepair(asked.id, RepairReport())
      let done = try await store.repairRequest(asked.id, for: database.principal)
      #expect(done.report == report && done.finishedAt != nil)
      #expect(try await store.openRepairs().isEmpty)
      let other = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("repair")) { try await store.repairRequest(asked.id, for: other) }
      #expect(try await store.requestRepair(by: database.principal).id != asked.id)
    }
  }

  @Test("sessions are counted by profile, failed ones too, and old counts are forgotten")
  func activity() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      _ = try await database.profile("Unused", isDefault: false)
      let mailbox = try await database.runningMailbox("a@example.com")
      let stale = database.lease(mailbox.id, .poll, profile.id)
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      _ = try await store.commit(
        database.outcome(
          lease, assignment, next: NextDue(at: Date() - 5, reason: "tcp.timeout"), failures: 1,
          failure: Failure(.tcpTimeout)))
      // The late outcome of an older session does not count.
      #expect(try await store.commit(database.outcome(stale, assignment)) == .fenced)
      await store.activity.flush()
      try await eventually("the next poll is due") { @Sendable in
        try await store.profileActivity(for: database.principal).map(\.due) == [1]
      }
      let activity = try await store.profileActivity(for: database.principal)
      // The passed test, the failed poll.
      #expect(activity.map(\.runs) == [2] && activity.map(\.failures) == [1] && activity.map(\.name) == ["Mail"])
      let other = try await database.otherPrincipal()
      #expect(try await store.profileActivity(for: other).isEmpty)
      try await database.sql("UPDATE profile_activity SET minute = minute - interval '20 minutes'")
      #expect(try await store.profileActivity(for: database.principal).map(\.runs) == [0])
      try await store.forgetOldActivity()
      #expect(try await database.int("SELECT count(*) FROM profile_activity") == 0)
      try await store.setPaused(true, .organization, by: database.principal)
      #expect(try await store.profileActivity(for: database.principal)[0].pausedAt != nil)
    }
  }

  @Test("a profile whose polls are late by more than one interval is late; paused ones and small delays are not")
  func late() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile(minimum: 2)
      for name in ["a", "b"] { _ = try await database.runningMailbox("\(name)@example.com") }
      let lateBy = { @Sendable (seconds: Int64) in
        try await database.sql(
          "UPDATE mailbox_schedule SET next_due_at = now() - $1 * interval '1 second' WHERE kind = 'p'",
          [.int(seconds)])
      }
      _ = try await lateBy(90)
      #expect(try await store.lateProfiles().isEmpty)
      _ = try await lateBy(250)
      let late = try #require(try await store.lateProfiles().first)
      #expect(late.profileID == profile.id && late.intervalSeconds == 120 && late.mailboxes == 2)
      #expect((250...300).contains(late.lateSeconds) && late.effectiveIntervalSeconds == 360)

      for _ in 0..<2 { try await store.report(stretched: [StretchedProfile(late: late, cause: "limit")]) }
      let alert = try #require(
        try await store.alerts(AlertFilter(level: .warning), PageRequest(), for: database.principal).items.first)
      #expect(alert.code == "schedule.stretched" && alert.profileID == profile.id && alert.count == 1)
      #expect(alert.text.contains("every 6 minutes instead of every 2 minutes"))
      #expect(alert.parameters["cause"] == "limit")
      try await store.setPaused(true, .profile(profile.id), by: database.principal)
      #expect(try await store.lateProfiles().isEmpty)
      // What is late because it was paused is not the fault of anybody's limit.
      try await store.setPaused(false, .profile(profile.id), by: database.principal)
      #expect(try await store.lateProfiles().isEmpty)
      try await store.report(stretched: [])
      #expect(try await store.alerts(AlertFilter(level: .warning), PageRequest(), for: database.principal).total == 0)
    }
  }

  @Test("open alerts are counted by level over all organizations, resolved ones are not")
  func openAlerts() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      #expect(try await store.openAlerts() == [.information: 0, .warning: 0, .error: 0])
      _ = try await database.profile(minimum: 2)
      _ = try await database.runningMailbox("a@example.com")
      try await database.sql(
        """
        INSERT INTO alert (organization_id, mailbox_id, profile_id, level, code, text, resolved_at)
        SELECT m.organization_id, CASE WHEN of_mailbox THEN m.id END, CASE WHEN NOT of_mailbox THEN m.profile_id END,
          level, code, 'text', CASE WHEN resolved THEN now() END
        FROM mailbox m, (VALUES
          (true, 'error', 'one', false), (true, 'error', 'two', false), (true, 'error', 'three', true),
          (false, 'error', 'four', false), (false, 'warning', 'five', false), (false, 'warning', 'six', true)
        ) AS v (of_mailbox, level, code, resolved)
        """)
      #expect(try await store.openAlerts() == [.information: 0, .warning: 1, .error: 3])
    }
  }

  @Test("the effective interval is counted from slot to slot, with its reason")
  func effectiveInterval() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile(minimum: 5)
      let mailbox = try await database.runningMailbox("a@example.com")
      let slots = PollingSlots(mailbox: mailbox.id, interval: .seconds(300))
      // A little after a slot two hours ago.
      let start = slots.next(after: Date() - 7_200) + 3
      func poll(at seconds: Double, _ failure: Failure? = nil) async throws -> DirectionState {
        try await database.sql(
          "UPDATE mailbox_schedule SET next_due_at = now() - interval '1 hour', requested = requested + 1 WHERE kind = 'p'"
        )
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        var outcome = database.outcome(
          lease, assignment, next: NextDue(at: Date() + 300, reason: "slot"), failures: failure == nil ? 0 : 1,
          failure: failure)
        outcome.run.startedAt = start + seconds
        outcome.run.dueAt = start + seconds - 1
        _ = try await store.commit(outcome)
        return try await store.mailbox(mailbox.id, for: database.principal).incoming
      }
      let first = try await poll(at: 0)
      #expect(first.intervalSeconds == 300 && first.effectiveIntervalSeconds == nil)
      let second = try await poll(at: 310)
      #expect(second.effectiveIntervalSeconds == 300 && second.effectiveIntervalReason == nil)
      // Sync now within the same slot changes nothing.
      #expect(try await poll(at: 400).effectiveIntervalSeconds == 300)
      // Late slots collapse into one.
      let late = try await poll(at: 910, Failure(.tcpTimeout))
      #expect(late.effectiveIntervalSeconds == 600 && late.effectiveIntervalReason == "overload")
      let waited = try await poll(at: 2_400)
      #expect(waited.effectiveIntervalSeconds == 1_500 && waited.effectiveIntervalReason == "tcp.timeout")
      try await database.sql(
        "UPDATE server_profile SET resumed_at = to_timestamp($1 / 1000000.0)",
        [.int((start + 3_100).microsecondsSince1970)])
      let paused = try await poll(at: 3_300)
      #expect(paused.effectiveIntervalSeconds == 900 && paused.effectiveIntervalReason == "paused")
      try await store.report(stretched: [
        StretchedProfile(
          late: LateProfile(profileID: profile.id, intervalSeconds: 300, mailboxes: 1, lateSeconds: 500), cause: "limit"
        )
      ])
      #expect(try await poll(at: 3_900).effectiveIntervalReason == "limit")
      // A change of slots by the next test or pause starts anew.
      try await store.setPaused(true, .mailbox(mailbox.id), by: database.principal)
      try await store.setPaused(false, .mailbox(mailbox.id), by: database.principal)
      #expect(try await store.mailbox(mailbox.id, for: database.principal).incoming.effectiveIntervalSeconds == nil)
    }
  }

  @Test("a passed test ends the back-off of its direction, and only of that one")
  func testEndsBackoff() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      func backOff() async throws {
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        _ = try await store.commit(
          database.outcome(
            lease, assignment, next: NextDue(at: Date() + 3_600, reason: "tcp.timeout"), failures: 4,
            failure: Failure(.tcpTimeout)))
      }
      func test(_ direction: Direction) async throws -> Date {
        _ = try await store.requestTest(of: [mailbox.id], by: database.principal)
        let (lease, assignment) = try await database.assignment(mailbox, .test)
        _ = try await store.commit(
          database.outcome(
            lease, assignment, directions: [DirectionChange(direction, status: .success, enabled: true)]))
        return try #require(try await store.mailbox(mailbox.id, for: database.principal).incoming.nextRunAt)
      }
      try await backOff()
      #expect(try await test(.outgoing).timeIntervalSinceNow > 3_000)
      #expect(try await test(.incoming).timeIntervalSinceNow < 10)
      let row = try await database.sql(
        "SELECT failures, coalesce(failure_code, '') FROM mailbox_schedule WHERE kind = 'p'"
      ).map { (try $0.int(), try $0.text()) }[0]
      #expect(row == (0, ""))
      // A slot that nothing delays stays where it is.
      try await database.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '1 hour', reason = 'slot' WHERE kind = 'p'")
      #expect(try await test(.incoming).timeIntervalSinceNow > 3_000)
    }
  }
}
