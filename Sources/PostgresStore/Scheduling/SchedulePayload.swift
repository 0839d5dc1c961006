import PostriderCore

/// What a NOTIFY on the channel `postrider_schedule` says: `j 12p 13t`, `p 5`, or `r` for "read everything".
enum SchedulePayload {
  static let channel = "postrider_schedule"

  /// Reads a payload; what is not understood asks for a rescan, which is always right.
  static func parse(_ payload: String) -> ScheduleSignal {
    let words = payload.split(separator: " ")
    switch words.first {
    case "j":
      let jobs = words.dropFirst().compactMap { JobID(String($0)) }
      return jobs.count == words.count - 1 ? .jobs(jobs) : .rescan
    case "p" where words.count == 2: return ProfileID(words[1]).map { .profile($0) } ?? .rescan
    default: return .rescan
    }
  }

  /// Announces a profile.
  static func statement(profile: ProfileID) -> Statement {
    Statement("SELECT pg_notify($1, $2)", [.text(channel), .text("p \(profile)")])
  }
}
