import Foundation
import PostriderCore
import PostriderTesting

/// A real scheduler and a real worker, watched from outside while they meet hostile servers.
struct HostileStage: Sendable {
  let cluster: TestCluster
  let worker: RunningProgram
  let scheduler: RunningProgram

  /// The program to run: another build is measured with `POSTRIDER_TEST_PROGRAM`.
  static var program: String { ProcessInfo.processInfo.environment["POSTRIDER_TEST_PROGRAM"] ?? Program.path }

  /// Lends a stage; its processes and their servers are gone afterwards.
  static func with(_ body: (HostileStage) async throws -> Void) async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    let cluster = try await TestCluster.make(.init(redis: redis))
    let environment = [
      "POSTRIDER_DATABASE_URL": cluster.databaseURL, "POSTRIDER_REDIS_URL": redis.url,
      "POSTRIDER_KEYS_RING": cluster.keys, "POSTRIDER_EGRESS_ALLOW": "127.0.0.0/8:*", "POSTRIDER_PROBE_PORT": "0",
    ]
    let scheduler = try RunningProgram(["scheduler"], executable: program, environment: environment)
    let worker = try RunningProgram(["worker"], executable: program, environment: environment)
    let stage = HostileStage(cluster: cluster, worker: worker, scheduler: scheduler)
    let result: Result<Void, any Error>
    do {
      result = .success(try await body(stage))
    } catch {
      let state = "\(worker.errors.suffix(2_000))\n\(scheduler.errors.suffix(1_000))"
      result = .failure(TestFailure("\(error)\n\(state)"))
    }
    for process in [worker, scheduler] {
      process.signal(SIGKILL)
      _ = await process.exit()
      process.forget()
    }
    await cluster.close()
    await redis.stop()
    try result.get()
  }

  /// The worker's resident memory: now (`VmRSS`) or at its greatest since ``forgetPeak()`` (`VmHWM`), in octets.
  func memory(_ field: String) throws -> Int {
    let status = try String(contentsOfFile: "/proc/\(worker.processID)/status", encoding: .utf8)
    let line = status.split(separator: "\n").first { $0.hasPrefix(field + ":") }
    guard
      let kibibytes = line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Int($0) })
    else { throw TestFailure("no \(field) of the worker") }
    return kibibytes * 1_024
  }

  /// The peak counts from now on (proc(5), `clear_refs`).
  func forgetPeak() throws {
    try Data("5".utf8).write(to: URL(fileURLWithPath: "/proc/\(worker.processID)/clear_refs"))
  }
}
