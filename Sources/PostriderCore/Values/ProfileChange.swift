import FoundationEssentials

/// A change of one direction of a profile; what is left out stays.
public struct ServerChange: Hashable, Sendable, Decodable {
  /// Host name.
  public var host: String?
  /// Port. Left out, a port that was the usual one of the former ``tls`` becomes the usual one of the new.
  public var port: Int?
  /// How the connection is protected.
  public var tls: TLSMode?
  /// Whose credentials are used. Others than before forget the mechanism, user name, password and ``loginAs``.
  public var credentials: CredentialSource?
  /// How to authenticate.
  public var mechanism: AuthenticationMechanism?
  /// Only with credentials `profile`; ≤250 characters.
  public var userName: String?
  /// Only with credentials `profile`; ≤250 characters; write-only.
  public var password: Secret?
  /// Only receiving with credentials `profile`: `authzid`, or a template such as `{mailbox}*{user}`.
  public var loginAs: String?

  /// Describes a change.
  public init(
    host: String? = nil, port: Int? = nil, tls: TLSMode? = nil, credentials: CredentialSource? = nil,
    mechanism: AuthenticationMechanism? = nil, userName: String? = nil, password: Secret? = nil, loginAs: String? = nil
  ) {
    self.host = host
    self.port = port
    self.tls = tls
    self.credentials = credentials
    self.mechanism = mechanism
    self.userName = userName
    self.password = password
    self.loginAs = loginAs
  }
}

/// A change of a profile; what is left out stays.
public struct ProfileChange: Hashable, Sendable, Decodable {
  /// What can be without a value, and is by being named in ``clears``.
  public enum Clearable: String, Hashable, Sendable, Codable, CaseIterable {
    /// No floor: all mail is imported.
    case processEmailFrom
    /// The system's certificates.
    case caCertificatesPEM
  }

  /// 1…100 characters, unique in the organization.
  public var name: String?
  /// ≤2,000 characters.
  public var description: String?
  /// Whether new mailboxes pick it; `true` takes the switch from the profile that had it.
  public var isDefault: Bool?
  /// Receiving.
  public var incoming: ServerChange?
  /// Sending.
  public var outgoing: ServerChange?
  /// Copies the incoming credential settings to the outgoing ones.
  public var useSameSettingsForOutgoing: Bool?
  /// Mail received earlier is not imported; counts for mailboxes that come to the profile afterwards.
  public var processEmailFrom: Date?
  /// 1…300.
  public var maximumConcurrentConnections: Int?
  /// Minutes, 0…1,440; 0: the organization's default.
  public var minimumPollingIntervalMinutes: Int?
  /// 1…100.
  public var weight: Int?
  /// Seconds, 1…100.
  public var connectionTimeoutSeconds: Int?
  /// Logins at one of its servers that may fail within 10 minutes, 1…1,000.
  public var maximumFailedLogins: Int?
  /// Certificates (PEM) trusted instead of the system's.
  public var caCertificatesPEM: String?
  /// An inactive profile stops its mailboxes.
  public var isActive: Bool?
  /// What each of its mailboxes may send; replaces all limits, an empty one lifts them.
  public var sendQuota: SendQuota?
  /// What all of its mailboxes together may send; replaces all limits, an empty one lifts them.
  public var sharedSendQuota: SendQuota?
  /// An address that is told when more than half of its mailboxes fail within an hour; empty for nobody.
  public var failureNoticeTo: String?
  /// Whom it belongs to from now on.
  public var ownerID: UserID?
  /// What loses its value.
  public var clears: [Clearable]?
  /// Says that its mailboxes may have to be tested again, which a change of host, port, TLS or authentication asks for.
  public var confirmsNewTests: Bool?
  /// Refused as ``StoreError/stale`` when the profile has changed since; `nil` to change it anyway.
  public var version: Int64?

  /// Describes a change.
  public init(
    maximumConcurrentConnections: Int? = nil, minimumPollingIntervalMinutes: Int? = nil, weight: Int? = nil,
    maximumFailedLogins: Int? = nil, isActive: Bool? = nil, sendQuota: SendQuota? = nil,
    sharedSendQuota: SendQuota? = nil, failureNoticeTo: String? = nil, version: Int64? = nil
  ) {
    self.sendQuota = sendQuota
    self.sharedSendQuota = sharedSendQuota
    self.failureNoticeTo = failureNoticeTo
    self.maximumConcurrentConnections = maximumConcurrentConnections
    self.minimumPollingIntervalMinutes = minimumPollingIntervalMinutes
    self.weight = weight
    self.maximumFailedLogins = maximumFailedLogins
    self.isActive = isActive
    self.version = version
  }
}
