import Foundation
import PostriderTesting
import Testing

/// Real workers send to a sink that counts, and are killed at every place of a message's way.
///
/// `CHAOS_SEED` plays a schedule of faults again. `ops/chaos --sending` runs ``long()`` alone.
@Suite("Faults while sending", .serialized)
struct SendingChaosTests {
  static let environment = ProcessInfo.processInfo.environment
  static var isLong: Bool { environment["CHAOS_SENDING"] != nil }

  /// Plays a run and prints what it found.
  static func play(_ options: SendOptions) async throws -> SendReport {
    ChaosTests.say("seed \(options.seed)")
    let stage = try await SendClusterStage(options)
    do {
      let report = try await SendRun(stage) { if options.mistake == nil { ChaosTests.say($0) } }.play()
      await stage.stop()
      ChaosTests.say(report.table)
      return report
    } catch {
      await stage.stop()
      throw error
    }
  }

  @Test("killed at every place: each message arrives once at most, and only those whose end had begun are uncertain")
  func short() async throws {
    guard !Self.isLong, !ChaosTests.isLong else { return }
    let report = try await Self.play(.short(seed: ChaosOptions.seed(Self.environment)))
    #expect(report.passed, "seed \(report.seed): \(report.failures.joined(separator: "; "))")
    #expect(report.kills >= 12 && report.killsByStage.count == SendStage.allCases.count)
    #expect(report.states["uncertain", default: 0] > 0 && report.resent > 0)
  }

  @Test("the long run", .enabled(if: isLong))
  func long() async throws {
    let report = try await Self.play(.long(Self.environment))
    if let path = Self.environment["CHAOS_REPORT"] {
      try Data((report.json + "\n").utf8).write(to: URL(fileURLWithPath: path))
    }
    #expect(report.passed, "seed \(report.seed): \(report.failures.joined(separator: "; "))")
  }

  @Test("without a mistake a small cluster passes, with one it does not", arguments: [nil] + SendMistake.allCases)
  func mistakes(mistake: SendMistake?) async throws {
    guard !Self.isLong, !ChaosTests.isLong else { return }
    let report = try await Self.play(.small(seed: ChaosOptions.seed(Self.environment), mistake: mistake))
    if mistake == nil {
      #expect(report.passed, "\(report.failures)")
    } else {
      #expect(!report.passed && report.doubled > 0, "\(report.failures)")
    }
  }
}
