import FoundationEssentials

/// An organization's settings for all of its mail (features S1 to S5).
public struct EmailSettings: Hashable, Sendable, Codable {
  /// The profile that new mailboxes pick: the one whose switch ``ServerProfile/isDefault`` is on. `nil` for none.
  public var defaultProfileID: ProfileID?
  /// That profile's name.
  public var defaultProfileName: String?
  /// Minutes from one poll to the next where the profile names none, 1…1,440.
  public var pollingIntervalMinutes: Int
  /// How new mailboxes receive.
  public var incomingMethod: SyncMethod
  /// How new mailboxes send.
  public var outgoingMethod: SyncMethod
  /// What is chosen for appointments, contacts and tasks of new mailboxes, and what it amounts to with the default
  /// profile.
  public var act: ACTState
  /// Whether mailboxes of users process mail only when they are approved.
  public var approvedUsersOnly: Bool
  /// Whether mailboxes of shared queues process mail only when they are approved.
  public var approvedQueuesOnly: Bool
  /// Which alerts are raised at all.
  public var alertLevels: [AlertLevel]
  /// Whether errors of a profile stand on the walls of its mailboxes' owners too.
  public var notifiesMailboxOwners: Bool
  /// Larger messages are not fetched.
  public var maximumMessageOctets: Int64
  /// Of larger attachments only the name and size are kept.
  public var maximumAttachmentOctets: Int64
  /// Messages fetched in one poll at most.
  public var messagesPerPoll: Int
  /// Seconds that a session may take.
  public var sessionDeadlineSeconds: Int
  /// Counts every change.
  public var version: Int64
  /// When they were last changed.
  public var updatedAt: Date

  /// Describes stored settings.
  public init(
    defaultProfileID: ProfileID? = nil, defaultProfileName: String? = nil, pollingIntervalMinutes: Int = 5,
    incomingMethod: SyncMethod = .serverSideSync, outgoingMethod: SyncMethod = .serverSideSync,
    act: ACTState = ACTState(method: .none, on: nil), approvedUsersOnly: Bool = true, approvedQueuesOnly: Bool = true,
    alertLevels: [AlertLevel] = AlertLevel.allCases, notifiesMailboxOwners: Bool = false,
    maximumMessageOctets: Int64 = 52_428_800, maximumAttachmentOctets: Int64 = 5_242_880, messagesPerPoll: Int = 1_000,
    sessionDeadlineSeconds: Int = 600, version: Int64 = 1, updatedAt: Date
  ) {
    self.defaultProfileID = defaultProfileID
    self.defaultProfileName = defaultProfileName
    self.pollingIntervalMinutes = pollingIntervalMinutes
    self.incomingMethod = incomingMethod
    self.outgoingMethod = outgoingMethod
    self.act = act
    self.approvedUsersOnly = approvedUsersOnly
    self.approvedQueuesOnly = approvedQueuesOnly
    self.alertLevels = alertLevels
    self.notifiesMailboxOwners = notifiesMailboxOwners
    self.maximumMessageOctets = maximumMessageOctets
    self.maximumAttachmentOctets = maximumAttachmentOctets
    self.messagesPerPoll = messagesPerPoll
    self.sessionDeadlineSeconds = sessionDeadlineSeconds
    self.version = version
    self.updatedAt = updatedAt
  }
}

/// A change of the settings; what is left out stays.
public struct EmailSettingsChange: Hashable, Sendable, Codable {
  /// What can be without a value, and is by being named in ``clears``.
  public enum Clearable: String, Hashable, Sendable, Codable, CaseIterable {
    /// New mailboxes have no profile.
    case defaultProfileID
  }

  /// Takes the default switch from the profile that had it.
  public var defaultProfileID: ProfileID?
  /// Minutes, 1…1,440.
  public var pollingIntervalMinutes: Int?
  /// How new mailboxes receive.
  public var incomingMethod: SyncMethod?
  /// How new mailboxes send.
  public var outgoingMethod: SyncMethod?
  /// What is chosen for appointments, contacts and tasks of new mailboxes.
  public var actMethod: SyncMethod?
  /// Whether mailboxes of users process mail only when they are approved.
  public var approvedUsersOnly: Bool?
  /// Whether mailboxes of shared queues process mail only when they are approved.
  public var approvedQueuesOnly: Bool?
  /// Which alerts are raised at all; replaces all.
  public var alertLevels: [AlertLevel]?
  /// Whether errors of a profile stand on the walls of its mailboxes' owners too.
  public var notifiesMailboxOwners: Bool?
  /// Octets, 1,024…1,073,741,824.
  public var maximumMessageOctets: Int64?
  /// Octets, 1…1,073,741,824.
  public var maximumAttachmentOctets: Int64?
  /// 1…100,000.
  public var messagesPerPoll: Int?
  /// Seconds, 10…86,400.
  public var sessionDeadlineSeconds: Int?
  /// What loses its value.
  public var clears: [Clearable]?
  /// Refused as ``StoreError/stale`` when the settings have changed since; `nil` to change them anyway.
  public var version: Int64?

  /// A change of nothing yet.
  public init() {}

  /// The settings after it, but for what the store alone knows: names, times and the version.
  ///
  /// Throws ``StoreError/invalid(_:)`` with everything that is wrong.
  public func applied(to present: EmailSettings) throws(StoreError) -> EmailSettings {
    var problems = FieldProblems()
    var rest = self
    rest.version = nil
    if rest == EmailSettingsChange() { problems.add("", "required", "must change something") }
    let largest = 1 << 30
    if let minutes = pollingIntervalMinutes { problems.check(minutes, at: "/pollingIntervalMinutes", in: 1...1_440) }
    if let octets = maximumMessageOctets {
      problems.check(Int(octets), at: "/maximumMessageOctets", in: 1_024...largest)
    }
    if let octets = maximumAttachmentOctets {
      problems.check(Int(octets), at: "/maximumAttachmentOctets", in: 1...largest)
    }
    if let count = messagesPerPoll { problems.check(count, at: "/messagesPerPoll", in: 1...100_000) }
    if let seconds = sessionDeadlineSeconds { problems.check(seconds, at: "/sessionDeadlineSeconds", in: 10...86_400) }
    let forgetsProfile = (clears ?? []).contains(.defaultProfileID)
    if defaultProfileID != nil && forgetsProfile {
      problems.add("/defaultProfileID", "contradiction", "is set and named in `clears`")
    }
    try problems.throwIfAny()

    var after = present
    after.defaultProfileID = forgetsProfile ? nil : defaultProfileID ?? present.defaultProfileID
    after.pollingIntervalMinutes = pollingIntervalMinutes ?? present.pollingIntervalMinutes
    after.incomingMethod = incomingMethod ?? present.incomingMethod
    after.outgoingMethod = outgoingMethod ?? present.outgoingMethod
    after.act.method = actMethod ?? present.act.method
    after.approvedUsersOnly = approvedUsersOnly ?? present.approvedUsersOnly
    after.approvedQueuesOnly = approvedQueuesOnly ?? present.approvedQueuesOnly
    after.alertLevels = alertLevels.map { chosen in AlertLevel.allCases.filter(chosen.contains) } ?? present.alertLevels
    after.notifiesMailboxOwners = notifiesMailboxOwners ?? present.notifiesMailboxOwners
    after.maximumMessageOctets = maximumMessageOctets ?? present.maximumMessageOctets
    after.maximumAttachmentOctets = maximumAttachmentOctets ?? present.maximumAttachmentOctets
    after.messagesPerPoll = messagesPerPoll ?? present.messagesPerPoll
    after.sessionDeadlineSeconds = sessionDeadlineSeconds ?? present.sessionDeadlineSeconds
    return after
  }
}
