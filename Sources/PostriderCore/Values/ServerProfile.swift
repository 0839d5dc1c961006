import FoundationEssentials

/// The two ways mail moves.
public enum Direction: String, Hashable, Sendable, Codable, CaseIterable {
  /// Receiving, over POP3.
  case incoming
  /// Sending, over SMTP.
  case outgoing
}

/// Which provider a profile describes; decides what fills itself in.
public enum ProfileType: String, Hashable, Sendable, Codable, CaseIterable {
  /// Gmail: pop.gmail.com and smtp.gmail.com, OAuth.
  case gmail
  /// Any POP3 and SMTP servers, named by the administrator.
  case pop3SMTP = "pop3-smtp"
  /// Microsoft 365: outlook.office365.com and smtp.office365.com, OAuth.
  case microsoft365

  /// How many SMTP connections the provider takes from one mailbox at a time, where it says so: Microsoft refuses a
  /// fourth with 432 4.3.2.
  public var maximumSendConnections: Int? { self == .microsoft365 ? 3 : nil }

  /// How many octets of a mailbox are fetched within 24 hours: Google suspends an account that fetches more than 1,250 MB
  /// a day over POP, other clients of it included.
  public var maximumReceivedOctetsPerDay: Int64? { self == .gmail ? 1_000_000_000 : nil }

  /// Whether the server lists only a part of the mail, and more of it after each session that fetched something: Gmail
  /// lists some 250 of the oldest conversations that were not fetched yet.
  public var listsPartly: Bool { self == .gmail }
}

/// How a connection is protected.
public enum TLSMode: String, Hashable, Sendable, Codable, CaseIterable {
  /// TLS from the first byte (RFC 8314).
  case implicit
  /// Plain greeting, then STLS (RFC 2595) or STARTTLS (RFC 3207); never without.
  case starttls
  /// No TLS; only where the deployment property `allowNonTLSMail` is on.
  case none
}

/// Whose credentials open a session ("Authenticate using").
public enum CredentialSource: String, Hashable, Sendable, Codable, CaseIterable {
  /// Those given by the mailbox's user or queue.
  case mailbox
  /// One account of the profile with delegated rights.
  case profile
  /// The worker's own identity (GSSAPI or NTLM); SMTP only.
  case integrated
  /// An OAuth grant.
  case oauth
  /// None. Listed, but not a valid setting.
  case anonymous
}

/// The SASL mechanism or plain login used to authenticate.
public enum AuthenticationMechanism: String, Hashable, Sendable, Codable, CaseIterable {
  /// The strongest one that the server offers and the credentials allow.
  case auto
  /// SASL PLAIN (RFC 4616), or USER and PASS on POP3 servers without SASL.
  case plain
  /// SASL LOGIN.
  case login
  /// CRAM-MD5 (RFC 2195).
  case cramMD5 = "cram-md5"
  /// SCRAM-SHA-1 (RFC 5802).
  case scramSHA1 = "scram-sha-1"
  /// SCRAM-SHA-256 (RFC 7677).
  case scramSHA256 = "scram-sha-256"
  /// Google's and Microsoft's XOAUTH2.
  case xoauth2
  /// OAUTHBEARER (RFC 7628).
  case oauthbearer
  /// NTLM.
  case ntlm
  /// GSSAPI (RFC 4752).
  case gssapi
}

/// How the account of a profile opens the maildrop of each of its mailboxes; POP3 only.
///
/// Written as `authzid`, or as a template such as `{mailbox}*{user}`.
public enum LoginAs: Hashable, Sendable {
  /// The mailbox is named beside the login, as SASL authorization identity.
  case authorizationIdentity
  /// The login name is made from the mailbox's and the account's.
  case template(LoginTemplate)
}

extension LoginAs: RawRepresentable, Codable {
  /// Reads `authzid` or a template; `nil` for anything else.
  public init?(rawValue: String) {
    if rawValue == "authzid" {
      self = .authorizationIdentity
    } else if let template = LoginTemplate(rawValue) {
      self = .template(template)
    } else {
      return nil
    }
  }

  /// `authzid` or the template.
  public var rawValue: String {
    switch self {
    case .authorizationIdentity: "authzid"
    case .template(let template): template.text
    }
  }
}

/// A login name with gaps: `{mailbox}` once, `{user}` at most once, such as `{mailbox}*{user}` for Dovecot's masters.
public struct LoginTemplate: Hashable, Sendable {
  /// As written; ≤250 characters.
  public let text: String

  /// Reads a template; `nil` when it lacks the mailbox, names something twice or has other gaps.
  public init?(_ text: String) {
    let rest = text.replacing("{mailbox}", with: "").replacing("{user}", with: "")
    guard text.count <= 250, Self.count("{mailbox}", in: text) == 1, Self.count("{user}", in: text) <= 1,
      !rest.contains("{"), !rest.contains("}"), rest.unicodeScalars.allSatisfy({ $0.value > 0x20 && $0.value != 0x7F })
    else { return nil }
    self.text = text
  }

  /// The login name; `nil` when one of the names holds what stands between them, and so could name another mailbox.
  public func userName(mailbox: String, user: String) -> String? {
    let fixed = text.replacing("{mailbox}", with: "\n").replacing("{user}", with: "\n").split(separator: "\n")
    guard !mailbox.isEmpty, !fixed.contains(where: { mailbox.contains($0) || user.contains($0) }) else { return nil }
    // From its end to its start: neither name may be looked at for gaps.
    guard let gap = text.firstRange(of: "{mailbox}") else { return nil }
    let before = text[..<gap.lowerBound].replacing("{user}", with: user)
    return before + mailbox + text[gap.upperBound...].replacing("{user}", with: user)
  }

  private static func count(_ part: String, in text: String) -> Int { text.ranges(of: part).count }
}

/// One direction of a profile: where its server is and how to enter.
public struct ServerSettings: Hashable, Sendable, Codable {
  /// Host name or literal address, without brackets; ≤253 characters.
  public var host: String
  /// TCP port, 1…65535.
  public var port: Int
  /// How the connection is protected.
  public var tls: TLSMode
  /// Whose credentials are used.
  public var credentials: CredentialSource
  /// How to authenticate.
  public var mechanism: AuthenticationMechanism
  /// The user name of the profile's own account; only with credentials `profile`; ≤250 characters.
  public var userName: String?
  /// Whether a password is stored for that account. The password itself is never read back.
  public var passwordSet: Bool
  /// How that account opens the maildrop of each mailbox; `nil` where it opens its own. Receiving only.
  public var loginAs: LoginAs?

  /// Describes one direction.
  public init(
    host: String, port: Int, tls: TLSMode, credentials: CredentialSource, mechanism: AuthenticationMechanism = .auto,
    userName: String? = nil, passwordSet: Bool = false, loginAs: LoginAs? = nil
  ) {
    self.loginAs = loginAs
    self.host = host
    self.port = port
    self.tls = tls
    self.credentials = credentials
    self.mechanism = mechanism
    self.userName = userName
    self.passwordSet = passwordSet
  }
}

/// How to reach a mail provider, shared by many mailboxes.
public struct ServerProfile: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: ProfileID
  /// The tenant it belongs to.
  public var organizationID: OrganizationID
  /// Unique in the organization; 1…100 characters.
  public var name: String
  /// Free text, ≤2,000 characters.
  public var description: String
  /// Which provider.
  public var type: ProfileType
  /// An inactive profile stops its mailboxes.
  public var isActive: Bool
  /// Whether new mailboxes pick it; at most one profile of an organization has it.
  public var isDefault: Bool
  /// Receiving.
  public var incoming: ServerSettings
  /// Sending.
  public var outgoing: ServerSettings
  /// Whether the outgoing credential settings were copied from the incoming ones.
  public var useSameSettingsForOutgoing: Bool
  /// Mail received earlier is not imported; `nil` for no floor.
  public var processEmailFrom: Date?
  /// Minutes from one poll's slot to the next, 0…1,440; 0 means the organization's default.
  public var minimumPollingIntervalMinutes: Int
  /// 1…300, default 10; per mailbox or per profile, by where the credentials live.
  public var maximumConcurrentConnections: Int
  /// Its share of the workers relative to other profiles, 1…100, default 1.
  public var weight: Int
  /// Since when it is paused by a person; `nil` when it is not.
  public var pausedAt: Date?
  /// Seconds to establish a connection and for each answer, 1…100, default 30.
  public var connectionTimeoutSeconds: Int
  /// Logins at one of its servers that may fail within 10 minutes, 1…1,000, default 10; then they wait.
  public var maximumFailedLogins: Int
  /// Certificates (PEM) trusted instead of the system's; `nil` for the system's.
  public var caCertificatesPEM: String?
  /// What each mailbox may send; `nil` for the provider's figures (``ProfileType/sendQuota``).
  public var sendQuota: SendQuota?
  /// What all its mailboxes together may send; `nil` for no limit.
  public var sharedSendQuota: SendQuota?
  /// Whom to tell by mail when more than half of its mailboxes fail within an hour; `nil` for nobody.
  public var failureNoticeTo: String?
  /// Since when it is being deleted: its mailboxes are taken from it, then it is gone. `nil` for all others.
  public var deletingSince: Date?
  /// Whom it belongs to, its creator unless it was given to somebody else; `nil` where nobody knows.
  public var ownerID: UserID?
  /// That person's name.
  public var ownerName: String?
  /// Counts every change; the basis of optimistic locking and of the workers' cache.
  public var version: Int64
  /// How many mailboxes use it.
  public var mailboxCount: Int
  /// When it was created.
  public var createdAt: Date
  /// When it was last changed.
  public var updatedAt: Date

  /// Describes a stored profile.
  public init(
    id: ProfileID, organizationID: OrganizationID, name: String, description: String = "", type: ProfileType,
    isActive: Bool = true, isDefault: Bool = false, incoming: ServerSettings, outgoing: ServerSettings,
    useSameSettingsForOutgoing: Bool = true, processEmailFrom: Date? = nil, minimumPollingIntervalMinutes: Int = 0,
    maximumConcurrentConnections: Int = 10, weight: Int = 1, pausedAt: Date? = nil,
    connectionTimeoutSeconds: Int = 30, maximumFailedLogins: Int = 10, caCertificatesPEM: String? = nil,
    version: Int64 = 1, mailboxCount: Int = 0, createdAt: Date, updatedAt: Date
  ) {
    self.id = id
    self.organizationID = organizationID
    self.name = name
    self.description = description
    self.type = type
    self.isActive = isActive
    self.isDefault = isDefault
    self.incoming = incoming
    self.outgoing = outgoing
    self.useSameSettingsForOutgoing = useSameSettingsForOutgoing
    self.processEmailFrom = processEmailFrom
    self.minimumPollingIntervalMinutes = minimumPollingIntervalMinutes
    self.maximumConcurrentConnections = maximumConcurrentConnections
    self.weight = weight
    self.pausedAt = pausedAt
    self.connectionTimeoutSeconds = connectionTimeoutSeconds
    self.maximumFailedLogins = maximumFailedLogins
    self.caCertificatesPEM = caCertificatesPEM
    self.version = version
    self.mailboxCount = mailboxCount
    self.createdAt = createdAt
    self.updatedAt = updatedAt
  }

  /// The settings of one direction.
  public func settings(_ direction: Direction) -> ServerSettings {
    direction == .incoming ? incoming : outgoing
  }
}
