import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import Worker

/// A server with Gmail's habits: it lists a few of the oldest messages that were not fetched yet, and what a session
/// fetched is not listed again once it said QUIT, whether deleted or not. A name that begins with `recent:` sees everything.
private final class HabitualServer: Sendable {
  private struct State {
    var texts: [String]
    var popped: Set<Int> = []
  }

  private static let shown = 3
  private let state: Mutex<State>

  init(_ texts: [String]) { state = Mutex(State(texts: texts)) }

  func add(_ text: String) { state.withLock { $0.texts.append(text) } }

  /// A session of its own for each connection.
  func script() -> [ScriptedMailServer.Step] {
    let session = Mutex<(isRecent: Bool, listed: [Int], fetched: Set<Int>)>((false, [], []))
    return [.send("+OK Gpop ready\r\n"), .serve { line in session.withLock { self.answer(line, &$0) } }]
  }

  private func answer(
    _ line: String, _ session: inout (isRecent: Bool, listed: [Int], fetched: Set<Int>)
  ) -> ScriptedMailServer.Reply {
    let argument = line.split(separator: " ").dropFirst().first.map(String.init) ?? ""
    switch line.split(separator: " ").first?.uppercased() {
    case "CAPA": return .text("+OK\r\nUSER\r\nRESP-CODES\r\nEXPIRE 0\r\nLOGIN-DELAY 300\r\nTOP\r\nUIDL\r\n.\r\n")
    case "USER":
      session.isRecent = argument.hasPrefix("recent:")
      return .text("+OK send PASS\r\n")
    case "UIDL":
      let isRecent = session.isRecent
      session.listed = state.withLock { state in
        Array(
          state.texts.indices.filter { isRecent || !state.popped.contains($0) }.prefix(isRecent ? .max : Self.shown))
      }
      return .text("+OK\r\n" + session.listed.enumerated().map { "\($0 + 1) GmailId\($1)\r\n" }.joined() + ".\r\n")
    case "RETR":
      guard let number = Int(argument), session.listed.indices.contains(number - 1) else { return .text("-ERR\r\n") }
      let index = session.listed[number - 1]
      session.fetched.insert(index)
      return .text("+OK message follows\r\n" + state.withLock { $0.texts[index] } + ".\r\n")
    case "TOP": return .text("+OK\r\nSubject: top of \(argument)\r\n\r\n.\r\n")
    case "QUIT":
      let fetched = session.fetched
      state.withLock { $0.popped.formUnion(fetched) }
      return .close("+OK Farewell.\r\n")
    default: return .text("+OK\r\n")
    }
  }
}

@Suite("What providers do otherwise, and what servers say of themselves (features R6, R7)")
struct ProviderTests {
  private static let texts = (1...8).map { message("s\($0)") }

  private func gmail(_ cluster: TestCluster, _ server: ScriptedMailServer) async throws -> ServerProfile {
    try await cluster.profile(
      "Gmail",
      incoming: ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none, credentials: .mailbox),
      type: .gmail)
  }

  @Test("Gmail is asked again until it has nothing new, whatever the interval; the login delay is kept between")
  func drained() async throws {
    let provider = HabitualServer(Self.texts)
    // Without the delay that Gmail announces: the test would last as long.
    let server = try await ScriptedMailServer.start { _ in
      provider.script().map { step in
        guard case .serve(let answer) = step else { return step }
        return .serve { $0 == "CAPA" ? .text("+OK\r\nUSER\r\nTOP\r\nUIDL\r\n.\r\n") : answer($0) }
      }
    }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await gmail(cluster, server))
      try await cluster.enable(id)
      try await eventually("all is stored") { try await cluster.emails(of: id).count == 8 }
      // 3 + 3 + 2, and one that finds nothing.
      let runs = try await cluster.waitForRuns(4, of: id)
      #expect(runs.map(\.messagesStored) == [3, 3, 2, 0] && runs.allSatisfy { $0.result == .success })
      try await eventually("then the interval counts") {
        try await cluster.mailbox(id).incoming.nextRunReason == "slot"
      }
      #expect(!server.connections.flatMap(\.lines).contains { $0.hasPrefix("DELE") })
    }
    await server.stop()
  }

  @Test("a session that ends without QUIT marks nothing at Gmail: everything comes again, and is stored once")
  func lostBeforeQuit() async throws {
    let provider = HabitualServer(Array(Self.texts.prefix(2)))
    let server = try await ScriptedMailServer.start { number in
      provider.script().map { step in
        guard number == 0, case .serve(let answer) = step else { return step }
        return .serve { $0 == "RETR 2" ? .close("+OK\r\nSubject: ha") : answer($0) }
      }
    }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await gmail(cluster, server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.failure?.code == .tcpClosed && first.messagesStored == 1)
      let second = try await cluster.poll(id)
      #expect(second.messagesStored == 1 && second.messagesKnown == 1)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject).sorted() == ["s1", "s2"])
    }
    await server.stop()
  }

  private struct CannotRead: Error {}

  @Test("what cannot be read is kept at once where the server does not list it again", arguments: [true, false])
  func keptAtOnce(isGmail: Bool) async throws {
    let bad = message("bad")
    let provider = HabitualServer([message("good"), bad])
    // Gmail says nothing of EXPIRE; the other one does.
    let server = try await ScriptedMailServer.start { _ in
      provider.script().map { step in
        guard isGmail, case .serve(let answer) = step else { return step }
        return .serve { $0 == "CAPA" ? .text("+OK\r\nUSER\r\nTOP\r\nUIDL\r\n.\r\n") : answer($0) }
      }
    }
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      _ = try spine.startWorker(parser: { content, limits in
        let parsed = try MessageReader.parse(content: content, limits: limits)
        if parsed.envelope.subject == "bad" { throw CannotRead() }
        return parsed
      })
      let profile = try await cluster.profile(
        "Forgetful",
        incoming: ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none, credentials: .mailbox),
        type: isGmail ? .gmail : .pop3SMTP)
      let id = try await cluster.mailbox(on: profile)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .partial && run.messagesStored == 1 && run.messagesFailed == 1)
      let kept = try #require(try await cluster.quarantine().first)
      #expect(kept.attempts == 1)
      #expect(try await cluster.kept(kept.id) == Array(bad.utf8))
      #expect(try await cluster.poll(id).messagesFailed == 0)
    }
    await server.stop()
  }

  @Test("recent mode lists everything each time: nothing is asked again at once, and nothing is deleted there")
  func recent() async throws {
    let provider = HabitualServer(Self.texts)
    let server = try await ScriptedMailServer.start { _ in provider.script() }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailboxes(
        ["q@example.org"], on: try await gmail(cluster, server), owner: .queue, deletes: true)[0]
      try await cluster.sql("UPDATE mailbox SET user_name = 'recent:q@example.org', version = version + 1")
      try await cluster.pollEveryMinute()
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 8)
      #expect(try await cluster.mailbox(id).incoming.nextRunReason == "pop3.login-delay")
      provider.add(message("s9"))
      let later = try await cluster.poll(id)
      #expect(later.messagesStored == 1 && later.messagesKnown == 8)
      let lines = server.connections.flatMap(\.lines)
      #expect(lines.contains("USER recent:q@example.org") && !lines.contains { $0.hasPrefix("DELE") })
    }
    await server.stop()
  }

  @Test("mail that the mailbox sent itself comes back over Gmail and is not imported")
  func own() async throws {
    let provider = HabitualServer([message("ours"), message("theirs")])
    let server = try await ScriptedMailServer.start { _ in provider.script() }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await gmail(cluster, server))
      try await cluster.sql(
        "INSERT INTO own_message (mailbox_id, organization_id, message_id) SELECT id, organization_id, 'ours@example.org' FROM mailbox"
      )
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 1 && run.messagesKnown == 1)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["theirs"])
    }
    await server.stop()
  }

  @Test("what Gmail lets be fetched in a day is not exceeded: the rest waits, and the mailbox stays enabled")
  func dailyBudget() async throws {
    let provider = HabitualServer([message("one")])
    let server = try await ScriptedMailServer.start { _ in provider.script() }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await gmail(cluster, server))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      try await cluster.sql("UPDATE run SET octets_stored = 1000000000")
      provider.add(message("two"))
      let before = server.connections.count
      let run = try await cluster.poll(id)
      #expect(run.failure?.code == .pop3Quota && run.messagesStored == 0)
      #expect(server.connections.count == before, "the provider is not even asked")
      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.incoming.enabled && mailbox.incoming.nextRunReason == "pop3.quota")
      // A day later.
      try await cluster.sql("UPDATE run SET started_at = started_at - interval '25 hours' WHERE octets_stored > 0")
      #expect(try await cluster.poll(id).messagesStored == 1)
      try await eventually("the alert is gone") {
        try await cluster.alerts(of: id).allSatisfy { $0.code != "pop3.quota" }
      }
    }
    await server.stop()
  }

  @Test("LOGIN-DELAY puts off the next poll, EXPIRE 0 is said once mail was fetched")
  func capabilities() async throws {
    let provider = HabitualServer([message("one")])
    let server = try await ScriptedMailServer.start { _ in provider.script() }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.pollEveryMinute()
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      let mailbox = try await cluster.mailbox(id)
      let next = try #require(mailbox.incoming.nextRunAt)
      #expect(next >= run.startedAt.addingTimeInterval(299), "the profile says every minute, the server 300 seconds")
      #expect(mailbox.incoming.nextRunReason == "pop3.login-delay")
      let alert = try #require(try await cluster.alerts(of: id).first)
      #expect(alert.code == "pop3.expire" && alert.level == .warning && alert.remedy != nil)
    }
    await server.stop()
  }

  @Test(
    "the time that a server names in its refusal is waited",
    arguments: [
      ("-ERR [IN-USE] locked, try again in 20 minutes", FailureCode.pop3InUse, 1_200.0),
      ("-ERR [LOGIN-DELAY] wait 2 hours", .pop3LoginDelay, 7_200),
      ("-ERR [SYS/TEMP] maintenance, back in 3 hours", .pop3SysTemp, 10_800),
    ])
  func namedTime(answer: String, code: FailureCode, seconds: Double) async throws {
    let drop = Maildrop()
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0.hasPrefix("PASS") ? .text(answer + "\r\n") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == code)
      let next = try #require(try await cluster.mailbox(id).incoming.nextRunAt)
      #expect(abs(next.timeIntervalSince(run.finishedAt) - seconds) < 60, "\(next) after \(run.finishedAt)")
    }
    await server.stop()
  }
}

extension TestCluster {
  /// Has every mailbox polled each minute, more often than servers with a login delay want it.
  fileprivate func pollEveryMinute() async throws {
    try await sql("UPDATE server_profile SET minimum_polling_interval_minutes = 1, version = version + 1")
  }
}
