import MailProtocols
import NIOPosix
import PostgresStore
import PostriderCore
import PostriderTesting
import Testing

@testable import Worker

@Suite("A worker's pulse")
struct PulseTests {
  private func with(
    _ queue: FaultyQueue, sessions: Int = 1, _ body: @escaping @Sendable (WorkerService) async throws -> Void
  ) async throws {
    var configuration = WorkerConfiguration(name: "w")
    configuration.sessions = sessions
    configuration.idleWait = .milliseconds(50)
    // Without a job nobody asks it.
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: "postgresql:///none?host=/nonexistent", keyRing: .generate()),
      logger: .silent)
    let worker = WorkerService(
      store: store, queue: queue, client: MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: .init()),
      configuration: configuration, logger: .silent)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await worker.run() }
      try await body(worker)
      group.cancelAll()
    }
    await store.close()
  }

  @Test("beats while the queue is empty and while it is away, and stops when a claim never returns")
  func stuck() async throws {
    let queue = FaultyQueue()
    try await queue.open(epoch: 1, delay: .zero)
    try await with(queue) { worker in
      try await eventually("claims") { queue.calls("claim") > 3 }
      queue.fail("claim", .unavailable(reason: "gone"))
      let before = queue.calls("claim")
      try await eventually("more claims") { queue.calls("claim") > before + 3 }
      #expect(worker.pulse.isAlive(within: .seconds(10)))
      queue.fail("claim", nil)
      queue.stick("claim")
      try await eventually("no beat for half a second") { !worker.pulse.isAlive(within: .milliseconds(500)) }
    }
  }

  @Test("rests while no slot is free")
  func resting() async throws {
    let queue = FaultyQueue()
    try await with(queue, sessions: 0) { worker in
      try await eventually("it rests") { worker.pulse.isAlive(at: .now + .seconds(86_400)) }
      #expect(queue.calls("claim") == 0)
    }
  }
}
