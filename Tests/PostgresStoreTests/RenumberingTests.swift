import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Mailboxes whose server renumbered their mail (feature R2)")
struct RenumberingTests {
  @Test("a mailbox that stands still goes on with a choice, the others are refused; the choice reaches the session")
  func choice() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let halted = try await database.runningMailbox("a@example.com")
      let other = try await database.runningMailbox("b@example.com")
      let (lease, assignment) = try await database.assignment(halted, .poll)
      #expect(assignment.reimport == nil)
      try await store.noteRenumbering(writer: database.guardian(lease, assignment))
      let failure = Failure(.pop3UIDLReset)
      _ = try await store.commit(
        database.outcome(
          lease, assignment,
          directions: [
            DirectionChange(.incoming, status: .failure, enabled: false, failureCode: failure.code)
          ], alerts: [.raise(AlertDraft(level: .error, failure: failure, direction: .incoming))], failure: failure))
      #expect(try await store.mailbox(halted.id, for: database.principal).incoming.notRunningReason == "disabled")
      let stranger = try await database.otherPrincipal()
      #expect(try await store.reimport(.all, of: [halted.id], by: stranger).map(\.code) == ["not-found"])

      let answers = try await store.reimport(
        .missing, of: [other.id, halted.id, MailboxID(99_999)], by: database.principal)
      #expect(answers.map(\.code) == ["no-choice", nil, "not-found"])
      let mailbox = try await store.mailbox(halted.id, for: database.principal)
      #expect(mailbox.incoming.enabled && mailbox.incoming.status == .success && mailbox.incoming.failureCode == nil)
      #expect(mailbox.incoming.notRunningReason == nil && mailbox.incoming.nextRunReason == "enabled")
      #expect(try await database.alerts("pop3.uidl-reset") == ["1 resolved"])
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE action = 'mailbox.reimport' AND after->>'choice' = 'missing'")
          == 1)
      let (again, next) = try await database.assignment(halted, .poll)
      #expect(next.reimport == .missing)
      #expect(try await database.assignment(other, .poll).1.reimport == nil)
      try await store.finishReimport(writer: database.guardian(again, next))
      #expect(try await database.assignment(halted, .poll).1.reimport == nil)
      // Noted again: an old choice is none.
      try await store.noteRenumbering(writer: database.guardian(again, next))
      #expect(try await database.assignment(halted, .poll).1.reimport == nil)
      try await store.finishReimport(writer: database.guardian(again, next))
      #expect(try await database.int("SELECT count(*) FROM uidl_reset") == 1, "nobody chose yet")
    }
  }

  @Test("stored messages are found by Message-ID and by content, and take their new unique ids")
  func renumber() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let organization = database.principal.organizationID
      #expect(try await !store.hasStored(mailbox: mailbox.id, organization: organization))
      _ = try await store.store([.sample("1"), .sample("2"), .sample("3")], writer: writer)
      #expect(try await store.hasStored(mailbox: mailbox.id, organization: organization))
      let find = { (keys: MessageKeys) in
        try await store.stored(like: keys, mailbox: mailbox.id, organization: organization)
      }
      let ids = MessageKeys.messageIDs(["1@example.com", "2@example.com", "9@example.com"])
      #expect(try await find(ids) == ["1", "2"].map { StoredUnderID(uidl: $0, messageID: "\($0)@example.com") })
      let hash = MessageKeys.contentHash(ReceivedMessage.sample("1").contentHash)
      #expect(try await find(hash).map(\.uidl).contains("1"))

      _ = try await store.messageFailed(uidl: "x1", failure: Failure(.pop3Retrieve), raw: nil, writer: writer)
      try await store.renumber(["1": "x1", "2": "3"], writer: writer)
      let rows = try await database.sql("SELECT uidl || ' ' || state FROM ledger ORDER BY uidl").map { try $0.text() }
      #expect(rows == ["2 stored", "3 stored", "x1 stored"], "an id that is taken is not given twice")
      #expect(
        try await store.unknown(uidls: ["1", "x1"], mailbox: mailbox.id, organization: organization) == ["1"])
    }
  }
}
