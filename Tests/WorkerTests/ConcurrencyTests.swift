import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

/// Counts sessions between their first command and their last.
final class Gauge: Sendable {
  private struct State {
    var now = 0
    var most = 0
    var entered = 0
  }

  private let state = Mutex(State())

  var most: Int { state.withLock { $0.most } }
  var entered: Int { state.withLock { $0.entered } }

  func enter() {
    state.withLock { state in
      state.now += 1
      state.entered += 1
      state.most = max(state.most, state.now)
    }
  }

  func leave() { state.withLock { $0.now -= 1 } }

  /// A server of an empty mailbox that takes its time, so that sessions meet.
  var script: [ScriptedMailServer.Step] {
    let drop = Maildrop()
    let answer: @Sendable (String) -> ScriptedMailServer.Reply = { line in
      switch line.uppercased() {
      case "CAPA": self.enter()
      case "QUIT": self.leave()
      default: break
      }
      return line.uppercased() == "UIDL" ? .next : drop.answer(line)
    }
    return [.send("+OK\r\n"), .serve(answer), .drip("+OK 0 0\r\n.\r\n", every: .milliseconds(6)), .serve(answer)]
  }
}

@Suite("Many workers, few connections (feature P16)")
struct ConcurrencyTests {
  @Test("a profile's account: never more connections than its limit, and the limit is used")
  func profileLimit() async throws {
    let gauge = Gauge()
    let server = try await ScriptedMailServer.start(gauge.script)
    try await Spine.with(workers: 5) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(server, credentials: .profile, connections: 3)
      let ids = try await cluster.mailboxes((1...30).map { "m\($0)@example.org" }, on: profile, password: nil)
      try await cluster.enable(ids)
      try await eventually("a poll of each") {
        try await cluster.sql("SELECT count(DISTINCT mailbox_id) FROM run WHERE result = 'success'") == "30"
      }
      #expect(gauge.most == 3)
      // Each session is one run of one slot.
      try await eventually("no session without a run") {
        let runs = Int(try await cluster.sql("SELECT count(*) FROM run")) ?? 0
        return gauge.entered == runs && server.connections.count == runs
      }
      #expect(try await cluster.sql("SELECT count(*) - count(DISTINCT (mailbox_id, due_at)) FROM run") == "0")
      #expect(try await cluster.sql("SELECT count(DISTINCT worker) > 1 FROM run") == "t", "several workers share it")
    }
    await server.stop()
  }

  @Test("a mailbox's own account: one POP3 session at a time, polls and tests alike")
  func mailboxExclusive() async throws {
    let gauges = (0..<3).map { _ in Gauge() }
    var servers: [ScriptedMailServer] = []
    for gauge in gauges { servers.append(try await ScriptedMailServer.start(gauge.script)) }
    try await Spine.with(workers: 5) { [servers] spine in
      let cluster = spine.cluster
      var ids: [MailboxID] = []
      for (number, server) in servers.enumerated() {
        let profile = try await cluster.profile(server, name: "Profile \(number)")
        ids += try await cluster.mailboxes(["m\(number)@example.org"], on: profile)
      }
      try await cluster.enable(ids)
      for round in 1...4 {
        _ = try await cluster.store.requestTest(of: ids, by: cluster.principal)
        _ = try await cluster.store.requestPoll(of: ids, by: cluster.principal)
        try await eventually("polls and tests of round \(round)") {
          try await cluster.sql(
            "SELECT count(*) FROM mailbox_schedule WHERE kind <> 's' AND requested = \(round) AND served = requested"
          ) == "6"
        }
      }
      #expect(gauges.map(\.most) == [1, 1, 1])
      #expect(gauges.allSatisfy { $0.entered >= 8 })
      #expect(try await cluster.sql("SELECT count(*) FROM run WHERE result <> 'success'") == "0")
    }
    for server in servers { await server.stop() }
  }

  @Test("a poll asked for during a poll is another poll")
  func requestDuringPoll() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let drop = Maildrop([("u1", message("one"))])
    let server = try await ScriptedMailServer.start(held(drop, at: "QUIT", reached: reached, go: go), drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      // The first has its list already: only a second session can see this one.
      drop.add("u2", message("two"))
      _ = try await cluster.store.requestPoll(of: [id], by: cluster.principal)
      go.fire()
      let runs = try await cluster.waitForRuns(2, of: id)
      #expect(runs.map(\.messagesStored) == [1, 1] && runs.last?.trigger == .request)
      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.pollsRequested == 1 && mailbox.pollsServed == 1)
    }
    await server.stop()
  }

  @Test("polls asked for in a batch come too, for a mailbox that is being polled as well")
  func batchRequestDuringPoll() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let drop = Maildrop([("u1", message("one"))])
    let server = try await ScriptedMailServer.start(held(drop, at: "QUIT", reached: reached, go: go), drop.script)
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      // What is not announced would come with a rescan, much later.
      _ = try spine.startScheduler { $0.rescan = .seconds(600) }
      // More than a person waits for: the requests have the class of regular polls.
      let ids = try await cluster.mailboxes(
        (1...21).map { "m\($0)@example.org" }, on: try await cluster.profile(server))
      try await cluster.enable(ids[0])
      await reached.wait()
      try await cluster.enable(ids)
      _ = try await cluster.store.requestPoll(of: ids, by: cluster.principal)
      go.fire()
      try await eventually("every request is served", within: .seconds(120)) {
        try await cluster.sql("SELECT count(*) FROM mailbox_schedule WHERE kind = 'p' AND served = 1") == "21"
      }
      #expect(try await cluster.runs(of: ids[0]).count == 2)
    }
    await server.stop()
  }

  @Test("polls keep the mailbox's phase, whatever made them run")
  func phase() async throws {
    let server = try await ScriptedMailServer.start(Maildrop().script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      // As Spine has it.
      let slots = PollingSlots(mailbox: id, interval: .seconds(86_400))
      try await cluster.enable(id)
      _ = try await cluster.waitForRuns(1, of: id)
      for count in 2...3 {
        let run: RunRecord?
        if count == 2 {
          run = try await cluster.poll(id)
        } else {
          try await cluster.makeDue([id])
          run = try await cluster.waitForRuns(count, of: id).last
        }
        let next = try #require(try await cluster.mailbox(id).incoming.nextRunAt)
        let finished = try #require(run).finishedAt
        let milliseconds = Int64((next.timeIntervalSince1970 * 1_000).rounded())
        // A slot that is nearer than what an outcome leaves the scheduler comes by that much later.
        let interval = slots.intervalMilliseconds
        let late = (milliseconds % interval - slots.phaseMilliseconds + interval) % interval
        #expect(late == 0 || late <= 500 && next.timeIntervalSince(finished) < 1.5)
        #expect((0...86_400).contains(next.timeIntervalSince(finished)))
      }
    }
    await server.stop()
  }
}
