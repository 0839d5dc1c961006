import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("Test & enable (features T2–T6)")
struct TestAndEnableTests {
  @Test("both directions pass: statuses, flags, alerts, steps, and the message really arrives")
  func bothPass() async throws {
    let address = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: Sandbox.password, outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .success && run.failure == nil && run.messagesSent == 1 && run.trigger == .request)

      let mailbox = try await cluster.mailbox(id)
      for state in [mailbox.incoming, mailbox.outgoing] {
        #expect(state.status == .success && state.enabled && state.failureCode == nil)
        #expect(state.notRunningReason == nil)
      }
      let alerts = try await cluster.alerts(of: id)
      #expect(alerts.allSatisfy { $0.level == .information })
      #expect(Set(alerts.map(\.code)) == ["mailbox.connected.incoming", "mailbox.connected.outgoing"])

      let incoming = run.steps.filter { $0.direction == .incoming }
      let outgoing = run.steps.filter { $0.direction == .outgoing }
      #expect(run.steps == incoming + outgoing, "the steps stand in their order")
      #expect(
        incoming.map(\.name) == [
          .resolve, .connect, .tls, .greeting, .capabilities, .authenticate, .list, .quit,
        ])
      #expect(
        outgoing.map(\.name) == [
          .resolve, .connect, .greeting, .capabilities, .tls, .capabilities, .authenticate, .send, .quit,
        ])
      #expect(run.steps.allSatisfy { $0.result == .ok && $0.milliseconds >= 0 && $0.code == nil })
      #expect(run.steps.contains { $0.milliseconds > 0.1 })
      for (earlier, later) in zip(run.steps, run.steps.dropFirst()) {
        #expect(earlier.startedAt <= later.startedAt)
      }
      #expect(!"\(run)".contains(Sandbox.password))

      // Postfix delivers in its own time; every poll looks again. The message really arrived, and is ours.
      try await eventually("the test's message") {
        _ = try await cluster.poll(id)
        return try await cluster.sql("SELECT state FROM ledger") == "own"
      }
      #expect(try await cluster.emails(of: id).isEmpty)
      let sent = try await cluster.sql("SELECT message_id FROM own_message")
      #expect(sent.hasPrefix("postrider-test.") && sent.hasSuffix("@sandbox.test"))
    }
  }

  @Test("a wrong password fails only where it is wrong, with code, remedy and the server's words")
  func wrongPassword() async throws {
    let address = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: "wrong secret", outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .failure && run.failure?.failureClass == .credential)
      let mailbox = try await cluster.mailbox(id)
      for state in [mailbox.incoming, mailbox.outgoing] {
        #expect(state.status == .failure && !state.enabled && state.failureCode == "auth.rejected")
        #expect(state.notRunningReason == "disabled" && state.failedAt != nil)
      }
      for direction in Direction.allCases {
        let steps = run.steps.filter { $0.direction == direction }
        let last = try #require(steps.last)
        #expect(steps.dropLast().allSatisfy { $0.result == .ok })
        #expect(last.name == .authenticate && last.result == .failed && last.code == .authRejected)
        #expect(last.remedy == FailureCode.authRejected.remedy && last.serverWords?.isEmpty == false)
      }
      let alert = try #require(try await cluster.alerts(of: id).first)
      #expect(alert.level == .error && alert.code == "auth.rejected" && alert.remedy != nil)
      #expect(!"\(run)\(alert)".contains("wrong secret"))
      // A mailbox's own password is nobody else's fault.
      #expect(try await cluster.alerts().isEmpty)
      #expect(try await cluster.runs(of: id).isEmpty, "nothing was enabled, so nothing is polled")
    }
  }

  @Test("one direction fails, the other is enabled; a later test answers the alert", arguments: Direction.allCases)
  func oneFails(failing: Direction) async throws {
    let sandbox = try await Sandbox.shared()
    let address = try await Sandbox.account()
    let closed = try LoopbackPort.free()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let broken = ServerDraft(host: "127.0.0.1", port: closed, tls: .implicit)
      let profile = try await cluster.sandboxProfile(
        incoming: failing == .incoming ? broken : nil, outgoing: failing == .outgoing ? broken : nil)
      let id = try await cluster.mailbox(
        address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .partial && run.failure?.code == .tcpRefused)
      func states(_ mailbox: Mailbox) -> (bad: DirectionState, good: DirectionState) {
        failing == .incoming ? (mailbox.incoming, mailbox.outgoing) : (mailbox.outgoing, mailbox.incoming)
      }
      let (bad, good) = states(try await cluster.mailbox(id))
      #expect(good.status == .success && good.enabled)
      #expect(bad.status == .failure && !bad.enabled && bad.failureCode == "tcp.refused")
      let own = try await cluster.alerts(of: id)
      #expect(Set(own.map(\.level)) == [.information, .error])
      // On the wall of the profile's owner too (T5), and under the right direction.
      let onProfile = try await cluster.alerts()
      #expect(onProfile.map(\.code) == ["tcp.refused"])
      #expect(onProfile.first?.parameters["direction"] == failing.rawValue)

      let host = failing == .incoming ? "incoming" : "outgoing"
      let port = failing == .incoming ? sandbox.pop3sPort : try #require(sandbox.submissionsPort)
      try await cluster.sql(
        """
        UPDATE server_profile SET \(host)_host = '\(sandbox.hostName)', \(host)_port = \(port), version = version + 1
        """)
      #expect(try await cluster.test(id).result == .success)
      let repaired = try await cluster.mailbox(id)
      #expect(repaired.incoming.enabled && repaired.outgoing.enabled)
      #expect(try await cluster.alerts(of: id).allSatisfy { $0.level == .information })
      #expect(try await cluster.alerts().isEmpty)
    }
  }

  @Test(
    "a test that meets what passes by itself leaves a working mailbox as it is",
    arguments: [
      ("-ERR [IN-USE] locked", FailureCode.pop3InUse), ("-ERR [LOGIN-DELAY] wait", .pop3LoginDelay),
      ("-ERR [SYS/TEMP] later", .pop3SysTemp),
    ])
  func passing(answer: String, code: FailureCode) async throws {
    let drop = Maildrop()
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0.hasPrefix("PASS") ? .text(answer + "\r\n") : drop.answer($0) }])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let ids = try await cluster.mailboxes(
        ["works@example.org", "new@example.org"], on: try await cluster.profile(server))
      try await cluster.enable(ids[0])
      for id in ids { #expect(try await cluster.test(id).failure?.code == code) }
      let (works, new) = (try await cluster.mailbox(ids[0]).incoming, try await cluster.mailbox(ids[1]).incoming)
      #expect(works.enabled && works.status == .success)
      #expect(!new.enabled && new.status == .failure && new.failureCode == code.rawValue)
    }
    await server.stop()
  }
}
