import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Outgoing messages: submit, list, cancel")
struct OutgoingTests {
  @Test("a mailbox that does not send is refused with the reason; held, the message is a draft that can be canceled")
  func refusedOrHeld() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await store.createMailbox(MailboxDraft(address: "a@example.com"), by: database.principal)
      var message = OutgoingSubmission(
        mailboxID: mailbox.id, recipients: ["b@example.com", "c@example.com"], subject: "x",
        messageID: "1@example.com", raw: .bytes([1, 2, 3]), idempotencyKey: "k")
      let error = await #expect(throws: StoreError.self) { try await store.submit(message, by: database.principal) }
      guard case .conflict(let code, _) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(!code.isEmpty)
      message.hold = true
      let draft = try await store.submit(message, by: database.principal)
      #expect(draft.state == .draft && draft.recipients.map(\.state) == [.pending, .pending])
      // The same key again: the same message, and no second one.
      #expect(try await store.submit(message, by: database.principal) == draft)
      let page = try await store.outgoingEmails(
        mailbox: mailbox.id, state: .draft, PageRequest(), for: database.principal)
      #expect(page.items.map(\.id) == [draft.id] && page.total == 1)

      let other = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("message")) { try await store.outgoingEmail(draft.id, for: other) }
      await #expect(throws: StoreError.notFound("message")) { try await store.cancelOutgoing(draft.id, by: other) }
      let canceled = try await store.cancelOutgoing(draft.id, by: database.principal)
      #expect(canceled.state == .canceled && canceled.recipients.allSatisfy { $0.state == .canceled })
      await #expect(throws: StoreError.self) { try await store.cancelOutgoing(draft.id, by: database.principal) }
    }
  }
}
