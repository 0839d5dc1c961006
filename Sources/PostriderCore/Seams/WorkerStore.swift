import FoundationEssentials

/// Who logs in, and what proves it.
public struct Credentials: Hashable, Sendable {
  /// What proves who logs in. One kind never stands in for another: an account with a token has no password to fall
  /// back to.
  public enum Proof: Hashable, Sendable {
    /// A password.
    case password(Secret)
    /// An OAuth 2.0 bearer token.
    case accessToken(Secret)
    /// The worker's own Kerberos identity; nothing of it is stored.
    case workerIdentity
  }

  /// The login name.
  public var userName: String
  /// What proves it.
  public var proof: Proof
  /// The identity to act as, where it is not the login's own (SASL authzid).
  public var authorizationIdentity: String?

  /// Pairs a name and its proof.
  public init(userName: String, proof: Proof, authorizationIdentity: String? = nil) {
    self.userName = userName
    self.proof = proof
    self.authorizationIdentity = authorizationIdentity
  }

  /// Pairs a name and a password.
  public init(userName: String, password: Secret, authorizationIdentity: String? = nil) {
    self.init(userName: userName, proof: .password(password), authorizationIdentity: authorizationIdentity)
  }

  /// Pairs a name and an access token.
  public init(userName: String, accessToken: Secret, authorizationIdentity: String? = nil) {
    self.init(userName: userName, proof: .accessToken(accessToken), authorizationIdentity: authorizationIdentity)
  }

  /// The password; `nil` where something else proves the name.
  public var password: Secret? {
    if case .password(let password) = proof { password } else { nil }
  }
}

/// What a session of a mailbox needs: both directions' servers with the resolved credentials, and the limits.
public struct SessionSettings: Hashable, Sendable {
  /// The tenant.
  public var organizationID: OrganizationID
  /// The mailbox.
  public var mailboxID: MailboxID
  /// The profile.
  public var profileID: ProfileID
  /// The mailbox's address; MAIL FROM of everything it sends.
  public var address: String
  /// The incoming server.
  public var incoming: ServerSettings
  /// The outgoing server.
  public var outgoing: ServerSettings
  /// What logs in to the incoming server; `nil` when none is stored or allowed.
  public var incomingCredentials: Credentials?
  /// What logs in to the outgoing server; `nil` when none is stored or allowed.
  public var outgoingCredentials: Credentials?
  /// Why stored credentials are absent above although they may be used; `nil` when nothing is wrong with them.
  public var credentialsProblem: FailureCode?
  /// What is known of that problem in a few words, such as the id of a key that is not in the key ring.
  public var credentialsProblemDetail: String?
  /// How each direction is synchronized.
  public var incomingMethod: SyncMethod
  /// See ``incomingMethod``.
  public var outgoingMethod: SyncMethod
  /// Certificates (PEM) trusted instead of the system's.
  public var caCertificatesPEM: String?
  /// To establish a connection and for each answer.
  public var connectionTimeout: Duration
  /// For the whole session.
  public var sessionDeadline: Duration
  /// Slot to slot.
  public var pollingInterval: Duration
  /// Mail received earlier is not imported.
  public var processEmailFrom: Date?
  /// Whether messages are removed from the server once stored.
  public var deleteAfterProcessing: Bool
  /// Larger messages are not stored; octets.
  public var maximumMessageOctets: Int64
  /// Larger attachments are listed without content; octets.
  public var maximumAttachmentOctets: Int64
  /// At most this many messages in one session.
  public var messagesPerPoll: Int
  /// At most so many sessions send side by side: the profile's limit, or what the provider allows.
  public var sendLanes = 1
  /// How much may be sent.
  public var pace = SendPace.unlimited
  /// Whether steps are kept for successful runs too.
  public var verbose: Bool
  /// The version of the profile's settings: an edit makes it another.
  public var profileVersion: Int64 = 0
  /// The mailbox's user name, else its address: who logs in with an access token.
  public var loginName: String
  /// How many logins at its servers may fail.
  public var loginBudget = LoginBudget()
  /// The kind of provider.
  public var provider = ProfileType.pop3SMTP

  /// Gathers what a session needs.
  public init(
    organizationID: OrganizationID, mailboxID: MailboxID, profileID: ProfileID, address: String,
    incoming: ServerSettings, outgoing: ServerSettings, incomingCredentials: Credentials? = nil,
    outgoingCredentials: Credentials? = nil, credentialsProblem: FailureCode? = nil,
    incomingMethod: SyncMethod = .serverSideSync, outgoingMethod: SyncMethod = .serverSideSync,
    caCertificatesPEM: String? = nil,
    connectionTimeout: Duration = .seconds(30), sessionDeadline: Duration = .seconds(600),
    pollingInterval: Duration = .seconds(300), processEmailFrom: Date? = nil, deleteAfterProcessing: Bool = false,
    maximumMessageOctets: Int64 = 52_428_800, maximumAttachmentOctets: Int64 = 5_242_880, messagesPerPoll: Int = 1_000,
    verbose: Bool = false
  ) {
    self.organizationID = organizationID
    self.mailboxID = mailboxID
    self.profileID = profileID
    self.address = address
    self.incoming = incoming
    self.outgoing = outgoing
    self.incomingCredentials = incomingCredentials
    self.outgoingCredentials = outgoingCredentials
    self.credentialsProblem = credentialsProblem
    self.incomingMethod = incomingMethod
    self.outgoingMethod = outgoingMethod
    self.caCertificatesPEM = caCertificatesPEM
    self.connectionTimeout = connectionTimeout
    self.sessionDeadline = sessionDeadline
    self.pollingInterval = pollingInterval
    self.processEmailFrom = processEmailFrom
    self.deleteAfterProcessing = deleteAfterProcessing
    self.maximumMessageOctets = maximumMessageOctets
    self.maximumAttachmentOctets = maximumAttachmentOctets
    self.messagesPerPoll = messagesPerPoll
    self.verbose = verbose
    loginName = address
  }

  /// The server of one direction.
  public func server(_ direction: Direction) -> ServerSettings { direction == .incoming ? incoming : outgoing }
  /// The credentials of one direction.
  public func credentials(_ direction: Direction) -> Credentials? {
    direction == .incoming ? incomingCredentials : outgoingCredentials
  }
  /// The method of one direction.
  public func method(_ direction: Direction) -> SyncMethod { direction == .incoming ? incomingMethod : outgoingMethod }
}

/// A claimed job that may run, with the hot row as it was read.
public struct Assignment: Hashable, Sendable {
  /// What the session needs.
  public var settings: SessionSettings
  /// Guards every write: a row of another generation takes nothing.
  public var generation: Int64
  /// The requests made so far; the outcome says that they are served.
  public var requested: Int64
  /// The requests already served.
  public var served: Int64
  /// Consecutive failures of this job before the session.
  public var failures: Int
  /// The code of the last of them.
  public var lastFailureCode: FailureCode?
  /// When the job was due.
  public var dueAt: Date
  /// Why it runs.
  public var trigger: RunTrigger
  /// The directions that are enabled.
  public var enabled: Set<Direction>
  /// The directions that logged in since their credentials were last changed.
  public var proven: Set<Direction>
  /// Whether people want messages of this mailbox out of quarantine.
  public var reprocesses: Bool
  /// What a person chose after the server gave the mailbox's mail new unique ids; `nil` while there is nothing to do.
  public var reimport: ReimportChoice?

  /// Describes a job that may run.
  public init(
    settings: SessionSettings, generation: Int64, requested: Int64, served: Int64, failures: Int,
    lastFailureCode: FailureCode? = nil, dueAt: Date, trigger: RunTrigger, enabled: Set<Direction> = [],
    proven: Set<Direction> = [], reprocesses: Bool = false, reimport: ReimportChoice? = nil
  ) {
    self.reprocesses = reprocesses
    self.reimport = reimport
    self.enabled = enabled
    self.proven = proven
    self.settings = settings
    self.generation = generation
    self.requested = requested
    self.served = served
    self.failures = failures
    self.lastFailureCode = lastFailureCode
    self.dueAt = dueAt
    self.trigger = trigger
  }
}

/// What the eligibility check says of a claimed job.
public enum CheckedJob: Hashable, Sendable {
  /// It may run.
  case run(Assignment)
  /// It must not: complete it without a session. The word says why: `not-due`, `disabled`, `paused`, `moved`, `gone`.
  case skip(String)
}

/// Who writes: every write of a session carries it, and is refused when a newer session or a change of profile came.
public struct SessionGuard: Hashable, Sendable {
  /// The job.
  public var job: JobID
  /// The tenant.
  public var organizationID: OrganizationID
  /// The generation read by the check.
  public var generation: Int64
  /// The lease's fence.
  public var fence: Fence

  /// Describes a writer.
  public init(job: JobID, organizationID: OrganizationID, generation: Int64, fence: Fence) {
    self.job = job
    self.organizationID = organizationID
    self.generation = generation
    self.fence = fence
  }
}

/// Octets on their way into the store: in memory when small, in a spool file when large.
public enum Content: Hashable, Sendable {
  /// The octets themselves.
  case bytes([UInt8])
  /// A file that belongs to the worker and is removed after the store took it.
  case file(path: String, sizeOctets: Int64)

  /// How many octets.
  public var sizeOctets: Int64 {
    switch self {
    case .bytes(let bytes): Int64(bytes.count)
    case .file(_, let size): size
    }
  }
}

/// An attachment on its way into the store.
public struct ReceivedAttachment: Hashable, Sendable {
  /// What is listed.
  public var record: AttachmentRecord
  /// The decoded content; `nil` when dropped.
  public var content: Content?

  /// Describes an attachment.
  public init(record: AttachmentRecord, content: Content?) {
    self.record = record
    self.content = content
  }
}

/// A message on its way into the store. Its texts hold no NUL and are valid UTF-8; raw is as received.
public struct ReceivedMessage: Hashable, Sendable {
  /// The server's unique id.
  public var uidl: String
  /// The header fields.
  public var envelope: MessageEnvelope
  /// What kind of mail it is.
  public var messageClass: MessageClass
  /// What it reports about a message sent before.
  public var notification: DeliveryNotification?
  /// The text body.
  public var text: String?
  /// The HTML body, untrusted.
  public var html: String?
  /// The attachments.
  public var attachments: [ReceivedAttachment]
  /// The message as received.
  public var raw: Content
  /// SHA-256 of ``raw``, 32 octets: the second key when unique ids change.
  public var contentHash: [UInt8]

  /// Describes a message.
  public init(
    uidl: String, envelope: MessageEnvelope, messageClass: MessageClass = .ordinary,
    notification: DeliveryNotification? = nil, text: String? = nil, html: String? = nil,
    attachments: [ReceivedAttachment] = [], raw: Content, contentHash: [UInt8]
  ) {
    self.uidl = uidl
    self.envelope = envelope
    self.messageClass = messageClass
    self.notification = notification
    self.text = text
    self.html = html
    self.attachments = attachments
    self.raw = raw
    self.contentHash = contentHash
  }
}

/// What the store did with a message.
public enum StoredMessage: Hashable, Sendable {
  /// It is stored and committed.
  case stored(EmailID)
  /// It was there already; nothing changed.
  case duplicate
  /// It was sent from this mailbox: entered into the ledger, not imported.
  case own
}

/// Why a message was seen but not imported; kept in the ledger so that it is not looked at again.
public enum SkipReason: String, Hashable, Sendable, Codable {
  /// Received before the floor of the mailbox or profile.
  case beforeFloor = "before-floor"
  /// Sent by ourselves.
  case own
  /// Failed three times; its raw octets are in quarantine.
  case quarantined
  /// Above the organization's maximum size.
  case tooLarge = "too-large"
  /// One more copy, under the same unique id, of a message that is settled.
  case copy = "stored"
}

/// What the ledger holds of a message that is settled: stored, skipped or in quarantine.
public struct LedgerEntry: Hashable, Sendable {
  /// Under which id it stands: the server's, or that with more behind a space, for another message of the same id.
  public var uidl: String
  /// Whether it is stored.
  public var isStored: Bool
  /// Its Message-ID.
  public var messageID: String?
  /// SHA-256 of its octets; only where it is stored.
  public var contentHash: [UInt8]?

  /// Describes an entry.
  public init(uidl: String, isStored: Bool, messageID: String? = nil, contentHash: [UInt8]? = nil) {
    self.uidl = uidl
    self.isStored = isStored
    self.messageID = messageID
    self.contentHash = contentHash
  }

  /// The server's own id of an id in the ledger.
  public static func listed(_ uidl: String) -> String {
    // By octets: it is asked for each entry of the ledger, and all but a few have no space.
    guard let end = uidl.utf8.firstIndex(of: UInt8(ascii: " ")) else { return uidl }
    return String(uidl[..<end])
  }
}

/// A message that a person wants out of quarantine.
public struct KeptMessage: Hashable, Sendable {
  /// Its identity in quarantine.
  public var id: QuarantineID
  /// The server's unique id of it.
  public var uidl: String
  /// Whether its octets are kept; otherwise only the server has them.
  public var isKept: Bool

  /// Describes a message.
  public init(id: QuarantineID, uidl: String, isKept: Bool) {
    self.id = id
    self.uidl = uidl
    self.isKept = isKept
  }
}

/// By what messages are known when their unique ids are not.
public enum MessageKeys: Hashable, Sendable {
  /// `Message-ID:` fields, without angle brackets.
  case messageIDs([String])
  /// SHA-256 of the octets, for a message without a Message-ID.
  case contentHash([UInt8])
}

/// A stored message and the unique id it had.
public struct StoredUnderID: Hashable, Sendable {
  /// The server's unique id of it, back then.
  public var uidl: String
  /// Its Message-ID.
  public var messageID: String?

  /// Describes a stored message.
  public init(uidl: String, messageID: String?) {
    self.uidl = uidl
    self.messageID = messageID
  }
}

/// A change of a mailbox's direction that a session decided.
public struct DirectionChange: Hashable, Sendable {
  /// Which direction.
  public var direction: Direction
  /// The new status.
  public var status: DirectionStatus
  /// Whether it is enabled.
  public var enabled: Bool
  /// Why it failed.
  public var failureCode: FailureCode?

  /// Describes a change.
  public init(_ direction: Direction, status: DirectionStatus, enabled: Bool, failureCode: FailureCode? = nil) {
    self.direction = direction
    self.status = status
    self.enabled = enabled
    self.failureCode = failureCode
  }
}

/// An alert that a session raises or resolves.
public enum AlertChange: Hashable, Sendable {
  /// Raises it, or updates the open one of the same code, subject and direction.
  case raise(AlertDraft)
  /// Resolves open alerts of the mailbox at warning level or above with one of these codes (`nil` for every code) and
  /// of this direction (`nil` for both).
  ///
  /// Unless the outcome turns the direction to failure, what works for one mailbox works for its profile: the failures
  /// on the profile's wall with these codes and this direction are resolved too.
  case resolve(codes: [String]?, direction: Direction?)
}

/// An alert that is raised or resolved on a profile's wall because of its server, not of a session.
public struct ProfileAlertChange: Hashable, Sendable {
  /// The profile.
  public var profileID: ProfileID
  /// What is raised, or which alerts at warning level or above are resolved.
  public var change: AlertChange

  /// Describes a change.
  public init(profileID: ProfileID, _ change: AlertChange) {
    self.profileID = profileID
    self.change = change
  }
}

/// An alert about to be raised.
public struct AlertDraft: Hashable, Sendable {
  /// How serious.
  public var level: AlertLevel
  /// Stable code.
  public var code: String
  /// What happened.
  public var text: String
  /// What to do about it.
  public var remedy: String?
  /// The typed values behind the text; `direction` holds the raw value of the direction, where there is one.
  public var parameters: [String: String]
  /// Whether it stands on the profile's wall instead of the mailbox's.
  public var onProfile: Bool

  /// Describes an alert.
  public init(
    level: AlertLevel, code: String, text: String, remedy: String? = nil, parameters: [String: String] = [:],
    onProfile: Bool = false
  ) {
    self.level = level
    self.code = code
    self.text = text
    self.remedy = remedy
    self.parameters = parameters
    self.onProfile = onProfile
  }
}

/// When a job runs next.
public struct NextDue: Hashable, Sendable {
  /// The time; `nil` when only a request or a test starts it again. Of a send, the earliest time that what it found at
  /// the server allows: its messages' own times are added where it is written.
  public var at: Date?
  /// Why then: `slot`, a failure code, `more-mail`.
  public var reason: String

  /// Describes the next run.
  public init(at: Date?, reason: String) {
    self.at = at
    self.reason = reason
  }
}

/// Everything a session decided, written in one transaction.
public struct SessionOutcome: Sendable {
  /// Who writes.
  public var writer: SessionGuard
  /// The profile of the session.
  public var profileID: ProfileID
  /// The requests that this session served.
  public var served: Int64
  /// When it runs next; ignored (now) when more requests came meanwhile.
  public var next: NextDue
  /// Consecutive failures, this session included; 0 after success.
  public var failures: Int
  /// The code of this session's failure.
  public var failureCode: FailureCode?
  /// Whether the two above stay as another lane's session wrote them, and its due time counts too: a lane that learned
  /// nothing bad does not take back what another one learned.
  public var keepsFailure = false
  /// The version of the profile's settings that the session ran with; 0 where it does not matter. A wait for the profile's
  /// server that began with older ones is over soon: the edit may have mended it.
  public var profileVersion: Int64 = 0
  /// Changes of the mailbox's directions.
  public var directions: [DirectionChange]
  /// Alerts.
  public var alerts: [AlertChange]
  /// The history row.
  public var run: RunRecord

  /// Gathers an outcome.
  public init(
    writer: SessionGuard, profileID: ProfileID, served: Int64, next: NextDue, failures: Int,
    failureCode: FailureCode? = nil, directions: [DirectionChange] = [], alerts: [AlertChange] = [], run: RunRecord
  ) {
    self.writer = writer
    self.profileID = profileID
    self.served = served
    self.next = next
    self.failures = failures
    self.failureCode = failureCode
    self.directions = directions
    self.alerts = alerts
    self.run = run
  }
}

/// What became of an outcome.
public enum OutcomeResult: Hashable, Sendable {
  /// It is committed.
  case written(RunID)
  /// A newer session or a change of profile came before; nothing was written.
  case fenced
}

/// What a worker needs of PostgreSQL. Calls throw ``StoreError``.
public protocol WorkerStore: SendStore {
  /// Throws ``StoreError/schema(reason:)`` while this program must not work with the database's schema. Asked before each
  /// claim, so it has to cost nothing.
  func checkSchema() async throws

  /// Checks a claimed batch with one statement on the hot rows and adds the (cached) settings.
  func check(_ leases: [Lease]) async throws -> [JobID: CheckedJob]

  /// Those of the listed unique ids that the ledger of the mailbox does not hold.
  func unknown(uidls: [String], mailbox: MailboxID, organization: OrganizationID) async throws -> Set<String>

  /// Those of the listed unique ids that the ledger holds as worth another attempt, with when they were tried last.
  func failing(uidls: [String], mailbox: MailboxID, organization: OrganizationID) async throws -> [String: Date]

  /// What the ledger holds as settled under the listed unique ids, and under those made of them for other messages of
  /// the same id.
  func ledger(of uidls: [String], mailbox: MailboxID, organization: OrganizationID) async throws -> [LedgerEntry]

  /// Those of the listed unique ids whose messages are stored, so that they may be removed from the server.
  func stored(uidls: [String], mailbox: MailboxID, organization: OrganizationID) async throws -> Set<String>

  /// Stores messages and their ledger rows in one transaction; returns one result per message, in order.
  ///
  /// Throws ``FencedError`` when a newer session or a change of profile came before; then nothing is stored.
  func store(_ messages: [ReceivedMessage], writer: SessionGuard) async throws -> [StoredMessage]

  /// Enters messages into the ledger without storing them.
  func skip(_ uidls: [String: SkipReason], writer: SessionGuard) async throws

  /// Counts a failed attempt at one message; after the third it is quarantined with its raw octets, if any, and
  /// entered into the ledger. Returns whether it was quarantined now.
  ///
  /// - Parameter isLast: whether there may be no other attempt, so that it is quarantined after this one.
  func messageFailed(
    uidl: String, failure: Failure, raw: Content?, isLast: Bool, writer: SessionGuard
  ) async throws -> Bool

  /// Enters messages as worth another attempt without counting one: nobody knows whether they were at fault.
  func postpone(_ uidls: [String], _ failure: Failure, writer: SessionGuard) async throws

  /// The messages of the mailbox that people want out of quarantine, oldest first, at most `limit`. Those that were
  /// stored or skipped since leave the quarantine before.
  func messagesToReprocess(limit: Int, writer: SessionGuard) async throws -> [KeptMessage]

  /// The octets that are kept of a message in quarantine, in chunks of at most 1 MiB.
  func keptOctets(
    of message: QuarantineID, organization: OrganizationID
  ) async throws -> AsyncThrowingStream<[UInt8], any Error>

  /// Gives a message back to the quarantine, with why it failed again.
  func reprocessingFailed(_ message: QuarantineID, _ failure: Failure, writer: SessionGuard) async throws

  /// Whether anything of the mailbox is stored.
  func hasStored(mailbox: MailboxID, organization: OrganizationID) async throws -> Bool

  /// Messages of the mailbox with these keys that are stored, under whatever unique id.
  func stored(
    like keys: MessageKeys, mailbox: MailboxID, organization: OrganizationID
  ) async throws -> [StoredUnderID]

  /// Octets of messages that sessions of the mailbox stored since a moment.
  func receivedOctets(since: Date, mailbox: MailboxID, organization: OrganizationID) async throws -> Int64

  /// Gives stored messages the unique ids under which the server lists them now: old to new.
  func renumber(_ uidls: [String: String], writer: SessionGuard) async throws

  /// Notes that the server gave the mailbox's mail new unique ids; a choice made earlier counts no more.
  func noteRenumbering(writer: SessionGuard) async throws

  /// Notes that a person's choice was carried out.
  func finishReimport(writer: SessionGuard) async throws

  /// Raises or resolves alerts on the walls of profiles, outside any session. A profile that is gone is left out. Once
  /// alerts with given codes are resolved, mailboxes that waited for a fault of server or profile to be over come within
  /// a minute.
  func change(profileAlerts: [ProfileAlertChange]) async throws

  /// Claims a mailbox's address for its organization, in the name of a test that has logged in; see ``AddressClaim``.
  ///
  /// Throws ``FencedError`` when a newer session or a change of the mailbox came before; then nothing is claimed.
  func claimAddress(writer: SessionGuard) async throws -> AddressClaim

  /// Commits an outcome together with others that wait. Returns when it is durable.
  func commit(_ outcome: SessionOutcome) async throws -> OutcomeResult
}

/// What became of the claim on an address: one organization of an installation receives its mail.
public enum AddressClaim: String, Hashable, Sendable, CaseIterable {
  /// The mailbox has it.
  case held
  /// Another organization has it, and nobody asked to take it over.
  case elsewhere
  /// Another organization had it until now. Its mailbox stands still, and both have an alert.
  case takenOver = "taken-over"
}

/// A newer session or a change of profile came before a write; nothing was written.
public struct FencedError: Error, Hashable, Sendable {
  /// The writer that came too late.
  public var writer: SessionGuard

  /// Names the late writer.
  public init(writer: SessionGuard) { self.writer = writer }
}
