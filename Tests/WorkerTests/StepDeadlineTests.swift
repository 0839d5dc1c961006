import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import Worker

/// A port whose connections are never answered: the queue of a listener that accepts nobody is full, so the system
/// drops what comes.
private final class BlackHole: Sendable {
  let port: Int
  private let listener: Int32
  private let fillers: [Int32]

  init() throws {
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let listener = listener
    let bound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(listener, address, length) == 0 && listen(listener, 0) == 0
          && getsockname(listener, address, &length) == 0
      }
    }
    guard bound else { throw TestFailure("cannot listen: errno \(errno)") }
    port = Int(UInt16(bigEndian: address.sin_port))
    fillers = (0..<3).map { _ in
      let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
      _ = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(filler, $0, length) }
      }
      return filler
    }
  }

  deinit { for descriptor in fillers + [listener] { close(descriptor) } }
}

@Suite("Step deadlines, session deadlines and leases")
struct StepDeadlineTests {
  static let drop = Maildrop((1...3).map { ("u\($0)", message("s\($0)")) })

  @Test("a legal silence inside a step deadline keeps its lease, however long the lease is")
  func legalSilence() async throws {
    let drop = Self.drop
    // Two leases long, well inside the 90 s for an answer.
    let server = try await ScriptedMailServer.start(
      [
        .send("+OK\r\n"), .serve { $0 == "UIDL" ? .next : drop.answer($0) },
        .drip("+OK 3 300\r\n", every: .milliseconds(1_100)), .send("1 u1\r\n2 u2\r\n3 u3\r\n.\r\n"),
        .serve { drop.answer($0) },
      ])
    // Not shorter, and renewed early: a crowded machine may stand still for seconds.
    try await Spine.with(.init(lease: .seconds(6)), workers: 2, configure: { $0.renewal = .seconds(1) }) { spine in
      let cluster = spine.cluster
      let id = try await cluster.mailbox(on: try await cluster.profile(server, timeoutSeconds: 90))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.result == .success && run.messagesStored == 3)
      #expect(run.finishedAt.timeIntervalSince(run.startedAt) > 11)
      #expect(server.connections.count == 1, "nobody took the job back")
    }
    await server.stop()
  }

  @Test("a black-holed host ends as tcp.timeout, completed and not left to expire")
  func blackHole() async throws {
    let hole = try BlackHole()
    try await Spine.with(.init(lease: .seconds(6)), workers: 2, configure: { $0.renewal = .seconds(1) }) { spine in
      let cluster = spine.cluster
      // Longer than a lease.
      let profile = try await cluster.profile(
        incoming: ServerDraft(host: "127.0.0.1", port: hole.port, tls: .implicit), timeoutSeconds: 8)
      let id = try await cluster.mailbox(on: profile)
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == .tcpTimeout && run.failure?.scope == .server)
      #expect((7.5...30).contains(run.finishedAt.timeIntervalSince(run.startedAt)))
      #expect(run.steps.last?.name == .connect && run.steps.last?.code == .tcpTimeout)
      #expect(try await cluster.runs(of: id).count == 1)
      #expect(try await cluster.mailbox(id).incoming.enabled)
      #expect(try await cluster.alerts().map(\.code) == ["tcp.timeout"])
    }
    withExtendedLifetime(hole) {}
  }

  @Test("a poll that outlives its session's deadline reports what was really stored")
  func deadlineCounts() async throws {
    let drop = Self.drop
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .serve { $0 == "RETR 3" ? .next : drop.answer($0) }, .stopReading])
    try await Spine.with(configure: { $0.batchMessages = 1 }) { spine in
      let cluster = spine.cluster
      try await cluster.sql("ALTER TABLE organization DROP CONSTRAINT organization_session_deadline_seconds_check")
      try await cluster.sql("UPDATE organization SET session_deadline_seconds = 12, version = version + 1")
      let id = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(id)
      let run = try #require(try await cluster.waitForRuns(1, of: id).first)
      #expect(run.failure?.code == .sessionDeadline && run.result == .failure)
      #expect(run.messagesStored == 2 && run.octetsStored > 0)
      #expect(try await cluster.emails(of: id).count == 2)
      // The one that it ended with comes last from now on.
      #expect(try await cluster.sql("SELECT uidl, attempts FROM ledger WHERE state = 'failing'") == "u3|0")
      // The server worked: its breaker has nothing to count.
      try await spine.withGuard { serverGuard in
        let visit = ServerVisit(
          server: MailServer(host: "127.0.0.1", port: server.port), mailbox: id,
          lane: ServerLane(profile: ProfileID(1), direction: .incoming))
        let admission = try await serverGuard.admit(visit)
        #expect(admission == .go(isFailing: false, isUntold: false))
      }
    }
    await server.stop()
  }
}

@Suite("A worker and its queue")
struct WorkerPresenceTests {
  @Test("it announces itself and its slots, and says so when it takes no more")
  func announces() async throws {
    let (reached, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start(
      held(StepDeadlineTests.drop, reached: reached, go: go), StepDeadlineTests.drop.script)
    try await Spine.with(workers: 0) { spine in
      let cluster = spine.cluster
      let worker = try spine.startWorker {
        $0.sessions = 7
        $0.announcement = .seconds(1)
      }
      _ = try spine.startWorker {
        $0.sessions = 5
        $0.claimBatch = 0
      }
      let queue = try cluster.makeQueue()
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await queue.run() }
        defer { group.cancelAll() }
        try await eventually("both workers") {
          let numbers = try? await queue.statistics()
          return numbers?.workers == 2 && numbers?.workerSlots == 12
        }
        let id = try await cluster.mailbox(on: try await cluster.profile(server))
        try await cluster.enable(id)
        await reached.wait()
        await worker.stop()
        // While its session goes on. Unheard it would count for 15 s after its last word.
        try await eventually("one worker", within: .seconds(13)) {
          let numbers = try await queue.statistics()
          return numbers.workers == 1 && numbers.workerSlots == 5
        }
        #expect(!worker.hasEnded)
        go.fire()
      }
    }
    await server.stop()
  }

  /// How often clients called scripts, by the server's own count.
  private static func scriptCalls(_ redis: PrivateRedis) throws -> Int {
    let process = Foundation.Process()
    process.executableURL = URL(filePath: "/usr/bin/redis-cli")
    process.arguments = ["-s", redis.socketPath, "INFO", "commandstats"]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("cmdstat_evalsha:calls=") }
    return line?.split(separator: "=").dropFirst().first?.split(separator: ",").first.flatMap { Int($0) } ?? 0
  }

  @Test("an idle worker makes at most five calls of Redis a second")
  func idleCalls() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    try await Spine.with(.init(redis: redis), workers: 0, scheduler: false) { spine in
      let queue = try spine.cluster.makeQueue()
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await queue.run() }
        defer { group.cancelAll() }
        try await queue.open(epoch: 1, delay: .zero)
        _ = try spine.startWorker { $0.idleWait = WorkerConfiguration(name: "defaults").idleWait }
        try await eventually("the worker") { try await queue.statistics().workers == 1 }
        let before = try Self.scriptCalls(redis)
        let began = ContinuousClock.now
        // Waits for calls, not for a time: twelve of them are at least two announcements of five seconds.
        try await eventually("twelve calls") { try Self.scriptCalls(redis) >= before + 12 }
        let rate = 12 / ((ContinuousClock.now - began) / .seconds(1))
        #expect(rate <= 5, "\(rate) calls a second")
      }
    }
    await redis.stop()
  }
}
