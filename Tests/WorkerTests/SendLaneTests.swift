import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

/// Counts the sessions of two servers together and notes the order in which they began.
private final class Sessions: Sendable {
  private struct State {
    var now = 0
    var most = 0
    var order = ""
    var atMost = 0
  }

  private let state = Mutex(State())

  var now: Int { state.withLock(\.now) }
  var most: Int { state.withLock(\.most) }
  var order: String { state.withLock(\.order) }

  func enter(_ letter: Character) {
    state.withLock {
      $0.now += 1
      $0.most = max($0.most, $0.now)
      $0.order.append(letter)
    }
  }

  func leave() { state.withLock { $0.now -= 1 } }

  /// A sink that takes its time for each message.
  func sink(messages: Int = 60, octetEvery pause: Duration) -> [ScriptedMailServer.Step] {
    let answer: @Sendable (String) -> ScriptedMailServer.Reply = { line in
      switch line.split(separator: " ").first?.uppercased() {
      case "EHLO":
        self.enter("s")
        return .text("250-mx\r\n250 AUTH PLAIN LOGIN\r\n")
      case "AUTH": return .text("235 ok\r\n")
      case "DATA": return .readMessage("354 go\r\n")
      case "QUIT":
        self.leave()
        return .close("221 bye\r\n")
      case "MAIL", "RCPT", "RSET": return .text("250 ok\r\n")
      default: return .next
      }
    }
    let message: [ScriptedMailServer.Step] = [.serve(answer), .drip("250 taken\r\n", every: pause)]
    return [.send("220 mx\r\n")] + (0..<messages).flatMap { _ in message }
  }

  /// An empty maildrop.
  var maildrop: [ScriptedMailServer.Step] {
    let drop = Maildrop()
    return [
      .send("+OK\r\n"),
      .serve { line in
        switch line.uppercased() {
        case "CAPA": self.enter("p")
        case "QUIT": self.leave()
        default: break
        }
        return drop.answer(line)
      },
    ]
  }
}

@Suite("Lanes: several sessions send for one mailbox (features P16, O3)")
struct SendLaneTests {
  @Test("limit 4, a thousand messages, a slow sink: exactly four connections, each message once")
  func fourLanes() async throws {
    let sessions = Sessions()
    let server = try await ScriptedMailServer.start(sessions.sink(octetEvery: .milliseconds(2)))
    try await Spine.with(workers: 2) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 4)
      try await cluster.submitBulk(1_000, from: id)
      try await eventually("all are sent", within: .seconds(300)) {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "1000"
      }
      #expect(sessions.most == 4)
      let sent = server.connections.flatMap(\.lines).filter { $0.contains("Message-ID: <m") }
      #expect(sent.count == 1_000 && Set(sent).count == 1_000)
      #expect(try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE attempts <> 1") == "0")
      #expect(try await cluster.sql("SELECT count(DISTINCT lane) FROM outgoing_email") == "4")
      // A session's run is written after its last message.
      try await eventually("the runs count each message once") {
        try await cluster.sql("SELECT sum(messages_sent) FROM run WHERE kind = 's'") == "1000"
      }
      // The last to write says that nothing is left.
      try await eventually("nothing is due") {
        try await cluster.sql("SELECT next_due_at IS NULL AND reason = 'sent' FROM mailbox_schedule WHERE kind = 's'")
          == "t"
      }
    }
    await server.stop()
  }

  @Test("limit 1: polls and sending sessions take turns")
  func turns() async throws {
    let sessions = Sessions()
    let pop3 = try await ScriptedMailServer.start(sessions.maildrop)
    // Long enough that a poll is asked for in each sending session, also on a crowded machine.
    let smtp = try await ScriptedMailServer.start(sessions.sink(octetEvery: .milliseconds(5)))
    try await Spine.with(workers: 2) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: smtp, polling: pop3, limit: 1)
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      // Before the first message: its session may begin while the others are handed in.
      let before = sessions.order.count
      try await withThrowingTaskGroup(of: Void.self) { group in
        // A poll is always wanted.
        group.addTask {
          while !Task.isCancelled {
            _ = try? await cluster.store.requestPoll(of: [id], by: cluster.principal)
            try? await Task.sleep(for: .milliseconds(50))
          }
        }
        try await cluster.submitBulk(300, from: id)
        try await eventually("all are sent", within: .seconds(300)) {
          try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "300"
        }
        group.cancelAll()
      }
      let order = String(sessions.order.dropFirst(before))
      #expect(sessions.most == 1)
      #expect(order.count { $0 == "s" } >= 6)
      #expect(!order.contains("ss"), "a poll comes between two sending sessions: \(order)")
    }
    for server in [pop3, smtp] { await server.stop() }
  }

  @Test("a server that takes fewer connections than the limit: the others wait, nothing fails")
  func tooMany() async throws {
    let sessions = Sessions()
    let script = sessions.sink(octetEvery: .milliseconds(2))
    let server = try await ScriptedMailServer.start(choosing: { _ in
      // A second connection is one too many.
      sessions.now == 0 ? script : [.send("421 4.3.2 too many connections\r\n"), .close]
    })
    try await Spine.with(workers: 1) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 2)
      try await cluster.submitBulk(100, from: id)
      try await eventually("all are sent", within: .seconds(240)) {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "100"
      }
      #expect(try await cluster.sql("SELECT failures FROM mailbox_schedule WHERE kind = 's'") == "0")
      #expect(try await cluster.alerts(of: id).isEmpty)
      #expect(try await cluster.sql("SELECT count(*) > 0 FROM run WHERE result = 'failure'") == "t")
    }
    await server.stop()
  }

  @Test("a paused mailbox: the sessions of every lane end, what waits in the queue is gone, resuming sends the rest")
  func paused() async throws {
    let sessions = Sessions()
    let server = try await ScriptedMailServer.start(sessions.sink(octetEvery: .milliseconds(20)))
    try await Spine.with(workers: 2) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 3)
      try await cluster.submitBulk(160, from: id)
      try await eventually("three lanes") { sessions.most == 3 }
      try await cluster.store.setPaused(true, .mailbox(id), by: cluster.principal)
      try await eventually("every connection is closed") {
        server.connections.allSatisfy(\.isClosed)
      }
      // Whatever was on its way is given back or withdrawn: nothing can begin any more.
      try await eventually("no job of it is left in the queue") {
        try await spine.withGuard { try await $0.queueIsEmpty() }
      }
      #expect(server.connections.allSatisfy { $0.isClosed })
      try await cluster.store.setPaused(false, .mailbox(id), by: cluster.principal)
      // Cut in the middle, a message may have been taken or not: that is for a person to say.
      try await eventually("all are decided", within: .seconds(300)) {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state IN ('sent', 'uncertain')") == "160"
      }
      #expect(Int(try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'uncertain'")) ?? 9 <= 3)
    }
    await server.stop()
  }
}

extension TestCluster {
  /// A mailbox that sends over a scripted server, and polls another one, with a limit of its own connections.
  func sender(
    to smtp: ScriptedMailServer, polling pop3: ScriptedMailServer? = nil, limit: Int
  ) async throws -> MailboxID {
    let profile = try await profile(
      incoming: ServerDraft(host: "127.0.0.1", port: (pop3 ?? smtp).port, tls: TLSMode.none),
      outgoing: ServerDraft(host: "127.0.0.1", port: smtp.port, tls: TLSMode.none), connections: limit)
    let id = try await mailbox(on: profile, outgoing: .serverSideSync)
    try await enableOutgoing(id)
    return id
  }

  /// Submits many short messages at once, in the transaction in which a person would submit one.
  func submitBulk(_ count: Int, from id: MailboxID, priority: OutgoingPriority = .normal) async throws {
    let address = try await mailbox(id).address
    try await sql(
      """
      BEGIN;
      CREATE TEMPORARY TABLE made AS SELECT nextval('outgoing_email_id_seq') AS id, nextval('content_id_seq') AS content,
        n, convert_to(E'Message-ID: <m' || n || E'@example.org>\\r\\nSubject: n' || n || E'\\r\\n\\r\\nHello.\\r\\n', 'UTF8')
          AS raw FROM generate_series(1, \(count)) n;
      INSERT INTO content (id, organization_id, size_octets) SELECT content, m.organization_id, octet_length(raw)
        FROM made, mailbox m WHERE m.id = \(id);
      INSERT INTO content_chunk (content_id, position, organization_id, octets)
        SELECT content, 0, m.organization_id, raw FROM made, mailbox m WHERE m.id = \(id);
      INSERT INTO outgoing_email (id, organization_id, mailbox_id, state, priority, next_try_at, message_id, subject,
          sender, content_id, size_octets)
        SELECT made.id, m.organization_id, m.id, 'pending-send', \(priority.rank), now(), 'm' || n || '@example.org', 'n' || n,
          '\(address)', content, octet_length(raw) FROM made, mailbox m WHERE m.id = \(id);
      INSERT INTO outgoing_recipient (email_id, position, organization_id, address)
        SELECT made.id, 0, m.organization_id, 'to@example.org' FROM made, mailbox m WHERE m.id = \(id);
      UPDATE mailbox_schedule SET requested = requested + 1, next_due_at = now() WHERE mailbox_id = \(id) AND kind = 's';
      SELECT announce_jobs(ARRAY['\(id)s']);
      COMMIT;
      DROP TABLE made;
      """)
  }
}
