import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Schema: migrations, roles, row-level security")
struct SchemaTests {
  @Test("an empty database is migrated once, however many migrate it")
  func migratesOnce() async throws {
    let server = try await TestServer.shared.value
    try await server.sql("postgres", "CREATE DATABASE empty_once OWNER pr_owner")
    let migrator = { @Sendable in Migrator(url: server.url("pr_owner", "empty_once"), logger: .test) }
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: server.url("pr_owner", "empty_once")), logger: .test)
    let error = await #expect(throws: StoreError.self) { try await store.checkHealth() }
    #expect(error?.description.contains("run `postrider migrate`") == true)
    #expect(try await migrator().status().allSatisfy { $0.appliedAt == nil })

    let all = try await withThrowingTaskGroup(of: [Int].self) { group in
      for _ in 0..<3 { group.addTask { try await migrator().migrate() } }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    #expect(all == Migration.all.map(\.version))
    #expect(try await migrator().migrate().isEmpty)
    #expect(try await migrator().status().allSatisfy { $0.appliedAt != nil })
    try await store.checkHealth()
    await store.close()
  }

  @Test("every file of the migrations' folder is one of them, in its place and as it stands")
  func everyFile() throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "Sources/PostgresStore/Migrations")
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    #expect(files == Migration.all.map { "\(String(format: "%04d", $0.version))_\($0.name).sql" })
    for (file, migration) in zip(files, Migration.all) {
      #expect(try String(contentsOf: folder.appending(path: file), encoding: .utf8) == migration.sql, "\(file)")
    }
  }

  @Test("a database of another build or a newer release is refused in words")
  func refusesForeignSchema() async throws {
    try await TestDatabase.with { database in
      let migrator = { @Sendable in Migrator(url: database.server.url("pr_owner", database.name), logger: .test) }
      try await database.sql(
        "INSERT INTO schema_migration (version, name, checksum, works_with) VALUES (99, 'future', 'x', 99)")
      await #expect(throws: StoreError.self) { try await migrator().migrate() }
      let error = await #expect(throws: StoreError.self) { try await database.store.checkHealth() }
      #expect(error?.description.contains("newer release") == true)
      try await database.sql("DELETE FROM schema_migration WHERE version = 99")
      try await database.sql("UPDATE schema_migration SET checksum = 'other' WHERE version = 1")
      let changed = await #expect(throws: StoreError.self) { try await migrator().migrate() }
      #expect(changed?.description.contains("other contents") == true)
    }
  }

  @Test("an unknown application role is named")
  func unknownApplicationRole() async throws {
    try await TestDatabase.with { database in
      let server = database.server
      let error = await #expect(throws: StoreError.self) {
        try await Migrator(
          url: server.url("pr_owner", database.name), applicationURL: server.url("nobody_here", database.name),
          logger: .test
        ).migrate()
      }
      #expect(error?.description.contains("nobody_here") == true)
    }
  }

  @Test("whether a role may act as the group roles is asked in words that its server knows")
  func groupRights() {
    #expect(Migrator.groupRights(serverVersion: 150_014, migrates: true) == ["MEMBER"])
    #expect(Migrator.groupRights(serverVersion: 150_014, migrates: false) == ["MEMBER"])
    #expect(Migrator.groupRights(serverVersion: 160_000, migrates: true) == ["SET", "USAGE"])
    #expect(Migrator.groupRights(serverVersion: 180_001, migrates: false) == ["SET"])
  }

  @Test("each tenant table hides its rows from other organizations and from no organization")
  func rowLevelSecurity() async throws {
    try await TestDatabase.with { database in
      let other = try await database.otherPrincipal()
      try await database.fillEveryTable()
      // Every table but these two is a tenant's; a new one without policies fails here.
      let tables = try await database.sql(
        """
        SELECT c.relname::text, c.relrowsecurity, c.relforcerowsecurity, c.relispartition FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND c.relname NOT IN ('schema_migration', 'leadership') ORDER BY 1
        """
      ).map { row in (try row.text(), try row.bool(), try row.bool(), try row.bool()) }
      #expect(tables.count { !$0.3 } == 43)
      let app = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      for (table, enabled, forced, isPartition) in tables {
        #expect(enabled && (forced || isPartition), "\(table)")
        if isPartition {
          // Reached through its parent only.
          await #expect(throws: PostgresError.self, "\(table)") {
            try await app.transaction(.worker) { db in _ = try db.query("SELECT 1 FROM \(table)") }
          }
          continue
        }
        #expect(try await database.int("SELECT count(*) FROM \(table)") > 0, "\(table) is empty: fill it in the test")
        let visible = { (scope: Scope) in
          try await app.transaction(scope) { db in try db.query("SELECT * FROM \(table)").count }
        }
        let ownCount = try await visible(.api(database.principal))
        #expect(ownCount > 0, "\(table)")
        let othersCount = try await visible(.api(other))
        let expected = ["organization", "app_user", "api_token"].contains(table) ? 1 : 0
        #expect(othersCount == expected, "\(table)")
        #expect(try await visible(.token(hash: [UInt8](repeating: 0, count: 32))) == 0, "\(table)")
        let bare = try await app.run { db in try db.query("SELECT * FROM \(table)").count }
        #expect(bare == 0, "\(table) with nothing set")
      }
      // Nor can a row be written into another organization.
      await #expect(throws: PostgresError.self) {
        try await app.transaction(.api(other)) { db in
          _ = try db.query(
            "INSERT INTO app_user (organization_id, name, address, address_key) VALUES ($1, 'x', 'x', 'x')",
            [.id(database.principal.organizationID)])
        }
      }
      await app.close()
    }
  }

  @Test("partitions are made ahead, old ones dropped, and rows of other days still find a place")
  func partitions() async throws {
    try await TestDatabase.with { database in
      try await database.store.maintainHistory()
      let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass"
      let before = try await database.int(count)
      #expect(before >= 9)
      try await database.sql(
        "CREATE TABLE run_p20200101 PARTITION OF run FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00')"
      )
      try await database.sql(
        """
        INSERT INTO run SELECT i, \(database.principal.organizationID), 1, 'p', 'slot', 'w', 1, t, t, t, 'success',
          NULL, NULL, 0, 0, 0, 0, 0 FROM (VALUES (1, '2020-01-01 12:00+00'::timestamptz), (2, '2019-01-01'::timestamptz),
          (3, now() + interval '20 days')) AS v (i, t)
        """)
      #expect(try await database.int("SELECT count(*) FROM run_default") == 2)
      try await database.store.maintainHistory()
      #expect(try await database.int(count) == before)
      #expect(try await database.int("SELECT count(*) FROM run") == 1)
    }
  }

  @Test("the scheduler's read of due rows walks the partial index alone", arguments: DueSelection.allCases)
  func dueReadUsesItsIndex(_ selection: DueSelection) async throws {
    try await TestDatabase.with { database in
      let app = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      let plan = try await app.transaction(.worker) { db in
        try db.query("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)")
        return try db.query(
          """
          EXPLAIN \(PostgresStore.dueStatement(selection))
          """, [.microseconds(0), .int(0), .text(""), .int(100)]
        ).map { try $0.text() }.joined(separator: "\n")
      }
      #expect(plan.contains("Index Scan using mailbox_schedule_due"), "\(plan)")
      #expect(plan.contains("Index Cond: ((ROW(next_due_at"), "\(plan)")
      #expect(!plan.contains("Sort"), "\(plan)")
      // The profiles that stand still are one hash table, not a search for each row.
      #expect(plan.contains("hashed SubPlan") == (selection != .all), "\(plan)")
      await app.close()
    }
  }
}

extension TestDatabase {
  /// Leaves at least one row of this organization in every tenant table.
  fileprivate func fillEveryTable() async throws {
    _ = try await profile()
    let mailbox = try await runningMailbox("a@example.com")
    _ = try await store.createMailbox(
      MailboxDraft(address: "queue@example.com", owner: OwnerDraft(kind: .queue)), by: principal)
    let (lease, assignment) = try await assignment(mailbox, .poll)
    var message = ReceivedMessage.sample("1")
    message.attachments = [
      ReceivedAttachment(
        record: AttachmentRecord(fileName: "a", contentType: "text/plain", sizeOctets: 1), content: .bytes([1]))
    ]
    let writer = guardian(lease, assignment)
    _ = try await store.store([message], writer: writer)
    try await store.noteOwnMessage("own@example.com", writer: writer)
    for _ in 0..<3 {
      _ = try await store.messageFailed(uidl: "2", failure: Failure(.messageUnparsable), raw: nil, writer: writer)
    }
    try await store.noteRenumbering(writer: writer)
    let step = TraceStep(
      direction: .incoming, name: .connect, tried: "x", result: .ok, startedAt: .init(), milliseconds: 1)
    _ = try await store.commit(
      outcome(
        lease, assignment, alerts: [.raise(AlertDraft(level: .error, code: "tcp.closed", text: "x"))], steps: [step]))
    await store.activity.flush()
    _ = try await store.submit(
      OutgoingSubmission(
        mailboxID: mailbox.id, recipients: ["b@example.com"], subject: "x", messageID: "1@example.com",
        raw: .bytes([1]), hold: true), by: principal)
    try await store.storeAccessToken(
      Secret("token"), expiresAt: .distantFuture, mailbox: mailbox.id, by: principal)
    let client = OAuthClientDraft(
      clientID: "c", clientSecret: Secret("s"), authorizationURL: "https://a.example.com/a",
      tokenURL: "https://a.example.com/t")
    _ = try await store.setOAuthClient(
      try OAuthRules.resolve(client, of: .pop3SMTP), of: try #require(mailbox.profileID), by: principal)
    let url = try #require(WebURL("https://hooks.example.com/x"))
    let webhook = try await store.createWebhook(url, description: "", secret: Secret("whsec_AAAA"), by: principal)
    _ = try await store.testWebhook(webhook.id, by: principal)
    let batch = try await store.beginImport(dryRun: false, by: principal)
    try await store.addImportRows(
      [ImportRow(row: 2, mailbox: ImportedMailbox(address: "b@example.com"))], to: batch, by: principal)
    _ = try await store.claimKey("k", requestHash: [UInt8](repeating: 1, count: 32), for: .zero, by: principal)
    let other = try await profile("Other", isDefault: false)
    _ = try await store.updateMailbox(mailbox.id, MailboxChange(profileID: other.id), by: principal)
    _ = try await store.setOAuthClient(
      try OAuthRules.resolve(client, of: .pop3SMTP), of: other.id, by: principal)
    // A move forgets the consent that was under way.
    _ = try await store.beginConsent(
      of: mailbox.id, state: Secret("state"), verifier: Secret("verifier"), redirectURL: "https://b.example.com/",
      life: .seconds(60), by: principal)
    try await store.setAside([
      PoisonedJob(
        job: "\(mailbox.id)p", profileID: other.id, reclaims: 3, worker: "w1", sinceMilliseconds: 1_700_000_000_000)
    ])
    _ = try await store.requestRepair(by: principal)
    let deleted = try await self.mailbox("deleted@example.com")
    _ = try await store.deleteMailboxes(MailboxDeletionRequest(ids: [deleted.id]), by: principal)
    _ = try await store.createSharedQueue(
      SharedQueueDraft(address: "members@example.com", memberIDs: [principal.userID]), by: principal)
    try await store.setPassword(
      Secret("$scrypt$ln=4,r=8,p=1$AAAA$AAAA"), of: principal.userID, keeping: nil, by: principal)
    _ = try await store.updateAlertMail(AlertMailChange(levels: [.error]), by: principal)
    let owned = try await runningMailbox("owned@example.com")
    _ = try await store.requestTest(of: [owned.id], takingOver: true, by: principal)
    try await sql(
      """
      INSERT INTO send_usage (profile_id, mailbox_id, span, bucket, organization_id, messages, recipients)
      VALUES ($1, $2, 1, now(), $3, 1, 1)
      """, [.id(other.id), .id(mailbox.id), .id(principal.organizationID)])
    try await sql(
      "INSERT INTO send_pace (mailbox_id, organization_id) VALUES ($1, $2)",
      [.id(mailbox.id), .id(principal.organizationID)])
  }
}
