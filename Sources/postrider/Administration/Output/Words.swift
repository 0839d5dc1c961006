import FoundationEssentials
import PostriderCore

/// Values in people's words.
enum Words {
  /// `2026-03-02 09:00:00Z`; `-` for nothing.
  static func time(_ date: Date?) -> String {
    guard let date else { return "-" }
    let style = Date.ISO8601FormatStyle(dateTimeSeparator: .space)
    return date.formatted(style)
  }

  /// The time and how far away it is: `2026-03-02 09:00:00Z (in 3 min)`; `nil` for nothing.
  static func timeAndDistance(_ date: Date?, now: Date = Date()) -> String? {
    guard let date else { return nil }
    let seconds = date.timeIntervalSince(now)
    let distance = duration(abs(seconds))
    return "\(time(date)) (\(seconds > 0 ? "in \(distance)" : "\(distance) ago"))"
  }

  /// The moment of a queue's number.
  static func date(_ milliseconds: Int64) -> Date { Date(timeIntervalSince1970: Double(milliseconds) / 1_000) }

  /// `12.5 %`; `-` for nothing.
  static func percent(_ share: Double?) -> String { share.map { "\(tenths($0 * 100)) %" } ?? "-" }

  /// Several in one sentence: `1 by limit, 2 by breaker`, the greatest first; `nil` for none.
  static func blocked(_ reasons: [String: Int]) -> String? {
    let parts = reasons.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
    return parts.isEmpty ? nil : parts.map { "\($0.value) by \($0.key)" }.joined(separator: ", ")
  }

  /// `350 ms`, `12.5 s`, `3 min`, `5 h`, `9 d`.
  static func duration(_ seconds: Double) -> String {
    switch seconds {
    case ..<1: "\(Int((seconds * 1_000).rounded())) ms"
    case ..<60: "\(tenths(seconds)) s"
    case ..<7_200: "\(Int((seconds / 60).rounded())) min"
    case ..<172_800: "\(Int((seconds / 3_600).rounded())) h"
    default: "\(Int((min(seconds, 1e12) / 86_400).rounded())) d"
    }
  }

  /// `512 B`, `12.3 kB`, `4.0 MB`.
  static func size(_ octets: Int64) -> String {
    switch octets {
    case ..<1_000: "\(octets) B"
    case ..<1_000_000: "\(tenths(Double(octets) / 1_000)) kB"
    case ..<1_000_000_000: "\(tenths(Double(octets) / 1_000_000)) MB"
    default: "\(tenths(Double(octets) / 1_000_000_000)) GB"
    }
  }

  /// One digit behind the point.
  static func tenths(_ number: Double) -> String {
    let scaled = Int64((number * 10).rounded())
    return "\(scaled / 10).\(scaled % 10)"
  }

  /// `1 message`, `2 messages`.
  static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

  /// `1 mailbox`, `2 mailboxes`.
  static func mailboxes(_ number: Int) -> String { "\(number) mailbox\(number == 1 ? "" : "es")" }

  /// What is chosen for appointments, contacts and tasks, and what really happens.
  static func act(_ state: ACTState) -> String {
    guard let reason = state.reason else { return state.effectiveMethod.rawValue }
    return "\(state.method.rawValue), in effect \(state.effectiveMethod.rawValue): \(reason)"
  }

  /// A direction in a few words for a table.
  static func brief(_ state: DirectionState) -> String {
    if state.method == .none { return "off" }
    if let reason = state.notRunningReason {
      return state.status == .failure ? "failure, \(state.failureCode ?? reason)" : reason
    }
    return state.enabled ? "running" : state.status.rawValue
  }

  /// Why a direction runs when it does.
  static func reason(_ state: DirectionState) -> String? {
    guard let reason = state.nextRunReason else { return nil }
    let who: String
    switch reason {
    case "quota": who = "quota"
    case "profile-quota": who = "the quota of all mailboxes of the profile"
    case "smtp.quota": who = "the provider's quota"
    default: return reason
    }
    return "waits for \(who) until \(time(state.nextRunAt))"
  }

  /// `30 messages a minute, 10000 recipients a day`; `as much as it likes` without limits.
  static func quota(_ quota: SendQuota) -> String {
    let parts = [
      quota.messagesPerMinute.map { "\(count($0, "message")) a minute" },
      quota.messagesPerDay.map { "\(count($0, "message")) a day" },
      quota.recipientsPerDay.map { "\(count($0, "recipient")) a day" },
      quota.recipientsPerMessage.map { "\(count($0, "recipient")) at once" },
      quota.answersPerHour.map { "\(count($0, "answer")) to one address an hour" },
    ].compactMap { $0 }
    return parts.isEmpty ? "as much as it likes" : parts.joined(separator: ", ")
  }

  /// What a failure code means and what to do; `nil` for a code this version does not know.
  static func explanation(_ code: String?) -> (summary: String, remedy: String)? {
    code.flatMap { FailureCode(rawValue: $0) }.map { ($0.summary, $0.remedy) }
  }

  /// An address with its name.
  static func address(_ address: EmailAddress) -> String {
    address.name.map { "\($0) <\(address.address)>" } ?? address.address
  }
}
