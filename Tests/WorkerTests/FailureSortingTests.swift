import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

/// What becomes of a mailbox after a failed poll.
struct Fate: Sendable {
  var code: FailureCode
  var failureClass: FailureClass
  var scope: FailureScope
  /// The alert's level, and whether it stands on the profile's wall; `nil` for none.
  var alert: (level: AlertLevel, onProfile: Bool)?
  /// When it is polled again, seconds from the run's end; `nil` for never.
  var next: ClosedRange<Double>?
  var enabled = true
  var failures = 1

  static let backoff = 5.0...61
  static let firstProbe = 58.0...61
}

/// A server that fails in a way of its own.
struct Trouble: Sendable, CustomTestStringConvertible {
  var testDescription: String
  var fate: Fate
  /// How long the client waits for an answer.
  var timeoutSeconds = 20
  /// Starts the server, if there is one, and says where the profile leads.
  var server: @Sendable () async throws -> (ServerDraft, caPEM: String?, ScriptedMailServer?)

  init(
    _ description: String, _ fate: Fate,
    _ server: @escaping @Sendable () async throws -> (ServerDraft, caPEM: String?, ScriptedMailServer?)
  ) {
    testDescription = description
    self.fate = fate
    self.server = server
  }

  /// A scripted server without TLS.
  init(_ description: String, _ fate: Fate, script: [ScriptedMailServer.Step]) {
    self.init(description, fate) {
      let server = try await ScriptedMailServer.start(script)
      return (ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none), nil, server)
    }
  }

  /// A scripted server with TLS from the first byte.
  init(
    _ description: String, _ fate: Fate, names: [String], validity: TestAuthority.Validity = .current,
    trusted: Bool = true
  ) {
    self.init(description, fate) {
      let authority = try await Self.authority.value
      let leaf = try await authority.leaf(
        description.filter(\.isLetter), for: names, validity: validity)
      let identity = ScriptedTLS(certificatesPEM: leaf.certificatePEM, privateKeyPEM: leaf.keyPEM)
      let server = try await ScriptedMailServer.start([.startTLS(identity)] + Maildrop().script)
      return (
        ServerDraft(host: "mail.sandbox.test", port: server.port, tls: .implicit),
        trusted ? authority.certificatePEM : try await Sandbox.shared().caPEM, server
      )
    }
  }

  /// The same for a client that is tired of waiting soon.
  func impatient() -> Trouble {
    var trouble = self
    trouble.timeoutSeconds = 5
    return trouble
  }

  private static let authority = Task {
    let data = try await TestServers.shared.dedicatedDirectory(named: "authority")
    return try await TestAuthority.open(in: data.path + "/ca")
  }

  static let login: [ScriptedMailServer.Step] = [.send("+OK ready\r\n")]

  /// Refuses a command, answers the others.
  static func refusing(_ command: String, _ answer: String) -> [ScriptedMailServer.Step] {
    let drop = Maildrop([("u1", message("one"))])
    return login + [
      .serve { line in line.uppercased().hasPrefix(command) ? .text(answer + "\r\n") : drop.answer(line) }
    ]
  }

  static let warning = (level: AlertLevel.warning, onProfile: true)
  static let error = (level: AlertLevel.error, onProfile: true)

  static func server(_ code: FailureCode) -> Fate {
    Fate(code: code, failureClass: .transient, scope: .server, alert: warning, next: Fate.backoff)
  }
  static func profile(_ code: FailureCode) -> Fate {
    // Halted: the next session is the probe, and nothing is counted on the mailbox.
    Fate(code: code, failureClass: .permanent, scope: .profile, alert: error, next: Fate.firstProbe, failures: 0)
  }
  static func disabled(_ code: FailureCode) -> Fate {
    Fate(
      code: code, failureClass: .permanent, scope: .mailbox, alert: (.error, false), next: nil, enabled: false)
  }

  static let all: [Trouble] = [
    Trouble("unknown host", profile(.dnsUnknownHost)) {
      (ServerDraft(host: "nowhere.example.org", port: 995, tls: .implicit), nil, nil)
    },
    Trouble("refused port", server(.tcpRefused)) {
      (ServerDraft(host: "127.0.0.1", port: try LoopbackPort.free(), tls: .implicit), nil, nil)
    },
    Trouble("expired certificate", profile(.tlsExpired), names: ["mail.sandbox.test"], validity: .expired),
    Trouble("certificate of another name", profile(.tlsNameMismatch), names: ["other.sandbox.test"]),
    Trouble(
      "certificate of an unknown authority", profile(.tlsUntrusted), names: ["mail.sandbox.test"], trusted: false),
    Trouble("plain port, TLS expected", profile(.tlsPortMismatch)) {
      let server = try await ScriptedMailServer.start(Maildrop().script)
      return (ServerDraft(host: "127.0.0.1", port: server.port, tls: .implicit), nil, server)
    },
    Trouble("TLS port, plain text expected", server(.pop3Greeting)) {
      // A TLS server waits for the client, as this client waits for a greeting.
      let sandbox = try await Sandbox.shared()
      return (ServerDraft(host: "127.0.0.1", port: sandbox.pop3sPort, tls: TLSMode.none), nil, nil)
    }.impatient(),
    Trouble("silent server", server(.pop3Greeting), script: [.stopReading]).impatient(),
    Trouble("greeting refused", server(.pop3Greeting), script: [.send("-ERR go away\r\n"), .close]),
    Trouble(
      "closed in the middle of a message", server(.tcpClosed),
      script: login + [
        .serve { line in
          line.hasPrefix("RETR")
            ? .close("+OK\r\nSubject: half\r\n\r\nthis is not a")
            : Maildrop([("u1", message("one"))]).answer(line)
        }
      ]),
    Trouble(
      "maildrop in use",
      Fate(code: .pop3InUse, failureClass: .contention, scope: .mailbox, alert: nil, next: 59...301, failures: 0),
      script: refusing("PASS", "-ERR [IN-USE] another session")),
    Trouble(
      "login delay",
      Fate(code: .pop3LoginDelay, failureClass: .throttle, scope: .mailbox, alert: nil, next: 899...3_601, failures: 0),
      script: refusing("PASS", "-ERR [LOGIN-DELAY] wait")),
    Trouble(
      "permanent trouble with the mailbox", disabled(.pop3SysPerm), script: refusing("PASS", "-ERR [SYS/PERM] no")),
    Trouble("no unique ids", disabled(.pop3NoUIDL), script: refusing("UIDL", "-ERR what?")),
    Trouble(
      "temporary trouble with the mailbox",
      Fate(
        code: .pop3SysTemp, failureClass: .transient, scope: .mailbox, alert: (.warning, false), next: Fate.backoff),
      script: refusing("PASS", "-ERR [SYS/TEMP] later")),
  ]
}

@Suite("Failures of a poll, from the answer to what follows")
struct FailureSortingTests {
  @Test("outcome, alert, next run and flag", arguments: Trouble.all)
  func sorting(trouble: Trouble) async throws {
    let (incoming, caPEM, server) = try await trouble.server()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: incoming, timeoutSeconds: trouble.timeoutSeconds, caPEM: caPEM)
      let id = try await cluster.mailbox(on: profile)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      let fate = trouble.fate
      #expect(run.result == .failure)
      #expect(run.failure?.code == fate.code)
      #expect(run.failure?.failureClass == fate.failureClass && run.failure?.scope == fate.scope)
      let last = try #require(run.steps.last { $0.result == .failed })
      #expect(last.code == fate.code && last.remedy == fate.code.remedy)
      #expect(!"\(run)".contains("secret"))

      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.incoming.enabled == fate.enabled)
      #expect(mailbox.incoming.status == (fate.enabled ? .success : .failure))
      #expect(mailbox.incoming.failureCode == (fate.enabled ? nil : fate.code.rawValue))
      #expect(mailbox.incoming.nextRunReason == fate.code.rawValue || !fate.enabled)
      if let range = fate.next {
        let next = try #require(mailbox.incoming.nextRunAt)
        // It is counted from a moment of the session, whose end may be noted a while later.
        #expect(next.timeIntervalSince(run.startedAt) >= range.lowerBound)
        #expect(next.timeIntervalSince(run.finishedAt) <= range.upperBound)
      } else {
        #expect(mailbox.incoming.nextRunAt == nil)
      }
      let failures = try await cluster.sql("SELECT failures FROM mailbox_schedule WHERE kind = 'p'")
      #expect(failures == String(fate.failures))

      let own = try await cluster.alerts(of: id)
      let onProfile = try await cluster.alerts()
      let isOnProfile = fate.alert?.onProfile == true
      let (alerts, others) = isOnProfile ? (onProfile, own) : (own, onProfile)
      #expect(others.isEmpty)
      #expect(alerts.map(\.level) == (fate.alert.map { [$0.level] } ?? []))
      #expect(alerts.map(\.code) == (fate.alert == nil ? [] : [fate.code.rawValue]))
      #expect(alerts.allSatisfy { $0.remedy == fate.code.remedy && $0.runID == run.id })
    }
    await server?.stop()
  }

  @Test("a refused password is confirmed once, then the direction is disabled")
  func wrongPasswordTwice() async throws {
    let server = try await ScriptedMailServer.start(Trouble.refusing("PASS", "-ERR [AUTH] wrong"))
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let first = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(first.failure?.code == .authRejected)
      var mailbox = try await cluster.mailbox(id)
      #expect(mailbox.incoming.enabled)
      let next = try #require(mailbox.incoming.nextRunAt)
      #expect(next.timeIntervalSince(first.startedAt) >= 299 && next.timeIntervalSince(first.finishedAt) <= 361)
      #expect(try await cluster.alerts(of: id).map(\.level) == [.warning])

      try await cluster.makeDue([id])
      let second = try #require(try await cluster.waitForRuns(2, of: id).last)
      #expect(second.failure?.code == .authRejected && second.trigger == .retry)
      mailbox = try await cluster.mailbox(id)
      #expect(!mailbox.incoming.enabled && mailbox.incoming.status == .failure)
      #expect(mailbox.incoming.notRunningReason == "disabled" && mailbox.incoming.nextRunAt == nil)
      let alerts = try await cluster.alerts(of: id)
      #expect(alerts.map(\.level) == [.error])
      #expect(alerts.map(\.count) == [2])
      #expect(server.connections.count == 2)
    }
    await server.stop()
  }

  @Test("the profile's own refused login disables nobody")
  func wrongProfilePassword() async throws {
    let server = try await ScriptedMailServer.start(Trouble.refusing("PASS", "-ERR [AUTH] wrong"))
    try await Spine.with(halts: .quickHalts) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(server, credentials: .profile)
      let id = try await cluster.mailbox(on: profile, password: nil)
      try await cluster.enable(id)
      for count in 1...2 {
        // The probes go on meanwhile.
        let run = try await cluster.waitForRuns(count, of: id)[count - 1]
        #expect(run.failure?.code == .authRejected && run.failure?.scope == .profile)
        if count == 1 { try await cluster.makeDue([id]) }
      }
      #expect(try await cluster.mailbox(id).incoming.enabled)
      #expect(try await cluster.alerts(of: id).isEmpty)
      #expect(try await cluster.alerts().map(\.level) == [.error])
    }
    await server.stop()
  }

  @Test(
    "recovery resets the failures and resolves the alert, the mailbox's or the profile's",
    arguments: [Trouble.refusing("PASS", "-ERR [SYS/TEMP] later"), [.send("-ERR not now\r\n"), .close]])
  func recovery(trouble: [ScriptedMailServer.Step]) async throws {
    let drop = Maildrop([("u1", message("one"))])
    let isWell = ScriptSignal()
    let server = try await ScriptedMailServer.start(choosing: { _ in isWell.isFired ? drop.script : trouble })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      #expect(try await (cluster.alerts(of: id) + cluster.alerts()).map(\.level) == [.warning])
      isWell.fire()
      #expect(try await cluster.poll(id).result == .success)
      #expect(try await cluster.emails(of: id).count == 1)
      #expect(try await (cluster.alerts(of: id) + cluster.alerts()).isEmpty)
      #expect(try await cluster.sql("SELECT failures, failure_code FROM mailbox_schedule WHERE kind = 'p'") == "0|")
    }
    await server.stop()
  }

  @Test("a session that outlives its deadline says at which step")
  func deadline() async throws {
    let server = try await ScriptedMailServer.start(Trouble.login + [.stopReading])
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("ALTER TABLE organization DROP CONSTRAINT organization_session_deadline_seconds_check")
      try await cluster.sql("UPDATE organization SET session_deadline_seconds = 8, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == .sessionDeadline)
      #expect(run.steps.map(\.name).contains(.connect) && run.steps.last?.result == .failed)
      #expect(try await cluster.mailbox(id).incoming.enabled)
    }
    await server.stop()
  }
}
