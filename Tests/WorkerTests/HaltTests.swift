import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

extension BreakerRules {
  /// Halts that are looked at again within seconds.
  static var quickHalts: BreakerRules {
    var rules = BreakerRules.halts
    rules.firstProbe = .seconds(1)
    rules.longestProbe = .seconds(2)
    rules.probesByCode = [:]
    rules.probeHold = .seconds(4)
    return rules
  }
}

/// A maildrop server that refuses every password while told to.
private final class Gatekeeper: Sendable {
  private let refusing = Mutex(false)
  private let drop = Maildrop()

  func set(refusing: Bool) { self.refusing.withLock { $0 = refusing } }

  var script: [ScriptedMailServer.Step] {
    [
      .send("+OK\r\n"),
      .serve { line in
        line.hasPrefix("PASS") && self.refusing.withLock { $0 } ? .text("-ERR [AUTH] no\r\n") : self.drop.answer(line)
      },
    ]
  }
}

extension ScriptedMailServer {
  /// How often a client tried to log in.
  fileprivate var logins: Int { connections.reduce(0) { $0 + $1.lines.count { $0.hasPrefix("PASS") } } }
}

@Suite("Halted profiles and mass rejection (features E1, E4)")
struct HaltTests {
  @Test("a certificate of an unknown authority: few sessions find out, the others wait; tests are answered at once")
  func untrusted() async throws {
    let sandbox = try await Sandbox.shared()
    // Few sessions at once; the sandbox's authority is not trusted.
    try await Spine.with(workers: 2, configure: { $0.sessions = 3 }) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: ServerDraft(host: sandbox.hostName, port: sandbox.pop3sPort, tls: .implicit))
      let ids = try await cluster.mailboxes((1...31).map { "m\($0)@example.org" }, on: profile)
      try await cluster.enable(ids)
      try await eventually("the alert") { try await cluster.alerts().contains { $0.code == "tls.untrusted" } }
      try await eventually("the others wait") {
        try await spine.withGuard { try await $0.queueBlocked("halted") } > 0
      }
      let runs = Int(try await cluster.sql("SELECT count(*) FROM run")) ?? 99
      // Those that were under way when the first found out, and no more.
      #expect(runs <= 12, "\(runs) sessions")
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox WHERE NOT incoming_enabled") == "0")
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox_schedule WHERE failures > 0") == "0")

      // A test of a batch needs not be tried: what halts the profile is its answer.
      _ = try await cluster.store.requestTest(of: ids, by: cluster.principal)
      try await eventually("every test is answered") {
        try await cluster.sql("SELECT count(*) FROM run WHERE kind = 't' AND failure_code = 'tls.untrusted'") == "31"
      }
    }
  }

  @Test("a provider that refuses everybody: nobody is disabled, one alert, few logins; afterwards all go on")
  func massRejection() async throws {
    let gate = Gatekeeper()
    let server = try await ScriptedMailServer.start(gate.script)
    var halts = BreakerRules.quickHalts
    // Each probe that is refused is a login, too: a slow machine must not come to many of them.
    halts.longestProbe = .seconds(16)
    try await Spine.with(workers: 1, halts: halts, configure: { $0.sessions = 2 }) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(server)
      // The halt alone keeps the others back: a used up budget would do so for a minute.
      _ = try await cluster.store.updateProfile(
        profile.id, ProfileChange(maximumFailedLogins: 100), by: cluster.principal)
      let ids = try await cluster.mailboxes((1...40).map { "m\($0)@example.org" }, on: profile)
      try await cluster.enable(ids)
      try await eventually("a poll of each", within: .seconds(120)) {
        try await cluster.sql("SELECT count(DISTINCT mailbox_id) FROM run WHERE result = 'success'") == "40"
      }
      let before = server.logins
      gate.set(refusing: true)
      try await cluster.makeDue(ids)
      try await eventually("the alert", within: .seconds(120)) {
        try await cluster.alerts().contains { $0.code == "auth.mass-rejection" && $0.level == .error }
      }
      try await eventually("a probe that is refused, too") {
        try await cluster.sql("SELECT count(*) >= 2 FROM run WHERE failure_code = 'auth.mass-rejection'") == "t"
      }
      let tried = server.logins - before
      #expect(tried < 20, "\(tried) of 40 mailboxes were refused before the others waited")
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox WHERE incoming_enabled") == "40")

      gate.set(refusing: false)
      try await eventually("everybody goes on", within: .seconds(120)) {
        try await cluster.sql(
          """
          SELECT count(*) FROM mailbox_schedule s JOIN run r ON r.id = s.last_run_id
          WHERE s.kind = 'p' AND s.enabled AND (r.result = 'success' OR s.failure_code = 'auth.rejected')
            AND s.next_due_at > now()
          """) == "40"
      }
      try await eventually("the profile's alert is resolved") {
        try await !cluster.alerts().contains { $0.code == "auth.mass-rejection" }
      }
      // The few that were refused before it was one: their confirming login finds the door open.
      try await cluster.makeDue(ids)
      try await eventually("no failure is left", within: .seconds(120)) {
        try await cluster.sql("SELECT count(*) FROM mailbox_schedule WHERE kind = 'p' AND failure_code IS NOT NULL")
          == "0"
      }
      #expect(try await cluster.alerts().isEmpty)
    }
    await server.stop()
  }

  @Test(
    "what is done about a halt ends it: an edit, one passed test of one mailbox; nobody waits for the next probe",
    arguments: ["edit", "test"])
  func mended(by remedy: String) async throws {
    let gate = Gatekeeper()
    let server = try await ScriptedMailServer.start(gate.script)
    // The rules as they are: the profile's own refused account is asked again after five minutes.
    try await Spine.with(workers: 1, configure: { $0.sessions = 2 }) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(server, credentials: .profile)
      let ids = try await cluster.mailboxes((1...12).map { "m\($0)@example.org" }, on: profile)
      gate.set(refusing: true)
      try await cluster.enable(ids)
      try await eventually("the others wait") {
        // The scheduler may not have opened its epoch yet. And no refusal is under way that would be told too late.
        do {
          return try await spine.withGuard { serverGuard -> Bool in
            guard try await serverGuard.queueBlocked("halted") > 0 else { return false }
            return try await serverGuard.sessionsUnderWay() == 0
          }
        } catch is JobQueueError {
          return false
        }
      }
      gate.set(refusing: false)
      switch remedy {
      case "edit":
        _ = try await cluster.store.updateProfile(profile.id, ProfileChange(weight: 2), by: cluster.principal)
      default:
        #expect(try await cluster.test(ids[0]).result == .success)
      }
      try await eventually("all go on", within: .seconds(150)) {
        try await cluster.sql("SELECT count(DISTINCT mailbox_id) FROM run WHERE kind = 'p' AND result = 'success'")
          == "12"
      }
      try await eventually("the alert is resolved") { try await cluster.alerts().isEmpty }
    }
    await server.stop()
  }

  @Test("one wrong password among many mailboxes is that mailbox's own")
  func single() async throws {
    let gate = Gatekeeper()
    let server = try await ScriptedMailServer.start(gate.script)
    try await Spine.with(halts: .quickHalts) { spine in
      let cluster = spine.cluster
      let ids = try await cluster.mailboxes(
        (1...3).map { "m\($0)@example.org" }, on: try await cluster.profile(server))
      try await cluster.enable(ids)
      for id in ids { _ = try await cluster.waitForRuns(1, of: id) }
      gate.set(refusing: true)
      for _ in 1...2 {
        _ = try await cluster.poll(ids[0])
      }
      #expect(try await cluster.mailbox(ids[0]).incoming.enabled == false)
      #expect(try await cluster.alerts(of: ids[0]).contains { $0.code == "auth.rejected" && $0.level == .error })
    }
    await server.stop()
  }
}
