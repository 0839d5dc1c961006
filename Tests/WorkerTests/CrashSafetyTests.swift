import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import Worker

@Suite("Crashes, lost leases and stops")
struct CrashSafetyTests {
  static let drop = Maildrop((1...3).map { ("u\($0)", message("s\($0)")) })

  @Test("a worker killed in the middle of a poll: another one finishes after the lease, nothing is doubled")
  func killed() async throws {
    let (reached, killed, go) = (ScriptSignal(), ScriptSignal(), ScriptSignal())
    // On a crowded machine the first worker may lose its short lease and begin again: it is held each time.
    let (holding, open) = (held(Self.drop, reached: reached, go: go), Self.drop.script)
    let server = try await ScriptedMailServer.start(choosing: { _ in killed.isFired ? open : holding })
    try await Spine.with(.init(lease: .seconds(6)), workers: 0) { spine in
      let cluster = spine.cluster
      let first = try spine.startWorker()
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      await first.kill()
      killed.fire()
      let killedAt = Date()
      let second = try spine.startWorker()
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.worker == second.name && run.messagesStored == 3 && run.result == .success)
      #expect(run.startedAt.timeIntervalSince(killedAt) < 40)
      #expect(try await cluster.runs(of: id).count == 1)
      #expect(try await cluster.emails(of: id).count == 3)
      go.fire()
    }
    await server.stop()
  }

  @Test("a worker killed between two transactions: what is stored stays, the rest comes once")
  func killedHalfway() async throws {
    let (reached, killed, go) = (ScriptSignal(), ScriptSignal(), ScriptSignal())
    let drop = Self.drop
    let holding: [ScriptedMailServer.Step] = [
      .send("+OK\r\n"), .serve { $0 == "RETR 3" ? .next : drop.answer($0) }, .signal(reached), .wait(go),
    ]
    let server = try await ScriptedMailServer.start(choosing: { _ in killed.isFired ? drop.script : holding })
    try await Spine.with(.init(lease: .seconds(6)), workers: 0) { spine in
      let cluster = spine.cluster
      let first = try spine.startWorker { $0.batchMessages = 1 }
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      try await eventually("two stored messages") { try await cluster.emails(of: id).count == 2 }
      await first.kill()
      killed.fire()
      _ = try spine.startWorker()
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.messagesStored == 1 && run.messagesKnown == 2)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["s1", "s2", "s3"])
      go.fire()
    }
    await server.stop()
  }

  @Test("what a session of an older fence writes late changes nothing")
  func lateOutcome() async throws {
    let server = try await ScriptedMailServer.start(Self.drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      let before = try await cluster.mailbox(id)
      let store = cluster.makeStore()
      let late = SessionGuard(
        job: JobID(mailbox: id, kind: .poll), organizationID: cluster.principal.organizationID, generation: 1,
        fence: Fence(run.fence.value - 1))
      let failure = Failure(.pop3SysPerm)
      let outcome = SessionOutcome(
        writer: late, profileID: try #require(before.profileID), served: 99, next: NextDue(at: nil, reason: "late"),
        failures: 5, failureCode: failure.code,
        directions: [DirectionChange(.incoming, status: .failure, enabled: false, failureCode: failure.code)],
        alerts: [.raise(AlertDraft(level: .error, failure: failure, direction: .incoming))],
        run: RunRecord(
          mailboxID: id, kind: .poll, trigger: .slot, worker: "late", fence: late.fence, dueAt: Date(),
          startedAt: Date(), finishedAt: Date(), result: .failure, failure: failure))
      #expect(try await store.commit(outcome) == .fenced)
      await #expect(throws: FencedError.self) {
        let text = Array(message("late").utf8)
        _ = try await store.store(
          [ReceivedMessage(uidl: "late", envelope: MessageEnvelope(), raw: .bytes(text), contentHash: text)],
          writer: late)
      }
      await store.close()
      #expect(try await cluster.mailbox(id) == before)
      #expect(try await cluster.runs(of: id).count == 1)
      #expect(try await cluster.alerts(of: id).isEmpty)
      #expect(try await cluster.emails(of: id).count == 3)
    }
    await server.stop()
  }

  @Test("a stop lets the running session finish and takes nothing new")
  func drains() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start(held(Self.drop, reached: reached, go: go), Self.drop.script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      let worker = try spine.startWorker { $0.grace = .seconds(120) }
      let ids = try await cluster.mailboxes(
        ["a@example.org", "b@example.org"], on: try await cluster.profile(server, connections: 1))
      try await cluster.enable(ids[0])
      await reached.wait()
      await worker.stop()
      // It says so once no claim of it is under way any more.
      try await spine.withGuard { serverGuard in
        try await eventually("the worker has heard it") { try await serverGuard.workersAtWork() == 0 }
      }
      try await cluster.enable(ids[1])
      #expect(!worker.hasEnded)
      go.fire()
      await worker.waitUntilEnded()
      #expect(worker.error == nil)
      let run = try #require(try await cluster.runs(of: ids[0]).first)
      #expect(run.result == .success && run.messagesStored == 3)
      #expect(try await cluster.runs(of: ids[1]).isEmpty)
      #expect(server.connections.count == 1)
      // Its lease is ended, not left to expire.
      _ = try spine.startWorker()
      #expect(try await cluster.waitForRuns(1, of: ids[1]).first?.messagesStored == 3)
      #expect(try await cluster.poll(ids[0]).messagesKnown == 3)
    }
    await server.stop()
  }

  @Test("when the grace is over the session is given back: ready at once, not counted")
  func graceOver() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start(held(Self.drop, reached: reached, go: go), Self.drop.script)
    // Only what was given back can run before the lease ends.
    try await Spine.with(.init(lease: .seconds(120)), workers: 0) { spine in
      let cluster = spine.cluster
      let first = try spine.startWorker { $0.grace = .milliseconds(100) }
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      await first.stop()
      await first.waitUntilEnded()
      #expect(await server.wait { $0.first?.isClosed == true })
      #expect(try await cluster.runs(of: id).isEmpty)
      let second = try spine.startWorker()
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.worker == second.name && run.messagesStored == 3)
      #expect(try await cluster.sql("SELECT failures FROM mailbox_schedule WHERE kind = 'p'") == "0")
      go.fire()
    }
    await server.stop()
  }

  @Test("a lease that ended before its session began begins no session")
  func endedLease() async throws {
    let keeper = LeaseKeeper(queue: MemoryJobQueue(), renewal: .seconds(5), logger: .silent)
    let began = Gauge()
    func lease(_ trust: Duration) throws -> Lease {
      Lease(
        job: try #require(JobID("1p")), profile: ProfileID(1), jobClass: .poll, fence: Fence(1), reclaims: 0,
        dueMilliseconds: 0, trustedUntil: .now + trust)
    }
    await #expect(throws: Interruption.leaseLost) {
      try await keeper.hold(try lease(.milliseconds(-1)), deadline: .seconds(60)) {
        began.enter()
      } then: { _ in
      }
    }
    #expect(began.entered == 0)
    let good = try lease(.seconds(60))
    #expect(!keeper.mayConnect(good))
    try await keeper.hold(good, deadline: .seconds(60)) {
      if keeper.mayConnect(good) { began.enter() }
    } then: { _ in
    }
    #expect(began.entered == 1)
    // The session of a process that was stopped goes on before anybody has noticed the end of its lease.
    let short = try lease(.seconds(4))
    try await keeper.hold(short, deadline: .seconds(60)) {
      while short.trustedUntil > .now { try await Task.sleep(until: short.trustedUntil, clock: .continuous) }
      if keeper.mayConnect(short) { began.enter() }
    } then: { _ in
    }
    #expect(began.entered == 1)
  }

  @Test("losing a lease closes the socket at once")
  func lostLease() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start(held(Self.drop, reached: reached, go: go), Self.drop.script)
    // The lease itself would last two minutes.
    try await Spine.with(.init(lease: .seconds(120)), configure: { $0.renewal = .milliseconds(300) }) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      // Switched off by a person: the scheduler withdraws it, the next renewal says so.
      try await cluster.sql(
        """
        BEGIN; UPDATE mailbox SET is_active = false;
        SELECT announce_jobs(array(SELECT refresh_may_run(ARRAY[\(id)]::bigint[]))); COMMIT
        """)
      #expect(await server.wait { $0.first?.isClosed == true })
      // Nothing is left in the queue: neither the lease nor the job.
      try await spine.withGuard { serverGuard in
        try await eventually("an empty queue") { try await serverGuard.queueIsEmpty() }
      }
      #expect(try await cluster.runs(of: id).isEmpty)
      #expect(server.connections.count == 1)
      go.fire()
    }
    await server.stop()
  }
}
