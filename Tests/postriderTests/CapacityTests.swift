import Foundation
import PostriderTesting
import Testing

@testable import postrider

@Suite("Capacity")
struct CapacityTests {
  private func plan(_ mailboxes: Int, _ change: (inout CapacityLoad) -> Void = { _ in }) -> CapacityPlan {
    var load = CapacityLoad(mailboxes: mailboxes, intervalSeconds: 300, sentPerDay: 0)
    change(&load)
    return CapacityPlan(
      load: load, shape: CapacityShape(workerSessions: 64, poolSize: 4, historyDays: 30), costs: CapacityCosts())
  }

  @Test("the numbers are those of the formulas")
  func numbers() throws {
    let plan = plan(100_000)
    #expect(abs(try #require(plan.value("sessions_per_s")) - 333.33) < 0.01)
    #expect(abs(try #require(plan.value("sessions_at_once")) - 666.67) < 0.01)
    // ⌈666.7 ÷ 51.2⌉; the same number that the scale hint gives for as many sessions.
    #expect(plan.value("workers_by_sessions") == 14 && plan.value("workers") == 14)
    #expect(plan.value("postgres_connections") == 73)
    #expect(abs(try #require(plan.value("redis_mib")) - 14.3) < 0.1)
    #expect(plan.warnings.isEmpty)
    #expect(plan.table.contains("⌈667 ÷ (64 × 0.8)⌉"), "\(plan.table)")
    // Small ones have two workers all the same.
    #expect(self.plan(10).value("workers") == 2)
  }

  @Test("limits of a profile, of one Redis and of PostgreSQL's connections are said")
  func warnings() {
    let profile = plan(4_000) {
      $0.mailboxesPerProfile = 4_000
      $0.connectionsPerProfile = 10
    }
    #expect(profile.warnings.count == 1 && profile.warnings[0].contains("every 800 s at most"), "\(profile.warnings)")
    let big = plan(10_000_000)
    #expect(big.warnings.contains { $0.contains("queue.shards") } && big.warnings.contains { $0.contains("PgBouncer") })
  }

  @Test("benchmarks replace the costs, and settings of the environment count")
  func command() async throws {
    let file = FileManager.default.temporaryDirectory.appending(path: "bench-\(UUID().uuidString).json").path
    defer { try? FileManager.default.removeItem(atPath: file) }
    try Data(#"{"figures":{"redis_us_per_job":100,"worker_us_per_job":40.5},"load":{}}"#.utf8)
      .write(to: URL(fileURLWithPath: file))
    let result = try await Program.run(
      ["capacity", "--mailboxes", "60000", "--interval", "1m", "--sent", "0", "--figures", file, "--json"],
      environment: ["POSTRIDER_WORKER_SESSIONS": "100", "POSTRIDER_DATABASE_POOL_SIZE": "2"])
    #expect(result.exitCode == 0, "\(result.errors)")
    let answer = try #require(
      try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    let parts = try #require(answer["parts"] as? [[String: Any]])
    let lines = parts.flatMap { $0["lines"] as? [[String: Any]] ?? [] }
    func value(_ key: String) -> Double? { lines.first { $0["key"] as? String == key }?["value"] as? Double }
    #expect(value("sessions_per_s") == 1_000)
    #expect(value("workers_by_sessions") == 25)
    #expect(value("redis_core").map { abs($0 - 13) < 0.01 } == true)
    #expect((answer["costs"] as? [String: Any])?["workerMicroseconds"] as? Double == 40.5)
    let people = try await Program.run(["capacity", "--mailboxes", "1000"])
    #expect(people.exitCode == 0 && people.output.contains("Workers") && people.output.contains("Costs:"))
  }

  @Test(
    "wrong values are refused in words",
    arguments: [["--mailboxes", "0"], ["--mailboxes", "5", "--interval", "soon"]])
  func refused(_ arguments: [String]) async throws {
    let result = try await Program.run(["capacity"] + arguments)
    #expect(result.exitCode == 64 && result.errors.contains(arguments[arguments.count - 2]), "\(result)")
    let none = try await Program.run(["capacity", "--mailboxes", "5", "--figures", "/nonexistent.json"])
    #expect(none.exitCode == 1 && none.errors.contains("/nonexistent.json"))
  }

  @Test("times", arguments: [("90s", 90.0), ("5m", 300), ("1h", 3_600), ("5", 300)])
  func times(_ text: String, _ seconds: Double) {
    #expect(CapacityCommand.seconds(text) == seconds)
    for wrong in ["", "m", "0s", "-5m", "25h", "5d"] { #expect(CapacityCommand.seconds(wrong) == nil, "\(wrong)") }
  }
}
