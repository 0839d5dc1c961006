import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Pauses: mailbox, profile, everything", .timeLimit(.minutes(3)))
struct PauseTests {
  func audited(_ database: TestDatabase, _ action: String) async throws -> Int64 {
    try await database.int("SELECT count(*) FROM audit WHERE action = $1", [.text(action)])
  }

  @Test("a paused mailbox leaves the schedule and comes back; doing it twice changes nothing")
  func mailbox() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let lease = database.lease(mailbox.id, .poll, try #require(mailbox.profileID))
      for _ in 0..<2 { try await store.setPaused(true, .mailbox(mailbox.id), by: database.principal) }
      #expect(try await audited(database, "mailbox.pause") == 1)
      let paused = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(paused.pausedAt != nil)
      #expect(paused.incoming.notRunningReason == "paused" && paused.outgoing.notRunningReason == "paused")
      #expect(paused.incoming.nextRunAt == nil)
      #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.isEmpty)
      #expect(try await store.check([lease]) == [lease.job: .skip("paused")])
      // Left out: a session under way is not withdrawn.
      #expect(try await store.scheduled([lease.job]).isEmpty)
      for results in [
        try await store.requestTest(of: [mailbox.id], by: database.principal),
        try await store.requestPoll(of: [mailbox.id], by: database.principal),
      ] { #expect(results.map(\.ok) == [false]) }
      #expect(try await store.requestTest(of: [mailbox.id], by: database.principal)[0].code == "paused")
      #expect(try await store.pauses(PageRequest(), for: database.principal).items.map(\.id) == [mailbox.id.value])

      for _ in 0..<2 { try await store.setPaused(false, .mailbox(mailbox.id), by: database.principal) }
      #expect(try await audited(database, "mailbox.resume") == 1)
      let resumed = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(resumed.pausedAt == nil && resumed.incoming.notRunningReason == nil)
      #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.map(\.id) == [lease.job])
      #expect(try await store.pauses(PageRequest(), for: database.principal).total == 0)
    }
  }

  @Test("the outcome of a session that ran during the pause is written; the mailbox stays paused")
  func runningSession() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      try await database.store.setPaused(true, .mailbox(mailbox.id), by: database.principal)
      let next = NextDue(at: Date() - 1, reason: "slot")
      guard case .written = try await database.store.commit(database.outcome(lease, assignment, next: next)) else {
        Issue.record("the outcome was fenced")
        return
      }
      let later = database.lease(mailbox.id, .poll, lease.profile)
      #expect(try await database.store.check([later]) == [later.job: .skip("paused")])
      #expect(try await database.store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.isEmpty)
    }
  }

  @Test("a paused profile or organization is told to the queue and refused by the check; no hot row is rewritten")
  func profileAndOrganization() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let rows = "SELECT xmin::text::bigint FROM mailbox_schedule WHERE kind = 'p'"
      let written = try await database.int(rows)
      for scope in [PauseScope.profile(profile.id), .organization] {
        let other = try await database.otherPrincipal()
        if case .profile = scope {
          await #expect(throws: StoreError.notFound("server profile")) {
            try await store.setPaused(true, scope, by: other)
          }
        }
        try await store.setPaused(true, scope, by: database.principal)
        #expect(try await store.queueProfile(profile.id).paused)
        #expect(try await store.queueProfiles().map(\.paused) == [true])
        let seen = try await store.mailbox(mailbox.id, for: database.principal)
        #expect(seen.pausedAt == nil && seen.incoming.notRunningReason == "paused" && seen.incoming.nextRunAt == nil)
        let lease = database.lease(mailbox.id, .poll, profile.id)
        #expect(try await store.check([lease]) == [lease.job: .skip("paused")])
        // The queue keeps a paused profile's jobs, so what becomes due is read; a rescan need not read it.
        #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.count == 1)
        #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10, only: .running).jobs.isEmpty)
        #expect(try await store.requestTest(of: [mailbox.id], by: database.principal)[0].code == "paused")

        try await store.setPaused(false, scope, by: database.principal)
        #expect(try await store.queueProfile(profile.id).paused == false)
        #expect(try await store.due(after: .init(dueMicroseconds: 0), limit: 10, only: .running).jobs.count == 1)
        guard case .run = try await store.check([lease])[lease.job] else {
          Issue.record("a resumed mailbox does not run")
          return
        }
      }
      #expect(try await database.int(rows) == written)
    }
  }

  @Test("pauses are listed from the widest to the narrowest, page by page, each organization its own")
  func list() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile("Zebra")
      let second = try await database.profile("Ant", isDefault: false)
      let mailbox = try await database.mailbox("a@example.com")
      let other = try await database.otherPrincipal()
      for scope in [
        PauseScope.mailbox(mailbox.id), .profile(profile.id), .profile(second.id), .organization,
      ] { try await store.setPaused(true, scope, by: database.principal) }
      var names: [String] = []
      var cursor: String?
      repeat {
        let page = try await store.pauses(PageRequest(limit: 1, cursor: cursor), for: database.principal)
        #expect(page.total == 4)
        names += page.items.map { "\($0.scope) \($0.name) by \($0.by)" }
        cursor = page.nextCursor
      } while cursor != nil
      #expect(
        names == [
          "organization Example by Ada", "profile Ant by Ada", "profile Zebra by Ada", "mailbox a@example.com by Ada",
        ])
      #expect(try await store.pauses(PageRequest(), for: other).total == 0)
    }
  }

  @Test("an announcement reaches the scheduler for each scope")
  func announcements() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      var signals = database.store.signals().makeAsyncIterator()
      #expect(await signals.next() == .rescan)
      try await database.store.setPaused(true, .organization, by: database.principal)
      #expect(await signals.next() == .profiles)
      try await database.store.setPaused(true, .profile(profile.id), by: database.principal)
      #expect(await signals.next() == .profile(profile.id))
      try await database.store.setPaused(false, .profile(profile.id), by: database.principal)
      #expect(await signals.next() == .profile(profile.id))
      #expect(await signals.next() == .rescan)
      try await database.store.setPaused(true, .mailbox(mailbox.id), by: database.principal)
      guard case .jobs(let jobs) = await signals.next() else {
        Issue.record("the mailbox's jobs are not announced")
        return
      }
      #expect(Set(jobs.map(\.kind)) == [.poll, .send, .test])
    }
  }
}
