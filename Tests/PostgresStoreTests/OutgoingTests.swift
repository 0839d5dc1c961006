import Foundation
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

  @Test("submits with one key at the same time leave one message, whatever they hold")
  func idempotency() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let ids = try await withThrowingTaskGroup(of: OutgoingEmailID.self) { group in
        for number in 0..<8 {
          group.addTask {
            try await database.store.submit(
              OutgoingSubmission(
                mailboxID: mailbox.id, recipients: ["b@example.com"], subject: "\(number)",
                messageID: "\(number)@example.com", raw: .bytes([1]), idempotencyKey: "k"), by: database.principal
            ).id
          }
        }
        return try await group.reduce(into: Set()) { $0.insert($1) }
      }
      #expect(ids.count == 1)
      #expect(try await database.int("SELECT count(*) FROM outgoing_email") == 1)
    }
  }

  @Test("a large message goes from a file into storage and is read again in pieces, with what it needs")
  func pieces() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let octets = (0..<2_500_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      let path = FileManager.default.temporaryDirectory.appending(path: "out-\(UUID().uuidString)").path
      #expect(FileManager.default.createFile(atPath: path, contents: Data(octets)))
      defer { try? FileManager.default.removeItem(atPath: path) }
      let message = OutgoingSubmission(
        mailboxID: mailbox.id, sender: "a@xn--bcher-kva.example", recipients: ["b@example.com"], subject: "x",
        messageID: "1@example.com", raw: .file(path: path, sizeOctets: Int64(octets.count)), encoding: .eightBit)
      let email = try await database.store.submit(message, by: database.principal)
      #expect(email.sender == "a@xn--bcher-kva.example" && email.sizeOctets == 2_500_000)
      let (lease, assignment) = try await database.assignment(mailbox, .send)
      let claimed = try #require(
        try await database.store.claimNext(database.guardian(lease, assignment)))
      #expect(claimed.content.encoding == .eightBit && claimed.content.sizeOctets == 2_500_000)
      var read = claimed.content.first.octets
      #expect(Int64(read.count) == ContentPiece.maximumOctets)
      var place = claimed.content.first.next
      var count = 1
      while let piece = try await database.store.piece(of: claimed.content, at: place) {
        #expect(piece.octets.count <= ContentPiece.maximumOctets && piece.next != place)
        read += piece.octets
        place = piece.next
        count += 1
      }
      #expect(read == octets && count == 10)
      // Another organization's content is not there.
      var foreign = claimed.content
      foreign.organizationID = try await database.otherPrincipal().organizationID
      #expect(try await database.store.piece(of: foreign, at: .start) == nil)
    }
  }

  @Test("reports find the recipients of what was sent; a failure is not taken back, another mailbox's mail not touched")
  func reports() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let other = try await database.runningMailbox("other@example.com")
      for (owner, recipients) in [(mailbox, ["B@example.org", "c@example.org"]), (mailbox, ["d@example.org"])] {
        _ = try await store.submit(
          OutgoingSubmission(
            mailboxID: owner.id, recipients: recipients, subject: "x", messageID: "\(recipients.count)@example.com",
            raw: .bytes([1])), by: database.principal)
      }
      try await database.sql("UPDATE outgoing_recipient SET state = 'accepted'")
      func receive(
        _ uidl: String, by owner: Mailbox, about messageID: String, _ address: String, _ action: DeliveryAction
      ) async throws -> EmailID? {
        let (lease, assignment) = try await database.assignment(owner, .poll)
        var message = ReceivedMessage.sample(uidl)
        message.messageClass = .bounce
        message.notification = DeliveryNotification(
          messageID: messageID,
          recipients: [
            .init(
              addresses: ["x@example.org", address],
              report: DeliveryReport(action: action, status: "5.1.1", diagnostic: "550 no"))
          ])
        guard case .stored(let id) = try await store.store([message], writer: database.guardian(lease, assignment))[0]
        else { return nil }
        return id
      }
      func reports(_ id: Int64) async throws -> [DeliveryAction?] {
        try await store.outgoingEmail(OutgoingEmailID(id), for: database.principal).recipients.map(\.report?.action)
      }
      _ = try await receive("r1", by: other, about: "2@example.com", "b@example.org", .failed)
      #expect(try await reports(1) == [nil, nil])
      _ = try await receive("r2", by: mailbox, about: "2@example.com", "b@example.org", .delayed)
      #expect(try await reports(1) == [.delayed, nil])
      let bounce = try #require(try await receive("r3", by: mailbox, about: "2@example.com", "b@example.org", .failed))
      _ = try await receive("r4", by: mailbox, about: "2@example.com", "b@example.org", .delivered)
      let email = try await store.outgoingEmail(OutgoingEmailID(1), for: database.principal)
      #expect(email.recipients.map(\.report?.action) == [.failed, nil] && email.bounced == 1)
      #expect(email.recipients[0].report?.emailID == bounce && email.recipients[0].report?.status == "5.1.1")
      #expect(email.recipients[0].report?.diagnostic == "550 no" && email.recipients[0].report?.reportedAt != nil)
      #expect(try await store.email(bounce, for: database.principal).reportOfID == email.id)
      // An alias may have changed the address: of one recipient there is no doubt.
      _ = try await receive("r5", by: mailbox, about: "1@example.com", "alias@example.org", .failed)
      #expect(try await reports(2) == [.failed])
      let list = try await store.outgoingEmails(mailbox: nil, state: nil, PageRequest(), for: database.principal)
      #expect(list.items.map(\.bounced) == [1, 1])
    }
  }

  @Test("our own messages are entered into the ledger, not imported; those of another mailbox are mail")
  func own() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let other = try await database.runningMailbox("other@example.com")
      for (messageID, hold) in [("2@example.com", false), ("3@example.com", true)] {
        _ = try await store.submit(
          OutgoingSubmission(
            mailboxID: mailbox.id, recipients: ["a@example.com"], subject: "x", messageID: messageID,
            raw: .bytes([1]), hold: hold), by: database.principal)
      }
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      try await store.noteOwnMessage("4@example.com", writer: writer)
      try await store.noteOwnMessage("4@example.com", writer: writer)
      let results = try await store.store((1...4).map { .sample("\($0)") }, writer: writer)
      guard case .stored = results[0], case .stored = results[2] else {
        Issue.record("\(results)")
        return
      }
      #expect(results[1] == .own && results[3] == .own)
      #expect(try await database.int("SELECT count(*) FROM ledger WHERE state = 'own'") == 2)
      #expect(try await store.mailbox(mailbox.id, for: database.principal).emailCount == 2)
      let uidls = ["1", "2", "3", "4"]
      #expect(
        try await store.unknown(uidls: uidls, mailbox: mailbox.id, organization: database.principal.organizationID)
          .isEmpty)
      // What is nowhere else stays on the server.
      #expect(
        try await store.stored(uidls: uidls, mailbox: mailbox.id, organization: database.principal.organizationID)
          == ["1", "3"])
      let (second, job) = try await database.assignment(other, .poll)
      let received = try await store.store([.sample("2"), .sample("4")], writer: database.guardian(second, job))
      #expect(!received.contains(.own))
    }
  }
}
