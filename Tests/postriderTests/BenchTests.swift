import Foundation
import PostriderTesting
import Testing

@testable import postrider

/// Tiny loads: whether the benchmarks run, say what they must and clean up. Their figures mean nothing here.
@Suite("postrider bench", .serialized)
struct BenchTests {
  private func run(_ arguments: [String]) async throws -> [String: Any] {
    try await withTemporaryFolder { folder in
      let result = try await Program.run(["bench"] + arguments + ["--json"], environment: ["TMPDIR": folder])
      #expect(result.exitCode == 0, "\(result.errors)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
      let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
      return try #require(object as? [String: Any])
    }
  }

  private func withTemporaryFolder<T>(_ body: (String) async throws -> T) async throws -> T {
    // Short, as sockets lie in it, and open to the servers' user.
    let folder = "/tmp/bench-test-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    // Left-over folders in /tmp harm nobody.
    defer { try? FileManager.default.removeItem(atPath: folder) }
    return try await body(folder)
  }

  private func number(_ object: [String: Any], _ key: String) throws -> Double {
    try #require(object[key] as? Double, "\(key) is missing")
  }

  @Test func queueSaysItsFigures() async throws {
    let object = try await run(["queue", "--seconds", "1", "--mailboxes", "2000"])
    for key in [
      "cycles_per_s", "redis_us_per_cycle", "cycles_per_s_blocked", "cycles_per_s_one_big", "bytes_per_ready_job",
      "start_p50_ms", "start_p99_ms", "small_profile_p99_ms", "test_start_p99_ms",
    ] {
      #expect(try number(object, key) > 0, "\(key)")
    }
    // A claim and a completion for 32 jobs; far more would mean that something is called for each job.
    #expect((0.01...0.9).contains(try number(object, "round_trips_per_job")))
    #expect((0...5).contains(try number(object, "idle_calls_per_s")))
    #expect(try number(object, "start_p50_ms") <= number(object, "start_p99_ms"))
    let load = try #require(object["load"] as? [String: Any])
    #expect(load["profiles"] as? Int == 1_000)
    #expect(load["limit"] as? Int == 10)
  }

  @Test func pipelineSaysItsFigures() async throws {
    let object = try await run(["pipeline", "--seconds", "1", "--mailboxes", "1000"])
    #expect(try number(object, "jobs_per_s") > 0)
    #expect(try number(object, "pg_batch_rows_per_s") > 0)
    #expect(object["benchmark"] as? String == "pipeline")
  }

  @Test func scheduleSaysItsFigures() async throws {
    let object = try await run(["schedule", "--seconds", "8", "--mailboxes", "1000", "--interval", "5"])
    for key in ["scheduler_core_share", "busiest_over_mean", "refill_s"] {
      #expect(try number(object, key) > 0, "\(key)")
    }
    // What 1,000 mailboxes need is less than what the server's memory moves by itself.
    _ = try number(object, "bytes_per_mailbox")
    // 1,000 mailboxes every 5 s; a schedule that ran twice as often would be far off. A slow machine does less.
    #expect((1...260).contains(try number(object, "starts_per_s")))
  }

  @Test func sendSaysItsFigures() async throws {
    let object = try await run([
      "send", "--seconds", "1", "--messages", "200", "--mailboxes", "20", "--large-octets", "1000000",
    ])
    for key in [
      "messages_per_s", "ratio_to_smtp_source", "smtp_source_per_s", "own_us_per_message", "postgres_us_per_message",
      "big_mb_per_s",
    ] {
      #expect(try number(object, key) > 0, "\(key)")
    }
    // Small ones may need no more than what is there.
    #expect((0...64).contains(try number(object, "big_rss_mib")))
    #expect((object["load"] as? [String: Any])?["sessions"] as? Int == 20)
  }

  @Test func pollSaysItsFigures() async throws {
    let object = try await run(["poll", "--seconds", "1", "--held", "50", "--connections", "5"])
    for key in [
      "cpu_s_per_1000_plain", "cpu_s_per_1000_tls", "cpu_s_per_1000_tls_resumed", "polls_per_s_rtt20",
      "polls_per_s_rtt20_pipelined", "polls_per_s_dovecot",
    ] {
      #expect(try number(object, key) > 0, "\(key)")
    }
    #expect(try number(object, "max_sessions") == 50)
    // What 50 sessions take is less than what the process's memory moves by itself.
    _ = try number(object, "bytes_per_session_plain")
    _ = try number(object, "bytes_per_session_tls")
    // Four answers of 20 ms each: nobody makes more than 12 polls a second on one connection.
    #expect(try number(object, "polls_per_s_rtt20") < 13_000)
  }

  @Test func fetchSaysItsFigures() async throws {
    let object = try await run(
      ["fetch", "--mailboxes", "3", "--messages", "4", "--big-sessions", "2", "--big-mb", "1"])
    for key in ["messages_per_s", "mb_per_s", "big_mb_per_s", "peak_rss_mib", "cpu_ms_10_new_of_5000"] {
      #expect(try number(object, key) > 0, "\(key)")
    }
    _ = try number(object, "big_rss_mib")
  }

  @Test func anInterruptLeavesNothingBehind() async throws {
    try await withTemporaryFolder { folder in
      let running = try RunningProgram(
        ["bench", "pipeline", "--seconds", "60", "--json"], environment: ["TMPDIR": folder])
      defer { running.forget() }
      #expect(await eventually(within: .seconds(180)) { running.errors.contains("Starting PostgreSQL") })
      running.signal(SIGINT)
      #expect(await running.exit() == 130)
      #expect(running.output.isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
    }
  }

  @Test func bulkSaysItsFigures() async throws {
    let object = try await run(["bulk", "--seconds", "1", "--mailboxes", "2000"])
    for key in ["approve_s", "update_s", "ratio_to_update", "poll_p99_ms_alone", "poll_p99_ms", "poll_max_ms"] {
      #expect(try number(object, key) > 0, "\(key)")
    }
  }

  @Test func wrongOptionsAreRefused() async throws {
    for arguments in [
      ["queue", "--batch", "0"], ["poll", "--held", "0"], ["fetch", "--big-mb", "51"], ["pipeline", "--workers", "99"],
      ["schedule", "--interval", "1"], ["send", "--messages", "1"],
      ["bulk", "--mailboxes", "10"],
    ] {
      #expect(try await Program.run(["bench"] + arguments).exitCode == 64, "\(arguments)")
    }
  }

  @Test func aRedisThatHoldsKeysIsLeftAlone() async throws {
    let servers = TestServers.shared
    let redis = try await servers.dedicatedRedis()
    try RedisProbe(url: redis.url).command(["SET", "precious", "1"])
    let result = try await Program.run(["bench", "queue", "--redis-url", redis.url, "--json"])
    #expect(result.exitCode == 1)
    #expect(result.errors.contains("holds keys"))
    #expect(try RedisProbe(url: redis.url).integer(["GET", "precious"]) == 1)
    await redis.stop()
  }

  @Test(
    "numbers for people",
    arguments: [(51_890.4, "51,890"), (0.073_24, "0.07324"), (1.3, "1.3"), (0, "0"), (-12_345, "-12,350")])
  func words(value: Double, text: String) { #expect(BenchReport.text(value) == text) }

  @Test func percentiles() {
    var samples = Samples()
    for number in 1...100 { samples.add(.milliseconds(number)) }
    #expect(samples.percentile(0.5) == 50)
    #expect(samples.percentile(0.99) == 99)
    #expect(Samples().percentile(0.99) == 0)
  }
}
