import Foundation
import PostriderCore
import PostriderTesting
@testable import RedisQueue
import Synchronization
import Testing

@testable import Worker

/// A POP3 server that can be switched off: then it plays another script.
final class SwitchedServer: Sendable {
  private final class Switch: Sendable {
    let isUp: Mutex<Bool>
    init(_ isUp: Bool) { self.isUp = Mutex(isUp) }
  }

  let server: ScriptedMailServer
  private let state: Switch

  private init(_ server: ScriptedMailServer, _ state: Switch) {
    self.server = server
    self.state = state
  }

  static func start(
    _ drop: Maildrop = Maildrop(), up: Bool = false, down: [ScriptedMailServer.Step] = [.send("-ERR down\r\n"), .close]
  ) async throws -> SwitchedServer {
    let state = Switch(up)
    return SwitchedServer(
      try await ScriptedMailServer.start { _ in state.isUp.withLock { $0 } ? drop.script : down }, state)
  }

  func set(up: Bool) { state.isUp.withLock { $0 = up } }
  var place: MailServer { MailServer(host: "127.0.0.1", port: server.port) }
}

/// Breakers that go through their life in seconds.
private func quick(
  first: Duration = .seconds(1), longest: Duration = .seconds(4), hold: Duration = .seconds(30)
) -> BreakerRules {
  var rules = BreakerRules()
  rules.firstProbe = first
  rules.longestProbe = longest
  rules.probeHold = hold
  return rules
}

extension RedisServerGuard {
  /// Waiting jobs that no worker may take, for one reason.
  func queueBlocked(_ reason: String) async throws -> Int { try await queue.statistics().blocked[reason] ?? 0 }

  /// How many sessions hold a lease.
  func sessionsUnderWay() async throws -> Int { try await queue.statistics().inFlight }

  /// How many workers take jobs.
  func workersAtWork() async throws -> Int { try await queue.statistics().workers }

  /// Whether no job waits or is held by a worker.
  func queueIsEmpty() async throws -> Bool {
    let numbers = try await queue.statistics()
    return numbers.totalReady == 0 && numbers.inFlight == 0
  }
}

extension Spine {
  /// Runs a body with a guard of the test's own connection.
  func withGuard<Result: Sendable>(_ body: (RedisServerGuard) async throws -> Result) async throws -> Result {
    let queue = try cluster.makeQueue()
    return try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await queue.run() }
      defer { group.cancelAll() }
      try await eventually("the test's own connection") {
        do {
          _ = try await queue.currentEpoch()
          return true
        } catch JobQueueError.unavailable {
          return false
        }
      }
      return try await body(RedisServerGuard(queue: queue, rules: breakerRules))
    }
  }

  /// Opens a server's breaker as sessions of other mailboxes would.
  func open(_ server: MailServer, _ direction: Direction = .incoming, with serverGuard: RedisServerGuard) async throws {
    for mailbox in 1...5 {
      let visit = ServerVisit(
        server: server, mailbox: MailboxID(Int64(9_000 + mailbox)),
        lane: ServerLane(profile: ProfileID(9_000), direction: direction))
      try await serverGuard.report(.failed(.tcpRefused, words: "connection refused"), of: visit, probe: nil)
    }
    #expect(try await serverGuard.openBreaker(of: server) != nil)
  }
}

@Suite("Circuit breakers (feature E3)")
struct BreakerTests {
  @Test("ten profiles in four shards: it opens once, one session probes, it closes once, everybody goes on")
  func outage() async throws {
    // It takes a second to say so, so that sessions would meet.
    let mail = try await SwitchedServer.start(down: [.drip("-ERR down\r\n", every: .milliseconds(100)), .close])
    // A probe is kept every second: its hold does not end while it lasts.
    try await Spine.with(
      .init(shards: 4), workers: 3, breakers: quick(first: .seconds(2), hold: .seconds(6)),
      configure: { $0.renewal = .seconds(1) }
    ) { spine in
      let cluster = spine.cluster
      var ids: [MailboxID] = []
      for number in 1...10 {
        let profile = try await cluster.profile(mail.server, name: "Profile \(number)")
        ids += try await cluster.mailboxes(["a\(number)@example.org", "b\(number)@example.org"], on: profile)
      }
      try await cluster.enable(ids)
      try await spine.withGuard { serverGuard in
        try await eventually("an open breaker") { try await serverGuard.openBreaker(of: mail.place) != nil }
        let opened = try #require(try await serverGuard.openBreaker(of: mail.place)).sinceMilliseconds
        // Those that connected before it opened end as well.
        try await eventually("an alert for each profile") { try await cluster.alerts().count == 10 }
        #expect(await mail.server.wait { $0.allSatisfy(\.isClosed) })
        let before = mail.server.connections.count
        // A slow machine has come to the first probes by now.
        let state = try #require(try await serverGuard.openBreaker(of: mail.place))
        let probed = state.failedProbes + (state.isProbing ? 1 : 0)
        #expect(before <= 20 + probed, "no mailbox was tried twice before the first probe")
        #expect(await mail.server.wait(within: .seconds(120)) { $0.count >= before + 3 }, "it is probed")
        let probes = mail.server.connections[before...]
        #expect(probes.allSatisfy { $0.others == 0 }, "one session at a time")
        let breaker = try #require(try await serverGuard.openBreaker(of: mail.place))
        #expect(breaker.sinceMilliseconds == opened && breaker.code == .pop3Greeting && breaker.failedProbes >= 2)
        #expect(try await serverGuard.openBreakers(limit: 10).count == 1)

        mail.set(up: true)
        try await eventually("a closed breaker") { try await serverGuard.openBreaker(of: mail.place) == nil }
        // The four that failed before it opened wait out their back-off of a minute at most; the others none.
        try await eventually("polls of all that waited", within: .seconds(25)) {
          try await cluster.sql("SELECT count(DISTINCT mailbox_id) >= 16 FROM run WHERE result = 'success'") == "t"
        }
        try await eventually("no alert") { try await cluster.alerts().isEmpty }
        #expect(try await serverGuard.openBreakers(limit: 10).isEmpty)
      }
      #expect(
        try await cluster.sql("SELECT count(*), count(DISTINCT profile_id) FROM alert WHERE profile_id IS NOT NULL")
          == "10|10", "one alert for each profile, raised once")
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox WHERE incoming_enabled") == "20")
      // What was refused left no run: each connection that failed did.
      let failed = try await cluster.sql("SELECT count(*) FROM run WHERE result = 'failure'")
      #expect(Int(failed) ?? 0 <= mail.server.connections.count)
    }
    await mail.server.stop()
  }

  @Test(
    "a test is the probe at any time: it fails honestly while the server is down, and closes the breaker when it is up")
  func interactiveProbe() async throws {
    let mail = try await SwitchedServer.start()
    try await Spine.with(breakers: quick(first: .seconds(600))) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(mail.server)
      let id = try await cluster.mailbox(on: profile)
      try await spine.withGuard { serverGuard in
        try await spine.open(mail.place, with: serverGuard)
        let enabledAt = Date()
        try await cluster.enable(id)
        try await eventually("a refused poll") { try await cluster.alerts().map(\.code) == ["tcp.refused"] }
        #expect(mail.server.connections.isEmpty)
        try await eventually("a held lane") { try await serverGuard.queueBlocked("breaker") == 1 }
        var run = try await cluster.test(id)
        #expect(run.failure?.code == .pop3Greeting && mail.server.connections.count == 1)
        var state = try await cluster.mailbox(id).incoming
        #expect(state.enabled && state.status == .success, "a server's fault says nothing of the mailbox")
        #expect(try await cluster.alerts(of: id).isEmpty)
        #expect(try await cluster.alerts().map(\.code) == ["pop3.greeting"], "the alert says how it fails now")
        #expect(try await cluster.runs(of: id).isEmpty, "the poll still waits")

        mail.set(up: true)
        run = try await cluster.test(id)
        #expect(run.result == .success)
        #expect(try await serverGuard.openBreaker(of: mail.place) == nil)
        // The regular probe was ten minutes away, and the lane held for as long as a lane ever is.
        let poll = try #require(try await cluster.waitForRuns(1, of: id).first)
        #expect(poll.result == .success)
        #expect(poll.startedAt < enabledAt.addingTimeInterval(BreakerDesk.longestHold / .seconds(1)), "it is lifted")
        state = try await cluster.mailbox(id).incoming
        #expect(state.enabled && state.status == .success)
        try await eventually("no alert") { try await cluster.alerts().isEmpty }
      }
    }
    await mail.server.stop()
  }

  @Test("while a probe is under way a test and a sync-now answer at once with why and when")
  func interactiveRefusal() async throws {
    let mail = try await SwitchedServer.start(up: true)
    try await Spine.with(breakers: quick(first: .seconds(600))) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(mail.server))
      let other = try await cluster.mailboxes(
        ["new@example.org"], on: try await cluster.profile(mail.server, name: "B"))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      try await spine.withGuard { serverGuard in
        try await spine.open(mail.place, with: serverGuard)
        let visit = ServerVisit(
          server: mail.place, mailbox: MailboxID(9_001),
          lane: ServerLane(profile: ProfileID(9_000), direction: .incoming),
          isInteractive: true)
        guard case .probe(let probe) = try await serverGuard.admit(visit) else {
          throw TestFailure("the probe is not free")
        }
        // Kept alive as a worker does.
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            while try await serverGuard.extend(probe, at: mail.place) { try await Task.sleep(for: .milliseconds(500)) }
          }
          defer { group.cancelAll() }
          let connections = mail.server.connections.count
          let began = ContinuousClock.now
          let test = try await cluster.test(id)
          #expect(test.failure?.code == .tcpRefused && test.failure?.scope == .server)
          #expect(test.failure?.context?.contains("circuit breaker of 127.0.0.1") == true)
          #expect(test.steps.map(\.name) == [.connect] && test.steps.first?.result == .failed)
          #expect(test.steps.first?.serverWords == "connection refused")
          let poll = try await cluster.poll(id)
          #expect(poll.failure?.code == .tcpRefused && poll.messagesStored == 0)
          #expect(poll.failure?.context?.contains("one session is trying it now") == true)
          #expect(ContinuousClock.now - began < .seconds(40), "it hangs")
          let mailbox = try await cluster.mailbox(id)
          #expect(mailbox.incoming.enabled && mailbox.incoming.status == .success)
          #expect(mailbox.pollsServed == mailbox.pollsRequested && mailbox.testsServed == mailbox.testsRequested)
          #expect(
            try await cluster.sql("SELECT failures FROM mailbox_schedule WHERE kind = 'p' AND mailbox_id = \(id)")
              == "0")
          // One that never worked has failed its test.
          #expect(try await cluster.test(other[0]).failure?.code == .tcpRefused)
          #expect(try await cluster.mailbox(other[0]).incoming.status == .failure)
          #expect(mail.server.connections.count == connections, "nobody connected")
          try await serverGuard.report(.works, of: visit, probe: probe)
        }
      }
      #expect(try await cluster.poll(id).result == .success)
    }
    await mail.server.stop()
  }

  @Test("an open SMTP breaker never delays POP3; a batch test waits for both servers and leaves no run")
  func directions() async throws {
    let mail = try await SwitchedServer.start(up: true)
    let smtp = MailServer(host: "127.0.0.1", port: 1)
    try await Spine.with(breakers: quick(first: .seconds(600))) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(mail.server)
      let ids = try await cluster.mailboxes(
        (1...21).map { "m\($0)@example.org" }, on: profile, outgoing: .serverSideSync)
      try await spine.withGuard { serverGuard in
        try await spine.open(smtp, .outgoing, with: serverGuard)
        _ = try await cluster.store.requestTest(of: ids, by: cluster.principal)
        try await eventually("the alert of the outgoing server") {
          try await cluster.alerts().map { $0.parameters["direction"] } == ["outgoing"]
        }
        try await cluster.enable(ids[0])
        #expect(try await cluster.waitForRuns(1, of: ids[0]).first?.result == .success)
        #expect(try await cluster.sql("SELECT count(*) FROM run WHERE kind = 't'") == "0")
        #expect(mail.server.connections.count == 1, "not half a test")
      }
    }
    await mail.server.stop()
  }

  @Test("a worker that dies while it probes: another one probes when its hold is over")
  func deadProbe() async throws {
    let (reached, killed, go) = (ScriptSignal(), ScriptSignal(), ScriptSignal())
    let drop = Maildrop([("u1", message("one"))])
    // Whatever the first worker tries is held: on a crowded machine it may lose a lease and try again.
    let holding: [ScriptedMailServer.Step] = [.signal(reached), .wait(go), .close]
    let server = try await ScriptedMailServer.start(choosing: { _ in killed.isFired ? drop.script : holding })
    // The hold is longer than a lease and a renewal, as it has to be.
    try await Spine.with(.init(lease: .seconds(6)), workers: 0, breakers: quick(hold: .seconds(10))) { spine in
      let cluster = spine.cluster
      let first = try spine.startWorker { $0.renewal = .seconds(1) }
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await spine.withGuard { serverGuard in
        let place = MailServer(host: "127.0.0.1", port: server.port)
        try await spine.open(place, with: serverGuard)
        try await cluster.enable(id)
        await reached.wait()
        try await eventually("it is being tried") {
          try await serverGuard.openBreaker(of: place)?.isProbing == true
        }
        await first.kill()
        killed.fire()
        let second = try spine.startWorker { $0.renewal = .seconds(1) }
        let run = try #require(try await cluster.waitForRuns(1, of: id).first)
        #expect(run.result == .success && run.worker == second.name && server.connections.count >= 2)
        #expect(try await serverGuard.openBreaker(of: place) == nil)
      }
      go.fire()
    }
    await server.stop()
  }

  @Test("Redis is emptied while a breaker is open: it is forgotten, and the alert resolved by the next visit")
  func forgotten() async throws {
    let mail = try await SwitchedServer.start(up: true)
    let redis = try await TestServers.shared.dedicatedRedis()
    // The new epoch waits for a lease.
    try await Spine.with(.init(lease: .seconds(4), redis: redis), breakers: quick(first: .seconds(600))) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(mail.server))
      try await spine.withGuard { serverGuard in
        try await spine.open(mail.place, with: serverGuard)
        try await cluster.enable(id)
        try await eventually("an alert") { try await cluster.alerts().count == 1 }
        try redis.flushAll()
        #expect(try await cluster.waitForRuns(1, of: id).first?.result == .success)
        try await eventually("no alert") { try await cluster.alerts().isEmpty }
      }
    }
    await redis.stop()
    await mail.server.stop()
  }
}

@Suite("Login budgets (feature E4)")
struct LoginBudgetTests {
  @Test(
    "thirty wrong passwords, four workers: the server sees ten logins, or as many as the profile allows, the others wait",
    arguments: [10, 3])
  func budget(limit: Int) async throws {
    let drop = Maildrop()
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .serve { $0.hasPrefix("PASS") ? .text("-ERR [AUTH] wrong\r\n") : drop.answer($0) },
    ])
    try await Spine.with(workers: 4) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(server)
      if limit != profile.maximumFailedLogins {
        _ = try await cluster.store.updateProfile(
          profile.id, ProfileChange(maximumFailedLogins: limit), by: cluster.principal)
      }
      let ids = try await cluster.mailboxes((1...30).map { "m\($0)@example.org" }, on: profile)
      // Two requests of few, for which people wait.
      _ = try await cluster.store.requestTest(of: Array(ids[..<15]), by: cluster.principal)
      _ = try await cluster.store.requestTest(of: Array(ids[15...]), by: cluster.principal)
      try await eventually("all answers") {
        try await cluster.sql(
          "SELECT count(*) FROM mailbox_schedule WHERE kind = 't' AND served = requested AND served > 0")
          == "30"
      }
      let logins = server.connections.count { $0.lines.contains { $0.hasPrefix("PASS") } }
      #expect(logins == limit)
      #expect(
        try await cluster.sql("SELECT failure_code, count(*) FROM run GROUP BY 1 ORDER BY 1")
          == "auth.budget|\(30 - limit)\nauth.rejected|\(limit)")
      #expect(
        try await cluster.sql("SELECT incoming_status, count(*) FROM mailbox GROUP BY 1 ORDER BY 1")
          == "failure|\(limit)\nnot-run|\(30 - limit)")
    }
    await server.stop()
  }

  @Test("a proven mailbox's poll is put off, not failed, while the budget is used up and another one failed")
  func provenHeld() async throws {
    let drop = Maildrop([("u1", message("one"))])
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await spine.withGuard { serverGuard in
        let place = LoginPlace(host: "127.0.0.1", egress: "default")
        let profile = try #require(try await cluster.mailbox(id).profileID)
        func visitor(proven: Bool) -> LoginVisitor {
          LoginVisitor(
            mailbox: id, lane: ServerLane(profile: profile, direction: .incoming), isProven: proven)
        }
        for _ in 1...10 {
          guard
            case .go(let permit) = try await serverGuard.login(
              visitor(proven: false), at: place, budget: LoginBudget(), deadline: .seconds(60))
          else { throw TestFailure("the budget is used up early") }
          try await serverGuard.settle(permit, .refused)
        }
        guard
          case .go(let single) = try await serverGuard.login(
            visitor(proven: true), at: place, budget: LoginBudget(), deadline: .seconds(60))
        else { throw TestFailure("no proven login passes") }
        try await serverGuard.settle(single, .refused)
        try await cluster.enable(id)
        let run = try #require(try await cluster.waitForRuns(1, of: id).first)
        #expect(run.failure?.code == .authBudget && run.failure?.failureClass == .throttle)
        #expect(server.connections.allSatisfy { !$0.lines.contains { $0.hasPrefix("PASS") } })
        let state = try await cluster.mailbox(id).incoming
        #expect(state.enabled && state.status == .success && state.nextRunReason == "auth.budget")
        // What is left of the minute for which logins are held; the usual wait would be a quarter of an hour.
        let next = try #require(state.nextRunAt)
        #expect(next > run.startedAt && next.timeIntervalSince(run.finishedAt) <= 61)
        #expect(try await cluster.alerts(of: id).isEmpty)
      }
    }
    await server.stop()
  }
}
