import PostriderCore

/// What a NOTIFY on the channel `postrider_schedule` says: `j 12p 13t`, `p 5`, `P` for all profiles, `m` for moves, `x` for
/// a repair, or `r` for "read everything". What a release does not know yet it takes for the last.
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
    case "P": return .profiles
    case "m": return .moves
    case "x": return .repair
    default: return .rescan
    }
  }

  /// Announces a profile.
  static func statement(profile: ProfileID) -> Statement {
    Statement("SELECT pg_notify($1, $2)", [.text(channel), .text("p \(profile)")])
  }

  /// Announces that every profile may have changed.
  static let profiles = announcement("P")
  /// Announces that a mailbox changed its profile.
  static let moves = announcement("m")
  /// Announces that a repair was asked for.
  static let repair = announcement("x")
  /// Asks for a rescan.
  static let rescan = announcement("r")

  private static func announcement(_ payload: String) -> Statement {
    Statement("SELECT pg_notify($1, $2)", [.text(channel), .text(payload)])
  }
}
