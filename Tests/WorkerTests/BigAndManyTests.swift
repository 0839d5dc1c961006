import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("Big mailboxes and big messages (features R3, S5)")
struct BigAndManyTests {
  @Test("a session stops at its budget, and others have their turn before the next one")
  func budget() async throws {
    let body = String(repeating: String(repeating: "x", count: 78) + "\r\n", count: 1_000)
    let big = try await ScriptedMailServer.start(
      Maildrop((1...6).map { ("u\($0)", message("s\($0)", body: body)) }).script)
    let small = try await ScriptedMailServer.start(Maildrop([("u", message("small"))]).script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      _ = try spine.startWorker {
        $0.octetsPerPoll = 100_000
        $0.sessions = 1
      }
      let full = try await cluster.mailbox("full@example.org", on: try await cluster.profile(big, name: "Big"))
      let other = try await cluster.mailbox("other@example.org", on: try await cluster.profile(small, name: "Small"))
      try await cluster.enable([full, other])
      try await eventually("all is stored") { try await cluster.emails(of: full).count == 6 }
      let runs = try await cluster.waitForRuns(3, of: full)
      // The second message is asked for because one of 80,000 octets leaves room; the third is not.
      #expect(runs.prefix(3).map(\.messagesStored) == [2, 2, 2])
      #expect(runs.allSatisfy { $0.result == .success })
      let turn = try #require(try await cluster.waitForRuns(1, of: other).first)
      #expect(turn.startedAt < runs[1].startedAt, "the full mailbox did not keep its slot")
      #expect(try await cluster.mailbox(full).incoming.nextRunReason == "slot")
    }
    await big.stop()
    await small.stop()
  }

  @Test("newest first: each session takes the end of what is new")
  func newestFirst() async throws {
    let server = try await ScriptedMailServer.start(Maildrop((1...5).map { ("u\($0)", message("s\($0)")) }).script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      _ = try spine.startWorker { $0.newestFirst = true }
      try await cluster.sql("UPDATE organization SET messages_per_poll = 2, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      try await eventually("all is stored") { try await cluster.emails(of: id).count == 5 }
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["s5", "s4", "s3", "s2", "s1"])
      // A session's run is written after its last message.
      #expect(try await cluster.waitForRuns(3, of: id).prefix(3).map(\.messagesStored) == [2, 2, 1])
    }
    await server.stop()
  }

  @Test("a message that does not end is given up, entered, and what stands behind it comes next")
  func endless() async throws {
    let drop = Maildrop([("endless", ""), ("u2", message("two"))])
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .serve { $0 == "RETR 1" ? .next : drop.answer($0) }, .send("+OK\r\n"),
      .flood(String(repeating: "x", count: 78) + "\r\n"),
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("UPDATE organization SET maximum_message_octets = 100000, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.failure?.code == .messageTooLarge)
      try await eventually("the other message") { try await cluster.emails(of: id).map(\.envelope.subject) == ["two"] }
      #expect(try await cluster.sql("SELECT state FROM ledger WHERE uidl = 'endless'") == "too-large")
      #expect(try await cluster.mailbox(id).incoming.enabled)
      #expect(try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty)
    }
    await server.stop()
  }

  @Test("exactly at the limits, and one octet above: messages and attachments")
  func limits() async throws {
    func mail(_ name: String, octets: Int) -> String {
      let head = "Subject: \(name)\r\nMessage-ID: <\(name)@example.org>\r\n\r\n"
      return head + String(repeating: "x", count: octets - head.utf8.count - 2) + "\r\n"
    }
    func part(_ name: String, octets: Int) -> String {
      "--m\r\nContent-Type: application/x-\(name); name=\(name)\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + Data(repeating: 7, count: octets).base64EncodedString(options: [.lineLength76Characters]) + "\r\n"
    }
    let parts =
      "Subject: parts\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\ntext\r\n"
      + part("at", octets: 300_000) + part("above", octets: 300_001) + part("small", octets: 3) + "--m--\r\n"
    let drop = Maildrop([
      ("at", mail("at", octets: 1_000_000)), ("above", mail("above", octets: 1_000_001)), ("parts", parts),
    ])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql(
        "UPDATE organization SET maximum_message_octets = 1000000, maximum_attachment_octets = 300000, version = version + 1"
      )
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .partial && run.messagesStored == 2 && run.failure?.code == .messageTooLarge)
      let emails = try await cluster.emails(of: id)
      #expect(emails.map(\.envelope.subject) == ["at", "parts"])
      #expect(try await cluster.raw(emails[0].id).count == 1_000_000)
      // The message is kept whole, the one attachment is listed without its content.
      #expect(try await cluster.raw(emails[1].id) == Array(parts.utf8))
      #expect(emails[1].attachments.map(\.fileName) == ["at", "above", "small"])
      #expect(emails[1].attachments.map(\.dropped) == [false, true, false])
      #expect(emails[1].attachments.map(\.sizeOctets) == [300_000, 300_001, 3])
      let kept = try await cluster.sql(
        """
        SELECT a.file_name, sum(length(c.octets)) FROM attachment a JOIN content_chunk c ON c.content_id = a.content_id
        GROUP BY 1 ORDER BY 1
        """)
      #expect(kept == "at|300000\nsmall|3")
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty, "files of attachments are removed")
    }
    await server.stop()
  }

  @Test("a server without TOP: the date is read from the message itself (feature P14)")
  func floorWithoutTop() async throws {
    let dated = { (name: String, year: Int) in
      "Date: Mon, 2 Mar \(year) 09:00:00 +0000\r\nSubject: \(name)\r\n\r\nx\r\n"
    }
    let drop = Maildrop([
      ("old", dated("old", 2020)), ("new", dated("new", 2026)), ("bare", "Subject: bare\r\n\r\nx\r\n"),
    ])
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"),
      .serve { line in
        line == "CAPA" || line.hasPrefix("TOP") ? .text("-ERR what?\r\n") : drop.answer(line)
      },
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await mailboxWithFloor(on: server, cluster)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 2)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["new", "bare"])
      #expect(try await cluster.sql("SELECT state FROM ledger WHERE uidl = 'old'") == "before-floor")
      #expect(server.connections.first?.lines.filter { $0.hasPrefix("TOP") } == ["TOP 1 0"], "it is asked once")
      #expect(try await cluster.poll(id).messagesKnown == 3)
    }
    await server.stop()
  }

  /// A mailbox whose profile leaves out what is older than 2025.
  private func mailboxWithFloor(on server: ScriptedMailServer, _ cluster: TestCluster) async throws -> MailboxID {
    let profile = try await cluster.profile(
      "Old", incoming: ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none),
      processEmailFrom: Date(timeIntervalSince1970: 1_735_689_600))
    return try await cluster.mailbox(on: profile)
  }

  @Test("a server from before CAPA that has TOP: what is old is not fetched (feature P14)")
  func floorWithoutCapabilities() async throws {
    let drop = Maildrop([
      ("old", "Date: Mon, 2 Mar 2020 09:00:00 +0000\r\nSubject: old\r\n\r\nx\r\n"), ("new", message("new")),
    ])
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .serve { $0 == "CAPA" ? .text("-ERR what?\r\n") : drop.answer($0) },
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await mailboxWithFloor(on: server, cluster)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 1)
      #expect(server.connections.first?.lines.filter { $0.hasPrefix("RETR") } == ["RETR 2"])
    }
    await server.stop()
  }

  @Test("old messages that were looked at stay entered when the session ends before its look does (feature P14)")
  func floorInParts() async throws {
    let old = "Date: Mon, 2 Mar 2020 09:00:00 +0000\r\nSubject: old\r\n\r\nx\r\n"
    let drop = Maildrop((1...70).map { ("u\($0)", old) })
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .serve { $0 == "TOP 60 0" ? .close("") : drop.answer($0) },
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await mailboxWithFloor(on: server, cluster)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == .tcpClosed)
      #expect(run.steps.count { $0.name == .fetch } == 1, "all of it is one step")
      #expect(try await cluster.sql("SELECT count(*) FROM ledger WHERE state = 'before-floor'") == "50")
    }
    await server.stop()
  }
}
