/// One thing that `postrider doctor` found out.
struct Finding: Hashable, Sendable, Codable {
  /// What it is about, in the order of the report.
  enum Area: String, Hashable, Sendable, Codable, CaseIterable {
    case configuration
    case versions
    case redis
    case postgresql
    case keys
    case clock
    case egress
  }

  /// How much it matters.
  enum Level: String, Hashable, Sendable, Codable, CaseIterable {
    /// As it should be.
    case ok
    /// It could not be looked at, because something else is wrong or was not given.
    case skipped
    /// It works, and may harm.
    case warning
    /// It does not work, or loses data.
    case error
  }

  var area: Area
  var level: Level
  /// What was found, in a sentence. Never a secret.
  var text: String
  /// What to do; `nil` where nothing is to be done.
  var remedy: String?

  static func ok(_ area: Area, _ text: String) -> Finding { Finding(area: area, level: .ok, text: text) }
  static func skipped(_ area: Area, _ text: String, _ remedy: String? = nil) -> Finding {
    Finding(area: area, level: .skipped, text: text, remedy: remedy)
  }
  static func warning(_ area: Area, _ text: String, _ remedy: String?) -> Finding {
    Finding(area: area, level: .warning, text: text, remedy: remedy)
  }
  static func error(_ area: Area, _ text: String, _ remedy: String?) -> Finding {
    Finding(area: area, level: .error, text: text, remedy: remedy)
  }
}
