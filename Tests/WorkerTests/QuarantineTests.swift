import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import Worker

@Suite("Messages in quarantine, from the server to the person and back (feature R5)")
struct QuarantineTests {
  private struct CannotRead: Error {}

  /// A release that cannot read messages with "bad" in their subject.
  @Sendable private static func brokenParser(_ content: Content, _ limits: MessageLimits) throws -> ParsedMessage {
    // Nobody would remove the files of what it throws away.
    var limits = limits
    limits.spoolDirectory = nil
    let message = try MessageReader.parse(content: content, limits: limits)
    if message.envelope.subject.hasPrefix("bad") { throw CannotRead() }
    return message
  }

  /// A mailbox on a server and its one message, put into quarantine by a worker that is gone.
  private func quarantined(
    _ spine: Spine, _ server: ScriptedMailServer
  ) async throws -> (mailbox: MailboxID, message: QuarantinedMessage) {
    let cluster = spine.cluster
    let old = try spine.startWorker(parser: Self.brokenParser)
    let id = try await cluster.mailbox(on: try await cluster.profile(server))
    try await cluster.enable(id)
    _ = try await cluster.waitForRuns(1, of: id)
    for _ in 2...3 { _ = try await cluster.poll(id) }
    let message = try #require(try await cluster.quarantine().first)
    await old.stop()
    await old.waitUntilEnded()
    return (id, message)
  }

  @Test("what a release cannot read goes to quarantine, the rest goes on; the next release reads it, exactly once")
  func unreadable() async throws {
    let sandbox = try await Sandbox.shared()
    let address = try await Sandbox.account()
    let bad = message("bad", body: String(repeating: "It is long enough for a spool file.\r\n", count: 100))
    for (subject, text) in [
      ("one", message("one")), ("bad", bad), ("worse", message("bad-worse")), ("three", message("three")),
    ] {
      try sandbox.deliver(to: address, message: Array(text.utf8), messageID: "<\(subject)@example.org>")
    }
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      let old = try spine.startWorker(configure: { $0.memoryOctets = 1_000 }, parser: Self.brokenParser)
      let id = try await cluster.mailbox(address, on: try await cluster.sandboxProfile(), password: Sandbox.password)
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.messagesStored == 2 && first.messagesFailed == 2)
      #expect(first.failure?.code == .messageUnparsable)
      #expect(try await cluster.poll(id).messagesFailed == 2)
      #expect(try await cluster.quarantine().isEmpty, "twice is not three times")
      #expect(try await cluster.poll(id).messagesFailed == 2)
      let quarantine = try await cluster.quarantine()
      #expect(quarantine.count == 2 && quarantine.allSatisfy { $0.attempts == 3 && $0.mailboxID == id })
      let last = try await cluster.poll(id)
      #expect(last.result == .success && last.messagesKnown == 4 && last.messagesFailed == 0)
      #expect(try await cluster.alerts(of: id).map(\.code) == ["message.quarantined"], "it stays until all have left")
      let wanted = try #require(quarantine.first { $0.sizeOctets == Int64(bad.utf8.count) })
      let unwanted = try #require(quarantine.first { $0.id != wanted.id })
      #expect(try await cluster.kept(wanted.id) == Array(bad.utf8))

      // The cause is still there: it comes back, with its octets.
      let vain = try await cluster.reprocess([wanted.id])
      #expect(vain.messagesFailed == 1 && vain.failure?.code == .messageUnparsable && vain.messagesKnown == 4)
      let again = try #require(try await cluster.quarantine().first { $0.id == wanted.id })
      #expect(again.attempts == 4 && again.reprocessRequestedAt == nil && again.sizeOctets == wanted.sizeOctets)

      await old.stop()
      await old.waitUntilEnded()
      _ = try spine.startWorker { $0.memoryOctets = 1_000 }
      let run = try await cluster.reprocess([wanted.id])
      #expect(run.result == .success && run.messagesStored == 1)
      #expect(try await cluster.poll(id).messagesStored == 0)
      let emails = try await cluster.emails(of: id)
      #expect(emails.map(\.envelope.subject).sorted() == ["bad", "one", "three"])
      let stored = try #require(emails.first { $0.envelope.subject == "bad" })
      #expect(try await cluster.raw(stored.id) == Array(bad.utf8))
      #expect(try await cluster.quarantine().map(\.id) == [unwanted.id])

      let discarded = try await cluster.store.discard([unwanted.id], dryRun: false, by: cluster.principal)
      #expect(discarded.map(\.ok) == [true])
      let after = try await cluster.poll(id)
      #expect(after.result == .success && after.messagesKnown == 4, "it is still on the server, and not fetched again")
      #expect(try await cluster.emails(of: id).count == 3)
      #expect(try await cluster.alerts(of: id).isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty)
    }
  }

  @Test("the files of attachments are gone once a message is stored from what was kept of it")
  func attachments() async throws {
    let part =
      "Content-Type: application/x-big; name=big\r\nContent-Transfer-Encoding: base64\r\n\r\n"
      + Data(repeating: 7, count: 300_000).base64EncodedString(options: [.lineLength76Characters])
    let bad =
      "Subject: bad\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\ntext\r\n--m\r\n\(part)\r\n--m--\r\n"
    let server = try await ScriptedMailServer.start(Maildrop([("u1", bad)]).script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      let (id, message) = try await quarantined(spine, server)
      _ = try spine.startWorker()
      #expect(try await cluster.reprocess([message.id]).messagesStored == 1)
      #expect(try await cluster.emails(of: id).first?.attachments.map(\.fileName) == ["big"])
      #expect(try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty)
    }
    await server.stop()
  }

  @Test("what could not be stored is stored from what is kept, also when the server is away")
  func notStorable() async throws {
    let drop = Maildrop([("u1", message("one")), ("u2", message("bad")), ("u3", message("three"))])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON email FOR EACH ROW WHEN (NEW.subject = 'bad') EXECUTE FUNCTION refuse();
        """)
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.messagesStored == 2 && first.failure?.code == .messageStore)
      for _ in 2...3 { #expect(try await cluster.poll(id).messagesFailed == 1) }
      let message = try #require(try await cluster.quarantine().first)
      #expect(message.failure.code == .messageStore && message.failure.context?.contains("not this one") == true)
      #expect(try await cluster.reprocess([message.id]).messagesFailed == 1)
      #expect(try await cluster.quarantine().map(\.attempts) == [4])

      try await cluster.sql("DROP TRIGGER refuse ON email")
      // Away for good: nobody else listens on such a port.
      await server.stop()
      let nowhere = try LoopbackPort.free()
      try await cluster.sql("UPDATE server_profile SET incoming_port = \(nowhere), version = version + 1")
      let run = try await cluster.reprocess([message.id])
      #expect(run.failure?.code == .tcpRefused && run.messagesStored == 1)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["one", "three", "bad"])
      #expect(try await cluster.quarantine().isEmpty)
      #expect(
        try await cluster.sql("SELECT count(*) FROM ledger WHERE state = 'stored' AND email_id IS NOT NULL") == "3")
    }
  }

  @Test("what the server did not hand out is asked for again; gone from there, it goes back with that reason")
  func refused() async throws {
    enum Mood { case refuses, serves, lost }
    let mood = Mutex(Mood.refuses)
    let drop = Maildrop([("u1", message("one")), ("u2", message("two"))])
    let rest = Maildrop([("u1", message("one"))])
    let server = try await ScriptedMailServer.start(
      [
        .send("+OK\r\n"),
        .serve { line in
          switch mood.withLock({ $0 }) {
          case .refuses: line == "RETR 2" ? .text("-ERR cannot read it\r\n") : drop.answer(line)
          case .serves: drop.answer(line)
          case .lost: rest.answer(line)
          }
        },
      ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      for _ in 2...3 { _ = try await cluster.poll(id) }
      let message = try #require(try await cluster.quarantine().first)
      #expect(message.failure.code == .pop3Retrieve && message.sizeOctets == nil)

      mood.withLock { $0 = .lost }
      #expect(try await cluster.reprocess([message.id]).messagesFailed == 1)
      let back = try #require(try await cluster.quarantine().first)
      #expect(back.failure.context == "it is not on the server any more" && back.reprocessRequestedAt == nil)

      mood.withLock { $0 = .serves }
      #expect(try await cluster.poll(id).messagesStored == 0, "nobody asked for it")
      let run = try await cluster.reprocess([message.id])
      #expect(run.result == .success && run.messagesStored == 1)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["one", "two"])
      #expect(try await cluster.quarantine().isEmpty)
      #expect(try await cluster.poll(id).messagesStored == 0)
    }
    await server.stop()
  }

  @Test("a worker that dies between storing and leaving the quarantine: the next one stores nothing twice")
  func crash() async throws {
    let drop = Maildrop([("u1", message("bad"))])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      let (id, message) = try await quarantined(spine, server)
      let asked = try await cluster.store.reprocess([message.id], dryRun: false, by: cluster.principal)
      #expect(asked.map(\.ok) == [true])
      // As the first half of such a session leaves it.
      try await cluster.sql(
        """
        UPDATE ledger SET state = 'stored' WHERE uidl = 'u1';
        UPDATE mailbox_counter SET email_count = email_count + 1;
        """)
      _ = try spine.startWorker()
      #expect(try await cluster.poll(id).messagesStored == 0)
      #expect(try await cluster.quarantine().isEmpty)
      #expect(try await cluster.emails(of: id).isEmpty)
    }
    await server.stop()
  }
}

extension TestCluster {
  /// What is in quarantine, oldest first.
  func quarantine() async throws -> [QuarantinedMessage] {
    try await store.quarantine(QuarantineFilter(), PageRequest(), for: principal).items.reversed()
  }

  /// The octets kept of a message.
  func kept(_ id: QuarantineID) async throws -> [UInt8] {
    var octets: [UInt8] = []
    for try await chunk in try await store.rawQuarantined(id, for: principal) { octets += chunk }
    return octets
  }

  /// Asks for another attempt and waits for the poll that makes it; returns its run.
  func reprocess(_ ids: [QuarantineID]) async throws -> RunRecord {
    let message = try await store.quarantinedMessage(ids[0], for: principal)
    for answer in try await store.reprocess(ids, dryRun: false, by: principal) where !answer.ok {
      throw TestFailure("reprocessing was refused: \(answer.message ?? "")")
    }
    let wanted = try await mailbox(message.mailboxID).pollsRequested
    let run = try await eventually("the poll that reprocesses") {
      let now = try await self.mailbox(message.mailboxID)
      return now.pollsServed >= wanted ? now.lastPollRunID : nil
    }
    return try await store.run(run, for: principal)
  }
}
