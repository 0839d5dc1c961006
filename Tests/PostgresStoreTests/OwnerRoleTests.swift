import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("A3: what a person of the role owner sees", .timeLimit(.minutes(3)))
struct OwnerRoleTests {
  /// Ann's own mailbox, one of a queue that she owns, one of a queue that she is a member of, and one of somebody else.
  private struct Site: Sendable {
    var own: Mailbox
    var owned: Mailbox
    var shared: Mailbox
    var foreign: Mailbox
    var ann: Principal
    var all: [Mailbox] { [own, owned, shared, foreign] }
  }

  private func site(_ database: TestDatabase) async throws -> Site {
    let (store, ada) = (database.store, database.principal)
    _ = try await database.profile()
    let own = try await database.runningMailbox("ann@example.com")
    let ann = UserID(own.owner.id)
    let owned = try await store.createSharedQueue(
      SharedQueueDraft(address: "sales@example.com", ownerID: ann), by: ada)
    let shared = try await store.createSharedQueue(
      SharedQueueDraft(address: "support@example.com", memberIDs: [ann]), by: ada)
    func mailbox(_ address: String) async throws -> Mailbox {
      let made = try await store.createMailbox(
        MailboxDraft(address: address, owner: OwnerDraft(kind: .queue)), by: ada)
      _ = try await store.setApproval(.approved, of: [made.id], by: ada)
      try await database.pass(made)
      return try await store.mailbox(made.id, for: ada)
    }
    let site = Site(
      own: own, owned: try await mailbox("sales@example.com"), shared: try await mailbox("support@example.com"),
      foreign: try await database.runningMailbox("zoe@example.com"),
      ann: Principal(organizationID: ada.organizationID, userID: ann, name: "Ann", role: .owner))
    #expect(site.owned.owner.id == owned.id.value && site.shared.owner.id == shared.id.value)
    for mailbox in site.all {
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let step = TraceStep(
        direction: .incoming, name: .connect, tried: "x", result: .ok, startedAt: Date(), milliseconds: 1)
      _ = try await store.commit(
        database.outcome(
          lease, assignment, alerts: [.raise(AlertDraft(level: .error, code: "tcp.closed", text: mailbox.address))],
          steps: [step]))
    }
    return site
  }

  @Test("an owner sees the own mailboxes with their alerts and runs, and no others, whatever is asked for")
  func sees() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let site = try await site(database)
      let mine = [site.own, site.owned, site.shared].map(\.id)
      let page = try await store.mailboxes(MailboxFilter(), PageRequest(), for: site.ann)
      #expect(page.items.map(\.id) == mine && page.total == 3)
      #expect(page.items.map(\.owner.name) == ["ann@example.com", "sales@example.com", "support@example.com"])
      #expect(page.items.allSatisfy { $0.profileName == "Mail" && $0.incoming.notRunningReason == nil })
      #expect(try await store.mailbox(site.shared.id, for: site.ann).id == site.shared.id)
      await #expect(throws: StoreError.notFound("mailbox")) { try await store.mailbox(site.foreign.id, for: site.ann) }
      let named = try await store.mailboxes(
        MailboxFilter(address: "zoe@example.com"), PageRequest(), for: site.ann)
      #expect(named.items.isEmpty && named.total == 0)

      let alerts = try await store.alerts(AlertFilter(), PageRequest(), for: site.ann)
      #expect(Set(alerts.items.compactMap(\.mailboxID)) == Set(mine) && alerts.total == 3)
      let runs = try await store.runs(RunFilter(kind: .poll), PageRequest(), for: site.ann)
      #expect(Set(runs.items.map(\.mailboxID)) == Set(mine) && runs.total == 3)
      let run = try #require(runs.items.first?.id)
      #expect(try await store.run(run, for: site.ann).steps.count == 1)
      let all = try await store.runs(RunFilter(mailboxID: site.foreign.id), PageRequest(), for: database.principal)
      let foreign = try #require(all.items.first?.id)
      await #expect(throws: StoreError.notFound("run")) { try await store.run(foreign, for: site.ann) }
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.connection(of: site.foreign.id, for: site.ann)
      }
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.beginConsent(
          of: site.foreign.id, state: Secret("s"), verifier: Secret("v"), redirectURL: "https://x.example.com/",
          life: .seconds(60), by: site.ann)
      }
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.removeGrant(of: site.foreign.id, by: site.ann)
      }
      #expect(try await store.removeGrant(of: site.own.id, by: site.ann).wasConnected == false)

      // A queue that she is no member of any more.
      _ = try await store.updateSharedQueue(
        SharedQueueID(site.shared.owner.id), SharedQueueChange(memberIDs: []), by: database.principal)
      #expect(try await store.mailboxes(MailboxFilter(), PageRequest(), for: site.ann).total == 2)
    }
  }

  @Test("M1, E5: everybody else asks for their own with the view `mine`")
  func mine() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let site = try await site(database)
      var reader = site.ann
      reader.role = .reader
      #expect(try await store.mailboxes(MailboxFilter(), PageRequest(), for: reader).total == 4)
      let mine = try await store.mailboxes(MailboxFilter(view: .mine), PageRequest(), for: reader)
      #expect(mine.items.map(\.id) == [site.own, site.owned, site.shared].map(\.id) && mine.total == 3)
      let both = try await store.mailboxes(
        MailboxFilter(view: .mine, address: "SALES@example.com"), PageRequest(), for: reader)
      #expect(both.items.map(\.id) == [site.owned.id] && both.total == 1)
      #expect(try await store.alerts(AlertFilter(), PageRequest(), for: reader).total == 4)
      #expect(try await store.alerts(AlertFilter(wall: .mine), PageRequest(), for: reader).total == 3)
      // Those of a profile are its owner's.
      try await database.sql(
        """
        INSERT INTO alert (organization_id, profile_id, level, code, text)
        SELECT organization_id, id, 'error', 'profile.test', 'x' FROM server_profile
        """)
      #expect(try await store.alerts(AlertFilter(wall: .mine), PageRequest(), for: reader).total == 3)
      #expect(try await store.alerts(AlertFilter(), PageRequest(), for: site.ann).total == 3)
      var change = ProfileChange()
      change.ownerID = reader.userID
      _ = try await store.updateProfile(try #require(site.own.profileID), change, by: database.principal)
      #expect(try await store.alerts(AlertFilter(wall: .mine), PageRequest(), for: reader).total == 4)
      #expect(try await store.alerts(AlertFilter(), PageRequest(), for: site.ann).total == 4)
    }
  }

  @Test("no query of an owner's transaction reaches rows of other mailboxes, in any table")
  func tables() async throws {
    try await TestDatabase.with { database in
      let site = try await site(database)
      let own = Set([site.own, site.owned, site.shared].map(\.id.value))
      let app = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      let tables = try await database.sql(
        """
        SELECT c.relname::text, has_table_privilege('postrider_api', c.oid, 'SELECT')
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'mailbox_id'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
        """
      ).map { (try $0.text(), try $0.bool()) }
      #expect(tables.count > 10)
      for (table, isRead) in tables {
        // A later table of that kind needs hide_other_mailboxes(), too.
        let policies = try await database.int(
          "SELECT count(*) FROM pg_policies WHERE tablename = $1 AND policyname = 'owner' AND permissive = 'RESTRICTIVE'",
          [.text(table)])
        #expect(policies == 1, "\(table)")
        if !isRead { continue }
        let seen = try await app.transaction(.api(site.ann)) { db in
          try db.query("SELECT DISTINCT mailbox_id FROM \(table) WHERE mailbox_id IS NOT NULL").map { try $0.int() }
        }
        #expect(own.isSuperset(of: seen), "\(table)")
      }
      for (statement, rows) in [
        ("SELECT id FROM mailbox", 3), ("SELECT mailbox_id FROM mailbox_schedule", 9),
        ("UPDATE mailbox SET is_active = false RETURNING id", 3), ("SELECT 1 FROM audit", 0),
        ("SELECT 1 FROM content", 0), ("SELECT 1 FROM api_token", 0),
      ] {
        let found = try await app.transaction(.api(site.ann)) { db in
          try db.query(statement).count
        }
        #expect(found == rows, "\(statement)")
      }
      let others = try await database.int(
        "SELECT count(*) FROM mailbox WHERE NOT is_active AND id = $1", [.id(site.foreign.id)])
      #expect(others == 0)
      await app.close()
    }
  }

  @Test("an organization's mailboxes are counted without a look at the wide rows")
  func plans() async throws {
    try await TestDatabase.with { database in
      _ = try await site(database)
      let app = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      let owner = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_owner", database.name)), options: .test)
      try await owner.run { db in try db.script("VACUUM mailbox") }
      await owner.close()
      func plan(_ statement: String, _ principal: Principal) async throws -> String {
        try await app.transaction(.api(principal)) { db in
          try db.query("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)")
          return try db.query("EXPLAIN \(statement)", [.id(principal.organizationID)]).map { try $0.text() }
            .joined(separator: "\n")
        }
      }
      let count = try await plan("SELECT count(*) FROM mailbox m WHERE m.organization_id = $1", database.principal)
      #expect(count.contains("Index Only Scan using mailbox_user"), "\(count)")
      await app.close()
    }
  }
}
