import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import Synchronization
import Testing
import WebServices

/// A POP3 server that takes every token, or none.
private final class TokenGate: Sendable {
  private let refusing = Mutex(false)
  private let drop = Maildrop()

  func set(refusing: Bool) { self.refusing.withLock { $0 = refusing } }

  var script: [ScriptedMailServer.Step] {
    [.send("+OK\r\n"), .serve { self.answer($0) }]
  }

  private func answer(_ line: String) -> ScriptedMailServer.Reply {
    let words = line.split(separator: " ")
    let isRefusing = refusing.withLock { $0 }
    switch words.first {
    case "CAPA": return .text("+OK\r\nSASL XOAUTH2 OAUTHBEARER\r\nUIDL\r\nRESP-CODES\r\n.\r\n")
    case "AUTH": return .text("+ \r\n")
    // The answers to the challenge below: XOAUTH2's is empty, OAUTHBEARER's a lone 0x01.
    case nil, "AQ==": return .text("-ERR [AUTH] Invalid credentials\r\n")
    // A token. Refused as Gmail does it: first why, in a challenge, and after the client's answer that it failed.
    case let word? where word.hasPrefix("dXNlcj") || word.hasPrefix("bixh"):
      return .text(isRefusing ? "+ eyJzdGF0dXMiOiI0MDAifQ==\r\n" : "+OK\r\n")
    default: return drop.answer(line)
    }
  }
}

extension ScriptedMailServer {
  /// How often a client tried to log in.
  fileprivate var logins: Int { connections.reduce(0) { $0 + $1.lines.count { $0.hasPrefix("AUTH ") } } }
}

/// A provider with mailboxes whose owners have consented and which were polled once.
private struct Fleet: Sendable {
  static let size = 200

  let spine: Spine
  let tokens: OAuthServer
  let ids: [MailboxID]

  var cluster: TestCluster { spine.cluster }

  static func start(
    _ spine: Spine, _ server: ScriptedMailServer, _ tokens: OAuthServer, _ mechanism: AuthenticationMechanism,
    budget: Int
  ) async throws -> Fleet {
    let cluster = spine.cluster
    let profile = try await cluster.profile(
      "OAuth",
      incoming: ServerDraft(
        host: "127.0.0.1", port: server.port, tls: TLSMode.none, credentials: .oauth, mechanism: mechanism))
    try await cluster.sql("UPDATE server_profile SET maximum_failed_logins = \(budget), version = version + 1")
    let desk = ConsentService(
      store: cluster.store, web: try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*")),
      publicURL: "https://mail.example.com")
    _ = try await desk.setClient(
      OAuthClientDraft(
        clientID: "client", clientSecret: Secret("client-secret"), authorizationURL: tokens.authorizationURL,
        tokenURL: tokens.tokenURL, scopes: ["mail"]),
      of: profile.id, by: cluster.principal)
    let ids = try await cluster.mailboxes((1...size).map { "m\($0)@example.org" }, on: profile, password: nil)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for part in 0..<4 {
        group.addTask {
          for id in ids.enumerated() where id.offset % 4 == part {
            let request = try await desk.beginConsent(of: id.element, by: cluster.principal)
            _ = try await desk.finishConsent(try await Browser.consent(at: request.consentURL))
          }
        }
      }
      try await group.waitForAll()
    }
    try await eventually("a poll of each", within: .seconds(600)) {
      try await cluster.sql(
        "SELECT count(DISTINCT mailbox_id) FROM run WHERE kind = 'p' AND result = 'success'") == "\(size)"
    }
    return Fleet(spine: spine, tokens: tokens, ids: ids)
  }

  /// Every poll is due, and every token over if asked for; the token server may be asked.
  func makeDue(withoutTokens: Bool = false) async throws {
    if withoutTokens { try await cluster.sql("UPDATE oauth_grant SET expires_at = now(), refresh_at = now()") }
    try await cluster.sql("UPDATE oauth_grant SET retry_at = NULL")
    try await cluster.makeDue(ids)
  }

  func count(_ question: String) async throws -> Int {
    try #require(Int(try await cluster.sql("SELECT count(*) FROM \(question)")))
  }

  /// The database's clock.
  func now() async throws -> String { try await cluster.sql("SELECT now()") }

  /// How many mailboxes were polled since a time and met a failure: this one, or any.
  func met(_ code: FailureCode? = nil, since time: String) async throws -> Int {
    try await count(
      """
      mailbox_schedule WHERE kind = 'p' AND last_run_at > '\(time)'
        AND failure_code \(code.map { "= '\($0.rawValue)'" } ?? "IS NOT NULL")
      """)
  }

  func lastRun() async throws -> Int {
    try #require(Int(try await cluster.sql("SELECT coalesce(max(id), 0) FROM run")))
  }

  func expectNobodyDisabled(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let disabled = try await count("mailbox WHERE NOT incoming_enabled OR incoming_status <> 'success'")
    #expect(disabled == 0, "\(disabled) mailboxes are disabled", sourceLocation: sourceLocation)
    let jobs = try await count("mailbox_schedule WHERE kind = 'p' AND (NOT enabled OR next_due_at IS NULL)")
    #expect(jobs == 0, "\(jobs) jobs stand still", sourceLocation: sourceLocation)
  }

  /// The provider is well again: everybody is polled, nothing is left over, and not all come back in the same seconds.
  func expectRecovery(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let before = try await now()
    try await makeDue()
    // A budget that was used up is held for a minute.
    try await eventually("everybody goes on", within: .seconds(300)) {
      // Who had to wait for a retry of its own comes at once.
      try await cluster.sql(
        """
        UPDATE oauth_grant SET retry_at = NULL WHERE retry_at > now();
        UPDATE mailbox_schedule SET next_due_at = now()
        WHERE kind = 'p' AND failure_code IS NOT NULL AND next_due_at > now() + interval '5 s'
          AND last_run_at < now() - interval '3 s'
        """)
      return try await count(
        "mailbox_schedule WHERE kind = 'p' AND enabled AND failure_code IS NULL AND last_run_at > '\(before)'")
        == Fleet.size
    }
    func open() async throws -> String {
      try await cluster.sql(
        "SELECT code, level, mailbox_id, profile_id, last_seen FROM alert WHERE resolved_at IS NULL AND level <> 'information'"
      )
    }
    if await !(try eventually(within: .seconds(120), { try await open().isEmpty })) {
      Issue.record("alerts are left: \(try await open())", sourceLocation: sourceLocation)
    }
    try await expectNobodyDisabled(sourceLocation: sourceLocation)
    let seconds = try await cluster.sql(
      "SELECT count(DISTINCT date_trunc('second', next_due_at)) > 40 FROM mailbox_schedule WHERE kind = 'p'")
    #expect(seconds == "t", "the next polls are spread over the interval", sourceLocation: sourceLocation)
  }
}

@Suite("A provider that refuses every token, or gives out none (features E3, E4, P19)", .serialized)
struct MassRefusalTests {
  private func withFleet(
    _ mechanism: AuthenticationMechanism = .xoauth2, budget: Int = 20,
    _ body: @escaping @Sendable (Fleet, TokenGate, ScriptedMailServer) async throws -> Void
  ) async throws {
    let gate = TokenGate()
    let server = try await ScriptedMailServer.start(gate.script)
    let tokens = try await OAuthServer.start()
    var halts = BreakerRules.quickHalts
    // Each probe is a login and a run: a slow machine must not come to many of them.
    halts.longestProbe = .seconds(16)
    // Few at once, so that the verdict comes before the login budget is used up.
    try await Spine.with(workers: 2, halts: halts, configure: { $0.sessions = 1 }) { spine in
      try await body(try await Fleet.start(spine, server, tokens, mechanism, budget: budget), gate, server)
    }
    await server.stop()
    await tokens.stop()
  }

  @Test(
    "every login is refused: few are tried, one alert, nobody is disabled; afterwards all go on",
    arguments: [(AuthenticationMechanism.xoauth2, 20), (.oauthbearer, 20)])
  func logins(mechanism: AuthenticationMechanism, budget: Int) async throws {
    try await withFleet(mechanism, budget: budget) { fleet, gate, server in
      let (logins, refreshes, first) = (server.logins, fleet.tokens.refreshes, try await fleet.lastRun())
      gate.set(refusing: true)
      try await fleet.makeDue()
      try await eventually("the alert", within: .seconds(120)) {
        try await fleet.cluster.alerts().contains { $0.code == "auth.mass-rejection" && $0.level == .error }
      }
      try await eventually("the others wait") {
        try await fleet.spine.withGuard { try await $0.queueBlocked("halted") } > Fleet.size / 2
      }
      try await eventually("probes that are refused, too", within: .seconds(180)) {
        // Once the budget is used up, each of them holds the next one back for a minute.
        try await fleet.count("run WHERE failure_code = 'auth.mass-rejection' AND id > \(first)")
          >= (budget > LoginBudget().limit ? 4 : 2)
      }
      // Each probe is one login more, and so is the session that was under way beside the first verdict.
      let probes = try await fleet.count("run WHERE failure_code = 'auth.mass-rejection' AND id > \(first)") - 1
      let tried = server.logins - logins - probes
      // The budget, and the sessions that were under way: one of each worker.
      #expect(tried <= budget + 2, "\(tried) logins before the others waited")
      let asked = fleet.tokens.refreshes - refreshes - probes
      #expect(asked <= budget, "\(asked) refreshes before the others waited")
      #expect(try await fleet.cluster.alerts().map(\.code) == ["auth.mass-rejection"])
      #expect(try await fleet.count("run WHERE id > \(first)") < 20)
      try await fleet.expectNobodyDisabled()
      gate.set(refusing: false)
      try await fleet.expectRecovery()
    }
  }

  @Test("the token server refuses everybody, or is down: one alert, nobody is disabled, no mail server is asked")
  func tokenServer() async throws {
    try await withFleet { fleet, gate, server in
      let busy: [(answer: (Int, String), code: FailureCode)] = [
        ((500, ""), .oauthTemporary), ((401, ""), .oauthTemporary),
        (
          (400, #"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#),
          .oauthMassRejection
        ),
        ((401, #"{"error":"invalid_grant"}"#), .oauthMassRejection),
      ]
      for (answer, code) in busy {
        let (asked, first) = (fleet.tokens.requests.count, try await fleet.now())
        let began = ContinuousClock.now
        fleet.tokens.change { $0.fault = .json(answer.0, answer.1) }
        try await fleet.makeDue(withoutTokens: true)
        // Until then there are polls with good tokens.
        let logins = server.logins
        // Those before the verdict are told what was said of them: 20 of 200 were seen.
        let others = code == .oauthMassRejection ? Fleet.size / 5 : 0
        try await eventually("everybody has met it: \(answer)", within: .seconds(300)) {
          try await fleet.met(since: first) == Fleet.size
        }
        let met = try await fleet.met(code, since: first)
        #expect(met >= Fleet.size - others, "\(met) met \(code)")
        #expect(try await fleet.cluster.alerts().map(\.code) == [code.rawValue])
        // One of each worker may have been under way with a token that was good.
        #expect(server.logins - logins <= 2, "\(server.logins - logins) for \(code)")
        // Each asks once, and then waits, at least for a pause: not all until the same second.
        let questions = fleet.tokens.requests.count - asked
        let pauses = ((ContinuousClock.now - began) / TokenKeeper.Configuration().pause).rounded(.down)
        #expect(Double(questions) <= Double(Fleet.size) * 1.1 * (1 + pauses), "\(questions)")
        let seconds = try await fleet.cluster.sql(
          "SELECT count(DISTINCT date_trunc('second', next_due_at)) > 20 FROM mailbox_schedule WHERE kind = 'p'")
        #expect(seconds == "t")
        try await fleet.expectNobodyDisabled()
        // It lasts, and the confirming retries of the first come.
        let second = try await fleet.now()
        try await fleet.makeDue()
        try await eventually("everybody has met it again", within: .seconds(300)) {
          try await fleet.met(since: second) == Fleet.size
        }
        try await fleet.expectNobodyDisabled()
        fleet.tokens.change { $0.fault = nil }
        try await fleet.expectRecovery()
      }
    }
  }

  @Test("the token server does not know the application: few ask it, one alert, and all go on by themselves afterwards")
  func application() async throws {
    try await withFleet { fleet, gate, server in
      let (logins, asked) = (server.logins, fleet.tokens.requests.count)
      fleet.tokens.change { $0.fault = .json(401, #"{"error":"invalid_client"}"#) }
      // Some have a token that is good still; they show nothing of the application.
      try await fleet.cluster.sql(
        "UPDATE oauth_grant SET expires_at = now(), refresh_at = now() WHERE mailbox_id % 2 = 0")
      try await fleet.makeDue()
      try await eventually("the others wait") {
        try await fleet.spine.withGuard { try await $0.queueBlocked("halted") } > 0
      }
      let halted = try await fleet.lastRun()
      try await eventually("probes", within: .seconds(180)) { try await fleet.count("run WHERE id > \(halted)") >= 4 }
      #expect(
        try await fleet.count("run WHERE id > \(halted) AND result = 'success'") <= 1, "under way")
      let questions = fleet.tokens.requests.count - asked
      #expect(questions < Fleet.size / 4, "\(questions)")
      #expect(try await fleet.cluster.alerts().map(\.code) == ["oauth.client"])
      #expect(try await fleet.count("alert WHERE code = 'oauth.client'") == 1, "the alert stands all the time")
      #expect(server.logins - logins < Fleet.size)
      try await fleet.expectNobodyDisabled()
      fleet.tokens.change { $0.fault = nil }
      try await fleet.expectRecovery()
    }
  }
}
