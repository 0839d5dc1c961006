import FoundationEssentials

/// What the age of a grant and its rights say about why it does not work, in words for people.
public struct GrantDiagnosis: Sendable {
  /// When the owner consented.
  public var grantedAt: Date?
  /// When a token was last got.
  public var usedAt: Date?
  /// What was asked for and not granted.
  public var missingScopes: [String]
  /// Where tokens come from.
  public var tokenHost: String
  /// Whether the token server says that the grant is over, and when.
  public var endedAt: Date?

  /// Gathers what is known.
  public init(
    grantedAt: Date?, usedAt: Date? = nil, missingScopes: [String] = [], tokenHost: String, endedAt: Date? = nil
  ) {
    self.grantedAt = grantedAt
    self.usedAt = usedAt
    self.missingScopes = missingScopes
    self.tokenHost = tokenHost
    self.endedAt = endedAt
  }

  private static let day = 86_400.0
  private var isGoogle: Bool { tokenHost.hasSuffix("googleapis.com") || tokenHost.hasSuffix("google.com") }
  private var isMicrosoft: Bool { tokenHost.hasSuffix("microsoftonline.com") }

  /// Nothing when nothing is remarkable.
  public func words(at now: Date = Date()) -> [String] {
    var words: [String] = []
    if !missingScopes.isEmpty {
      words.append(
        "not granted: \(missingScopes.joined(separator: " ")); let the owner consent again and grant all of it")
    }
    if let grantedAt, let endedAt {
      let age = endedAt.timeIntervalSince(grantedAt) / Self.day
      words.append("the consent was \(Self.days(age)) old")
      if isGoogle && (6.5...8.5).contains(age) {
        words.append(
          "Google ends consents after 7 days while the application's publishing status is Testing: publish it")
      }
    }
    if let used = usedAt ?? grantedAt {
      let idle = (endedAt ?? now).timeIntervalSince(used) / Self.day
      if isGoogle && idle > 150 { words.append("Google ends consents that are not used for 6 months") }
      if isMicrosoft && idle > 75 { words.append("Microsoft ends consents that are not used for 90 days") }
    }
    return words
  }

  private static func days(_ days: Double) -> String {
    let tenths = Int((max(days, 0) * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) days"
  }
}
