import FoundationEssentials

/// How serious an alert is.
public enum AlertLevel: String, Hashable, Sendable, Codable, CaseIterable {
  /// Good to know.
  case information
  /// Something went wrong and is tried again.
  case warning
  /// Somebody has to act.
  case error
}

/// A row on an alert wall. Repeats of the same code for the same subject update the row.
public struct Alert: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: AlertID
  /// How serious.
  public var level: AlertLevel
  /// Stable: a ``FailureCode`` or an event such as `mailbox.connected`.
  public var code: String
  /// What happened, for people; never a secret.
  public var text: String
  /// What to do about it.
  public var remedy: String?
  /// The typed values behind ``text``.
  public var parameters: [String: String]
  /// The mailbox on whose wall it stands.
  public var mailboxID: MailboxID?
  /// That mailbox's address.
  public var mailboxAddress: String?
  /// The profile on whose owner's wall it stands.
  public var profileID: ProfileID?
  /// The run that raised it last.
  public var runID: RunID?
  /// How often it was raised.
  public var count: Int
  /// First raised.
  public var firstSeen: Date
  /// Last raised.
  public var lastSeen: Date
  /// When it went away by itself or was dismissed; `nil` while open.
  public var resolvedAt: Date?
  /// Who dismissed it; `nil` when nobody did.
  public var dismissedBy: String?

  /// Describes a stored alert.
  public init(
    id: AlertID, level: AlertLevel, code: String, text: String, remedy: String? = nil,
    parameters: [String: String] = [:], mailboxID: MailboxID? = nil, mailboxAddress: String? = nil,
    profileID: ProfileID? = nil, runID: RunID? = nil, count: Int = 1, firstSeen: Date, lastSeen: Date,
    resolvedAt: Date? = nil
  ) {
    self.id = id
    self.level = level
    self.code = code
    self.text = text
    self.remedy = remedy
    self.parameters = parameters
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.profileID = profileID
    self.runID = runID
    self.count = count
    self.firstSeen = firstSeen
    self.lastSeen = lastSeen
    self.resolvedAt = resolvedAt
  }
}
