import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("Round trip: the test's message comes back over POP3 (feature T3)")
struct RoundTripTests {
  @Test("it is found, says how long it took, and is no new mail")
  func found() async throws {
    let address = try await Sandbox.account()
    try await Spine.with(configure: { $0.roundTripWait = .seconds(60) }) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: Sandbox.password, outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .success && run.failure == nil)
      let step = try #require(run.steps.last)
      #expect(step.name == .roundTrip && step.result == .ok && step.direction == .incoming)
      #expect(step.tried.contains(address) && step.milliseconds > 0)
      #expect(run.steps.count { $0.name == .list } == 1, "the looks are one step")
      // It is known before the first poll, and no poll imports it.
      #expect(try await cluster.sql("SELECT state FROM ledger WHERE mailbox_id = \(id)") == "own")
      let poll = try await cluster.poll(id)
      #expect(poll.messagesStored == 0)
      #expect(try await cluster.emails(of: id).isEmpty)
      #expect(try await cluster.alerts(of: id).allSatisfy { $0.level == .information })
    }
  }

  @Test("it does not come back: a warning with what to do, and both directions are enabled all the same")
  func missing() async throws {
    let drop = Maildrop()
    drop.add("u1", message("An older one"))
    let pop3 = try await ScriptedMailServer.start([.send("+OK\r\n"), .serve { drop.answer($0) }])
    let smtp = try await ScriptedMailServer.start(SendingTests().smtp { _ in nil })
    try await Spine.with(configure: { $0.roundTripWait = .seconds(10) }) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: ServerDraft(host: "127.0.0.1", port: pop3.port, tls: TLSMode.none),
        outgoing: ServerDraft(host: "127.0.0.1", port: smtp.port, tls: TLSMode.none))
      let id = try await cluster.mailbox(on: profile, outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .success)
      let step = try #require(run.steps.last)
      #expect(step.name == .roundTrip && step.result == .warning && step.code == nil)
      #expect(step.tried.contains("was not seen within") && step.remedy?.contains("recent:") == true)
      let mailbox = try await cluster.mailbox(id)
      for state in [mailbox.incoming, mailbox.outgoing] { #expect(state.enabled && state.status == .success) }
      #expect(try await cluster.alerts(of: id).contains { $0.code == "mailbox.round-trip" && $0.level == .warning })
      #expect(pop3.connections.count >= 3, "it looked more than once")
      // Each header was read once.
      #expect(pop3.connections.flatMap(\.lines).count { $0.hasPrefix("TOP") } == 1)
    }
    for server in [pop3, smtp] { await server.stop() }
  }

  @Test("not looked for where it is switched off, nor where a direction does not work")
  func left() async throws {
    let address = try await Sandbox.account()
    try await Spine.with(configure: { $0.roundTripWait = .seconds(60) }) { spine in
      let cluster = spine.cluster
      let sandbox = try await Sandbox.shared()
      let profile = try await cluster.sandboxProfile(
        outgoing: ServerDraft(host: sandbox.hostName, port: 1, tls: .starttls))
      let id = try await cluster.mailbox(
        address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      let run = try await cluster.test(id)
      #expect(run.result == .partial)
      #expect(!run.steps.contains { $0.name == .roundTrip })
    }
  }
}
