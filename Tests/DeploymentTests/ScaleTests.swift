import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@Suite("Scaling")
struct ScaleTests {
  private static let manifests = [
    "autoscaling/scaled-object.yaml", "autoscaling-hpa/horizontal-pod-autoscaler.yaml",
  ]

  @Test("both autoscalers that are shipped are set up alike, and look no more often than the number changes")
  func alike() throws {
    let scalers = try Self.manifests.map { try Autoscaler.shipped($0) }
    #expect(scalers[0].up == scalers[1].up && scalers[0].down == scalers[1].down)
    #expect(scalers[0].minimum == scalers[1].minimum && scalers[0].maximum == scalers[1].maximum)
    // The number is one of workers already.
    #expect(scalers.allSatisfy { $0.target == 1 })
    #expect(scalers[0].down.stabilizationSeconds >= 120 && scalers[0].up.stabilizationSeconds <= 30)
  }

  @Test("the autoscaler's algorithm: tolerance, windows and policies")
  func algorithm() throws {
    var scaler = try Autoscaler.shipped(Self.manifests[0])
    // Doubled or four more in 30 s, whichever is more.
    #expect(scaler.sync(at: 0, metric: 20, replicas: 2) == 6)
    #expect(scaler.sync(at: 15, metric: 20, replicas: 6) == 6)
    #expect(scaler.sync(at: 30, metric: 20, replicas: 6) == 12)
    #expect(scaler.sync(at: 60, metric: 20, replicas: 12) == 20)
    // Within a tenth nothing happens, and nothing without a number.
    #expect(scaler.sync(at: 75, metric: 19, replicas: 20) == 20)
    #expect(scaler.sync(at: 90, metric: nil, replicas: 20) == 20)
    // Down by the highest of five minutes, a quarter a minute.
    #expect(scaler.sync(at: 105, metric: 2, replicas: 20) == 20)
    #expect(scaler.sync(at: 400, metric: 2, replicas: 20) == 15)
    #expect(scaler.sync(at: 415, metric: 2, replicas: 15) == 15)
    #expect(scaler.sync(at: 460, metric: 2, replicas: 15) == 11)
    // Up by the lowest of half a minute.
    #expect(scaler.sync(at: 475, metric: 40, replicas: 11) == 11)
    #expect(scaler.sync(at: 490, metric: 40, replicas: 11) == 11)
    #expect(scaler.sync(at: 505, metric: 40, replicas: 11) == 20)
  }

  @Test("load steps up and down: the autoscaler follows, does not flap, and nothing waits for long", arguments: 1...3)
  func steps(seed: UInt64) throws {
    // 16 slots and 2 s: a worker does 6.4 jobs a second when it is as full as it should be.
    var fleet = FleetModel(
      scaler: try .shipped(Self.manifests[Int(seed % 2)]), slots: 16, sessionSeconds: 2, seed: seed)
    let least = fleet.scaler.minimum
    func workers(_ rate: Double) -> Int { max(least, Int((rate * 2 / (16 * 0.8)).rounded(.up))) }
    func expect(
      _ part: [FleetModel.Moment], _ needed: Int, spare: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) {
      let fits = part.suffix(300).allSatisfy { (needed...needed + spare).contains($0.replicas) }
      #expect(fits, "\(needed) are needed: \(part.story)", sourceLocation: sourceLocation)
      #expect(part.flaps == 0, "\(part.story)", sourceLocation: sourceLocation)
    }

    let low = fleet.play(.init(name: "low", seconds: 900, rate: 8))
    expect(low, workers(8), spare: 1)
    let high = fleet.play(.init(name: "high", seconds: 1_800, rate: 64))
    expect(high, workers(64), spare: 3)
    // Enough within some minutes, however little there was; what waited meanwhile is worked off.
    let enough = high.firstIndex { $0.replicas >= workers(64) } ?? .max
    #expect(enough <= 180, "after \(enough) s: \(high.story)")
    #expect(high.suffix(1_200).allSatisfy { $0.ready <= 64 }, "\(high.map(\.ready).max() ?? 0)")

    let down = fleet.play(.init(name: "down", seconds: 1_800, rate: 8))
    expect(down, workers(8), spare: 1)
    // Not before minutes have passed, and never so fast that something has to wait.
    #expect(down.prefix(240).allSatisfy { $0.replicas >= workers(64) }, "\(down.story)")
    #expect(down.allSatisfy { $0.ready <= 32 })
    let idle = fleet.play(.init(name: "nothing", seconds: 900, rate: 0))
    expect(idle, least, spare: 0)
    // Every job came to its end, also those of workers that were drained.
    #expect(idle.last?.inFlight == 0 && fleet.done == fleet.came && fleet.came > 100_000)
  }

  @Test("without the windows that are shipped it would flap: the model shows what the values are for")
  func withoutWindows() throws {
    var scaler = try Autoscaler.shipped(Self.manifests[0])
    (scaler.up.stabilizationSeconds, scaler.down.stabilizationSeconds) = (0, 0)
    var fleet = FleetModel(scaler: scaler, slots: 16, sessionSeconds: 2, seed: 1)
    #expect(fleet.play(.init(name: "high", seconds: 1_800, rate: 64)).flaps > 3)
  }

  @Test("after an outage everything is due at once: more workers while they help, none for what a limit holds back")
  func bursts() throws {
    var fleet = FleetModel(scaler: try .shipped(Self.manifests[0]), slots: 16, sessionSeconds: 2, seed: 9)
    _ = fleet.play(.init(name: "low", seconds: 600, rate: 8))
    let held = fleet.play(.init(name: "held", seconds: 600, rate: 8, blocked: 100_000))
    #expect(held.allSatisfy { $0.replicas <= 3 } && held.flaps == 0, "\(held.story)")
    let burst = fleet.play(.init(name: "burst", seconds: 1_200, rate: 8, burst: 20_000))
    #expect(burst.map(\.replicas).max() == fleet.scaler.maximum && burst.flaps == 0, "\(burst.story)")
    // 20 workers do 160 jobs a second.
    let workedOff = burst.firstIndex { $0.ready == 0 } ?? .max
    #expect(workedOff < 360, "\(workedOff) s")
  }

  @Test("sessions that begin to last ten times as long want more workers, not a ringing of them")
  func slowServers() throws {
    var fleet = FleetModel(scaler: try .shipped(Self.manifests[0]), slots: 64, sessionSeconds: 20, seed: 3)
    let slow = fleet.play(.init(name: "slow", seconds: 2_400, rate: 16))
    #expect(slow.flaps == 0 && slow.suffix(900).allSatisfy { $0.ready == 0 }, "\(slow.story)")
    // 320 sessions at once.
    #expect((7...9).contains(slow.last?.replicas ?? 0), "\(slow.story)")
  }

  // MARK: Real workers

  /// The endpoint's answer, as KEDA reads it.
  private struct Answer: Decodable {
    var workers: Int
  }

  @Test("real workers follow the real endpoint up and down under load, and drained ones lose nothing")
  func realWorkers() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    // A session takes about half a second.
    let office = try await PostOffice.open(pause: .milliseconds(50))
    let installation = try Installation(
      .init(
        databaseURL: try await TestServers.shared.freshDatabase(), redisURL: redis.url,
        keys: KeyRing.generate().text.revealed,
        more: ["POSTRIDER_WORKER_SESSIONS": "2", "POSTRIDER_SCALE_TARGET_SECONDS": "2"]), office: office)
    try await installation.command("migrate")
    let token = try await installation.initialize()
    let scheduler = try installation.start("scheduler")
    let api = try installation.start("api")
    var workers = [try installation.start("worker")]
    var drained: [RoleProcess] = []
    try await api.waitUntilReady()
    let addresses = try await installation.furnish(token, mailboxes: 24, connections: 100)

    // The shipped autoscaler, with its times shortened.
    var scaler = try Autoscaler.shipped(Self.manifests[0])
    (scaler.minimum, scaler.maximum, scaler.syncSeconds) = (1, 4, 1)
    scaler.up.stabilizationSeconds = 1
    scaler.up.policies = scaler.up.policies.map { .init(isPercent: $0.isPercent, value: $0.value, periodSeconds: 2) }
    scaler.down = .init(
      stabilizationSeconds: 6, policies: [.init(isPercent: true, value: 50, periodSeconds: 1)])
    let started = ContinuousClock.now
    var history: [Int] = []
    func follow() async throws {
      let answer = try await api.get(Answer.self, "scale", token: token)
      let now = (ContinuousClock.now - started) / .seconds(1)
      let wanted = scaler.sync(at: now, metric: Double(answer.workers), replicas: workers.count)
      while workers.count < wanted { workers.append(try installation.start("worker")) }
      while workers.count > wanted {
        // In the middle of its sessions.
        let leaving = workers.removeLast()
        leaving.program.signal(SIGTERM)
        drained.append(leaving)
      }
      history.append(workers.count)
    }

    let load = Task {
      for _ in 0..<6 {
        for address in addresses { office.deliver(to: address) }
        _ = try await installation.many(token, ["mailbox", "poll"], addresses)
      }
    }
    let loaded = Finished()
    let waiting = Task {
      _ = await load.result
      loaded.set()
    }
    while !loaded.isSet {
      try await follow()
      try await Task.sleep(for: .milliseconds(500))
    }
    await waiting.value
    try await load.value
    #expect((history.max() ?? 0) >= 3, "\(history)")
    let down = try await eventually(within: .seconds(300)) {
      try await follow()
      return workers.count == 1
    }
    #expect(down && drained.count >= 2, "\(history)")

    for process in drained { await process.stop() }
    try await installation.expectNothingLostOrDoubled(token, addresses)
    // What a drained worker gave back was counted as nobody's failure.
    let failed = try await installation.json(
      Page<RunRecord>.self, token, "run", "list", "--result", "failure", "--limit", "10")
    #expect(failed.items.isEmpty, "\(failed.items)")
    for process in workers + [scheduler, api] { await process.stop() }
    for process in workers + drained + [scheduler, api] {
      #expect(process.errors.isEmpty, "\(process.role): \(process.errors)")
      process.program.forget()
    }
    await office.close()
    installation.forget()
    await redis.stop()
  }
}

/// Something that was done.
private final class Finished: Sendable {
  private let signal = ScriptSignal()
  var isSet: Bool { signal.isFired }
  func set() { signal.fire() }
}
