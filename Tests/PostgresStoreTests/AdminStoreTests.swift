import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("AdminStore: rules and errors")
struct AdminStoreTests {
  @Test("a token names its person until it is revoked or expires")
  func tokens() async throws {
    try await TestDatabase.with { database in
      #expect(database.principal.name == "Ada" && database.principal.role == .administrator)
      #expect(try await database.store.principal(token: Secret("nonsense")) == nil)
      #expect(try await database.store.principal(token: Secret("")) == nil)
      try await database.sql("UPDATE api_token SET expires_at = now() - interval '1 second'")
      #expect(try await database.store.principal(token: database.token) == nil)
      try await database.sql("UPDATE api_token SET expires_at = now() + interval '1 hour'")
      #expect(try await database.store.principal(token: database.token) == database.principal)
      let bootstrap = Bootstrap(url: database.server.url("pr_owner", database.name), logger: .test)
      let again = try await bootstrap.ensureOrganization(
        name: "Example", administratorName: "Ada", administratorAddress: "ADA@example.com")
      #expect(again.0 == database.principal.organizationID)
      #expect(try await database.store.principal(token: database.token) == nil)
      #expect(try await database.store.principal(token: again.token) == database.principal)
      try await database.sql("UPDATE app_user SET is_active = false")
      #expect(try await database.store.principal(token: again.token) == nil)
      await #expect(throws: StoreError.self) {
        _ = try await bootstrap.createOrganization(
          name: "Example", administratorName: "Ada", administratorAddress: "ada@example.com")
      }
    }
  }

  @Test("a profile's name is unique whatever its case; the default switch moves")
  func profiles() async throws {
    try await TestDatabase.with { database in
      let first = try await database.profile("Mail")
      #expect(first.isDefault && first.version == 1 && first.mailboxCount == 0 && first.incoming.port == 995)
      let error = await #expect(throws: StoreError.self) { try await database.profile("MAIL") }
      guard case .conflict("name-taken", _) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      // The refused one took nothing away.
      #expect(try await database.store.profile(first.id, for: database.principal).isDefault)
      let second = try await database.profile("Other")
      let old = try await database.store.profile(first.id, for: database.principal)
      #expect(second.isDefault && !old.isDefault && old.version == 2)
      let names = ["b", "C", "a", "D"]
      for name in names { _ = try await database.profile(name, isDefault: false) }
      var all: [String] = []
      var page = PageRequest(limit: 4)
      repeat {
        let answer = try await database.store.profiles(page, for: database.principal)
        #expect(answer.total == 6)
        all += answer.items.map(\.name)
        page.cursor = answer.nextCursor
      } while page.cursor != nil
      #expect(all == ["a", "b", "C", "D", "Mail", "Other"])
      let other = try await database.otherPrincipal()
      #expect(try await database.store.profiles(PageRequest(), for: other).total == 0)
      await #expect(throws: StoreError.notFound("server profile")) {
        try await database.store.profile(first.id, for: other)
      }
    }
  }

  @Test("twenty people who set the default switch at once leave one default")
  func concurrentDefaults() async throws {
    try await TestDatabase.with { database in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for index in 0..<20 { group.addTask { _ = try await database.profile("P\(index)") } }
        try await group.waitForAll()
      }
      #expect(try await database.int("SELECT count(*) FROM server_profile WHERE is_default") == 1)
      #expect(try await database.int("SELECT count(*) FROM server_profile") == 20)
    }
  }

  @Test("a new mailbox picks default profile, methods and owner; its address is unique whatever its case")
  func mailboxes() async throws {
    try await TestDatabase.with { database in
      let without = try await database.mailbox("early@example.com", password: nil)
      #expect(without.profileID == nil && without.incoming.notRunningReason == "no-profile" && !without.passwordSet)
      let profile = try await database.profile()
      let mailbox = try await database.mailbox("Ada@Example.com")
      #expect(mailbox.profileID == profile.id && mailbox.profileName == "Mail" && mailbox.approval == .pending)
      #expect(mailbox.owner == MailboxOwner(kind: .user, id: database.principal.userID.value, name: "Ada"))
      #expect(mailbox.incoming.method == .serverSideSync && mailbox.incoming.status == .notRun)
      #expect(mailbox.incoming.notRunningReason == "not-approved" && mailbox.incoming.nextRunAt == nil)
      let error = await #expect(throws: StoreError.self) { try await database.mailbox("ada@EXAMPLE.com") }
      guard case .conflict("address-taken", _) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      let queue = try await database.store.createMailbox(
        MailboxDraft(
          address: "support@example.com", owner: OwnerDraft(kind: .queue, name: "Support"),
          outgoingMethod: SyncMethod.none,
          deleteAfterProcessing: true), by: database.principal)
      #expect(queue.owner.kind == .queue && queue.owner.name == "Support" && queue.deleteAfterProcessing)
      #expect(queue.outgoing.notRunningReason == "method-none")
      for draft in [
        MailboxDraft(address: "x@example.com", profileID: ProfileID(99_999)),
        MailboxDraft(address: "x@example.com", owner: OwnerDraft(kind: .user, id: 99_999)),
      ] {
        let error = await #expect(throws: StoreError.self) {
          try await database.store.createMailbox(draft, by: database.principal)
        }
        guard case .invalid(let problems) = error, problems.count == 1 else {
          Issue.record("\(String(describing: error))")
          return
        }
        #expect(["/profileID", "/owner/id"].contains(problems[0].pointer))
      }
      #expect(try await database.store.profile(profile.id, for: database.principal).mailboxCount == 2)
      #expect(try await database.int("SELECT count(*) FROM app_user") == 2)
    }
  }

  @Test("lists: views, address, profile, pages, cursors of other lists")
  func lists() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let principal = database.principal
      let profile = try await database.profile()
      let running = try await database.runningMailbox("c@example.com")
      for name in ["a", "b", "d", "E"] { _ = try await database.mailbox("\(name)@example.com") }
      try await database.sql("UPDATE mailbox SET is_active = false WHERE address = 'a@example.com'")
      try await database.sql("UPDATE mailbox SET incoming_status = 'failure' WHERE address = 'b@example.com'")
      func addresses(_ filter: MailboxFilter) async throws -> [String] {
        var addresses: [String] = []
        var page = PageRequest(limit: 2)
        repeat {
          let answer = try await store.mailboxes(filter, page, for: principal)
          addresses += answer.items.map { String($0.address.prefix(1)) }
          page.cursor = answer.nextCursor
          #expect(answer.items.count <= 2)
        } while page.cursor != nil
        let total = try await store.mailboxes(filter, PageRequest(), for: principal).total
        #expect(total == addresses.count)
        return addresses
      }
      #expect(try await addresses(MailboxFilter()) == ["a", "b", "c", "d", "E"])
      #expect(try await addresses(MailboxFilter(view: .active)) == ["b", "c", "d", "E"])
      #expect(try await addresses(MailboxFilter(view: .inactive)) == ["a"])
      #expect(try await addresses(MailboxFilter(view: .notTested)) == ["a", "b", "d", "E"])
      #expect(try await addresses(MailboxFilter(view: .failing)) == ["b"])
      #expect(try await addresses(MailboxFilter(view: .pendingApproval)) == ["a", "b", "d", "E"])
      #expect(try await addresses(MailboxFilter(address: "e@EXAMPLE.com")) == ["E"])
      #expect(
        try await addresses(MailboxFilter(view: .active, address: "d@example.com", profileID: profile.id)) == ["d"])
      #expect(try await addresses(MailboxFilter(profileID: ProfileID(99_999))) == [])
      let cursor = try #require(
        try await store.mailboxes(MailboxFilter(), PageRequest(limit: 1), for: principal).nextCursor)
      for bad in [cursor + "x", "", "e30", "!!"] {
        await #expect(throws: StoreError.self, "\(bad)") {
          try await store.mailboxes(MailboxFilter(), PageRequest(limit: 1, cursor: bad), for: principal)
        }
      }
      await #expect(throws: StoreError.self) { try await store.profiles(PageRequest(cursor: cursor), for: principal) }
      for limit in [0, 501] {
        await #expect(throws: StoreError.self) {
          try await store.emails(mailbox: nil, PageRequest(limit: limit), for: principal)
        }
      }
      let (lease, assignment) = try await database.assignment(running, .poll)
      _ = try await store.store((1...5).map { .sample("\($0)") }, writer: database.guardian(lease, assignment))
      let emails = try await store.emails(mailbox: running.id, PageRequest(limit: 3), for: principal)
      #expect(emails.items.map(\.uidl) == ["5", "4", "3"] && emails.total == 5 && emails.items[0].text == nil)
      let rest = try await store.emails(mailbox: nil, PageRequest(limit: 3, cursor: emails.nextCursor), for: principal)
      #expect(rest.items.map(\.uidl) == ["2", "1"] && rest.nextCursor == nil)
      let statistics = try await store.scheduleStatistics(for: principal)
      #expect(statistics.overdue == 1 && statistics.scheduled == 1 && statistics.oldestDueMilliseconds != nil)
    }
  }

  @Test("approval lets a tested mailbox run, rejection stops it")
  func approval() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let unknown = MailboxID(99_999)
      let results = try await store.setApproval(.rejected, of: [unknown, mailbox.id], by: database.principal)
      #expect(results.map(\.code) == ["not-found", nil] && results.map(\.ok) == [false, true])
      let rejected = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(rejected.approval == .rejected && rejected.incoming.notRunningReason == "not-approved")
      #expect(rejected.version == mailbox.version + 1)
      let job = JobID(mailbox: mailbox.id, kind: .poll)
      #expect(try await store.scheduled([job]).map(\.runnable) == [false])
      _ = try await store.setApproval(.approved, of: [mailbox.id], by: database.principal)
      #expect(try await store.scheduled([job]).map(\.runnable) == [true])
      await #expect(throws: StoreError.self) {
        try await store.setApproval(.pending, of: [mailbox.id], by: database.principal)
      }
      let other = try await database.otherPrincipal()
      #expect(try await store.setApproval(.rejected, of: [mailbox.id], by: other)[0].code == "not-found")
      #expect(try await store.mailbox(mailbox.id, for: database.principal).approval == .approved)
      try await database.sql("UPDATE organization SET approved_users_only = false")
      let free = try await database.mailbox("free@example.com")
      #expect(free.incoming.notRunningReason == "not-tested")
    }
  }

  @Test("a test is refused with the reason")
  func requestTest() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let principal = database.principal
      let unlinked = try await database.mailbox("u@example.com")
      _ = try await database.profile()
      let mailbox = try await database.mailbox("a@example.com")
      let idle = try await store.createMailbox(
        MailboxDraft(address: "i@example.com", incomingMethod: SyncMethod.none, outgoingMethod: SyncMethod.none),
        by: principal)
      let all = [unlinked.id, mailbox.id, idle.id, MailboxID(99_999)]
      func codes() async throws -> [String?] { try await store.requestTest(of: all, by: principal).map(\.code) }
      #expect(try await codes() == ["no-profile", "not-approved", "not-approved", "not-found"])
      _ = try await store.setApproval(.approved, of: [mailbox.id, idle.id], by: principal)
      #expect(try await codes() == ["no-profile", nil, "nothing-to-test", "not-found"])
      #expect(try await store.mailbox(mailbox.id, for: principal).testsRequested == 1)
      try await database.sql("UPDATE server_profile SET is_active = false")
      #expect(try await codes() == ["no-profile", "profile-inactive", "profile-inactive", "not-found"])
      try await database.sql("UPDATE mailbox SET is_active = false")
      #expect(try await codes() == ["mailbox-inactive", "mailbox-inactive", "mailbox-inactive", "not-found"])
    }
  }

  @Test("a big batch of tests stands behind a person's own, and a person's own is never demoted")
  func classes() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      var ids: [MailboxID] = []
      for index in 0..<21 { ids.append(try await database.mailbox("m\(index)@example.com").id) }
      _ = try await store.setApproval(.approved, of: ids, by: database.principal)
      _ = try await store.requestTest(of: [ids[0]], by: database.principal)
      _ = try await store.requestTest(of: ids, by: database.principal)
      let jobs = try await store.due(after: DuePage.Position(dueMicroseconds: 0), limit: 100).jobs
      #expect(jobs.count == 21)
      #expect(jobs.filter { $0.jobClass == .interactive }.map(\.id.mailbox) == [ids[0]])
      #expect(jobs.filter { $0.jobClass == .batchTest }.count == 20)
    }
  }

  @Test("every change leaves an audit row with who, what, before and after")
  func audit() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      _ = try await database.store.requestPoll(of: [mailbox.id], by: database.principal)
      _ = try await database.store.setApproval(.rejected, of: [mailbox.id], by: database.principal)
      let rows = try await database.sql(
        "SELECT action, user_name, subject_kind, before->>'approval', after->>'approval' FROM audit ORDER BY id"
      ).map { row in
        [try row.text(), try row.text(), try row.text(), try row.textOrNil() ?? "-", try row.textOrNil() ?? "-"]
      }
      #expect(
        rows == [
          ["profile.create", "Ada", "server-profile", "-", "-"], ["mailbox.create", "Ada", "mailbox", "-", "pending"],
          ["mailbox.approve", "Ada", "mailbox", "pending", "approved"], ["mailbox.test", "Ada", "mailbox", "-", "-"],
          ["mailbox.poll", "Ada", "mailbox", "-", "-"],
          ["mailbox.reject", "Ada", "mailbox", "approved", "rejected"],
        ])
    }
  }
}
