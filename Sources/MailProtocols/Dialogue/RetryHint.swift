import PostriderCore

/// How long a server asks to wait, in its own words: `try again in 15 minutes`, `wait 300 seconds`, `at least 5 min apart`.
enum RetryHint {
  private static let units = ["second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3_600]

  /// Seconds, 1…86,400; `nil` when the words name no time.
  static func seconds(in words: String) -> Int? {
    let parts = words.lowercased().split { !$0.isASCII || !($0.isLetter || $0.isNumber) }
    for (number, unit) in zip(parts, parts.dropFirst()) {
      guard let count = Int(number), let factor = factor(unit) else { continue }
      let (seconds, overflow) = count.multipliedReportingOverflow(by: factor)
      if !overflow, (1...86_400).contains(seconds) { return seconds }
    }
    return nil
  }

  private static func factor(_ unit: Substring) -> Int? {
    units[String(unit)] ?? (unit.hasSuffix("s") ? units[String(unit.dropLast())] : nil)
  }
}

extension FailureClass {
  /// Whether what follows is another try, so that it matters when.
  var isTriedAgain: Bool {
    switch self {
    case .contention, .throttle, .quota, .transient: true
    default: false
    }
  }
}
