import FoundationEssentials

/// One direction of a profile as a person gives it; everything left out fills itself in.
public struct ServerDraft: Sendable, Decodable {
  /// Host name; required for `pop3-smtp`.
  public var host: String?
  /// Port; resolved from type and TLS when left out.
  public var port: Int?
  /// How the connection is protected; `implicit` when left out.
  public var tls: TLSMode?
  /// Whose credentials are used; `mailbox`, or `oauth` for Gmail and Microsoft 365, when left out.
  public var credentials: CredentialSource?
  /// How to authenticate; `auto`, or `plain` with a template in ``loginAs``, when left out.
  public var mechanism: AuthenticationMechanism?
  /// Only with credentials `profile`; ≤250 characters.
  public var userName: String?
  /// Only with credentials `profile`; ≤250 characters; write-only.
  public var password: Secret?
  /// Only receiving with credentials `profile`: `authzid`, or a template such as `{mailbox}*{user}`.
  public var loginAs: String?

  /// Nothing given.
  public init(
    host: String? = nil, port: Int? = nil, tls: TLSMode? = nil, credentials: CredentialSource? = nil,
    mechanism: AuthenticationMechanism? = nil, userName: String? = nil, password: Secret? = nil, loginAs: String? = nil
  ) {
    self.loginAs = loginAs
    self.host = host
    self.port = port
    self.tls = tls
    self.credentials = credentials
    self.mechanism = mechanism
    self.userName = userName
    self.password = password
  }
}

/// A profile as a person gives it.
public struct ProfileDraft: Sendable, Decodable {
  /// 1…100 characters, unique in the organization.
  public var name: String
  /// ≤2,000 characters.
  public var description: String?
  /// Which provider.
  public var type: ProfileType
  /// Whether new mailboxes pick it.
  public var isDefault: Bool?
  /// Receiving.
  public var incoming: ServerDraft?
  /// Sending.
  public var outgoing: ServerDraft?
  /// Copies the incoming credential settings to the outgoing ones; on when left out.
  public var useSameSettingsForOutgoing: Bool?
  /// Mail received earlier is not imported.
  public var processEmailFrom: Date?
  /// Minutes, 0…1,440; 0 or left out: the organization's default.
  public var minimumPollingIntervalMinutes: Int?
  /// 1…300, default 10.
  public var maximumConcurrentConnections: Int?
  /// Seconds, 1…100, default 30.
  public var connectionTimeoutSeconds: Int?
  /// Logins at one of its servers that may fail within 10 minutes, 1…1,000, default 10.
  public var maximumFailedLogins: Int?
  /// Certificates (PEM) trusted instead of the system's.
  public var caCertificatesPEM: String?
  /// What each mailbox may send; the provider's figures when left out.
  public var sendQuota: SendQuota?
  /// What all mailboxes together may send.
  public var sharedSendQuota: SendQuota?

  /// A draft with the required fields.
  public init(
    name: String, description: String? = nil, type: ProfileType, isDefault: Bool? = nil, incoming: ServerDraft? = nil,
    outgoing: ServerDraft? = nil, useSameSettingsForOutgoing: Bool? = nil, processEmailFrom: Date? = nil,
    minimumPollingIntervalMinutes: Int? = nil, maximumConcurrentConnections: Int? = nil,
    connectionTimeoutSeconds: Int? = nil, maximumFailedLogins: Int? = nil, caCertificatesPEM: String? = nil
  ) {
    self.name = name
    self.description = description
    self.type = type
    self.isDefault = isDefault
    self.incoming = incoming
    self.outgoing = outgoing
    self.useSameSettingsForOutgoing = useSameSettingsForOutgoing
    self.processEmailFrom = processEmailFrom
    self.minimumPollingIntervalMinutes = minimumPollingIntervalMinutes
    self.maximumConcurrentConnections = maximumConcurrentConnections
    self.connectionTimeoutSeconds = connectionTimeoutSeconds
    self.maximumFailedLogins = maximumFailedLogins
    self.caCertificatesPEM = caCertificatesPEM
  }
}

/// Names the owner of a new mailbox.
public struct OwnerDraft: Sendable, Decodable {
  /// A person or a shared queue.
  public var kind: OwnerKind
  /// The display name of a person or queue to use, or to create when there is none of that address.
  public var name: String?
  /// An existing person or queue.
  public var id: Int64?

  /// Names an owner.
  public init(kind: OwnerKind, name: String? = nil, id: Int64? = nil) {
    self.kind = kind
    self.name = name
    self.id = id
  }
}

/// A mailbox as a person gives it.
public struct MailboxDraft: Sendable, Decodable {
  /// The e-mail address, unique in the organization.
  public var address: String
  /// Its owner; a user of that address, created when missing, when left out.
  public var owner: OwnerDraft?
  /// The profile; the organization's default profile when left out.
  public var profileID: ProfileID?
  /// Receiving; the organization's default when left out.
  public var incomingMethod: SyncMethod?
  /// Sending; the organization's default when left out.
  public var outgoingMethod: SyncMethod?
  /// Appointments, contacts and tasks; the organization's default when left out.
  public var actMethod: SyncMethod?
  /// Whether the credentials below may be used; on when left out.
  public var allowsCredentials: Bool?
  /// ≤200 characters; the address when left out.
  public var userName: String?
  /// ≤200 characters; write-only.
  public var password: Secret?
  /// Mail received earlier is not imported.
  public var processEmailFrom: Date?
  /// Queues only.
  public var deleteAfterProcessing: Bool?

  /// A draft with the required fields.
  public init(
    address: String, owner: OwnerDraft? = nil, profileID: ProfileID? = nil, incomingMethod: SyncMethod? = nil,
    outgoingMethod: SyncMethod? = nil, allowsCredentials: Bool? = nil, userName: String? = nil,
    password: Secret? = nil, processEmailFrom: Date? = nil, deleteAfterProcessing: Bool? = nil
  ) {
    self.address = address
    self.owner = owner
    self.profileID = profileID
    self.incomingMethod = incomingMethod
    self.outgoingMethod = outgoingMethod
    self.allowsCredentials = allowsCredentials
    self.userName = userName
    self.password = password
    self.processEmailFrom = processEmailFrom
    self.deleteAfterProcessing = deleteAfterProcessing
  }
}
