import FoundationEssentials

/// What a person may do.
public enum Role: String, Hashable, Sendable, Codable, CaseIterable {
  /// Everything.
  case administrator
  /// Reads and writes mailboxes.
  case mailboxManager = "mailbox-manager"
  /// Approves and rejects.
  case approver
  /// Reads.
  case reader
  /// Sees the own mailboxes with their alerts and runs, and connects them; see ``seesOnlyOwn``.
  case owner

  /// Whether a person of this role sees only mailboxes that are theirs or of shared queues that they own or are members
  /// of. The store's row-level security holds to it, whatever a query asks for.
  public var seesOnlyOwn: Bool { self == .owner }
}

/// Who makes a request, as proven by a token.
public struct Principal: Hashable, Sendable, Codable {
  /// The tenant every request of this principal works in.
  public var organizationID: OrganizationID
  /// The person.
  public var userID: UserID
  /// Their name, for the audit.
  public var name: String
  /// What they may do.
  public var role: Role

  /// Describes a principal.
  public init(organizationID: OrganizationID, userID: UserID, name: String, role: Role) {
    self.organizationID = organizationID
    self.userID = userID
    self.name = name
    self.role = role
  }
}

/// A page of a list, newest or first row first.
public struct Page<Item: Sendable & Codable>: Sendable, Codable {
  /// The rows.
  public var items: [Item]
  /// Pass it as `cursor` for the next page; `nil` on the last.
  public var nextCursor: String?
  /// How many rows there are in all.
  public var total: Int
  /// `true` when ``total`` is an estimate: beyond 10,000 rows of the long lists nobody counts. `nil`: it was counted.
  public var totalIsEstimate: Bool?

  /// Describes a page.
  public init(items: [Item], nextCursor: String?, total: Int, totalIsEstimate: Bool? = nil) {
    self.items = items
    self.nextCursor = nextCursor
    self.total = total
    self.totalIsEstimate = totalIsEstimate
  }
}

/// Which end of a list that goes by time comes first.
public enum RowOrder: String, Hashable, Sendable, CaseIterable {
  /// Newest first.
  case descending = "desc"
  /// Oldest first.
  case ascending = "asc"
}

/// By what mailboxes are listed. Only what an index serves at any size; when each one ran last is not among it, since
/// every session writes it.
public enum MailboxSort: String, Hashable, Sendable, CaseIterable {
  /// By address.
  case address
  /// By address, the last first.
  case addressDescending = "-address"
  /// By the last change of settings or state, the oldest first.
  case updated
  /// By the last change of settings or state, the newest first.
  case updatedDescending = "-updated"

  /// Whether the time of the last change counts, not the address.
  public var isByChange: Bool { self == .updated || self == .updatedDescending }
  /// Whether the greatest comes first.
  public var isDescending: Bool { self == .addressDescending || self == .updatedDescending }
}

/// Which part of a list.
public struct PageRequest: Hashable, Sendable {
  /// 1…500, default 50.
  public var limit: Int
  /// From the page before.
  public var cursor: String?

  /// Describes a request.
  public init(limit: Int = 50, cursor: String? = nil) {
    self.limit = limit
    self.cursor = cursor
  }
}

/// Which mailboxes.
public struct MailboxFilter: Hashable, Sendable {
  /// The named views of the product.
  public enum View: String, Sendable, CaseIterable {
    /// Active ones.
    case active
    /// Inactive ones.
    case inactive
    /// Not tested with the present settings.
    case notTested = "not-tested"
    /// With a failed direction.
    case failing
    /// Waiting for approval.
    case pendingApproval = "pending-approval"
    /// Those of the asking person, and of shared queues that they own or are a member of.
    case mine
  }
  /// A view; `nil` for all.
  public var view: View?
  /// Exactly this address, any case.
  public var address: String?
  /// Of this profile.
  public var profileID: ProfileID?
  /// In which order. By change only while nothing else is given.
  public var sort: MailboxSort

  /// Describes a filter.
  public init(
    view: View? = nil, address: String? = nil, profileID: ProfileID? = nil, sort: MailboxSort = .address
  ) {
    self.view = view
    self.address = address
    self.profileID = profileID
    self.sort = sort
  }

  /// Whether only some mailboxes are asked for.
  public var isNarrowed: Bool { view != nil || address != nil || profileID != nil }
}

/// Whose wall alerts stand on. An error of a profile stands on the walls of its mailboxes and of their owners too where
/// ``EmailSettings/notifiesMailboxOwners`` says so.
public enum AlertWall: Hashable, Sendable {
  /// The principal's: alerts of their own mailboxes (see ``MailboxFilter/View/mine``) and of the profiles that they own;
  /// an administrator's also those that nobody active owns.
  case mine
  /// A mailbox's.
  case mailbox(MailboxID)
  /// A profile's: its own alerts and the errors of its mailboxes.
  case profile(ProfileID)
}

/// Which alerts.
public struct AlertFilter: Hashable, Sendable {
  /// On this wall; `nil` for all.
  public var wall: AlertWall?
  /// Of this mailbox.
  public var mailboxID: MailboxID?
  /// Of this profile itself.
  public var profileID: ProfileID?
  /// Of this level.
  public var level: AlertLevel?
  /// Of this code.
  public var code: String?
  /// Whether resolved ones are listed too.
  public var includeResolved: Bool
  /// Which end comes first.
  public var order: RowOrder

  /// Describes a filter.
  public init(
    wall: AlertWall? = nil, mailboxID: MailboxID? = nil, profileID: ProfileID? = nil, level: AlertLevel? = nil,
    code: String? = nil, includeResolved: Bool = false, order: RowOrder = .descending
  ) {
    self.wall = wall
    self.mailboxID = mailboxID
    self.profileID = profileID
    self.level = level
    self.code = code
    self.includeResolved = includeResolved
    self.order = order
  }
}

/// Which runs.
public struct RunFilter: Hashable, Sendable {
  /// Of this mailbox.
  public var mailboxID: MailboxID?
  /// Of this kind.
  public var kind: JobKind?
  /// With this result.
  public var result: RunResult?
  /// Which end comes first.
  public var order: RowOrder

  /// Describes a filter.
  public init(
    mailboxID: MailboxID? = nil, kind: JobKind? = nil, result: RunResult? = nil, order: RowOrder = .descending
  ) {
    self.mailboxID = mailboxID
    self.kind = kind
    self.result = result
    self.order = order
  }
}

/// What the database knows of the queue: what is due but perhaps not yet enqueued.
public struct ScheduleStatistics: Hashable, Sendable, Codable {
  /// Runnable rows due now.
  public var overdue: Int
  /// The oldest due time among them, milliseconds since 1970.
  public var oldestDueMilliseconds: Int64?
  /// Runnable rows in all.
  public var scheduled: Int
  /// Who leads the schedulers; `nil` when nobody does.
  public var leader: String?

  /// Describes the schedule.
  public init(overdue: Int, oldestDueMilliseconds: Int64?, scheduled: Int, leader: String?) {
    self.overdue = overdue
    self.oldestDueMilliseconds = oldestDueMilliseconds
    self.scheduled = scheduled
    self.leader = leader
  }
}

/// The answer of one row of a bulk verb.
public struct RowResult<Entity>: Hashable, Sendable, Codable {
  /// The row.
  public var id: Identifier<Entity>
  /// Whether it was done.
  public var ok: Bool
  /// Why not: a stable code.
  public var code: String?
  /// Why not, in words.
  public var message: String?

  /// Describes a row's answer.
  public init(id: Identifier<Entity>, ok: Bool, code: String? = nil, message: String? = nil) {
    self.id = id
    self.ok = ok
    self.code = code
    self.message = message
  }
}

/// The answer of a mailbox to a bulk verb.
public typealias BulkResult = RowResult<Mailbox>
/// The answer of a message in quarantine to a bulk verb.
public typealias QuarantineResult = RowResult<QuarantinedMessage>

/// What administration needs of PostgreSQL. Every call works in the principal's organization alone, writes its audit
/// row in the same transaction, and throws ``StoreError``.
public protocol AdminStore: SettingsStore, PeopleStore, BatchStore, IdempotencyStore {
  /// The person behind a bearer token; `nil` for an unknown, revoked or expired one.
  func principal(token: Secret) async throws -> Principal?

  /// Creates a profile from a checked draft (see ``ProfileRules``).
  func createProfile(_ profile: ResolvedProfile, by principal: Principal) async throws -> ServerProfile
  /// One profile.
  func profile(_ id: ProfileID, for principal: Principal) async throws -> ServerProfile
  /// All profiles, by name.
  func profiles(_ page: PageRequest, for principal: Principal) async throws -> Page<ServerProfile>

  /// Creates a mailbox from a checked draft (see ``MailboxRules``), and its owner where none of that address exists.
  func createMailbox(_ draft: MailboxDraft, by principal: Principal) async throws -> Mailbox
  /// One mailbox.
  func mailbox(_ id: MailboxID, for principal: Principal) async throws -> Mailbox
  /// Mailboxes, by address.
  func mailboxes(_ filter: MailboxFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Mailbox>
  /// What a mailbox may send, what it has sent, and when the next message may leave.
  func sendAllowance(of id: MailboxID, for principal: Principal) async throws -> SendAllowance
  /// Approves or rejects; one answer per row.
  func setApproval(_ state: ApprovalState, of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult]
  /// Requests test & enable; interactive for at most 20 mailboxes.
  ///
  /// - Parameter takingOver: whether addresses that another organization of the installation receives are taken over from
  ///   it, once the test has logged in.
  func requestTest(of ids: [MailboxID], takingOver: Bool, by principal: Principal) async throws -> [BulkResult]
  /// Requests a poll now; refused for a mailbox whose incoming direction is not running.
  func requestPoll(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult]

  /// Changes a profile. A lower limit ends nothing and stops new sessions; a higher one counts at once. Another host, port,
  /// protection or login makes the mailboxes of that direction untested; where there are tested ones and the change does
  /// not confirm it, throws ``StoreError/conflict(code:message:)`` `needs-new-tests`. Throws ``StoreError/stale`` when
  /// ``ProfileChange/version`` is not the present one, `invalid` for values that the rules do not allow.
  func updateProfile(
    _ id: ProfileID, _ change: ProfileChange, rules: ProfileRules, by principal: Principal
  ) async throws -> ServerProfile
  /// Changes a mailbox. On a move to another profile no session begins there before the last one on the old has ended.
  func updateMailbox(_ id: MailboxID, _ change: MailboxChange, by principal: Principal) async throws -> Mailbox

  /// Lets mailboxes go on whose server gave their mail new unique ids; refused with `no-choice` for others.
  func reimport(_ choice: ReimportChoice, of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult]

  /// Pauses or resumes; doing it twice changes nothing. Running sessions end by themselves.
  func setPaused(_ paused: Bool, _ scope: PauseScope, by principal: Principal) async throws
  /// The pauses in force: the organization's first, then profiles, then mailboxes, by name.
  func pauses(_ page: PageRequest, for principal: Principal) async throws -> Page<Pause>
  /// Poison jobs, oldest first.
  func setAsideJobs(_ page: PageRequest, for principal: Principal) async throws -> Page<SetAsideJob>
  /// Lets poison jobs run again; returns those that were released.
  func releaseJobs(_ jobs: [JobID], by principal: Principal) async throws -> [JobID]
  /// What happened lately on each profile of the organization with mailboxes.
  func profileActivity(for principal: Principal) async throws -> [ProfileActivity]
  /// Asks for a repair of the queue.
  func requestRepair(by principal: Principal) async throws -> RepairRequest
  /// A repair that was asked for.
  func repairRequest(_ id: Int64, for principal: Principal) async throws -> RepairRequest

  /// Whether and how alerts go out by mail.
  func alertMail(for principal: Principal) async throws -> AlertMailSettings
  /// Changes it. Throws `invalid` with everything that is wrong.
  func updateAlertMail(_ change: AlertMailChange, by principal: Principal) async throws -> AlertMailSettings

  /// Alerts, newest first.
  func alerts(_ filter: AlertFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Alert>
  /// Runs without steps, newest first.
  func runs(_ filter: RunFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<RunRecord>
  /// One run with its steps.
  func run(_ id: RunID, for principal: Principal) async throws -> RunRecord
  /// Stored messages without bodies, newest first.
  func emails(mailbox: MailboxID?, _ page: PageRequest, for principal: Principal) async throws -> Page<EmailRecord>
  /// One message with bodies and attachments.
  func email(_ id: EmailID, for principal: Principal) async throws -> EmailRecord
  /// The raw octets of a message, in chunks of at most 1 MiB.
  func rawEmail(_ id: EmailID, for principal: Principal) async throws -> AsyncThrowingStream<[UInt8], any Error>

  /// Messages in quarantine, newest first.
  func quarantine(
    _ filter: QuarantineFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<QuarantinedMessage>
  /// One message in quarantine.
  func quarantinedMessage(_ id: QuarantineID, for principal: Principal) async throws -> QuarantinedMessage
  /// The octets that are kept of a message in quarantine, in chunks of at most 1 MiB. Throws `not-kept` when there are
  /// none.
  func rawQuarantined(
    _ id: QuarantineID, for principal: Principal
  ) async throws -> AsyncThrowingStream<[UInt8], any Error>
  /// Asks for another attempt at messages in quarantine and for a poll of their mailboxes; refused with `not-running`
  /// where the incoming direction is not running. With `dryRun` only says what would be answered.
  func reprocess(
    _ ids: [QuarantineID], dryRun: Bool, by principal: Principal
  ) async throws -> [QuarantineResult]
  /// Deletes messages from quarantine with the octets kept of them. They are not fetched again, and stay on the server.
  func discard(_ ids: [QuarantineID], dryRun: Bool, by principal: Principal) async throws -> [QuarantineResult]

  /// Stores a message for sending and wakes the scheduler, or keeps it as a draft. Throws
  /// ``StoreError/conflict(code:message:)`` with the reason when the mailbox does not send. A second submit with the same
  /// idempotency key returns the first message.
  func submit(_ message: OutgoingSubmission, by principal: Principal) async throws -> OutgoingEmail
  /// Outgoing messages without recipients, newest first.
  func outgoingEmails(
    mailbox: MailboxID?, state: OutgoingState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<OutgoingEmail>
  /// One outgoing message with its recipients.
  func outgoingEmail(_ id: OutgoingEmailID, for principal: Principal) async throws -> OutgoingEmail
  /// Takes back a message that no session has begun to send. Throws `not-cancelable` for any other.
  func cancelOutgoing(_ id: OutgoingEmailID, by principal: Principal) async throws -> OutgoingEmail
  /// Sends a draft, or tries a message again whose recipients failed. A message that is `uncertain` may have arrived: it
  /// goes again, with the same Message-ID, only when `resendUncertain` says so. Throws `uncertain`, `not-retryable`, or
  /// the reason when the mailbox does not send.
  func retryOutgoing(
    _ id: OutgoingEmailID, resendUncertain: Bool, by principal: Principal
  ) async throws -> OutgoingEmail

  /// What is due in the principal's organization.
  func scheduleStatistics(for principal: Principal) async throws -> ScheduleStatistics

  /// Whether PostgreSQL answers and its schema fits; throws when not.
  func checkHealth() async throws
}

extension AdminStore {
  /// Requests test & enable and takes nothing over.
  public func requestTest(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    try await requestTest(of: ids, takingOver: false, by: principal)
  }
}
