import Foundation
import NIOCore
import NIOPosix
import PostriderTesting
import Testing

/// Real processes, real servers, and a mail server that counts.
///
/// `CHAOS_SEED` plays a schedule of faults again. `ops/chaos` runs ``long()`` alone.
@Suite("Faults", .serialized)
struct ChaosTests {
  static let environment = ProcessInfo.processInfo.environment
  static var isLong: Bool { environment["CHAOS_LONG"] != nil }

  /// Prints a line at once, also into a file or a pipe.
  static func say(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }

  /// Plays a run and prints what it found.
  static func play(_ options: ChaosOptions) async throws -> Report {
    let isQuiet = options.mistake != nil
    say("seed \(options.seed)")
    let stage = try await Stage(options)
    do {
      let report = try await ChaosRun(stage) { if !isQuiet { say($0) } }.play()
      await stage.stop()
      say(report.table)
      return report
    } catch {
      await stage.stop()
      throw error
    }
  }

  @Test("kills, stops, splits and restarts: nothing lost, nothing doubled, every limit reached and never exceeded")
  func short() async throws {
    guard !Self.isLong, !SendingChaosTests.isLong else { return }
    var options = ChaosOptions.short(seed: ChaosOptions.seed(Self.environment))
    if let only = Self.environment["CHAOS_ONLY"] { options.keep(only: only) }
    let report = try await Self.play(options)
    #expect(report.passed, "seed \(report.seed): \(report.failures.joined(separator: "; "))")
    #expect(report.kills >= 12 && report.profilesAtTheirLimit >= 50)
  }

  @Test("the sockets of a process are found")
  func sockets() async throws {
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(listener.localAddress?.port)
    let client = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connect(host: "127.0.0.1", port: port).get()
    let connection = SocketPair(client: try #require(client.localAddress?.port), server: port)
    #expect(SocketTable.connections(of: getpid()).contains(connection))
    #expect(SocketTable.owner(of: connection, among: [1, getpid()]) == getpid())
    try await client.close().get()
    try await listener.close().get()
  }

  @Test("the long run", .enabled(if: isLong))
  func long() async throws {
    let report = try await Self.play(.long(Self.environment))
    if let path = Self.environment["CHAOS_REPORT"] {
      try Data((report.json + "\n").utf8).write(to: URL(fileURLWithPath: path))
    }
    #expect(report.passed, "seed \(report.seed): \(report.failures.joined(separator: "; "))")
  }

  @Test("without a mistake a small cluster passes, with one it does not")
  func mistakes() async throws {
    guard !Self.isLong, !SendingChaosTests.isLong else { return }
    let reports = try await withThrowingTaskGroup(of: (Mistake?, Report).self) { group in
      for mistake in [nil] + Mistake.allCases {
        group.addTask {
          (mistake, try await Self.play(.small(seed: ChaosOptions.seed(Self.environment), mistake: mistake)))
        }
      }
      var reports: [Mistake?: Report] = [:]
      for try await (mistake, report) in group { reports[mistake] = report }
      return reports
    }
    let sound = try #require(reports[nil])
    #expect(sound.passed, "\(sound.failures)")
    let blind = try #require(reports[.fenceIgnored])
    #expect(!blind.passed && blind.staleWrites > 0, "\(blind.failures)")
    let full = try #require(reports[.slotNeverFreed])
    #expect(!full.passed && full.sessions > 0 && full.mailboxesStarved > 0, "\(full.failures)")
    let early = try #require(reports[.completeBeforeCommit])
    #expect(!early.passed && early.earlyCompletes > 0, "\(early.failures)")
  }
}
