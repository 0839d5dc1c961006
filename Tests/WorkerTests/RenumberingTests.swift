import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@Suite("Unique ids that change, repeat or are missing (feature R2)")
struct RenumberingTests {
  /// A server whose maildrop can be exchanged.
  private final class Server: Sendable {
    private let drop: Mutex<Maildrop>
    init(_ messages: [(uidl: String, text: String)]) { drop = Mutex(Maildrop(messages)) }

    func holds(_ messages: [(uidl: String, text: String)]) { drop.withLock { $0 = Maildrop(messages) } }

    var script: [ScriptedMailServer.Step] {
      [.send("+OK ready\r\n"), .serve { line in self.drop.withLock { $0 }.answer(line) }]
    }
  }

  /// Six messages, one of them without a Message-ID, and one that is twice there.
  private static let texts =
    (1...3).map { message("s\($0)") } + ["Subject: bare\r\n\r\nNo Message-ID.\r\n", message("twin"), message("twin")]

  private static func numbered(_ letter: String, _ texts: [String] = texts) -> [(uidl: String, text: String)] {
    texts.enumerated().map { ("\(letter)\($0)", $1) }
  }

  @Test("a renumbered mailbox stands still until a person chooses; `missing` imports only what is new")
  func missing() async throws {
    let content = Server(Self.numbered("u"))
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      #expect(try await cluster.waitForRuns(1, of: id).first?.messagesStored == 6)
      content.holds(Self.numbered("v", Self.texts + [message("twin"), message("new")]))
      let halted = try await cluster.poll(id)
      #expect(halted.failure?.code == .pop3UIDLReset && halted.messagesStored == 0)
      #expect(halted.failure?.context?.contains("8 of 8 messages have unknown unique ids") == true)
      #expect(try await cluster.emails(of: id).count == 6)
      let mailbox = try await cluster.mailbox(id)
      #expect(!mailbox.incoming.enabled && mailbox.incoming.failureCode == "pop3.uidl-reset")
      let alert = try #require(try await cluster.alerts(of: id).first)
      #expect(alert.level == .error && alert.remedy?.contains("postrider mailbox reimport") == true)

      let answers = try await cluster.store.reimport(.missing, of: [id], by: cluster.principal)
      #expect(answers.map(\.ok) == [true])
      let run = try #require(try await cluster.waitForRuns(3, of: id).last)
      #expect(run.result == .success && run.messagesStored == 2 && run.messagesKnown == 6)
      #expect(
        try await cluster.emails(of: id).map(\.envelope.subject).sorted() == [
          "bare", "new", "s1", "s2", "s3", "twin", "twin", "twin",
        ])
      #expect(try await cluster.alerts(of: id).isEmpty)
      #expect(try await cluster.sql("SELECT count(*) FROM uidl_reset") == "0")
      let later = try await cluster.poll(id)
      #expect(later.result == .success && later.messagesKnown == 8 && later.messagesStored == 0)
    }
    await server.stop()
  }

  @Test("`all` imports everything again, in as many sessions as it takes")
  func all() async throws {
    let content = Server(Self.numbered("u"))
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("UPDATE organization SET messages_per_poll = 4, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      try await eventually("both sessions") { try await cluster.emails(of: id).count == 6 }
      content.holds(Self.numbered("v"))
      #expect(try await cluster.poll(id).failure?.code == .pop3UIDLReset)
      #expect(try await cluster.store.reimport(.all, of: [id], by: cluster.principal).map(\.ok) == [true])
      try await eventually("everything again") { try await cluster.emails(of: id).count == 12 }
      try await eventually("the choice is carried out") {
        try await cluster.sql("SELECT count(*) FROM uidl_reset") == "0"
      }
      let later = try await cluster.poll(id)
      #expect(later.result == .success && later.messagesKnown == 6)
    }
    await server.stop()
  }

  @Test("a mailbox that was emptied and filled with other mail is none of that")
  func otherMail() async throws {
    let content = Server(Self.numbered("u"))
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      content.holds(Self.numbered("v", (10...16).map { message("s\($0)") } + [message("s1")]))
      let run = try await cluster.poll(id)
      #expect(run.result == .success && run.messagesStored == 8)
    }
    await server.stop()
  }

  @Test("equal unique ids of different messages, as broken servers give, lose none of them")
  func equalButDifferent() async throws {
    let content = Server([("same", message("one")), ("same", message("two")), ("same", message("two"))])
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 2)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject).sorted() == ["one", "two"])
      let later = try await cluster.poll(id)
      #expect(later.messagesKnown == 3 && later.messagesStored == 0)
      #expect(server.connections.last?.lines.contains { $0.hasPrefix("RETR") } == false, "all three are settled")
    }
    await server.stop()
  }

  /// A mailbox of a queue whose messages leave the server once they are stored.
  private func removingMailbox(on server: ScriptedMailServer, _ cluster: TestCluster) async throws -> MailboxID {
    try await cluster.mailboxes(
      ["q@example.org"], on: try await cluster.profile(server), owner: .queue, deletes: true)[0]
  }

  /// What the last session asked to be removed.
  private func deleted(by server: ScriptedMailServer) -> [String]? {
    server.connections.last?.lines.filter { $0.hasPrefix("DELE") }
  }

  @Test("a message that comes beside a stored one with its unique id is stored before it is removed")
  func equalLater() async throws {
    let content = Server([("same", message("one"))])
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await removingMailbox(on: server, cluster)
      try await cluster.enable(id)
      #expect(try await cluster.waitForRuns(1, of: id).first?.messagesStored == 1)
      content.holds([("same", message("two")), ("same", message("one"))])
      try await cluster.sql(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON email FOR EACH ROW WHEN (NEW.subject = 'two') EXECUTE FUNCTION refuse();
        """)
      let failed = try await cluster.poll(id)
      #expect(failed.messagesFailed == 1 && failed.messagesKnown == 1)
      #expect(deleted(by: server) == ["DELE 2"], "what is not stored stays")
      try await cluster.sql("DROP TRIGGER refuse ON email")
      let run = try await cluster.poll(id)
      #expect(run.result == .success && run.messagesStored == 1 && run.messagesKnown == 1)
      #expect(deleted(by: server) == ["DELE 1", "DELE 2"])
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["one", "two"])
      let later = try await cluster.poll(id)
      #expect(later.messagesKnown == 2 && later.messagesStored == 0)
      #expect(server.connections.last?.lines.contains { $0.hasPrefix("RETR") } == false)
    }
    await server.stop()
  }

  @Test("a unique id that the server gives again after its message was removed is another message")
  func reused() async throws {
    let content = Server([("u1", message("one"))])
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await removingMailbox(on: server, cluster)
      try await cluster.enable(id)
      #expect(try await cluster.waitForRuns(1, of: id).first?.messagesStored == 1)
      content.holds([("u1", message("two"))])
      let run = try await cluster.poll(id)
      #expect(run.result == .success && run.messagesStored == 1 && run.messagesKnown == 0)
      #expect(deleted(by: server) == ["DELE 1"])
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["one", "two"])
      // Listed once more: it is known, and may go.
      let later = try await cluster.poll(id)
      #expect(later.messagesStored == 0 && later.messagesKnown == 1)
      #expect(deleted(by: server) == ["DELE 1"])
      #expect(server.connections.last?.lines.contains { $0.hasPrefix("RETR") } == false)
    }
    await server.stop()
  }

  @Test("equal unique ids, as servers give that make them of the content, are one message")
  func equal() async throws {
    let content = Server([("same", message("one")), ("same", message("one")), ("u3", message("three"))])
    let server = try await ScriptedMailServer.start(content.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await removingMailbox(on: server, cluster)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 2)
      #expect(server.connections.first?.lines.filter { $0.hasPrefix("DELE") } == ["DELE 1", "DELE 2", "DELE 3"])
      #expect(try await cluster.poll(id).messagesKnown == 3)
    }
    await server.stop()
  }
}
