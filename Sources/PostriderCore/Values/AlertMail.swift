import FoundationEssentials

/// Whether and how alerts of an organization go out by mail.
public struct AlertMailSettings: Hashable, Sendable, Codable {
  /// Off until a person turns it on.
  public var isOn: Bool
  /// The mailbox that sends them. Its own alerts, and those of its profile's outgoing server, are never mailed.
  public var mailboxID: MailboxID?
  /// That mailbox's address.
  public var mailboxAddress: String?
  /// Who gets them, 1…20 addresses.
  public var recipients: [String]
  /// Which alerts.
  public var levels: [AlertLevel]
  /// When the last mail was handed to the queue.
  public var lastMailedAt: Date?
  /// Why the mailbox sends nothing now, as `mailbox show` says it; `nil` when it does.
  public var notSendingReason: String?

  /// As it stands before anybody sets it: off, errors and warnings.
  public init(
    isOn: Bool = false, mailboxID: MailboxID? = nil, mailboxAddress: String? = nil, recipients: [String] = [],
    levels: [AlertLevel] = [.error, .warning], lastMailedAt: Date? = nil, notSendingReason: String? = nil
  ) {
    self.isOn = isOn
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.recipients = recipients
    self.levels = levels
    self.lastMailedAt = lastMailedAt
    self.notSendingReason = notSendingReason
  }
}

/// A change of it; what is left out stays.
public struct AlertMailChange: Hashable, Sendable, Codable {
  /// Turns it on or off.
  public var isOn: Bool?
  /// The mailbox that sends them.
  public var mailboxID: MailboxID?
  /// Who gets them.
  public var recipients: [String]?
  /// Which alerts.
  public var levels: [AlertLevel]?

  /// At most so many addresses.
  public static let maximumRecipients = 20

  /// Describes a change.
  public init(
    isOn: Bool? = nil, mailboxID: MailboxID? = nil, recipients: [String]? = nil, levels: [AlertLevel]? = nil
  ) {
    self.isOn = isOn
    self.mailboxID = mailboxID
    self.recipients = recipients
    self.levels = levels
  }

  /// The settings after it. Throws ``StoreError/invalid(_:)`` with everything that is wrong.
  public func applied(to settings: AlertMailSettings) throws(StoreError) -> AlertMailSettings {
    var problems = FieldProblems()
    var after = settings
    after.isOn = isOn ?? settings.isOn
    after.mailboxID = mailboxID ?? settings.mailboxID
    after.recipients = recipients ?? settings.recipients
    after.levels = levels.map { chosen in AlertLevel.allCases.filter(chosen.contains) } ?? settings.levels
    if self == AlertMailChange() { problems.add("", "required", "must change something") }
    for (index, address) in (recipients ?? []).enumerated() {
      AddressRules.check(address, at: "/recipients/\(index)", isOthers: true, &problems)
    }
    if after.recipients.count > Self.maximumRecipients {
      problems.add("/recipients", "too-many", "there may be at most \(Self.maximumRecipients)")
    }
    if after.isOn {
      if after.mailboxID == nil { problems.add("/mailboxID", "required", "must name the mailbox that sends them") }
      if after.recipients.isEmpty { problems.add("/recipients", "required", "must name who gets them") }
      if after.levels.isEmpty { problems.add("/levels", "required", "must name at least one level") }
    }
    try problems.throwIfAny()
    return after
  }
}

/// The alert that says that more than half of a profile's mailboxes fail (feature P20).
public enum ProfileFailureNotice {
  /// Its code.
  public static let code = "profile.failing"
}

/// Alerts that go out in one mail.
public struct AlertDigest: Hashable, Sendable {
  /// The tenant.
  public var organizationID: OrganizationID
  /// The mailbox that sends them.
  public var mailboxID: MailboxID
  /// Its address.
  public var sender: String
  /// Who gets them.
  public var recipients: [String]
  /// Whether it tells a profile's owner of ``ProfileFailureNotice``; otherwise it is for those whom the settings name.
  public var isForOwner: Bool
  /// What happened, the most serious first, at most ``maximumAlerts``.
  public var alerts: [Alert]

  /// Further ones follow in the next mail.
  public static let maximumAlerts = 500

  /// Describes a mail.
  public init(
    organizationID: OrganizationID, mailboxID: MailboxID, sender: String, recipients: [String],
    isForOwner: Bool = false,
    alerts: [Alert]
  ) {
    self.isForOwner = isForOwner
    self.organizationID = organizationID
    self.mailboxID = mailboxID
    self.sender = sender
    self.recipients = recipients
    self.alerts = alerts
  }
}
