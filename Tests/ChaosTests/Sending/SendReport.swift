import Foundation

/// What a run of the sending suite found. Written as JSON, and as a table for people.
struct SendReport: Sendable, Codable {
  var seed: UInt64
  var passed = false
  /// Why it failed, in words.
  var failures: [String] = []
  var seconds = 0.0

  var messages = 0
  /// Messages by their final state.
  var states: [String: Int] = [:]
  /// Messages that were begun more than once.
  var triedAgain = 0
  /// Arrivals beyond the first, of messages that nobody resent.
  var doubled = 0
  /// Messages that are `sent` and did not arrive, or arrived as something else.
  var lost = 0
  var damaged = 0
  /// Messages that are neither sent, partly sent, failed nor uncertain.
  var undecided = 0
  /// Uncertain messages whose end cannot have begun to leave.
  var uncertainTooEarly = 0
  /// Messages that were asked to be sent again, and how many of them arrived once more.
  var resent = 0
  var resentArrived = 0

  var sessions = 0
  var limitViolations = 0
  var kills = 0
  var killsByStage: [String: Int] = [:]
  var killsByPlace: [String: Int] = [:]
  /// Kills that came elsewhere, because the place wanted did not come by in time.
  var missed = 0
  var faults: [String: Int] = [:]
  var poisonReleased = 0

  var json: String {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    // Every value is a number or text.
    return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
  }

  var table: String {
    func list(_ counts: [String: Int]) -> String {
      counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    }
    var rows: [(String, String)] = [
      ("seed", "\(seed)"), ("time", String(format: "%.0f s", seconds)),
      ("messages", "\(messages) in \(sessions) sessions: \(list(states)); \(undecided) undecided"),
      ("arrivals", "\(doubled) doubled, \(lost) lost, \(damaged) damaged; \(triedAgain) messages were tried again"),
      ("uncertain", "\(uncertainTooEarly) although their end cannot have left"),
      ("resent", "\(resent) on a person's word, \(resentArrived) of them arrived once more"),
      ("limits", "\(limitViolations) violations"),
      ("kills", "\(kills): \(list(killsByStage))"), ("", list(killsByPlace)),
      ("poison", "\(poisonReleased) jobs looked at and released"),
    ]
    for (fault, count) in faults.sorted(by: { $0.key < $1.key }) where !fault.hasPrefix("kill a worker") {
      rows.append(("fault", "\(count) × \(fault)"))
    }
    rows.append(("verdict", passed ? "passed" : "FAILED"))
    for failure in failures { rows.append(("", failure)) }
    return rows.map { $0.0.padding(toLength: 12, withPad: " ", startingAt: 0) + $0.1 }.joined(separator: "\n")
  }
}
