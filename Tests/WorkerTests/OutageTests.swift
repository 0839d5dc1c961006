import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("Outages of Redis and PostgreSQL")
struct OutageTests {
  static let drop = Maildrop((1...3).map { ("u\($0)", message("s\($0)")) })

  @Test("Redis is down at the start: everything begins once it is there")
  func redisDownAtStart() async throws {
    let server = try await ScriptedMailServer.start(Self.drop.script)
    let redis = try await TestServers.shared.dedicatedRedis()
    await redis.stop()
    try await Spine.with(.init(redis: redis)) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      try await eventually("somebody leads") {
        try await cluster.store.scheduleStatistics(for: cluster.principal).leader != nil
      }
      #expect(try await cluster.runs(of: id).isEmpty)
      try await redis.start()
      #expect(try await cluster.waitForRuns(1, of: id).first?.messagesStored == 3)
    }
    await redis.stop()
    await server.stop()
  }

  @Test(
    "Redis is emptied or restarted in the middle of a poll: it is done again, nothing is doubled",
    arguments: [true, false])
  func redisLost(restarts: Bool) async throws {
    let (reached, lost, go) = (ScriptSignal(), ScriptSignal(), ScriptSignal())
    // Whatever comes before the loss is held: a crowded machine may lose a short lease by itself.
    let (holding, open) = (held(Self.drop, reached: reached, go: go), Self.drop.script)
    let server = try await ScriptedMailServer.start(choosing: { _ in lost.isFired ? open : holding })
    let redis = try await TestServers.shared.dedicatedRedis()
    try await Spine.with(.init(lease: .seconds(6), redis: redis)) { spine in
      let cluster = spine.cluster
      let ids = try await cluster.mailboxes(
        ["a@example.org", "b@example.org"], on: try await cluster.profile(server))
      try await cluster.enable(ids[0])
      await reached.wait()
      if restarts { try await redis.restart() } else { try redis.flushAll() }
      lost.fire()
      #expect(await server.wait { $0.first?.isClosed == true }, "the lease is lost with its epoch")
      let run = try #require(try await cluster.waitForRuns(1, of: ids[0]).first)
      #expect(run.result == .success && run.messagesStored == 3 && run.fence.epoch >= 2)
      try await cluster.enable(ids[1])
      #expect(try await cluster.waitForRuns(1, of: ids[1]).first?.messagesStored == 3)
      #expect(try await cluster.runs(of: ids[0]).count == 1)
      #expect(try await cluster.emails(of: ids[0]).count == 3)
      go.fire()
    }
    await redis.stop()
    await server.stop()
  }

  @Test("Redis hangs: the socket is closed before the lease can end, not when the call gives up")
  func redisHangs() async throws {
    let (reached, hangs, go) = (ScriptSignal(), ScriptSignal(), ScriptSignal())
    // Whatever comes before it hangs is held: a crowded machine may lose a short lease by itself.
    let (holding, open) = (held(Self.drop, reached: reached, go: go), Self.drop.script)
    let server = try await ScriptedMailServer.start(choosing: { _ in hangs.isFired ? open : holding })
    let redis = try await TestServers.shared.dedicatedRedis()
    try await Spine.with(.init(lease: .seconds(6), callTimeout: .seconds(60), redis: redis)) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      await redis.pause()
      hangs.fire()
      #expect(await server.wait { $0.allSatisfy(\.isClosed) })
      await redis.resume()
      #expect(try await cluster.waitForRuns(1, of: id).first?.messagesStored == 3)
      #expect(try await cluster.emails(of: id).count == 3)
      go.fire()
    }
    await redis.stop()
    await server.stop()
  }

  @Test("PostgreSQL is down at the start, and restarted in the middle of a poll: nothing is lost, nothing doubled")
  func postgres() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start(held(Self.drop, reached: reached, go: go), Self.drop.script)
    let postgres = try await TestServers.shared.dedicatedPostgres()
    try await Spine.with(.init(postgres: postgres), workers: 0, scheduler: false) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await postgres.stop()
      _ = try spine.startScheduler()
      _ = try spine.startWorker()
      try await postgres.start()
      await reached.wait()
      try await postgres.restart()
      go.fire()
      let run = try #require(
        try await eventually("a poll after the restart") {
          // The administrator's connections were cut too.
          try? await cluster.runs(of: id).first { $0.result == .success }
        })
      #expect(run.messagesStored + run.messagesKnown == 3)
      #expect(try await cluster.emails(of: id).map(\.envelope.subject) == ["s1", "s2", "s3"])
      #expect(try await cluster.poll(id).messagesKnown == 3)
    }
    await postgres.stop()
    await server.stop()
  }

  @Test("an outcome waits for PostgreSQL as long as the lease is held")
  func outcomeWaits() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let drop = Self.drop
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .serve { $0 == "QUIT" ? .next : drop.answer($0) }, .signal(reached), .wait(go),
      .send("+OK bye\r\n"), .close,
    ])
    let postgres = try await TestServers.shared.dedicatedPostgres()
    try await Spine.with(.init(postgres: postgres)) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      await reached.wait()
      await postgres.stop()
      go.fire()
      #expect(await server.wait { $0.first?.isClosed == true })
      try await postgres.start()
      let run = try await eventually("the outcome") { try? await cluster.runs(of: id).first }
      #expect(run.result == .success && run.messagesStored == 3)
      #expect(server.connections.count == 1, "the mailbox was not polled again for it")
    }
    await postgres.stop()
    await server.stop()
  }
}
