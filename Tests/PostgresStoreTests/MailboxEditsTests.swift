import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Changes of several mailboxes (M4, M5)", .timeLimit(.minutes(3)))
struct MailboxEditsTests {
  @Test("M5: what is filled in is written to all in one transaction; a refused row keeps the others from nothing")
  func edit() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let one = try await database.runningMailbox("a@example.com")
      let two = try await database.runningMailbox("b@example.com")
      let queue = try await store.createMailbox(
        MailboxDraft(address: "q@example.com", owner: OwnerDraft(kind: .queue)), by: database.principal)
      var change = MailboxChange()
      change.deleteAfterProcessing = true
      change.isActive = false
      let ids = [two.id, queue.id, MailboxID(99_999), one.id]
      let rehearsed = try await store.editMailboxes(
        MailboxEditRequest(ids: ids, change: change, dryRun: true), by: database.principal)
      #expect(rehearsed.map(\.id) == ids && rehearsed.map(\.ok) == [false, true, false, false])
      #expect(rehearsed.map(\.code) == ["not-allowed", nil, "not-found", "not-allowed"])
      #expect(try await store.mailbox(queue.id, for: database.principal) == queue)
      let edits = try await store.editMailboxes(
        MailboxEditRequest(ids: ids, change: change), by: database.principal)
      #expect(edits.map(\.ok) == rehearsed.map(\.ok))
      let changed = try await store.mailbox(queue.id, for: database.principal)
      #expect(changed.deleteAfterProcessing && !changed.isActive && edits[1].mailbox == changed)
      #expect(edits[1].before == queue)
      #expect(try await store.mailbox(one.id, for: database.principal).isActive)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'mailbox.update'") == 1)

      // Methods only: the other direction and everything else stay, nothing is tested.
      change = MailboxChange()
      change.outgoingMethod = SyncMethod.none
      _ = try await store.editMailboxes(
        MailboxEditRequest(ids: [one.id, two.id], change: change), by: database.principal)
      let after = try await store.mailbox(one.id, for: database.principal)
      #expect(after.outgoing.method == .none && after.incoming.enabled && after.profileID == profile.id)
      #expect(after.testsRequested == one.testsRequested)
      let other = try await database.otherPrincipal()
      let foreign = try await store.editMailboxes(MailboxEditRequest(ids: [one.id], change: change), by: other)
      #expect(foreign.map(\.code) == ["not-found"])
    }
  }

  @Test("a rule of the database refuses one row and no other")
  func databaseRule() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let server = ServerDraft(
        host: "pop.example.com", credentials: .profile, userName: "sync", password: Secret("s"))
      let shared = try await store.createProfile(
        try ProfileRules().resolve(
          ProfileDraft(
            name: "Shared", type: .pop3SMTP, incoming: server, outgoing: ServerDraft(host: "smtp.example.com"))),
        by: database.principal)
      let one = try await database.mailbox("a@example.com")
      let two = try await database.mailbox("b@example.com")
      let edits = try await store.editMailboxes(
        MailboxEditRequest(ids: [one.id, two.id], change: MailboxChange(profileID: shared.id)),
        by: database.principal)
      #expect(edits.map(\.ok) == [true, false] && edits[1].code == "profile.no-delegation")
      #expect(try await store.mailbox(one.id, for: database.principal).profileID == shared.id)
      #expect(try await store.mailbox(two.id, for: database.principal).profileID != shared.id)
    }
  }

  @Test("M4: the defaults are shown, written, and leave a mailbox that has them already as it is")
  func defaults() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let old = try await database.profile("Old")
      let mailbox = try await database.runningMailbox("a@example.com")
      let new = try await database.profile("New")
      let there = try await database.runningMailbox("b@example.com")
      #expect(mailbox.profileID == old.id && there.profileID == new.id)
      var settings = EmailSettingsChange()
      settings.actMethod = .serverSideSync
      settings.incomingMethod = SyncMethod.none
      _ = try await store.updateEmailSettings(settings, by: database.principal)
      let ids = [mailbox.id, there.id]
      let planned = try await store.applyDefaults(to: ids, dryRun: true, by: database.principal)
      #expect(planned.settings.defaultProfileID == new.id && planned.results.map(\.ok) == [true, true])
      #expect(planned.results[0].mailbox?.profileName == "New")
      #expect(try await store.mailbox(mailbox.id, for: database.principal) == mailbox)
      let applied = try await store.applyDefaults(to: ids, dryRun: false, by: database.principal)
      let after = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(applied.results[0].mailbox == after)
      #expect(after.profileID == new.id && after.incoming.method == .none && after.outgoing.method == .serverSideSync)
      #expect(after.outgoing.status == .notRun && !after.outgoing.enabled)
      #expect(after.act.method == .serverSideSync && after.act.effectiveMethod == .none)
      // The other one was on the profile already: sending runs on.
      #expect(try await store.mailbox(there.id, for: database.principal).outgoing.enabled)
      let again = try await store.applyDefaults(to: [there.id], dryRun: false, by: database.principal)
      #expect(again.results[0].before == again.results[0].mailbox)
      var none = EmailSettingsChange()
      none.clears = [.defaultProfileID]
      _ = try await store.updateEmailSettings(none, by: database.principal)
      await #expect(throws: StoreError.self) {
        try await store.applyDefaults(to: ids, dryRun: true, by: database.principal)
      }
    }
  }
}
