import PostriderCore
import PostriderTesting
import Testing

@testable import Scheduler

@Suite("A leader's pulse")
struct PulseTests {
  @Test("beats while it looks for due rows, and stops when enqueuing never returns")
  func stuck() async throws {
    let cluster = try await TestCluster.make()
    let queue = ScriptedQueue()
    let pulse = Pulse()
    let store = cluster.makeStore(poolSize: 4)
    let term = SchedulerTerm(
      store: store, queue: queue, configuration: SchedulerConfiguration(holder: "test"), pulse: pulse,
      logger: cluster.logger)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await term.run() }
      let profile = try await cluster.profile(incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none))
      let ids = try await cluster.mailboxes(["a@example.org", "b@example.org"], on: profile)
      try await cluster.enable(ids[0])
      try await eventually("the first job") { !queue.enqueuedJobs.isEmpty }
      pulse.rest()
      try await eventually("a beat ends the rest") { !pulse.isAlive(at: .now + .seconds(86_400)) }
      queue.script.withLock { $0.isStuck = true }
      try await cluster.enable(ids[1])
      // Due in a moment: what is written late may not lie behind the watermark already, and that one is to be stuck.
      try await cluster.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '5 s' WHERE kind = 'p' AND mailbox_id = \(ids[1])")
      try await eventually("no beat for five seconds") { !pulse.isAlive(within: .seconds(5)) }
      group.cancelAll()
    }
    await store.close()
    await cluster.close()
  }
}
