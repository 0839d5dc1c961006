import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

extension TestDatabase {
  /// Does the steps of all batches until nothing can be done at once.
  func advance() async throws {
    while try await store.advanceBatch() == .worked {}
  }

  /// Does steps until a batch is over.
  func finish(_ batch: Batch) async throws -> Batch {
    try await eventually("the batch is over", within: .seconds(90)) {
      try await self.advance()
      return try await self.store.batch(batch.id, for: self.principal).state.isOver
    }
    return try await store.batch(batch.id, for: principal)
  }

  /// Mailboxes m1@ … mN@example.com.
  func mailboxes(_ count: Int) async throws -> [MailboxID] {
    try await sql(
      """
      WITH u AS (
        INSERT INTO app_user (organization_id, name, address, address_key)
        SELECT $1, 'm' || n, 'm' || n || '@example.com', 'm' || n || '@example.com' FROM generate_series(1, $2) AS n
        RETURNING id, organization_id, address
      ), m AS (
        INSERT INTO mailbox (organization_id, address, address_key, user_id, profile_id, incoming_method, outgoing_method)
        SELECT u.organization_id, u.address, u.address, u.id,
          (SELECT id FROM server_profile WHERE organization_id = $1 AND is_default), 'server-side-sync', 'server-side-sync'
        FROM u ORDER BY u.id RETURNING id, organization_id, profile_id
      ), c AS (INSERT INTO mailbox_counter (mailbox_id, organization_id) SELECT id, organization_id FROM m)
      INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled)
      SELECT m.id, m.organization_id, m.profile_id, k.kind, k.class, k.kind = 't'
      FROM m CROSS JOIN (VALUES ('p', 2), ('s', 1), ('t', 3)) AS k (kind, class)
      """, [.id(principal.organizationID), .int(Int64(count))])
    return try await sql("SELECT id FROM mailbox WHERE address LIKE 'm%@example.com' ORDER BY id").map { try $0.id() }
  }
}

@Suite("Batches", .timeLimit(.minutes(3)))
struct BatchTests {
  @Test("a filter's mailboxes are those it meets when the batch is made; each is done once, with an audit row")
  func filter() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let ids = try await database.mailboxes(1_203)
      _ = try await store.setApproval(.approved, of: Array(ids[0..<3]), by: database.principal)
      let made = try await store.createBatch(
        BatchDraft(verb: .approve, filter: BatchFilter(profileID: profile.id)), by: database.principal)
      #expect(made.state == .running && made.total == 1_203 && made.remaining == 1_203 && made.requestedBy == "Ada")
      _ = try await database.mailbox("later@example.com")
      let done = try await database.finish(made)
      #expect(done.state == .finished && done.done == 1_203 && done.unchanged == 3 && done.failed == 0)
      #expect(done.remaining == 0 && done.startedAt != nil && done.finishedAt != nil && done.failures == [])
      #expect(try await database.int("SELECT count(*) FROM mailbox WHERE approval = 'approved'") == 1_203)
      #expect(try await database.int("SELECT count(*) FROM mailbox WHERE version = 2") == 1_203)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.approve'") == 1_203)
      #expect(
        try await database.int("SELECT count(*) FROM audit WHERE action = 'batch.create' AND after->>'total' = '1203'")
          == 1)
      // Steps are small.
      #expect(done.version >= 3)
      let views: [(BatchFilter, Int)] = [
        (BatchFilter(), 1_204), (BatchFilter(view: .pendingApproval), 1), (BatchFilter(ownerKind: .queue), 0),
        (BatchFilter(ownerKind: .user), 1_204), (BatchFilter(addressText: "M120"), 5),
        (BatchFilter(view: .active, addressText: "%"), 0),
      ]
      for (filter, count) in views {
        let batch = try await store.createBatch(
          BatchDraft(verb: .reject, filter: filter, dryRun: true), by: database.principal)
        #expect(batch.total == count, "\(filter)")
        #expect(count > 0 || batch.state == .finished)
      }
    }
  }

  @Test("ids: each once, an unknown one and another organization's fail; results are paged and filtered")
  func ids() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let ids = try await database.mailboxes(5)
      let other = try await database.otherPrincipal()
      let theirs = try await store.createMailbox(MailboxDraft(address: "x@example.org"), by: other)
      let made = try await store.createBatch(
        BatchDraft(verb: .approve, ids: ids + [ids[0], theirs.id, MailboxID(99_999)]), by: database.principal)
      #expect(made.total == 7)
      let done = try await database.finish(made)
      #expect(done.done == 5 && done.failed == 2 && done.state == .finished)
      #expect(done.failures?.map(\.code) == ["not-found", "not-found"])
      #expect(done.failures?.first?.message == "there is no such mailbox")
      #expect(try await store.mailbox(theirs.id, for: other).approval == .pending)
      var rows: [BatchResult] = []
      var page = PageRequest(limit: 3)
      repeat {
        let answer = try await store.batchResults(of: made.id, in: nil, page, for: database.principal)
        #expect(answer.total == 7)
        rows += answer.items
        page.cursor = answer.nextCursor
      } while page.cursor != nil
      #expect(rows.map(\.row) == Array(1...7) && rows[0].address == "m1@example.com")
      let failed = try await store.batchResults(of: made.id, in: .failed, PageRequest(), for: database.principal)
      #expect(failed.total == 2 && failed.items.allSatisfy { $0.result == .failed })
      await #expect(throws: StoreError.notFound("batch")) { try await store.batch(made.id, for: other) }
      await #expect(throws: StoreError.notFound("batch")) {
        try await store.batchResults(of: made.id, in: nil, PageRequest(), for: other)
      }
      await #expect(throws: StoreError.notFound("batch")) { try await store.cancelBatch(made.id, by: other) }
      #expect(try await store.batches(PageRequest(), for: other).total == 0)
      await #expect(throws: StoreError.self) {
        try await store.createBatch(BatchDraft(verb: .approve), by: database.principal)
      }
      await #expect(throws: StoreError.self) {
        try await store.createBatch(BatchDraft(verb: .importMailboxes, ids: ids), by: database.principal)
      }
    }
  }

  @Test("a dry run says what would be done and changes nothing")
  func dryRun() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let ids = try await database.mailboxes(3)
      _ = try await database.store.setApproval(.approved, of: [ids[0]], by: database.principal)
      let audits = "SELECT count(*) FROM audit WHERE subject_kind = 'mailbox'"
      let before = try await database.int(audits)
      for (verb, done, failed) in [(BatchVerb.approve, 3, 0), (.test, 1, 2), (.poll, 0, 3)] {
        let made = try await database.store.createBatch(
          BatchDraft(verb: verb, filter: BatchFilter(), dryRun: true), by: database.principal)
        let over = try await database.finish(made)
        #expect(over.done == done && over.failed == failed && over.dryRun, "\(verb)")
      }
      #expect(try await database.int(audits) == before)
      #expect(try await database.int("SELECT sum(requested)::bigint FROM mailbox_schedule") == 0)
      #expect(try await database.int("SELECT count(*) FROM mailbox WHERE approval = 'approved'") == 1)
    }
  }

  @Test("defaults are written row by row and tested; what is refused is told, a dry run changes nothing")
  func defaults() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let ids = try await database.mailboxes(120)
      _ = try await store.setApproval(.approved, of: Array(ids.dropFirst()), by: database.principal)
      try await database.sql(
        "UPDATE mailbox SET outgoing_method = 'none' WHERE id = ANY ($1)", [.ids(Array(ids[..<100]))])
      let missing = MailboxID(999_999)
      func run(_ verb: BatchVerb, dryRun: Bool = false) async throws -> Batch {
        let made = try await store.createBatch(
          BatchDraft(verb: verb, ids: ids + [missing], dryRun: dryRun), by: database.principal)
        try await database.advance()
        return try await store.batch(made.id, for: database.principal)
      }
      let changed =
        "SELECT count(*) FROM mailbox WHERE outgoing_method = 'server-side-sync' AND profile_id = \(profile.id)"
      let planned = try await run(.writeDefaults, dryRun: true)
      #expect(planned.done == 120 && planned.unchanged == 20 && planned.failed == 1)
      #expect(planned.failures?.map(\.code) == ["not-found"])
      #expect(try await database.int(changed) == 20)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.update'") == 0)
      // The first is not approved, so its test would be refused.
      let tested = try await run(.applyDefaults, dryRun: true)
      #expect(tested.done == 119 && tested.failed == 2 && tested.failures?.first?.code == "not-approved")
      #expect(try await database.int("SELECT sum(requested)::bigint FROM mailbox_schedule") == 0)

      let written = try await run(.writeDefaults)
      #expect(written.state == .finished && written.done == 120 && written.unchanged == 20)
      #expect(try await database.int(changed) == 120)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.update'") == 100)
      let applied = try await run(.applyDefaults)
      #expect(applied.state == .running && applied.waiting == 119 && applied.failed == 2)
      #expect(try await database.int("SELECT sum(requested)::bigint FROM mailbox_schedule WHERE kind = 't'") == 119)
      #expect(applied.failures?.first?.message?.contains("has the defaults, but is not tested") == true)

      try await database.sql("UPDATE server_profile SET is_default = false")
      let without = try await run(.writeDefaults)
      #expect(
        without.state == .finished && without.failed == 121 && without.failures?.first?.code == "no-default-profile")
    }
  }

  @Test(
    "a filter's mailboxes are deleted in steps; their rows keep the addresses, unsent mail is kept until it is given up"
  )
  func deletion() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let ids = try await database.mailboxes(230)
      try await database.sql("UPDATE mailbox SET is_active = false WHERE id = ANY ($1)", [.ids(Array(ids[..<210]))])
      let sending = try await database.runningMailbox("z@example.com")
      _ = try await store.submit(
        OutgoingSubmission(
          mailboxID: sending.id, recipients: ["c@example.com"], subject: "x", messageID: "1@example.com",
          raw: .bytes([1])), by: database.principal)
      try await database.sql("UPDATE mailbox SET is_active = false WHERE id = $1", [.id(sending.id)])
      let filter = BatchFilter(view: .inactive)
      func run(_ verb: BatchVerb, dryRun: Bool = false) async throws -> Batch {
        try await database.finish(
          try await store.createBatch(
            BatchDraft(verb: verb, filter: filter, dryRun: dryRun), by: database.principal))
      }
      let planned = try await run(.delete, dryRun: true)
      #expect(planned.done == 210 && planned.failed == 1 && planned.failures?.map(\.code) == ["unsent-mail"])
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 231)
      let deleted = try await run(.delete)
      #expect(deleted.state == .finished && deleted.done == 210 && deleted.failed == 1)
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 21)
      #expect(try await database.int("SELECT count(*) FROM deleted_mailbox") == 210)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.delete'") == 210)
      let rows = try await store.batchResults(
        of: deleted.id, in: .done, PageRequest(limit: 2), for: database.principal)
      #expect(rows.items.map(\.address) == ["m1@example.com", "m2@example.com"])
      let rest = try await run(.deleteWithUnsentMail)
      #expect(rest.total == 1 && rest.done == 1)
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 20)
    }
  }

  @Test("several processes share the work of several batches; no row is done twice")
  func shared() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      _ = try await database.mailboxes(2_000)
      var made: [Batch] = []
      for verb in [BatchVerb.approve, .reject, .approve] {
        made.append(
          try await database.store.createBatch(BatchDraft(verb: verb, filter: BatchFilter()), by: database.principal))
      }
      let others = (0..<3).map { _ in
        PostgresStore(
          configuration: PostgresStoreConfiguration(url: database.server.url("pr_app", database.name), poolSize: 2),
          logger: .test)
      }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for store in others + [database.store] {
          group.addTask { while try await store.advanceBatch() == .worked {} }
        }
        try await group.waitForAll()
      }
      for batch in made {
        let over = try await database.finish(batch)
        #expect(over.done == 2_000 && over.failed == 0 && over.remaining == 0)
      }
      // Each change has its audit row and its version.
      let changes = try await database.int(
        "SELECT count(*) FROM audit WHERE action IN ('mailbox.approve', 'mailbox.reject')")
      #expect(try await database.int("SELECT sum(version - 1)::bigint FROM mailbox") == changes)
      for store in others { await store.close() }
    }
  }

  @Test("a process that is killed in the middle of a step has done none of it; another one goes on")
  func killed() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let ids = try await database.mailboxes(1_200)
      let made = try await database.store.createBatch(
        BatchDraft(verb: .approve, filter: BatchFilter()), by: database.principal)
      #expect(try await database.store.advanceBatch() == .worked)
      #expect(try await database.store.batch(made.id, for: database.principal).done == 500)
      let victim = PostgresStore(
        configuration: PostgresStoreConfiguration(
          url: database.server.url("pr_app", database.name), poolSize: 1, applicationName: "victim"), logger: .test)
      let blocker = PostgresConnection(
        url: ConnectionURL(database.server.url("postgres", database.name)), options: .test)
      try await blocker.run { db in
        try db.query("BEGIN")
        try db.query("SELECT 1 FROM mailbox WHERE id = $1 FOR UPDATE", [.id(ids[700])])
      }
      let step = Task { try await victim.advanceBatch() }
      try await eventually("the step waits for a mailbox") {
        try await database.int(
          "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event_type = 'Lock'") == 1
      }
      try await database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
      await #expect(throws: StoreError.self) { try await step.value }
      let after = try await database.store.batch(made.id, for: database.principal)
      #expect(after.done == 500 && after.state == .running)
      try await blocker.run { db in _ = try db.query("COMMIT") }
      let over = try await database.finish(made)
      #expect(over.done == 1_200 && over.state == .finished)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.approve'") == 1_200)
      await blocker.close()
      await victim.close()
    }
  }

  @Test("a mailbox that cannot be written fails alone")
  func poison() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let ids = try await database.mailboxes(700)
      try await database.sql(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END $$
        """)
      try await database.sql(
        """
        CREATE TRIGGER refuse BEFORE UPDATE ON mailbox FOR EACH ROW WHEN (NEW.id = \(ids[600])) EXECUTE FUNCTION refuse()
        """)
      let made = try await database.store.createBatch(
        BatchDraft(verb: .approve, filter: BatchFilter()), by: database.principal)
      let over = try await database.finish(made)
      #expect(over.done == 699 && over.failed == 1 && over.state == .finished)
      #expect(over.failures?.first?.mailboxID == ids[600] && over.failures?.first?.code == "internal")
    }
  }

  @Test("old batches are deleted with their rows, and files that never came to their end")
  func tidying() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      _ = try await database.mailboxes(2)
      let old = try await store.createBatch(BatchDraft(verb: .approve, filter: BatchFilter()), by: database.principal)
      _ = try await database.finish(old)
      let young = try await store.createBatch(BatchDraft(verb: .reject, filter: BatchFilter()), by: database.principal)
      _ = try await database.finish(young)
      let broken = try await store.beginImport(dryRun: false, by: database.principal)
      try await store.addImportRows(
        [ImportRow(row: 2, mailbox: ImportedMailbox(address: "a@example.com"), password: Secret("x"))], to: broken,
        by: database.principal)
      try await database.sql("UPDATE batch SET finished_at = now() - interval '31 days' WHERE id = $1", [.id(old.id)])
      try await store.tidyBatches()
      #expect(try await database.int("SELECT count(*) FROM batch") == 2)
      try await database.sql("UPDATE batch SET created_at = now() - interval '2 hours' WHERE id = $1", [.id(broken)])
      try await store.tidyBatches()
      #expect(try await database.int("SELECT count(*) FROM batch") == 1)
      #expect(try await database.int("SELECT count(*) FROM batch_row WHERE batch_id <> \(young.id)") == 0)
      #expect(try await database.int("SELECT count(*) FROM mailbox_import_row") == 0)
    }
  }

  @Test("an idempotency key answers the same request, refuses another one, and is free again when refused or old")
  func keys() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let mine = database.principal
      let (hash, other) = ([UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32))
      func claim(
        _ hash: [UInt8], by principal: Principal? = nil, for time: Duration = .seconds(60)
      ) async throws -> KeyClaim {
        try await store.claimKey("k", requestHash: hash, for: time, by: principal ?? mine)
      }
      #expect(try await claim(hash) == .new)
      #expect(try await claim(hash) == .busy)
      #expect(try await claim(other) == .other)
      try await store.releaseKey("k", by: mine)
      #expect(try await claim(other, for: .zero) == .new)
      // A process that died holds a key for its time only, and only for that request.
      #expect(try await claim(hash) == .other)
      #expect(try await claim(other) == .new)
      let answer = KeptAnswer(status: 201, location: "/x", body: "{}")
      try await store.keepAnswer(answer, under: "k", by: mine)
      try await store.releaseKey("k", by: mine)
      #expect(try await claim(other) == .answered(answer))
      #expect(try await claim(hash) == .other)
      #expect(try await claim(hash, by: try await database.otherPrincipal()) == .new)
      try await database.sql("UPDATE idempotency_key SET created_at = now() - interval '25 hours'")
      #expect(try await claim(hash) == .new)
    }
  }
}
