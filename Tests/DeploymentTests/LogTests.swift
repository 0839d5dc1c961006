import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

/// What `ops/monitoring/runbooks.md` tells people to look for stands in the logs of the processes.
@Suite("Logs of the processes")
struct LogTests {
  @Test("a collector that fails is told, with its reason")
  func failingCollector() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    let installation = try Installation(
      .init(
        databaseURL: try await TestServers.shared.freshDatabase(), redisURL: redis.url,
        keys: KeyRing.generate().text.revealed), office: office)
    try await installation.command("migrate")
    let api = try installation.start("api")
    try await api.waitUntilReady()
    #expect(!api.program.errors.contains("A collector failed"), "\(api.program.errors)")
    await redis.stop()
    let said = await eventually(within: .seconds(180)) {
      // Collectors are asked by whoever reads the metrics; a look that fails is followed by another.
      _ = try? await api.metric("postrider_collect_errors_total")
      return api.program.errors.contains("A collector failed and its metrics are missing")
    }
    #expect(said, "\(api.program.errors)")
    await api.kill()
    api.program.forget()
    await office.close()
    installation.forget()
  }
}
