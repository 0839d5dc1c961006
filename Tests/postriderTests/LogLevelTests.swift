import Foundation
import Logging
import PostriderTesting
import Testing

@testable import postrider

@Suite("Log levels by part")
struct LogLevelTests {
  @Test("parts and levels are read; what does not exist is refused")
  func reading() {
    #expect(
      LogPart.levels("store=debug, queue = warning") == ["postrider.store": .debug, "postrider.queue": .warning])
    for wrong in ["store", "store=loud", "nobody=debug", "store=debug=info", "=debug", "store="] {
      #expect(LogPart.levels(wrong) == nil, "\(wrong)")
    }
    #expect(Setting.logLevels.problem(with: "nobody=debug")?.contains("parts: worker, scheduler") == true)
  }

  /// What a worker without services says, line by line.
  private func lines(_ levels: [String: String]) async throws -> [(logger: String, level: String, message: String)] {
    let keys = try await Program.run(["keys", "generate"])
    let worker = try RunningProgram(
      ["worker"],
      environment: [
        "POSTRIDER_DATABASE_URL": "postgresql:///none?host=/nonexistent", "POSTRIDER_KEYS_RING": keys.output,
        "POSTRIDER_REDIS_URL": "unix:///nonexistent/redis.sock", "POSTRIDER_PROBE_PORT": "0",
        "POSTRIDER_LOG_FORMAT": "json",
      ].merging(levels) { $1 })
    defer { worker.forget() }
    // Of the last part that says something.
    _ = await eventually(within: .seconds(120)) {
      worker.errors.contains("Claiming waits") || worker.errors.contains("Redis")
    }
    worker.signal(SIGTERM)
    #expect(await worker.exit() == 0, "\(worker.errors)")
    return try worker.errors.split(separator: "\n").map { line in
      let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String])
      return (object["logger"] ?? "", object["level"] ?? "", object["message"] ?? "")
    }
  }

  @Test("one part can say more or less than the others")
  func byPart() async throws {
    let quiet = try await lines(["POSTRIDER_LOG_LEVEL": "error", "POSTRIDER_LOG_LEVELS": "worker=info"])
    #expect(Set(quiet.filter { $0.level != "error" }.map(\.logger)) == ["postrider.worker"], "\(quiet)")
    #expect(quiet.contains { $0.message == "Working" })
    let other = try await lines(["POSTRIDER_LOG_LEVELS": "worker=error"])
    #expect(!other.contains { $0.logger == "postrider.worker" && $0.level != "error" }, "\(other)")
    #expect(Set(other.map(\.logger)).count >= 1, "\(other)")
  }
}
