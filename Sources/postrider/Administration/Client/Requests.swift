import FoundationEssentials
import PostriderCore

/// A secret on its way into a request: revealed in the body, hidden everywhere else.
struct SentSecret: Encodable, Sendable {
  let secret: Secret

  init(_ secret: Secret) { self.secret = secret }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(secret.revealed)
  }
}

/// The body that the API reads as Core's `ServerDraft`.
struct ServerRequest: Encodable, Sendable {
  var host: String?
  var port: Int?
  var tls: TLSMode?
  var credentials: CredentialSource?
  var mechanism: AuthenticationMechanism?
  var userName: String?
  var password: SentSecret?
  var loginAs: String?
}

/// The body that the API reads as Core's `ProfileDraft`.
struct ProfileRequest: Encodable, Sendable {
  var name: String
  var description: String?
  var type: ProfileType
  var isDefault: Bool?
  var incoming: ServerRequest?
  var outgoing: ServerRequest?
  var useSameSettingsForOutgoing: Bool?
  var processEmailFrom: Date?
  var minimumPollingIntervalMinutes: Int?
  var maximumConcurrentConnections: Int?
  var connectionTimeoutSeconds: Int?
  var maximumFailedLogins: Int?
  var caCertificatesPEM: String?
  var sendQuota: SendQuota?
  var sharedSendQuota: SendQuota?
}

/// The body that the API reads as Core's `ProfileChange`.
struct ProfileChangeRequest: Encodable, Sendable {
  var name: String?
  var description: String?
  var isDefault: Bool?
  var incoming: ServerRequest?
  var outgoing: ServerRequest?
  var useSameSettingsForOutgoing: Bool?
  var processEmailFrom: Date?
  var maximumConcurrentConnections: Int?
  var minimumPollingIntervalMinutes: Int?
  var weight: Int?
  var connectionTimeoutSeconds: Int?
  var maximumFailedLogins: Int?
  var caCertificatesPEM: String?
  var isActive: Bool?
  var sendQuota: SendQuota?
  var sharedSendQuota: SendQuota?
  var failureNoticeTo: String?
  var ownerID: UserID?
  var clears: [ProfileChange.Clearable]?
  var confirmsNewTests: Bool?
  var version: Int64?
}

/// The body that the API reads as Core's `OwnerDraft`.
struct OwnerRequest: Encodable, Sendable {
  var kind: OwnerKind
  var name: String?
}

/// The body that the API reads as Core's `MailboxDraft`.
struct MailboxRequest: Encodable, Sendable {
  var address: String
  var owner: OwnerRequest?
  var profileID: ProfileID?
  var incomingMethod: SyncMethod?
  var outgoingMethod: SyncMethod?
  var actMethod: SyncMethod?
  var userName: String?
  var password: SentSecret?
  var processEmailFrom: Date?
  var deleteAfterProcessing: Bool?
}

/// The body that the API reads as Core's `MailboxChange`.
struct MailboxChangeRequest: Encodable, Sendable {
  var address: String?
  var profileID: ProfileID?
  var isActive: Bool?
  var incomingMethod: SyncMethod?
  var outgoingMethod: SyncMethod?
  var actMethod: SyncMethod?
  var allowsCredentials: Bool?
  var userName: String?
  var password: SentSecret?
  var processEmailFrom: Date?
  var deleteAfterProcessing: Bool?
  var sendQuota: SendQuota?
  var clears: [MailboxChange.Clearable]?
  var version: Int64?
}

/// The body of `PATCH /mailboxes`.
struct MailboxEditBody: Encodable, Sendable {
  var ids: [MailboxID]
  var change: MailboxChangeRequest
  var dryRun: Bool?
}

/// The answer of `PATCH /mailboxes`.
struct MailboxEditAnswer: Codable, Sendable {
  var results: [MailboxEditResult]
}

/// The body of the bulk verbs.
struct BulkRequest: Encodable, Sendable {
  /// The API takes 1 to 1,000.
  static let maximumIDs = 1_000

  var ids: [MailboxID]
  /// Of a test only: whether addresses are taken over from another organization.
  var takeOver: Bool?
}

/// The answer of the bulk verbs.
struct BulkAnswer: Codable, Sendable {
  var results: [BulkResult]
}

/// The body of `POST /mailboxes/reimport`.
struct ReimportRequest: Codable, Sendable {
  var ids: [MailboxID]
  var choice: ReimportChoice
}

/// The body of the quarantine's bulk verbs.
struct QuarantineRequest: Codable, Sendable {
  /// The API takes 1 to 1,000.
  static let maximumIDs = 1_000

  var ids: [QuarantineID]
  var dryRun: Bool?
}

/// The answer of the quarantine's bulk verbs.
struct QuarantineAnswer: Codable, Sendable {
  var results: [QuarantineResult]
  var dryRun: Bool
}

/// A new profile, with what people should know about it.
struct CreatedProfile: Codable, Sendable {
  var profile: ServerProfile
  var warnings: [String]

  private enum Key: CodingKey { case warnings }

  init(from decoder: any Decoder) throws {
    profile = try ServerProfile(from: decoder)
    warnings = try decoder.container(keyedBy: Key.self).decodeIfPresent([String].self, forKey: .warnings) ?? []
  }

  func encode(to encoder: any Encoder) throws {
    try profile.encode(to: encoder)
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(warnings, forKey: .warnings)
  }
}

/// The answer of `GET /queue/stats`.
struct QueueAnswer: Codable, Sendable {
  var queue: QueueStatistics
  var schedule: ScheduleStatistics
  /// Leases completed in a second; `nil` until the API has two readings of the queue.
  var jobsPerSecond: Double?
  /// How long a session takes on average; `nil` before any was measured.
  var meanSessionSeconds: Double?
  /// The organization's poison jobs.
  var setAside: Int?
}

/// The answer of `GET /queue/profiles`.
struct QueueProfilesAnswer: Codable, Sendable {
  var profiles: [ProfileQueueView]
  var total: Int
}

/// The answer of `GET /queue/inspect`.
struct InspectAnswer: Codable, Sendable {
  var jobs: [JobLocation]
}

/// The body and the answer of `POST /queue/pause` and `/queue/resume`.
struct PauseRequest: Codable, Sendable {
  var scope: String
  var id: Int64?
  var paused: Bool?
}

/// The body of `POST /queue/release`.
struct ReleaseRequest: Codable, Sendable {
  /// The API takes 1 to 1,000.
  static let maximumJobs = 1_000

  var jobs: [String]
}

/// The answer of `POST /queue/release`.
struct ReleaseAnswer: Codable, Sendable {
  var released: [String]
}

/// The body of verbs that need no more words.
struct NoBody: Codable, Sendable {}
