import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Changes of profiles and mailboxes", .timeLimit(.minutes(3)))
struct ChangeTests {
  @Test("a profile's limits and weight reach the queue; a stale version and wrong values are refused")
  func profile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      #expect(profile.weight == 1)
      let changed = try await store.updateProfile(
        profile.id, ProfileChange(maximumConcurrentConnections: 3, weight: 7, version: profile.version),
        by: database.principal)
      #expect(changed.maximumConcurrentConnections == 3 && changed.weight == 7 && changed.isActive)
      #expect(changed.version == profile.version + 1)
      #expect(try await store.queueProfile(profile.id) == QueueProfile(id: profile.id, limit: 3, weight: 7))
      await #expect(throws: StoreError.stale) {
        try await store.updateProfile(
          profile.id, ProfileChange(weight: 1, version: profile.version), by: database.principal)
      }
      let same = try await store.updateProfile(profile.id, ProfileChange(weight: 7), by: database.principal)
      #expect(same.version == changed.version)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'profile.update'") == 1)
      let error = await #expect(throws: StoreError.self) {
        try await store.updateProfile(
          profile.id,
          ProfileChange(
            maximumConcurrentConnections: 301, minimumPollingIntervalMinutes: 1_441, weight: 0, maximumFailedLogins: 0),
          by: database.principal)
      }
      guard case .invalid(let problems) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(
        problems.map(\.pointer)
          == ["/weight", "/minimumPollingIntervalMinutes", "/maximumConcurrentConnections", "/maximumFailedLogins"])
      let other = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("server profile")) {
        try await store.updateProfile(profile.id, ProfileChange(weight: 2), by: other)
      }
    }
  }

  @Test("an inactive profile stops its mailboxes and starts them again, without touching their rows")
  func inactiveProfile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      _ = try await store.updateProfile(profile.id, ProfileChange(isActive: false), by: database.principal)
      let lease = database.lease(mailbox.id, .poll, profile.id)
      #expect(try await store.check([lease]) == [lease.job: .skip("disabled")])
      #expect(try await store.queueProfile(profile.id).limit == 0)
      #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10, only: .running).jobs.isEmpty)
      let stopped = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(stopped.incoming.notRunningReason == "profile-inactive")
      // Whatever else changes the mailbox meanwhile must not lose it.
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(isActive: false), by: database.principal)
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(isActive: true), by: database.principal)
      _ = try await store.updateProfile(profile.id, ProfileChange(isActive: true), by: database.principal)
      #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10, only: .running).jobs.count == 1)
    }
  }

  @Test("a shorter interval pulls waiting polls forward, a longer one and back-offs stay")
  func interval() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile(minimum: 1_440)
      let slot = try await database.runningMailbox("slot@example.com")
      let backoff = try await database.runningMailbox("backoff@example.com")
      try await database.sql(
        """
        UPDATE mailbox_schedule SET next_due_at = now() + interval '20 hours',
          reason = CASE WHEN mailbox_id = $1 THEN 'slot' ELSE 'tcp.timeout' END WHERE kind = 'p'
        """, [.id(slot.id)])
      let minutes = { @Sendable (id: MailboxID) in
        try await database.int(
          "SELECT ceil(extract(epoch FROM next_due_at - now()) / 60)::bigint FROM mailbox_schedule WHERE mailbox_id = $1 AND kind = 'p'",
          [.id(id)])
      }
      _ = try await store.updateProfile(
        profile.id, ProfileChange(minimumPollingIntervalMinutes: 10), by: database.principal)
      #expect(try await minutes(slot.id) <= 10)
      #expect(try await minutes(backoff.id) > 1_000)
      let before = try await minutes(slot.id)
      _ = try await store.updateProfile(
        profile.id, ProfileChange(minimumPollingIntervalMinutes: 60), by: database.principal)
      #expect(try await minutes(slot.id) <= before)
    }
  }

  @Test("who is refused while the profile is edited does not wait for the next probe; without an edit it does")
  func refusedMeanwhile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let later = NextDue(at: Date(timeIntervalSinceNow: 300), reason: FailureCode.tlsExpired.rawValue)
      func waits() async throws -> Int64 {
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        if try await database.int("SELECT count(*) FROM run WHERE kind = 'p'") == 1 {
          _ = try await store.updateProfile(profile.id, ProfileChange(weight: 2), by: database.principal)
        }
        var outcome = database.outcome(lease, assignment, next: later, failure: Failure(.tlsExpired))
        outcome.profileVersion = assignment.settings.profileVersion
        _ = try await store.commit(outcome)
        return try await database.int(
          "SELECT extract(epoch FROM next_due_at - now())::bigint FROM mailbox_schedule WHERE kind = 'p'")
      }
      #expect(try await waits() > 200)
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
      #expect(try await waits() <= 60)
    }
  }

  @Test("a mailbox that moves runs nowhere until the move is finished, and is tested again")
  func move() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let old = try await database.profile("Old")
      let new = try await database.profile("New", isDefault: false)
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let moved = try await store.updateMailbox(
        mailbox.id, MailboxChange(profileID: new.id, version: mailbox.version), by: database.principal)
      #expect(moved.profileID == new.id && moved.version == mailbox.version + 1)
      #expect(moved.incoming.status == .notRun && !moved.incoming.enabled)
      #expect(moved.outgoing.notRunningReason == "not-tested")
      await #expect(throws: StoreError.stale) {
        try await store.updateMailbox(
          mailbox.id, MailboxChange(profileID: old.id, version: mailbox.version), by: database.principal)
      }
      // The old session writes nothing any more.
      #expect(try await store.commit(database.outcome(lease, assignment)) == .fenced)
      #expect(try await store.moves(limit: 10) == [MailboxMove(mailbox: mailbox.id, from: old.id)])

      // A test is taken and waits for the end of the move.
      #expect(try await store.requestTest(of: [mailbox.id], by: database.principal).map(\.ok) == [true])
      let test = database.lease(mailbox.id, .test, new.id)
      #expect(try await store.check([test]) == [test.job: .skip("disabled")])
      #expect(try await store.scheduled([test.job]).map(\.runnable) == [false])
      var signals = store.signals().makeAsyncIterator()
      #expect(await signals.next() == .rescan)
      try await store.finish(try await store.moves(limit: 10))
      #expect(try await store.moves(limit: 10).isEmpty)
      #expect(await signals.next() == .jobs([test.job]))
      #expect(
        try await store.scheduled([test.job]).map { $0.runnable && $0.job.profile == new.id } == [true])
      guard case .run = try await store.check([test])[test.job] else {
        Issue.record("the test does not run")
        return
      }
      // Fences of the old profile's shard do not count in the new one's.
      #expect(try await database.int("SELECT max(last_fence) FROM mailbox_schedule") == 0)
    }
  }

  @Test("to a profile that does not exist nothing moves; to its own it changes nothing")
  func moveNowhere() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let error = await #expect(throws: StoreError.self) {
        try await database.store.updateMailbox(
          mailbox.id, MailboxChange(profileID: ProfileID(99_999)), by: database.principal)
      }
      guard case .invalid(let problems) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(problems.map(\.pointer) == ["/profileID"])
      let same = try await database.store.updateMailbox(
        mailbox.id, MailboxChange(profileID: profile.id), by: database.principal)
      #expect(same.version == mailbox.version && same.incoming.enabled)
      #expect(try await database.store.moves(limit: 1).isEmpty)
    }
  }

  @Test("a move there and back waits for both withdrawals")
  func thereAndBack() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let old = try await database.profile("Old")
      let new = try await database.profile("New", isDefault: false)
      let mailbox = try await database.runningMailbox("a@example.com")
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(profileID: new.id), by: database.principal)
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(profileID: old.id), by: database.principal)
      let moves = try await store.moves(limit: 10)
      #expect(Set(moves.map(\.from)) == [old.id, new.id])
      try await store.finish([moves[0]])
      let test = database.lease(mailbox.id, .test, old.id)
      _ = try await store.requestTest(of: [mailbox.id], by: database.principal)
      #expect(try await store.check([test]) == [test.job: .skip("disabled")])
      try await store.finish([moves[1]])
      guard case .run = try await store.check([test])[test.job] else {
        Issue.record("the test does not run")
        return
      }
    }
  }
}
