import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// What an operator does with the commands, with the real program and real servers.
@Suite("An operator at postrider dev --sandbox")
struct OperatorTests {
  @Test("watch, pause, resume, change, repair, scale and metrics")
  func operate() async throws {
    let development = try await Development.start(["--sandbox", "--mailboxes", "2"], until: "One account is free")
    let address = "user01@sandbox.test"

    // A worker announces itself every few seconds.
    var stats = try await development.json(QueueAnswer.self, "queue", "stats")
    let announced = try await eventually(within: .seconds(180)) {
      stats = try await development.json(QueueAnswer.self, "queue", "stats")
      return stats.queue.workers == 1 && stats.jobsPerSecond != nil && stats.schedule.leader != nil
    }
    #expect(announced && stats.queue.workerSlots == 64 && stats.queue.finished > 0, "\(stats.queue)")
    #expect(stats.jobsPerSecond != nil && stats.schedule.leader != nil && stats.setAside == 0)
    let top = try await development.json(QueueTop.View.self, "queue", "top", "--once")
    #expect(top.profiles.map(\.name) == ["Sandbox"] && top.profiles.first?.limit == 10 && top.total == 1)
    #expect(top.profiles.first?.pausedAt == nil)
    // What the worker counted reaches PostgreSQL every few seconds.
    let counted = try await eventually {
      try await development.json(QueueTop.View.self, "queue", "top", "--once").profiles.first?.errorRate == 0
    }
    #expect(counted)

    try await pause(development, address)
    try await change(development)

    let repair = try await development.json(RepairRequest.self, "queue", "repair", "--wait")
    #expect(repair.finishedAt != nil && repair.report?.isComplete == true && repair.report?.total == 0)

    try await numbers(development)
    try await development.end()
  }

  private func pause(_ development: Development, _ address: String) async throws {
    #expect(try await development.cli("queue", "pause", "--profile", "Sandbox").exitCode == 0)
    let refused = try await development.cli("mailbox", "test", address, "--timeout", "40")
    #expect(refused.exitCode == 1 && (refused.output + refused.errors).contains("paused"), "\(refused)")
    let pauses = try await development.json(Page<Pause>.self, "queue", "pauses")
    #expect(pauses.items.map(\.scope) == ["profile"] && pauses.items.first?.name == "Sandbox")
    #expect(try await development.cli("queue", "inspect", address).output.contains("next run  none: paused\n"))
    // The API remembers the list for two seconds.
    #expect(
      try await eventually { try await development.cli("queue", "top", "--once").output.contains("paused since") })
    #expect(try await development.cli("queue", "resume", "--profile", "Sandbox").exitCode == 0)
    let passed = try await development.cli("mailbox", "test", address)
    #expect(passed.exitCode == 0, "\(passed.output)\(passed.errors)")
  }

  private func change(_ development: Development) async throws {
    let before = try await development.json(ServerProfile.self, "profile", "show", "Sandbox")
    let after = try await development.json(
      ServerProfile.self, "profile", "edit", "Sandbox", "--max-connections", "3", "--weight", "7", "--if-version",
      "\(before.version)")
    #expect(after.maximumConcurrentConnections == 3 && after.weight == 7 && after.version > before.version)
    let stale = try await development.cli(
      "profile", "edit", "Sandbox", "--weight", "8", "--if-version", "\(before.version)")
    #expect(stale.exitCode == 1 && stale.errors.contains("stale"))
    // The mailbox is paused, moved nowhere, and switched off and on.
    let off = try await development.json(Mailbox.self, "mailbox", "edit", "user02@sandbox.test", "--deactivate")
    #expect(!off.isActive && off.incoming.notRunningReason == "mailbox-inactive")
    #expect(try await development.cli("mailbox", "edit", "user02@sandbox.test", "--activate").exitCode == 0)
  }

  /// What an autoscaler and Prometheus read.
  private func numbers(_ development: Development) async throws {
    let base = try #require(development.program.output.firstMatch(of: /http:\/\/127\.0\.0\.1:\d+/)).output
    let token = try #require(
      try ClusterFile.read(in: development.directory, name: ClusterFile.cli)["POSTRIDER_TOKEN"])
    var request = URLRequest(url: try #require(URL(string: "\(base)/api/v1/scale")))
    request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
    let question = request
    // On a busy machine the numbers may be too old for a moment.
    let hint = try await eventually("a current hint") { () async throws -> ScaleHint? in
      let (answer, _) = try await URLSession.shared.data(for: question)
      let hint = try JSONDecoder().decode(ScaleHint.self, from: answer)
      return hint.isCurrent && hint.presentWorkers == 1 ? hint : nil
    }
    #expect(hint.workers == 1 && hint.slotsPerWorker == 64)
    let url = try #require(URL(string: "\(base)/metrics"))
    let lines = [
      "postrider_queue_workers 1\n", "postrider_queue_worker_slots 64\n", "postrider_workers_wanted 1\n",
      "postrider_queue_poisoned 0\n", "postrider_queue_blocked{reason=\"breaker\"} 0\n",
      "postrider_redis_call_seconds_count{script=\"claim\"} ", "postrider_store_batch_seconds_count ",
      "postrider_dispatch_delay_seconds_count ", "postrider_worker_slots{state=\"total\"} 64\n",
    ]
    var metrics = ""
    _ = try await eventually {
      metrics = String(decoding: try await URLSession.shared.data(from: url).0, as: UTF8.self)
      return lines.allSatisfy { metrics.contains($0) }
    }
    for line in lines { #expect(metrics.contains(line), "\(line) is not in the metrics") }
    for name in ["postrider_queue_finished_total", "postrider_store_batch_seconds_count"] {
      let value = metrics.split(separator: "\n").first { $0.hasPrefix("\(name) ") }?.split(separator: " ").last
      #expect(value.flatMap { Double($0) } ?? 0 > 0, "\(name)")
    }
  }
}
