import Foundation

/// What a run found: the verdict and the figures. Written as JSON, and as a table for people.
struct Report: Sendable, Codable {
  struct Times: Sendable, Codable {
    var count: Int
    var p50Seconds: Double
    var maximumSeconds: Double
    var allowedSeconds: Double
    /// Above the allowed time, or never.
    var exceeded: Int
  }

  var seed: UInt64
  var passed: Bool
  /// Why it failed, in words.
  var failures: [String]
  var seconds: Double

  var profiles: Int
  var mailboxes: Int
  var slots: Int
  var sessions: Int

  var messagesOffered: Int
  var messagesLost: Int
  var messagesDoubled: Int
  var messagesDamaged: Int
  var mailboxesStarved: Int
  var requestsUnserved: Int

  var identities: Int
  var identitiesAtTheirLimit: Int
  var profilesAtTheirLimit: Int
  var limitViolations: Int
  var firstViolations: [LimitViolation]
  /// The most sessions above a limit while their process was stopped; nobody but the server could have closed those.
  var excessWhileStopped: Int

  var staleWrites: Int
  var earlyCompletes: Int
  var lateWrites: Int
  var lateWritesFenced: Int
  var closedAfterStopSeconds: [Double]
  var poisonReleased: Int

  var kills: Int
  var killsByStage: [String: Int]
  var killsByPlace: [String: Int]
  var leastBusyShareAtKill: Double
  var faults: [String: Int]
  var recovery: [String: Times]

  var json: String {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    // Every value is a number or text.
    return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
  }

  var table: String {
    func seconds(_ value: Double) -> String { String(format: "%.2f s", value) }
    func list(_ counts: [String: Int]) -> String {
      counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    }
    var rows: [(String, String)] = [
      ("seed", "\(seed)"), ("time", String(format: "%.0f s", self.seconds)),
      ("cluster", "\(profiles) profiles, \(mailboxes) mailboxes, \(slots) slots, \(sessions) sessions"),
      (
        "messages",
        "\(messagesOffered) to be stored: \(messagesLost) lost, \(messagesDoubled) doubled, "
          + "\(messagesDamaged) damaged"
      ),
      ("mailboxes", "\(mailboxesStarved) starved, \(requestsUnserved) requests unserved"),
      (
        "limits",
        "\(limitViolations) violations; \(identitiesAtTheirLimit) of \(identities) identities and "
          + "\(profilesAtTheirLimit) of \(profiles) profiles reached exactly their limit"
      ),
      (
        "",
        firstViolations.prefix(6).map {
          "\($0.identity) \($0.count)/\($0.limit) at \(String(format: "%.2f", $0.atSeconds)) s (\($0.sessions.joined(separator: " | ")))"
        }.joined(separator: "; ")
      ),
      ("stopped processes", "\(excessWhileStopped) sessions above a limit while they could not close them"),
      ("fences", "\(staleWrites) stale writes, \(lateWritesFenced) fenced after \(lateWrites) stops"),
      ("order", "\(earlyCompletes) leases ended before their outcome was committed"),
      ("kills", "\(kills): \(list(killsByStage))"), ("", list(killsByPlace)),
      ("slots in use", String(format: "%.0f %% at the least busy kill", leastBusyShareAtKill * 100)),
      ("poison", "\(poisonReleased) jobs looked at and released"),
    ]
    for (fault, count) in faults.sorted(by: { $0.key < $1.key }) where !fault.hasPrefix("kill a worker") {
      rows.append(("fault", "\(count) × \(fault)"))
    }
    for (kind, times) in recovery.sorted(by: { $0.key < $1.key }) {
      rows.append(
        (
          "recovery: \(kind)",
          "\(times.count) × p50 \(seconds(times.p50Seconds)), max \(seconds(times.maximumSeconds)), "
            + "allowed \(seconds(times.allowedSeconds))"
        ))
    }
    rows.append(("verdict", passed ? "passed" : "FAILED"))
    for failure in failures { rows.append(("", failure)) }
    return rows.map { $0.0.padding(toLength: 20, withPad: " ", startingAt: 0) + $0.1 }.joined(separator: "\n")
  }
}
