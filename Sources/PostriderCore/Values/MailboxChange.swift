import FoundationEssentials

/// A change of a mailbox; what is left out stays.
public struct MailboxChange: Hashable, Sendable, Decodable {
  /// What can be without a value, and is by being named in ``clears``.
  public enum Clearable: String, Hashable, Sendable, Codable, CaseIterable {
    /// The address is the login name.
    case userName
    /// No password is stored.
    case password
    /// The profile's floor alone counts.
    case processEmailFrom
    /// The profile's quota counts.
    case sendQuota
  }

  /// Another e-mail address, unique in the organization; waits for approval again.
  public var address: String?
  /// The profile it moves to. Its directions have to be tested again.
  public var profileID: ProfileID?
  /// An inactive mailbox does nothing.
  public var isActive: Bool?
  /// Receiving.
  public var incomingMethod: SyncMethod?
  /// Sending.
  public var outgoingMethod: SyncMethod?
  /// Appointments, contacts and tasks; `server-side-sync` is refused on a profile that does not carry them.
  public var actMethod: SyncMethod?
  /// Whether the credentials stored here may be used.
  public var allowsCredentials: Bool?
  /// ≤200 characters.
  public var userName: String?
  /// ≤200 characters; write-only.
  public var password: Secret?
  /// Mail received earlier is not imported.
  public var processEmailFrom: Date?
  /// Queues only.
  public var deleteAfterProcessing: Bool?
  /// What it may send, instead of its profile's quota for each mailbox; an empty one is no limit.
  public var sendQuota: SendQuota?
  /// What loses its value.
  public var clears: [Clearable]?
  /// Refused as ``StoreError/stale`` when the mailbox has changed since; `nil` to change it anyway.
  public var version: Int64?

  /// Describes a change.
  public init(
    profileID: ProfileID? = nil, isActive: Bool? = nil, sendQuota: SendQuota? = nil, clears: [Clearable]? = nil,
    version: Int64? = nil
  ) {
    self.profileID = profileID
    self.isActive = isActive
    self.sendQuota = sendQuota
    self.clears = clears
    self.version = version
  }
}
