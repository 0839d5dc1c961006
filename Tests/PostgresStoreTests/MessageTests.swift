import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("WorkerStore: messages and the ledger")
struct MessageTests {
  @Test("a message is stored once, whatever is sent again")
  func duplicates() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let store = database.store
      let organization = database.principal.organizationID
      #expect(
        try await store.unknown(uidls: ["1", "2"], mailbox: mailbox.id, organization: organization) == ["1", "2"])
      let first = try await store.store([.sample("1"), .sample("2"), .sample("1")], writer: writer)
      guard case .stored(let one) = first[0], case .stored = first[1] else {
        Issue.record("not stored: \(first)")
        return
      }
      #expect(first[2] == .duplicate)
      #expect(try await store.store([.sample("2"), .sample("3")], writer: writer)[0] == .duplicate)
      try await store.skip(["4": .beforeFloor, "1": .own], writer: writer)
      #expect(
        try await store.unknown(uidls: ["1", "2", "3", "4", "5"], mailbox: mailbox.id, organization: organization) == [
          "5"
        ])
      #expect(try await store.mailbox(mailbox.id, for: database.principal).emailCount == 3)
      let email = try await store.email(one, for: database.principal)
      #expect(email.envelope == ReceivedMessage.sample("1").envelope && email.uidl == "1" && email.text == "Hello")
      #expect(email.mailboxAddress == "a@example.com" && email.sizeOctets == 100)
      #expect(
        try await database.int("SELECT count(*) FROM ledger WHERE state = 'stored' AND email_id IS NOT NULL") == 3)
    }
  }

  @Test("two sessions that store the same message at once leave one")
  func concurrentDuplicates() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let results = try await withThrowingTaskGroup(of: [StoredMessage].self) { group in
        for _ in 0..<4 {
          group.addTask { try await database.store.store((1...20).map { .sample("\($0)") }, writer: writer) }
        }
        return try await group.reduce(into: []) { $0 += $1 }
      }
      #expect(results.count { if case .stored = $0 { true } else { false } } == 20)
      #expect(try await database.int("SELECT count(*) FROM email") == 20)
    }
  }

  @Test(
    "big contents from memory and from a file come back as they were, in chunks of 1 MiB", arguments: [false, true])
  func bigContent(fromFile: Bool) async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let raw = (0..<(3 * 1_048_576 + 12_345)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) }
      var message = ReceivedMessage.sample("big")
      let path = NSTemporaryDirectory() + "postrider-spool-\(UInt64.random(in: 0...UInt64.max))"
      defer { try? FileManager.default.removeItem(atPath: path) }
      if fromFile { try Data(raw).write(to: URL(fileURLWithPath: path)) }
      message.raw = fromFile ? .file(path: path, sizeOctets: Int64(raw.count)) : .bytes(raw)
      message.attachments = [
        ReceivedAttachment(
          record: AttachmentRecord(fileName: "ü.bin", contentType: "application/octet-stream", sizeOctets: 5),
          content: .bytes([1, 2, 3, 4, 5])),
        ReceivedAttachment(
          record: AttachmentRecord(fileName: nil, contentType: "video/mp4", sizeOctets: 9_999_999, dropped: true),
          content: nil),
      ]
      let stored = try await database.store.store(
        [message, .sample("small")], writer: database.guardian(lease, assignment))
      guard case .stored(let id) = stored[0], case .stored(let small) = stored[1] else {
        Issue.record("not stored")
        return
      }
      var back: [UInt8] = []
      for try await chunk in try await database.store.rawEmail(id, for: database.principal) {
        #expect(chunk.count <= 1_048_576)
        back += chunk
      }
      #expect(back == raw)
      #expect(try await database.int("SELECT max(position) FROM content_chunk") == 3)
      let email = try await database.store.email(id, for: database.principal)
      #expect(email.attachments == message.attachments.map(\.record) && email.attachmentCount == 2)
      var second: [UInt8] = []
      for try await chunk in try await database.store.rawEmail(small, for: database.principal) { second += chunk }
      #expect(Content.bytes(second) == ReceivedMessage.sample("small").raw)

      let other = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("message")) { try await database.store.rawEmail(id, for: other) }
      await #expect(throws: StoreError.notFound("message")) { try await database.store.email(id, for: other) }
    }
  }

  @Test("a spool file that is missing or has another size stores nothing")
  func wrongSpoolFile() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let path = NSTemporaryDirectory() + "postrider-spool-\(UInt64.random(in: 0...UInt64.max))"
      try Data([1, 2, 3]).write(to: URL(fileURLWithPath: path))
      defer { try? FileManager.default.removeItem(atPath: path) }
      for content in [
        Content.file(path: path + "-missing", sizeOctets: 3), .file(path: path, sizeOctets: 2),
        .file(path: path, sizeOctets: 4),
      ] {
        var message = ReceivedMessage.sample("1")
        message.raw = content
        await #expect(throws: StoreError.self) { try await database.store.store([message], writer: writer) }
      }
      #expect(try await database.int("SELECT (SELECT count(*) FROM ledger) + (SELECT count(*) FROM content)") == 0)
      #expect(try await database.store.store([.sample("1")], writer: writer).count == 1)
    }
  }

  @Test("a NUL in a text is refused in words, and the store goes on")
  func nul() async throws {
    try await TestDatabase.with(poolSize: 1) { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let error = await #expect(throws: StoreError.self) {
        try await database.store.store([.sample("1", text: "a\0b")], writer: writer)
      }
      #expect(error?.description.contains("NUL") == true)
      // Bytes that are no text are kept as they are.
      var message = ReceivedMessage.sample("2")
      message.raw = .bytes([0, 0xFF, 0xC0, 0])
      #expect(try await database.store.store([message], writer: writer) != [.duplicate])
      #expect(try await database.int("SELECT count(*) FROM email") == 1)
    }
  }

  @Test("the third failure quarantines a message with its raw octets; success before forgets the failures")
  func quarantine() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let store = database.store
      let failure = Failure(.messageUnparsable)
      let fails = { (uidl: String) in
        try await store.messageFailed(uidl: uidl, failure: failure, raw: .bytes([1, 2, 3]), writer: writer)
      }
      #expect(try await !fails("1"))
      #expect(try await !fails("1"))
      #expect(try await !fails("2"))
      let organization = database.principal.organizationID
      #expect(
        try await store.unknown(uidls: ["1", "2"], mailbox: mailbox.id, organization: organization) == ["1", "2"])
      #expect(try await fails("1"))
      #expect(try await !fails("1"))
      #expect(try await store.unknown(uidls: ["1", "2"], mailbox: mailbox.id, organization: organization) == ["2"])
      #expect(
        try await database.int(
          "SELECT sum(octet_length(c.octets)) FROM quarantine q JOIN content_chunk c ON c.content_id = q.content_id")
          == 3)
      guard case .stored = try await store.store([.sample("2")], writer: writer)[0] else {
        Issue.record("a failing message could not be stored")
        return
      }
      #expect(try await store.unknown(uidls: ["2"], mailbox: mailbox.id, organization: organization).isEmpty)
      #expect(try await !fails("2"))
      #expect(try await database.int("SELECT count(*) FROM quarantine") == 1)
    }
  }

  @Test("what nobody could judge is worth another attempt and counts none; the last chance quarantines at once")
  func postponed() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let store = database.store
      let organization = database.principal.organizationID
      let failing = {
        try await store.failing(uidls: ["1", "2", "3"], mailbox: mailbox.id, organization: organization)
      }
      try await store.postpone(["2", "1", "1"], Failure(.tcpClosed), writer: writer)
      let first = try await failing()
      #expect(Set(first.keys) == ["1", "2"])
      #expect(try await database.int("SELECT sum(attempts) FROM ledger") == 0)
      #expect(
        try await store.unknown(uidls: ["1", "2"], mailbox: mailbox.id, organization: organization) == ["1", "2"])
      _ = try await store.store([.sample("1")], writer: writer)
      try await store.postpone(["1", "2"], Failure(.tcpClosed), writer: writer)
      let second = try await failing()
      #expect(Set(second.keys) == ["2"], "what is stored stays so")
      let (before, after) = (try #require(first["2"]), try #require(second["2"]))
      #expect(after >= before)
      #expect(
        try await store.messageFailed(
          uidl: "2", failure: Failure(.messageUnparsable), raw: .bytes([1]), isLast: true, writer: writer))
      #expect(try await failing().isEmpty)
      #expect(try await database.int("SELECT sum(attempts) FROM quarantine") == 1)
    }
  }

  @Test("what is settled under an id and under those made of it is found, and nothing that only begins like it")
  func ledger() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let store = database.store
      _ = try await store.store([.sample("a"), .sample("a 0123"), .sample("a!"), .sample("ab")], writer: writer)
      try await store.skip(["b": .beforeFloor, "b 4567 2": .copy], writer: writer)
      try await store.postpone(["a 89"], Failure(.tcpClosed), writer: writer)
      let entries = try await store.ledger(
        of: ["b", "a", "c"], mailbox: mailbox.id, organization: database.principal.organizationID)
      #expect(entries.map(\.uidl) == ["a", "a 0123", "b", "b 4567 2"])
      #expect(entries.map(\.isStored) == [true, true, false, true])
      #expect(entries.map(\.messageID) == ["a@example.com", "a 0123@example.com", nil, nil])
      #expect(entries.map { $0.contentHash?.count } == [32, 32, nil, nil])
      #expect(entries.map { LedgerEntry.listed($0.uidl) } == ["a", "a", "b", "b"])
    }
  }
}
