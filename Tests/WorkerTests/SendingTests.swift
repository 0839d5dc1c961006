import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@Suite("Sending (features O1, O3–O5)")
struct SendingTests {
  @Test("several messages of a mailbox leave in one session, by priority, and each arrives exactly once")
  func arrivesOnce() async throws {
    let address = try await Sandbox.account()
    let receiver = try await Sandbox.account()
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.sandboxProfile()
      let id = try await cluster.mailbox(
        address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      let low = try await cluster.submit("low", from: id, to: [receiver, address], priority: .low)
      let high = try await cluster.submit("high", from: id, to: [receiver], priority: .high)
      let later = try await cluster.submit(
        "later", from: id, to: [receiver], sendAfter: Date().addingTimeInterval(3_600))
      _ = try spine.startScheduler()

      _ = try await cluster.waitForState(.sent, of: low)
      let sent = try await cluster.waitForState(.sent, of: high)
      #expect(sent.attempts == 1 && sent.recipients.map(\.state) == [.accepted] && sent.sentAt != nil)
      let runs = try await cluster.waitForRuns(1, of: id, .send)
      #expect(runs.count == 1 && runs.first?.messagesSent == 2 && runs.first?.result == .success)
      let first = try await cluster.sql(
        "SELECT id FROM outgoing_email WHERE state = 'sent' ORDER BY sent_at LIMIT 1")
      #expect(first == "\(high.id)")
      #expect(try await cluster.store.outgoingEmail(later.id, for: cluster.principal).state == .pendingSend)
      // The next session is due when the last message is.
      #expect(
        try await cluster.sql(
          "SELECT next_due_at > now() + interval '50 minutes' FROM mailbox_schedule WHERE kind = 's'") == "t")

      let other = try await cluster.mailbox(receiver, on: profile, password: Sandbox.password)
      try await cluster.enable([id, other])
      let emails = try await cluster.received(2, by: other)
      #expect(emails.map(\.envelope.subject).sorted() == ["high", "low"])
      // What the mailbox sent to itself is there too, and not new.
      try await eventually("the own message") {
        _ = try await cluster.poll(id)
        return try await cluster.sql("SELECT state FROM ledger WHERE mailbox_id = \(id)") == "own"
      }
      #expect(try await cluster.emails(of: id).isEmpty)
    }
  }

  @Test("a recipient that is refused beside a good one: partly sent, with the reason and an alert")
  func partlySent() async throws {
    let server = try await ScriptedMailServer.start(
      smtp { line in line.hasPrefix("RCPT TO:<bad@") ? "550 5.1.1 no\r\n" : nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org", "bad@example.org"])
      let sent = try await cluster.waitForState(.partlySent, of: email)
      #expect(sent.recipients.map(\.state) == [.accepted, .failed])
      #expect(sent.recipients.last?.failure?.code == .smtpRecipient)
      try await eventually("the alert") {
        try await cluster.alerts(of: id).contains { $0.code == "smtp.recipient" && $0.level == .error }
      }
    }
    await server.stop()
  }

  @Test("the link is lost before the final dot: the message waits and is tried again")
  func lostBefore() async throws {
    let server = try await ScriptedMailServer.start(smtp { line in line.hasPrefix("MAIL") ? "" : nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org"])
      let waiting = try await eventually("the first attempt") {
        let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        return now.attempts == 1 && now.state == .pendingSend ? now : nil
      }
      #expect(waiting.failure != nil && waiting.recipients.map(\.state) == [.pending])
      #expect(try #require(waiting.nextTryAt) > waiting.updatedAt)
    }
    await server.stop()
  }

  @Test("the link is lost after the final dot: uncertain, an alert, and never sent again")
  func lostAfter() async throws {
    let server = try await ScriptedMailServer.start(smtp(answersMessage: false) { _ in nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org"])
      let lost = try await cluster.waitForState(.uncertain, of: email)
      #expect(lost.recipients.map(\.state) == [.uncertain] && lost.failure?.code == .smtpUncertain)
      try await eventually("the alert") {
        try await cluster.alerts(of: id).contains { $0.code == "smtp.uncertain" && $0.level == .error }
      }
      let second = try await cluster.submit("y", from: id, to: ["good@example.org"])
      _ = try await cluster.waitForState(.uncertain, of: second)
      #expect(try await cluster.store.outgoingEmail(email.id, for: cluster.principal).attempts == 1)
      // Only a person's word sends it again.
      await #expect(throws: StoreError.self) {
        try await cluster.store.retryOutgoing(email.id, resendUncertain: false, by: cluster.principal)
      }
      let again = try await cluster.store.retryOutgoing(email.id, resendUncertain: true, by: cluster.principal)
      #expect(again.messageID == email.messageID)
      try await eventually("the second attempt") {
        server.connections.count { $0.lines.contains { $0.contains(email.messageID) } } == 2
      }
    }
    await server.stop()
  }

  @Test("a message left in the middle by a worker that died is uncertain and not sent")
  func leftBehind() async throws {
    let server = try await ScriptedMailServer.start(smtp { _ in nil })
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org"])
      try await cluster.sql("UPDATE outgoing_email SET state = 'sending', fence = 1, attempts = 1")
      _ = try spine.startScheduler()
      let lost = try await cluster.waitForState(.uncertain, of: email)
      #expect(lost.attempts == 1 && lost.recipients.map(\.state) == [.uncertain])
      #expect(server.connections.isEmpty, "nothing is due, so nothing connects")
    }
    await server.stop()
  }

  @Test("a refused password stops the direction as it does for polls; the message waits")
  func wrongPassword() async throws {
    let address = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: "wrong secret", outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      let email = try await cluster.submit("x", from: id, to: [address])
      let run = try #require(try await cluster.waitForRuns(1, of: id, .send).first)
      #expect(run.result == .failure && run.failure?.failureClass == .credential)
      let waiting = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
      #expect(waiting.state == .pendingSend && waiting.attempts == 0)
      #expect(try await cluster.alerts(of: id).contains { $0.code == "auth.rejected" })
    }
  }

  @Test("what waited for days before its first attempt is tried again after a temporary refusal")
  func patience() async throws {
    let server = try await ScriptedMailServer.start(
      smtp { line in line.hasPrefix("RCPT") ? "450 4.7.1 greylisted\r\n" : nil })
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org"])
      try await cluster.sql("UPDATE outgoing_email SET created_at = now() - interval '3 days'")
      _ = try spine.startScheduler()
      let waiting = try await eventually("the first attempt") {
        let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        return now.attempts == 1 && now.state != .sending ? now : nil
      }
      #expect(waiting.state == .pendingSend && waiting.recipients.map(\.state) == [.pending])
      // What it says of the next session is written with it.
      try await eventually("the run is written") { try await cluster.runs(of: id, .send).count == 1 }
      // Two days of trying are enough.
      try await cluster.sql(
        """
        BEGIN; UPDATE outgoing_email SET tried_since = now() - interval '49 hours', next_try_at = now();
        UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 's'; COMMIT;
        SELECT pg_notify('postrider_schedule', 'r')
        """)
      _ = try await cluster.waitForState(.failed, of: email)
    }
    await server.stop()
  }

  @Test("a sender that is refused at RCPT stops the direction; nothing that waits is given up")
  func senderRefusedAtRecipient() async throws {
    let server = try await ScriptedMailServer.start(
      smtp { line in line.hasPrefix("RCPT") ? "550 5.1.8 Sender address rejected: Domain not found\r\n" : nil })
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let first = try await cluster.submit("x", from: id, to: ["a@example.org", "b@example.org"])
      let second = try await cluster.submit("y", from: id, to: ["a@example.org"])
      _ = try spine.startScheduler()
      try await eventually("the direction is off") {
        try await !cluster.mailbox(id).outgoing.enabled
      }
      for email in [first, second] {
        let waiting = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        #expect(waiting.state == .pendingSend && waiting.recipients.allSatisfy { $0.state == .pending })
      }
      #expect(try await cluster.alerts(of: id).contains { $0.code == "smtp.sender-blocked" })
    }
    await server.stop()
  }

  @Test("partly sent in a later attempt still says why, and raises the alert")
  func partlySentLater() async throws {
    let greylists = Mutex(true)
    let server = try await ScriptedMailServer.start(
      smtp { line in
        if line.hasPrefix("RCPT TO:<bad@") { return "550 5.1.1 no\r\n" }
        return line.hasPrefix("RCPT") && greylists.withLock { $0 } ? "450 4.7.1 later\r\n" : nil
      })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org", "bad@example.org"])
      try await eventually("the first attempt") {
        let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        return now.attempts == 1 && now.state == .pendingSend
      }
      greylists.withLock { $0 = false }
      try await eventually("the run is written") { try await cluster.runs(of: id, .send).count == 1 }
      try await cluster.sql(
        """
        BEGIN; UPDATE outgoing_email SET next_try_at = now();
        UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 's'; COMMIT;
        SELECT pg_notify('postrider_schedule', 'r')
        """)
      let sent = try await cluster.waitForState(.partlySent, of: email)
      #expect(sent.recipients.map(\.state) == [.accepted, .failed] && sent.failure?.code == .smtpRecipient)
      try await eventually("the alert") {
        try await cluster.alerts(of: id).contains { $0.code == "smtp.recipient" && $0.level == .error }
      }
    }
    await server.stop()
  }

  @Test("an answer to the end of a message that is neither yes nor no leaves it uncertain")
  func strangeAnswer() async throws {
    let server = try await ScriptedMailServer.start(smtp { line in line.contains("Subject:") ? "354 more\r\n" : nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.submit("x", from: id, to: ["good@example.org"])
      #expect(try await cluster.waitForState(.uncertain, of: email).attempts == 1)
    }
    await server.stop()
  }

  /// A server that takes all mail but for the lines that `refuse` answers; an empty answer closes.
  func smtp(
    answersMessage: Bool = true, extensions: String = "", _ refuse: @escaping @Sendable (String) -> String?
  ) -> [ScriptedMailServer.Step] {
    [
      .send("220 mx\r\n"),
      .serve { line in
        if let answer = refuse(line) { return answer.isEmpty ? .close("") : .text(answer) }
        switch line.split(separator: " ").first?.uppercased() {
        case "EHLO": return .text("250-mx\r\n\(extensions)250 AUTH PLAIN LOGIN\r\n")
        case "AUTH": return .text("235 ok\r\n")
        case "DATA": return .readMessage("354 go\r\n")
        case "QUIT": return .close("221 bye\r\n")
        case "MAIL", "RCPT", "RSET": return .text("250 ok\r\n")
        default: return answersMessage ? .text("250 taken\r\n") : .close("")
        }
      },
    ]
  }
}

extension TestCluster {
  /// A mailbox that sends over a scripted server.
  func sender(to server: ScriptedMailServer) async throws -> MailboxID {
    let draft = ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none)
    let id = try await mailbox(on: try await profile(incoming: draft, outgoing: draft), outgoing: .serverSideSync)
    try await enableOutgoing(id)
    return id
  }

  /// Enables the outgoing direction as a passed test would.
  func enableOutgoing(_ id: MailboxID) async throws {
    try await sql(
      """
      BEGIN;
      UPDATE mailbox SET outgoing_status = 'success', outgoing_enabled = true WHERE id = \(id);
      SELECT announce_jobs(array(SELECT refresh_may_run(ARRAY[\(id)]::bigint[])));
      COMMIT;
      """)
  }

  /// Submits a short message.
  func submit(
    _ subject: String, from id: MailboxID, to recipients: [String], priority: OutgoingPriority = .normal,
    sendAfter: Date? = nil
  ) async throws -> OutgoingEmail {
    let address = try await mailbox(id).address
    let messageID = MessageBuilder.newMessageID(for: address)
    let raw = try MessageBuilder(
      from: EmailAddress(address: address), to: recipients.map { EmailAddress(address: $0) }, subject: subject,
      text: "Hello.", messageID: messageID, date: Date()
    ).build()
    return try await store.submit(
      OutgoingSubmission(
        mailboxID: id, recipients: recipients, subject: subject, messageID: messageID, raw: .bytes(raw),
        priority: priority, sendAfter: sendAfter), by: principal)
  }

  /// Polls until a mailbox has received so many messages; returns all of them.
  func received(_ count: Int, by id: MailboxID) async throws -> [EmailRecord] {
    try await eventually("\(count) messages") {
      _ = try await self.poll(id)
      let emails = try await self.emails(of: id)
      return emails.count >= count ? emails : nil
    }
  }

  /// Waits until a message is in a state.
  func waitForState(_ state: OutgoingState, of email: OutgoingEmail) async throws -> OutgoingEmail {
    do {
      return try await eventually("message \(email.id) is \(state.rawValue)") {
        let now = try await self.store.outgoingEmail(email.id, for: self.principal)
        return now.state == state ? now : nil
      }
    } catch {
      let now = try await store.outgoingEmail(email.id, for: principal)
      throw TestFailure("\(error)\nIt is \(now.state.rawValue): \(now.failure.map { "\($0)" } ?? "no failure")")
    }
  }
}
