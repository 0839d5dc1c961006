import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Changes of mailboxes", .timeLimit(.minutes(3)))
struct MailboxChangeTests {
  private func change(_ set: (inout MailboxChange) -> Void) -> MailboxChange {
    var change = MailboxChange()
    set(&change)
    return change
  }

  @Test("M6: another password has to be tested, is the one that the next session gets, and stands in no record")
  func password() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (poll, assignment) = try await database.assignment(mailbox, .poll)
      #expect(assignment.settings.incomingCredentials?.proof == .password(Secret("hunter2")))
      let changed = try await store.updateMailbox(
        mailbox.id, change { $0.password = Secret("s3cond-word") }, by: database.principal)
      #expect(changed.version == mailbox.version + 1 && changed.passwordSet)
      for state in [changed.incoming, changed.outgoing] {
        #expect(state.status == .notRun && !state.enabled && state.notRunningReason == "not-tested")
      }
      #expect(changed.approval == .approved)
      // The session that began with the old one writes nothing any more.
      #expect(try await store.commit(database.outcome(poll, assignment)) == .fenced)
      _ = try await store.requestTest(of: [mailbox.id], by: database.principal)
      let (_, test) = try await database.assignment(changed, .test)
      #expect(test.settings.incomingCredentials?.proof == .password(Secret("s3cond-word")))
      try await database.pass(changed)
      #expect(try await store.mailbox(mailbox.id, for: database.principal).incoming.enabled)
      let words = try await database.int(
        "SELECT count(*) FROM audit WHERE before::text || after::text LIKE '%s3cond%' OR after::text LIKE '%hunter2%'")
      #expect(words == 0)
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE action = 'mailbox.update' AND (after->>'hasNewPassword')::boolean") == 1)

      let without = try await store.updateMailbox(
        mailbox.id, change { $0.clears = [.password] }, by: database.principal)
      #expect(!without.passwordSet && without.incoming.status == .notRun)
    }
  }

  @Test("A2: another address waits for approval again, and is taken only once")
  func address() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      _ = try await database.mailbox("b@example.com")
      let taken = await #expect(throws: StoreError.self) {
        try await store.updateMailbox(
          mailbox.id, change { $0.address = "B@Example.com" }, by: database.principal)
      }
      guard case .conflict(code: "address-taken", _) = taken else {
        Issue.record("\(String(describing: taken))")
        return
      }
      #expect(try await store.mailbox(mailbox.id, for: database.principal) == mailbox)
      let changed = try await store.updateMailbox(
        mailbox.id, change { $0.address = "c@example.com" }, by: database.principal)
      #expect(changed.address == "c@example.com" && changed.approval == .pending)
      #expect(changed.incoming.status == .notRun && changed.outgoing.status == .notRun)
      let lease = database.lease(mailbox.id, .poll, try #require(mailbox.profileID))
      #expect(try await store.check([lease]) == [lease.job: .skip("disabled")])
      _ = try await store.setApproval(.approved, of: [mailbox.id], by: database.principal)
      try await database.pass(changed)
      let (_, assignment) = try await database.assignment(changed, .poll)
      #expect(assignment.settings.address == "c@example.com")
    }
  }

  @Test("M6: a method or a floor touches what it must and nothing else; what is the same writes nothing")
  func single() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (poll, assignment) = try await database.assignment(mailbox, .poll)
      let silent = try await store.updateMailbox(
        mailbox.id, change { $0.outgoingMethod = SyncMethod.none }, by: database.principal)
      #expect(silent.outgoing.status == .notRun && silent.outgoing.method == .none)
      #expect(silent.incoming.enabled && silent.incoming.status == .success)
      let floor = Date(timeIntervalSince1970: 1_700_000_000)
      let later = try await store.updateMailbox(
        mailbox.id, change { $0.processEmailFrom = floor }, by: database.principal)
      #expect(later.processEmailFrom == floor && later.incoming.enabled)
      let all = try await store.updateMailbox(
        mailbox.id, change { $0.clears = [.processEmailFrom] }, by: database.principal)
      #expect(all.processEmailFrom == nil)
      // The poll that ran meanwhile is as good as before.
      guard case .written = try await store.commit(database.outcome(poll, assignment)) else {
        Issue.record("the poll was fenced")
        return
      }
      let same = try await store.updateMailbox(
        mailbox.id,
        change {
          $0.address = "a@example.com"
          $0.outgoingMethod = SyncMethod.none
          $0.allowsCredentials = true
        }, by: database.principal)
      #expect(same.version == all.version)
    }
  }

  @Test("wrong fields are named together; another organization's mailbox is not there")
  func refused() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.mailbox("a@example.com")
      let error = await #expect(throws: StoreError.self) {
        try await store.updateMailbox(
          mailbox.id,
          change {
            $0.address = "nobody"
            $0.userName = "a\r\nQUIT"
            $0.password = Secret(String(repeating: "x", count: 201))
            $0.deleteAfterProcessing = true
            $0.clears = [.password]
          }, by: database.principal)
      }
      guard case .invalid(let problems) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(
        problems.map(\.pointer) == ["/address", "/userName", "/password", "/deleteAfterProcessing", "/password"])
      let other = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.updateMailbox(mailbox.id, change { $0.userName = "x" }, by: other)
      }
    }
  }
}
