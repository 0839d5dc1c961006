import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@Suite("Bad mail (features R4, R5)")
struct BadMailTests {
  @Test("whatever arrives is stored, its octets unchanged, and spoils nothing beside it")
  func hostile() async throws {
    let sandbox = try await Sandbox.shared()
    let address = try await Sandbox.account()
    let big =
      "Subject: big\r\n\r\n" + String(repeating: String(repeating: "0123456789", count: 7) + "\r\n", count: 43_700)
    let broken =
      Array("Subject: =?utf-8?B?//8=?= \r\nContent-Type: text/plain; charset=no-such\r\n\r\nna".utf8)
      + [0xC3, 0x28, 0xFF, 0xFE] + Array("ve\r\n".utf8)
    let mails: [[UInt8]] = [
      broken, Array("\r\n".utf8), Array("Subject: only a header\r\n\r\n".utf8), Array(big.utf8),
      Array(message("good").utf8),
    ]
    for (number, mail) in mails.enumerated() {
      try sandbox.deliver(to: address, message: mail, messageID: "<\(number)@example.org>")
    }
    #expect(big.utf8.count > 3_000_000)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: Sandbox.password)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == mails.count && run.messagesFailed == 0)
      let emails = try await cluster.emails(of: id)
      var stored: Set<[UInt8]> = []
      for email in emails { stored.insert(try await cluster.raw(email.id)) }
      #expect(stored == Set(mails))
      #expect(emails.contains { $0.envelope.subject == "only a header" })
      #expect(emails.contains { ($0.text ?? "").hasPrefix("na") && ($0.text ?? "").contains("ve") })
      #expect(try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty, "spool files are removed")
    }
  }

  @Test("NUL octets: the texts lose them, the raw octets keep them")
  func nul() async throws {
    let text = "Subject: a\0b\r\nFrom: \0 <x@example.org>\r\n\r\nc\0d\r\n"
    let server = try await ScriptedMailServer.start(Maildrop([("u1", text)]).script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      #expect(try await cluster.waitForRuns(1, of: id).first?.result == .success)
      let email = try #require(try await cluster.emails(of: id).first)
      #expect(!email.envelope.subject.contains("\0") && email.text?.contains("\0") == false)
      #expect(try await cluster.raw(email.id) == Array(text.utf8))
    }
    await server.stop()
  }

  @Test("an empty mailbox is a success")
  func empty() async throws {
    let address = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: Sandbox.password)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 0 && run.messagesKnown == 0)
    }
  }

  @Test("a message refused three times is quarantined, the others are stored at once")
  func quarantine() async throws {
    let drop = Maildrop([("u1", message("one")), ("bad", message("bad")), ("u3", message("three"))])
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0 == "RETR 2" ? .text("-ERR cannot read it\r\n") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.messagesStored == 2 && first.messagesFailed == 1)
      #expect(first.failure?.code == .pop3Retrieve && first.failure?.scope == .message)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["one", "three"])
      #expect(try await cluster.alerts(of: id).map(\.level) == [.warning])
      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.incoming.enabled && mailbox.incoming.nextRunReason == "slot", "the mailbox goes on")
      for _ in 2...3 { #expect(try await cluster.poll(id).messagesFailed == 1) }
      #expect(try await cluster.sql("SELECT uidl, attempts FROM quarantine") == "bad|3")
      #expect(try await cluster.sql("SELECT state FROM ledger WHERE uidl = 'bad'") == "quarantined")
      let last = try await cluster.poll(id)
      #expect(last.result == .success && last.messagesFailed == 0 && last.messagesKnown == 3)
      #expect(server.connections.last?.lines.contains("RETR 2") == false)
    }
    await server.stop()
  }

  @Test("a server that always fails at one message does not keep back those before it")
  func failsAtOne() async throws {
    let drop = Maildrop([("u1", message("one")), ("u2", message("two")), ("u3", message("three"))])
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0 == "RETR 3" ? .close("+OK\r\nSubject: th") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == .tcpClosed && run.messagesStored == 2)
      #expect(try await cluster.emails(of: id).count == 2)
      #expect(try FileManager.default.contentsOfDirectory(atPath: spine.spool).isEmpty)
    }
    await server.stop()
  }

  @Test("a message that ends every session does not keep back those behind it")
  func endsSessions() async throws {
    let drop = Maildrop([("u1", message("one")), ("u2", message("two")), ("u3", message("three"))])
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0 == "RETR 1" ? .close("+OK\r\nSubject: on") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.failure?.code == .tcpClosed && first.messagesStored == 0)
      #expect(try await cluster.poll(id).failure?.code == .tcpClosed)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["two", "three"])
      #expect(try await cluster.sql("SELECT state, attempts FROM ledger WHERE uidl = 'u1'") == "failing|0")
    }
    await server.stop()
  }

  @Test(
    "a server that hands out nothing for a reason of the mailbox is left alone, and no message is to blame",
    arguments: [("-ERR [SYS/TEMP] later", FailureCode.pop3SysTemp), ("-ERR bandwidth exceeded", .pop3Quota)])
  func refusesAll(answer: String, code: FailureCode) async throws {
    let refuses = Mutex(true)
    let drop = Maildrop((1...5).map { ("u\($0)", message("s\($0)")) })
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"),
      .serve { line in
        line.hasPrefix("RETR") && refuses.withLock { $0 } ? .text(answer + "\r\n") : drop.answer(line)
      },
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.failure?.code == code && first.failure?.scope == .mailbox && first.messagesFailed == 0)
      for _ in 2...4 { #expect(try await cluster.poll(id).failure?.code == code) }
      #expect(try await cluster.sql("SELECT count(*) FROM ledger WHERE attempts > 0 OR state <> 'failing'") == "0")
      #expect(try await cluster.sql("SELECT count(*) FROM quarantine") == "0")
      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.incoming.enabled && mailbox.incoming.nextRunReason == code.rawValue)
      refuses.withLock { $0 = false }
      #expect(try await cluster.poll(id).result == .success)
      #expect(try await cluster.emails(of: id).count == 5)
    }
    await server.stop()
  }

  @Test("a message that is refused as if the mailbox were at fault is quarantined alone")
  func refusesOne() async throws {
    let drop = Maildrop([("bad", message("bad")), ("u2", message("two"))])
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0 == "RETR 1" ? .text("-ERR [SYS/TEMP] cannot\r\n") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.messagesStored == 1 && first.messagesFailed == 1)
      #expect(first.failure?.code == .pop3SysTemp && first.failure?.scope == .message)
      // No new message comes behind it any more: one that is known shows that the mailbox is well.
      for _ in 2...3 { #expect(try await cluster.poll(id).messagesFailed == 1) }
      #expect(try await cluster.sql("SELECT uidl, attempts FROM quarantine") == "bad|3")
      #expect(try await cluster.mailbox(id).incoming.enabled)
      let last = try await cluster.poll(id)
      #expect(last.result == .success && last.messagesKnown == 2)
    }
    await server.stop()
  }

  @Test("several messages that are refused so come last, all together, and are quarantined; the mailbox goes on")
  func refusesSome() async throws {
    let drop = Maildrop([("u1", message("one"))] + (2...5).map { ("bad\($0)", message("bad\($0)")) })
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"),
      .serve { line in
        line.hasPrefix("RETR") && line != "RETR 1" ? .text("-ERR [SYS/TEMP] cannot\r\n") : drop.answer(line)
      },
    ])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.result == .partial && first.messagesStored == 1 && first.messagesFailed == 4)
      for _ in 2...3 { #expect(try await cluster.poll(id).messagesFailed == 4) }
      #expect(try await cluster.sql("SELECT count(*) FROM quarantine WHERE attempts = 3") == "4")
      #expect(try await cluster.poll(id).result == .success)
    }
    await server.stop()
  }

  @Test("two messages above the limit under one unique id are settled as others are")
  func tooLargeTwice() async throws {
    let big = message("big", body: String(repeating: "x", count: 20_000))
    let drop = Maildrop([("same", big), ("same", big)])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("UPDATE organization SET maximum_message_octets = 10000, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      _ = try await cluster.poll(id)
      #expect(try await cluster.poll(id).result == .success)
      #expect(server.connections.last?.lines.contains { $0.hasPrefix("RETR") } == false)
    }
    await server.stop()
  }

  @Test("a message above the limit is entered once, left on the server and never fetched again")
  func tooLarge() async throws {
    let drop = Maildrop([("big", message("big", body: String(repeating: "x", count: 20_000))), ("u2", message("two"))])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("UPDATE organization SET maximum_message_octets = 10000, version = version + 1")
      let profile = try await cluster.profile(server)
      let id = try await cluster.mailboxes(["q@example.org"], on: profile, owner: .queue, deletes: true)[0]
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .partial && run.messagesStored == 1 && run.failure?.code == .messageTooLarge)
      #expect(server.connections.first?.lines.filter { $0.hasPrefix("DELE") } == ["DELE 2"])
      #expect(try await cluster.poll(id).messagesKnown == 2)
      #expect(server.connections.last?.lines.contains { $0.hasPrefix("RETR") } == false)
    }
    await server.stop()
  }
}
