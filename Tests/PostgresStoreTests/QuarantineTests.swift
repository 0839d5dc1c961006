import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Messages in quarantine (feature R5)")
struct QuarantineTests {
  @Test("they are listed by mailbox and reason, page by page, with their octets, for their organization alone")
  func views() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let quarantine = try await database.withQuarantine()
      let (first, second) = (quarantine.mailboxes[0], quarantine.mailboxes[1])
      try await quarantine.fail("a", in: first, Failure(.messageUnparsable, context: "no structure"), raw: [1, 2, 3])
      try await quarantine.fail("b", in: first, Failure(.pop3Retrieve, serverWords: "-ERR no"), raw: nil)
      try await quarantine.fail("c", in: second, Failure(.messageStore), raw: [4])
      let list = { (filter: QuarantineFilter, page: PageRequest) in
        try await store.quarantine(filter, page, for: database.principal)
      }
      let all = try await list(QuarantineFilter(), PageRequest(limit: 2))
      #expect(all.items.map(\.uidl) == ["c", "b"] && all.total == 3)
      let rest = try await list(QuarantineFilter(), PageRequest(limit: 2, cursor: all.nextCursor))
      #expect(rest.items.map(\.uidl) == ["a"] && rest.nextCursor == nil)
      #expect(try await list(QuarantineFilter(mailboxID: first.id), PageRequest()).items.map(\.uidl) == ["b", "a"])
      let stored = try await list(QuarantineFilter(reason: .messageStore), PageRequest())
      #expect(stored.items.map(\.uidl) == ["c"] && stored.total == 1)

      let message = try await store.quarantinedMessage(rest.items[0].id, for: database.principal)
      #expect(message == rest.items[0] && message.mailboxAddress == "a@example.com" && message.attempts == 3)
      #expect(message.failure.context == "no structure" && message.sizeOctets == 3)
      #expect(message.reprocessRequestedAt == nil)
      var raw: [UInt8] = []
      for try await chunk in try await store.rawQuarantined(message.id, for: database.principal) { raw += chunk }
      #expect(raw == [1, 2, 3])
      let refused = all.items[1]
      #expect(refused.sizeOctets == nil && refused.failure.serverWords == "-ERR no")
      let error = await #expect(throws: StoreError.self) {
        try await store.rawQuarantined(refused.id, for: database.principal)
      }
      guard case .conflict("not-kept", _) = error else {
        Issue.record("\(String(describing: error))")
        return
      }

      let other = try await database.otherPrincipal()
      #expect(try await store.quarantine(QuarantineFilter(), PageRequest(), for: other).total == 0)
      let notFound = StoreError.notFound("message in quarantine")
      await #expect(throws: notFound) { try await store.quarantinedMessage(message.id, for: other) }
      await #expect(throws: notFound) { try await store.rawQuarantined(message.id, for: other) }
      for answer in [
        try await store.reprocess([message.id], dryRun: false, by: other),
        try await store.discard([message.id], dryRun: false, by: other),
      ] {
        #expect(answer.map(\.code) == ["not-found"])
      }
      #expect(try await list(QuarantineFilter(), PageRequest()).total == 3)
    }
  }

  @Test("the third failure of a message that was in quarantine changes its row; what was fetched last is kept")
  func once() async throws {
    try await TestDatabase.with { database in
      let quarantine = try await database.withQuarantine()
      let mailbox = quarantine.mailboxes[0]
      try await quarantine.fail("a", in: mailbox, Failure(.messageStore), raw: [1, 2, 3])
      try await database.sql("UPDATE ledger SET state = 'failing', attempts = 0")
      try await quarantine.fail("a", in: mailbox, Failure(.messageUnparsable), raw: [4, 5])
      let page = try await database.store.quarantine(QuarantineFilter(), PageRequest(), for: database.principal)
      #expect(page.items.map(\.failure.code) == [.messageUnparsable] && page.items.map(\.attempts) == [6])
      #expect(page.items.map(\.sizeOctets) == [2])
      #expect(try await database.int("SELECT sum(octet_length(octets)) FROM content_chunk") == 2)
      // A refusal of the server takes nothing away that was kept.
      try await database.sql("UPDATE ledger SET state = 'failing', attempts = 0")
      try await quarantine.fail("a", in: mailbox, Failure(.pop3Retrieve), raw: nil)
      let kept = try await database.store.quarantine(QuarantineFilter(), PageRequest(), for: database.principal)
      #expect(kept.items.map(\.sizeOctets) == [2] && kept.items.map(\.attempts) == [9])
      #expect(try await database.alerts("message.quarantined") == ["3 open"])
    }
  }

  @Test("reprocess asks for a poll; the session finds the octets, and what is stored leaves the quarantine")
  func reprocess() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let quarantine = try await database.withQuarantine()
      let mailbox = quarantine.mailboxes[0]
      try await quarantine.fail("a", in: mailbox, Failure(.messageUnparsable), raw: [1, 2, 3])
      try await quarantine.fail("b", in: mailbox, Failure(.pop3Retrieve), raw: nil)
      let ids = try await quarantine.ids()
      #expect(try await !database.assignment(mailbox, .poll).1.reprocesses)
      let before = try await store.mailbox(mailbox.id, for: database.principal).pollsRequested
      // A dry run answers the same and changes nothing.
      let asked = ids + [QuarantineID(99_999)]
      let dry = try await store.reprocess(asked, dryRun: true, by: database.principal)
      #expect(dry.map(\.code) == [nil, nil, "not-found"])
      #expect(try await !database.assignment(mailbox, .poll).1.reprocesses)
      #expect(try await store.reprocess(asked, dryRun: false, by: database.principal) == dry)
      #expect(try await store.reprocess(ids, dryRun: false, by: database.principal).allSatisfy(\.ok))
      #expect(try await store.mailbox(mailbox.id, for: database.principal).pollsRequested == before + 2)
      #expect(try await quarantine.ledger() == "a failing 0, b failing 0")

      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      #expect(assignment.reprocesses && assignment.trigger == .request)
      let writer = database.guardian(lease, assignment)
      let kept = try await store.messagesToReprocess(limit: 10, writer: writer)
      #expect(kept.map(\.uidl) == ["a", "b"] && kept.map(\.isKept) == [true, false] && kept.map(\.id) == ids)
      #expect(try await store.messagesToReprocess(limit: 1, writer: writer).map(\.uidl) == ["a"])
      var octets: [UInt8] = []
      let organization = database.principal.organizationID
      for try await chunk in try await store.keptOctets(of: ids[0], organization: organization) { octets += chunk }
      #expect(octets == [1, 2, 3])
      guard case .stored = try await store.store([.sample("a")], writer: writer)[0] else {
        Issue.record("not stored")
        return
      }
      #expect(try await store.messagesToReprocess(limit: 10, writer: writer).map(\.uidl) == ["b"])
      #expect(try await quarantine.ids() == [ids[1]])
      #expect(
        try await database.int("SELECT count(*) FROM content_chunk c JOIN email e ON e.raw_content_id = c.content_id")
          == 1)
      #expect(try await database.int("SELECT count(*) FROM content_chunk") == 1, "the kept octets are gone")
      #expect(try await database.alerts("message.quarantined") == ["2 open"])
      // Too large now: it is skipped, and leaves as well.
      try await store.skip(["b": .tooLarge], writer: writer)
      #expect(try await store.messagesToReprocess(limit: 10, writer: writer).isEmpty)
      #expect(try await database.alerts("message.quarantined") == ["2 resolved"])
      #expect(try await !database.assignment(mailbox, .poll).1.reprocesses)
      let audit = try await database.sql(
        "SELECT action || ' ' || (before->>'uidl') FROM audit WHERE subject_kind = 'quarantined-message' ORDER BY id"
      ).map { try $0.text() }
      #expect(audit == ["a", "b", "a", "b"].map { "quarantine.reprocess \($0)" })
    }
  }

  @Test("what fails again goes back with the new reason; a mailbox that does not run is refused")
  func failsAgain() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let quarantine = try await database.withQuarantine()
      let mailbox = quarantine.mailboxes[0]
      try await quarantine.fail("a", in: mailbox, Failure(.messageUnparsable), raw: [1])
      let ids = try await quarantine.ids()
      _ = try await store.reprocess(ids, dryRun: false, by: database.principal)
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      try await store.reprocessingFailed(ids[0], Failure(.messageStore, context: "again"), writer: writer)
      let message = try await store.quarantinedMessage(ids[0], for: database.principal)
      #expect(message.failure.context == "again" && message.attempts == 4 && message.sizeOctets == 1)
      #expect(message.reprocessRequestedAt == nil)
      #expect(try await quarantine.ledger() == "a quarantined 1")
      // Nobody asked: nothing changes.
      try await store.reprocessingFailed(ids[0], Failure(.pop3Retrieve), writer: writer)
      #expect(try await store.quarantinedMessage(ids[0], for: database.principal).attempts == 4)

      _ = try await store.setApproval(.rejected, of: [mailbox.id], by: database.principal)
      let refused = try await store.reprocess(ids, dryRun: false, by: database.principal)
      #expect(refused.map(\.code) == ["not-running"] && refused[0].message?.contains("not-approved") == true)
      #expect(try await quarantine.ledger() == "a quarantined 1")
    }
  }

  @Test("discard deletes row and octets; the ledger keeps the message from coming back")
  func discard() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let quarantine = try await database.withQuarantine()
      let mailbox = quarantine.mailboxes[0]
      try await quarantine.fail("a", in: mailbox, Failure(.messageUnparsable), raw: [1, 2, 3])
      try await quarantine.fail("b", in: mailbox, Failure(.pop3Retrieve), raw: nil)
      let ids = try await quarantine.ids()
      _ = try await store.reprocess([ids[1]], dryRun: false, by: database.principal)
      #expect(try await store.discard(ids, dryRun: true, by: database.principal).allSatisfy(\.ok))
      #expect(try await quarantine.ids() == ids)
      let answers = try await store.discard(
        [ids[1], QuarantineID(99_999), ids[0]], dryRun: false, by: database.principal)
      #expect(answers.map(\.ok) == [true, false, true])
      #expect(try await quarantine.ids().isEmpty)
      #expect(try await quarantine.ledger() == "a quarantined 3, b quarantined 0")
      #expect(try await database.int("SELECT count(*) FROM content_chunk") == 0)
      #expect(try await database.alerts("message.quarantined") == ["2 resolved"])
      let organization = database.principal.organizationID
      #expect(try await store.unknown(uidls: ["a", "b"], mailbox: mailbox.id, organization: organization).isEmpty)
      let audit = try await database.sql(
        "SELECT before::text FROM audit WHERE action = 'quarantine.discard' ORDER BY subject_id"
      ).map { try $0.text() }
      #expect(audit.count == 2 && audit[0].contains("message.unparsable") && audit[0].contains("\"a\""))
    }
  }

  @Test("a session that stores and a person who discards at the same time: one of them wins, nobody waits for ever")
  func race() async throws {
    try await TestDatabase.with(poolSize: 8) { database in
      let store = database.store
      let quarantine = try await database.withQuarantine()
      let mailbox = quarantine.mailboxes[0]
      let names = (1...12).map { "m\($0)" }
      for name in names { try await quarantine.fail(name, in: mailbox, Failure(.messageStore), raw: [1]) }
      let ids = try await quarantine.ids()
      _ = try await store.reprocess(ids, dryRun: false, by: database.principal)
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let stored = try await withThrowingTaskGroup(of: Int.self) { group in
        for (id, name) in zip(ids, names) {
          group.addTask {
            let result = try await store.store([.sample(name)], writer: writer)[0]
            _ = try await store.messagesToReprocess(limit: 100, writer: writer)
            return result == .duplicate ? 0 : 1
          }
          group.addTask {
            _ = try await store.discard([id], dryRun: false, by: database.principal)
            return 0
          }
        }
        return try await group.reduce(0, +)
      }
      #expect(try await quarantine.ids().isEmpty)
      #expect(try await database.int("SELECT count(*) FROM email") == Int64(stored))
      #expect(
        try await database.int("SELECT count(*) FROM ledger WHERE state IN ('stored', 'quarantined')")
          == Int64(names.count))
      #expect(try await database.int("SELECT count(*) FROM content_chunk") == Int64(stored))
    }
  }

  @Test("the migration keeps the newer of two rows of one message")
  func migration() async throws {
    try await TestDatabase.with { database in
      let quarantine = try await database.withQuarantine()
      try await quarantine.fail("a", in: quarantine.mailboxes[0], Failure(.messageStore), raw: nil)
      // Back to the release before.
      for statement in [
        "DROP TABLE uidl_reset", "DROP INDEX quarantine_message, quarantine_organization, quarantine_reprocess",
        "ALTER TABLE quarantine DROP COLUMN reprocess_requested_at", "DELETE FROM schema_migration WHERE version = 7",
        """
        INSERT INTO quarantine (organization_id, mailbox_id, uidl, failure, attempts)
        SELECT organization_id, mailbox_id, uidl, failure, 7 FROM quarantine
        """,
      ] {
        try await database.sql(statement)
      }
      let migrator = Migrator(
        url: database.server.url("pr_owner", database.name),
        applicationURL: database.server.url("pr_app", database.name), logger: .test)
      #expect(try await migrator.migrate() == [7])
      let page = try await database.store.quarantine(QuarantineFilter(), PageRequest(), for: database.principal)
      #expect(page.items.map(\.attempts) == [7])
      let forced = try await database.int(
        "SELECT count(*) FROM pg_class WHERE relname = 'quarantine' AND relforcerowsecurity")
      #expect(forced == 1)
    }
  }
}

/// Two running mailboxes whose messages can be made to fail.
private struct Quarantine {
  let database: TestDatabase
  let mailboxes: [Mailbox]

  /// Lets a message fail three times.
  func fail(_ uidl: String, in mailbox: Mailbox, _ failure: Failure, raw: [UInt8]?) async throws {
    let (lease, assignment) = try await database.assignment(mailbox, .poll)
    let writer = database.guardian(lease, assignment)
    for number in 1...3 {
      let done = try await database.store.messageFailed(
        uidl: uidl, failure: failure, raw: raw.map { .bytes($0) }, writer: writer)
      #expect(done == (number == 3))
    }
  }

  func ids() async throws -> [QuarantineID] {
    try await database.sql("SELECT id FROM quarantine ORDER BY id").map { try $0.id() }
  }

  func ledger() async throws -> String {
    try await database.sql("SELECT uidl || ' ' || state || ' ' || attempts FROM ledger ORDER BY uidl").map {
      try $0.text()
    }.joined(separator: ", ")
  }
}

extension TestDatabase {
  fileprivate func withQuarantine() async throws -> Quarantine {
    _ = try await profile()
    return Quarantine(
      database: self,
      mailboxes: [try await runningMailbox("a@example.com"), try await runningMailbox("b@example.com")])
  }

  /// Alerts of a code: how often and whether open.
  func alerts(_ code: String) async throws -> [String] {
    try await sql(
      "SELECT count || CASE WHEN resolved_at IS NULL THEN ' open' ELSE ' resolved' END FROM alert WHERE code = $1",
      [.text(code)]
    ).map { try $0.text() }
  }
}
