import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Imports", .timeLimit(.minutes(3)))
struct ImportTests {
  private func row(
    _ row: Int, _ address: String, password: String? = nil, _ set: (inout ImportedMailbox) -> Void = { _ in }
  ) -> ImportRow {
    var mailbox = ImportedMailbox(address: address)
    set(&mailbox)
    return ImportRow(row: row, address: address, mailbox: mailbox, password: password.map { Secret($0) })
  }

  private func run(
    _ rows: [ImportRow], dryRun: Bool = false, _ database: TestDatabase
  ) async throws -> (Batch, [BatchResult]) {
    let id = try await database.store.beginImport(dryRun: dryRun, by: database.principal)
    for start in stride(from: 0, to: rows.count, by: 1_000) {
      try await database.store.addImportRows(
        Array(rows[start..<min(start + 1_000, rows.count)]), to: id, by: database.principal)
    }
    let batch = try await database.finish(try await database.store.finishImport(id, by: database.principal))
    let page = try await database.store.batchResults(of: id, in: nil, PageRequest(limit: 500), for: database.principal)
    return (batch, page.items)
  }

  @Test(
    "rows become mailboxes as if they were created one by one; bad ones are reported, and the same file again creates nothing"
  )
  func creates() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile("Mail")
      let second = try await database.profile("Zweites", isDefault: false)
      let there = try await database.mailbox("There@example.com", password: nil)
      let bad = ImportRow(
        row: 4, address: "nonsense", problems: [FieldProblem("/address", "not-an-address", "must be an address")])
      let rows = [
        row(2, "Ada@example.com", password: "s3cret-word"),
        row(3, "support@example.com", password: "x") {
          $0.ownerKind = .queue
          $0.ownerName = "Support"
          $0.profile = "ZWEITES"
          $0.outgoingMethod = SyncMethod.none
          $0.userName = "support"
          $0.deleteAfterProcessing = true
          $0.allowsCredentials = false
          $0.processEmailFrom = Date(timeIntervalSince1970: 1_750_000_000)
        },
        bad, row(6, "lost@example.com") { $0.profile = "Nobody" }, row(7, "THERE@example.com"),
        row(8, "there@example.com") { $0.ownerKind = .queue },
      ]
      let (dry, dryRows) = try await run(rows, dryRun: true, database)
      #expect(dry.done == 3 && dry.unchanged == 1 && dry.failed == 3 && dry.dryRun)
      #expect(dryRows.map(\.result) == [.done, .done, .failed, .failed, .unchanged, .failed])
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 1)
      #expect(try await database.int("SELECT count(*) FROM app_user") == 2)

      let (batch, results) = try await run(rows, database)
      #expect(
        batch.total == 6 && batch.done == 3 && batch.unchanged == 1 && batch.failed == 3 && batch.state == .finished)
      #expect(results.map(\.row) == [2, 3, 4, 6, 7, 8])
      #expect(results.map(\.code) == [nil, nil, "invalid", "unknown-profile", "exists", "address-taken"])
      #expect(results[2].problems?.first?.pointer == "/address")
      #expect(results[5].message?.contains("another ownerKind;") == true)

      let ada = try await store.mailbox(try #require(results[0].mailboxID), for: database.principal)
      #expect(ada.owner == MailboxOwner(kind: .user, id: database.principal.userID.value, name: "Ada"))
      #expect(ada.profileID == profile.id && ada.passwordSet && ada.approval == .pending && ada.version == 1)
      #expect(ada.incoming.notRunningReason == "not-approved" && ada.allowsCredentials)
      let queue = try await store.mailbox(try #require(results[1].mailboxID), for: database.principal)
      #expect(queue.owner.kind == .queue && queue.owner.name == "Support" && queue.profileID == second.id)
      #expect(queue.outgoing.method == .none && queue.userName == "support" && queue.deleteAfterProcessing)
      #expect(!queue.allowsCredentials && queue.processEmailFrom == Date(timeIntervalSince1970: 1_750_000_000))
      // The hot rows are those of any other mailbox.
      let hot = """
        SELECT string_agg(kind || enabled || job_class || coalesce(profile_id, 0) || requested, ' ' ORDER BY kind)
        FROM mailbox_schedule WHERE mailbox_id = $1
        """
      func text(_ id: MailboxID) async throws -> String {
        var row = try await database.sql(hot, [.id(id)])[0]
        return try row.text()
      }
      #expect(try await text(ada.id) == (try await text(there.id)))
      // The password works, and stands nowhere else.
      _ = try await store.setApproval(.approved, of: [ada.id], by: database.principal)
      _ = try await store.requestTest(of: [ada.id], by: database.principal)
      let (_, assignment) = try await database.assignment(ada, .test)
      #expect(assignment.settings.incomingCredentials?.proof == .password(Secret("s3cret-word")))
      #expect(try await database.int("SELECT count(*) FROM mailbox_import_row") == 0)
      #expect(
        try await database.int(
          """
          SELECT (SELECT count(*) FROM audit a WHERE a::text LIKE '%s3cret%')
            + (SELECT count(*) FROM batch_row r WHERE r::text LIKE '%s3cret%')
          """) == 0)
      #expect(
        try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.create' AND after ? 'batchID'") == 2)

      let (again, same) = try await run(rows, database)
      #expect(again.done == 3 && again.unchanged == 3 && again.failed == 3)
      #expect(same.prefix(2).allSatisfy { $0.result == .unchanged && $0.code == "exists" })
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 3)
      #expect(try await store.mailbox(ada.id, for: database.principal).version == 2)
    }
  }

  @Test(
    "passwords that wait are encrypted, come under a new key with the others, and are gone when the import is ended")
  func waitingPasswords() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let id = try await database.store.beginImport(dryRun: false, by: database.principal)
      try await database.store.addImportRows(
        [row(2, "a@example.com", password: "s3cret-word"), row(3, "b@example.com", password: "other")], to: id,
        by: database.principal)
      #expect(
        try await database.int(
          "SELECT count(*) FROM mailbox_import_row i WHERE position('s3cret'::bytea IN password) > 0") == 0)
      let ring = database.ring.adding(id: "new")
      let report = try await SecretRotation(
        url: database.server.url("pr_app", database.name), ring: ring, batch: 3
      ).rotate()
      #expect(report.changed == 2)
      let newer = PostgresStore(
        configuration: PostgresStoreConfiguration(url: database.server.url("pr_app", database.name), keyRing: ring),
        logger: .test)
      let batch = try await newer.finishImport(id, by: database.principal)
      // A process without the new key leaves the step to those that have it.
      #expect(try await database.store.advanceBatch() == .worked)
      #expect(try await database.store.batch(batch.id, for: database.principal).done == 0)
      try await database.sql("UPDATE batch SET next_look_at = now()")
      #expect(try await newer.advanceBatch() == .worked)
      #expect(try await database.store.batch(batch.id, for: database.principal).done == 2)
      await newer.close()

      let second = try await database.store.beginImport(dryRun: false, by: database.principal)
      try await database.store.addImportRows(
        [row(2, "c@example.com", password: "x")], to: second, by: database.principal)
      _ = try await database.store.cancelBatch(second, by: database.principal)
      #expect(try await database.int("SELECT count(*) FROM mailbox_import_row") == 0)
      await #expect(throws: StoreError.self) {
        try await database.store.addImportRows([self.row(3, "d@example.com")], to: second, by: database.principal)
      }
      await #expect(throws: StoreError.self) {
        try await database.store.finishImport(second, by: database.principal)
      }
      let third = try await database.store.beginImport(dryRun: false, by: database.principal)
      try await database.store.addImportRows(
        [row(2, "e@example.com", password: "x")], to: third, by: database.principal)
      try await database.store.abandonImport(third, by: database.principal)
      #expect(try await database.int("SELECT count(*) FROM batch WHERE id = \(third)") == 0)
      #expect(try await database.int("SELECT count(*) FROM batch_row WHERE batch_id = \(third)") == 0)
      #expect(try await database.int("SELECT count(*) FROM mailbox_import_row") == 0)
    }
  }

  @Test("an account that opens one maildrop takes one mailbox; a maildrop that is taken fails its row alone")
  func delegation() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      func profile(_ name: String, loginAs: String?) async throws {
        let draft = ProfileDraft(
          name: name, type: .pop3SMTP, isDefault: false,
          incoming: ServerDraft(
            host: "pop.example.com", credentials: .profile, userName: "svc", password: Secret("x"), loginAs: loginAs),
          outgoing: ServerDraft(host: "smtp.example.com"))
        _ = try await store.createProfile(try ProfileRules().resolve(draft), by: database.principal)
      }
      try await profile("One", loginAs: nil)
      try await profile("Many", loginAs: "authzid")
      var rows = [
        row(2, "a@example.com") { $0.profile = "One" }, row(3, "b@example.com") { $0.profile = "One" },
        row(4, "c@example.com") {
          $0.profile = "Many"; $0.userName = "same"
        },
        row(5, "d@example.com") {
          $0.profile = "Many"; $0.userName = "SAME"
        },
      ]
      rows += (6...40).map { number in row(number, "x\(number)@example.com") { $0.profile = "Many" } }
      let (batch, results) = try await run(rows, database)
      #expect(batch.done == 37 && batch.failed == 2 && batch.state == .finished)
      #expect(results[1].code == "profile.no-delegation")
      #expect(
        results.filter { $0.result == .failed }.map(\.code) == ["profile.no-delegation", "profile.maildrop-taken"])
    }
  }
}
