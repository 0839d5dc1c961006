import FoundationEssentials

/// Whether and how one direction of a mailbox is synchronized.
public enum SyncMethod: String, Hashable, Sendable, Codable, CaseIterable {
  /// Not at all.
  case none
  /// By Postrider's workers.
  case serverSideSync = "server-side-sync"
}

/// The result of the last test of a direction. Only the system writes it.
public enum DirectionStatus: String, Hashable, Sendable, Codable, CaseIterable {
  /// Never tested with the present settings.
  case notRun = "not-run"
  /// The last test passed.
  case success
  /// The last test, or mail processing since, failed for good.
  case failure
}

/// Whether an approver let this mailbox process mail.
public enum ApprovalState: String, Hashable, Sendable, Codable, CaseIterable {
  /// There is no address to approve.
  case empty
  /// Waits for an approver.
  case pending
  /// May process mail.
  case approved
  /// An approver refused it.
  case rejected
}

/// What kind of owner a mailbox has.
public enum OwnerKind: String, Hashable, Sendable, Codable, CaseIterable {
  /// A person.
  case user
  /// A shared queue: an address such as support@ with an owner and members.
  case queue
}

/// The owner of a mailbox.
public struct MailboxOwner: Hashable, Sendable, Codable {
  /// A person or a shared queue.
  public var kind: OwnerKind
  /// The number of that person or queue.
  public var id: Int64
  /// The display name.
  public var name: String

  /// Names an owner.
  public init(kind: OwnerKind, id: Int64, name: String) {
    self.kind = kind
    self.id = id
    self.name = name
  }
}

/// What the system knows of one direction of a mailbox.
public struct DirectionState: Hashable, Sendable, Codable {
  /// How it is synchronized.
  public var method: SyncMethod
  /// The result of the last test.
  public var status: DirectionStatus
  /// Turned on by a passing test, off by a permanent error.
  public var enabled: Bool
  /// The code of the failure that turned it off or failed the last test.
  public var failureCode: String?
  /// When that was.
  public var failedAt: Date?
  /// The last session's end, if there was one.
  public var lastRunAt: Date?
  /// When it runs next; `nil` when it does not.
  public var nextRunAt: Date?
  /// Why it runs then: the slot, a back-off with its code, a request.
  public var nextRunReason: String?
  /// Why it is not running (`not-approved`, `not-tested`, `disabled`, `paused`, `owner-inactive`, …); `nil` when it
  /// is.
  public var notRunningReason: String?
  /// Seconds from slot to slot as asked for; receiving only.
  public var intervalSeconds: Int?
  /// Seconds from slot to slot as it really went last time; receiving only, `nil` before the second run.
  public var effectiveIntervalSeconds: Int?
  /// Why the two differ (`limit`, `overload`, a failure code, `paused`); `nil` when they do not.
  public var effectiveIntervalReason: String?

  /// Describes one direction.
  public init(
    method: SyncMethod, status: DirectionStatus = .notRun, enabled: Bool = false, failureCode: String? = nil,
    failedAt: Date? = nil, lastRunAt: Date? = nil, nextRunAt: Date? = nil, nextRunReason: String? = nil,
    notRunningReason: String? = nil, intervalSeconds: Int? = nil, effectiveIntervalSeconds: Int? = nil,
    effectiveIntervalReason: String? = nil
  ) {
    self.method = method
    self.status = status
    self.enabled = enabled
    self.failureCode = failureCode
    self.failedAt = failedAt
    self.lastRunAt = lastRunAt
    self.nextRunAt = nextRunAt
    self.nextRunReason = nextRunReason
    self.notRunningReason = notRunningReason
    self.intervalSeconds = intervalSeconds
    self.effectiveIntervalSeconds = effectiveIntervalSeconds
    self.effectiveIntervalReason = effectiveIntervalReason
  }
}

/// One account that is polled and sent from.
public struct Mailbox: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: MailboxID
  /// The tenant it belongs to.
  public var organizationID: OrganizationID
  /// The e-mail address, unique in the organization.
  public var address: String
  /// Who it belongs to.
  public var owner: MailboxOwner
  /// How its provider is reached; `nil` when it was unlinked.
  public var profileID: ProfileID?
  /// That profile's name.
  public var profileName: String?
  /// An inactive mailbox does nothing.
  public var isActive: Bool
  /// Since when it is paused by a person; `nil` when it is not. A paused profile or organization is not shown here but in
  /// ``DirectionState/notRunningReason``.
  public var pausedAt: Date?
  /// Whether an approver let it process mail.
  public var approval: ApprovalState
  /// Whether the user name and password stored here may be used.
  public var allowsCredentials: Bool
  /// The login name; ≤200 characters; `nil` for the address.
  public var userName: String?
  /// Whether a password is stored. The password itself is never read back.
  public var passwordSet: Bool
  /// Mail received earlier is not imported; the later of this and the profile's value counts.
  public var processEmailFrom: Date?
  /// Whether messages are removed from the server once stored; queues only.
  public var deleteAfterProcessing: Bool
  /// What it may send, instead of its profile's quota; `nil` for that one.
  public var sendQuota: SendQuota?
  /// Receiving.
  public var incoming: DirectionState
  /// Sending.
  public var outgoing: DirectionState
  /// Appointments, contacts and tasks.
  public var act = ACTState(method: .none, on: nil)
  /// How many test requests were made and how many of them are answered; equal when nothing is outstanding.
  public var testsRequested: Int64
  /// See ``testsRequested``.
  public var testsServed: Int64
  /// The run of the last finished test.
  public var lastTestRunID: RunID?
  /// How many sync-now requests were made and how many of them are answered.
  public var pollsRequested: Int64
  /// See ``pollsRequested``.
  public var pollsServed: Int64
  /// The run of the last finished poll.
  public var lastPollRunID: RunID?
  /// How many messages are stored.
  public var emailCount: Int
  /// Counts every change made by people.
  public var version: Int64
  /// When it was created.
  public var createdAt: Date
  /// When it was last changed by a person.
  public var updatedAt: Date

  /// Describes a stored mailbox.
  public init(
    id: MailboxID, organizationID: OrganizationID, address: String, owner: MailboxOwner, profileID: ProfileID? = nil,
    profileName: String? = nil, isActive: Bool = true, pausedAt: Date? = nil, approval: ApprovalState = .pending,
    allowsCredentials: Bool = true, userName: String? = nil, passwordSet: Bool = false, processEmailFrom: Date? = nil,
    deleteAfterProcessing: Bool = false, incoming: DirectionState, outgoing: DirectionState, testsRequested: Int64 = 0,
    testsServed: Int64 = 0, lastTestRunID: RunID? = nil, pollsRequested: Int64 = 0, pollsServed: Int64 = 0,
    lastPollRunID: RunID? = nil, emailCount: Int = 0, version: Int64 = 1, createdAt: Date, updatedAt: Date
  ) {
    self.id = id
    self.organizationID = organizationID
    self.address = address
    self.owner = owner
    self.profileID = profileID
    self.profileName = profileName
    self.isActive = isActive
    self.pausedAt = pausedAt
    self.approval = approval
    self.allowsCredentials = allowsCredentials
    self.userName = userName
    self.passwordSet = passwordSet
    self.processEmailFrom = processEmailFrom
    self.deleteAfterProcessing = deleteAfterProcessing
    self.incoming = incoming
    self.outgoing = outgoing
    self.testsRequested = testsRequested
    self.testsServed = testsServed
    self.lastTestRunID = lastTestRunID
    self.pollsRequested = pollsRequested
    self.pollsServed = pollsServed
    self.lastPollRunID = lastPollRunID
    self.emailCount = emailCount
    self.version = version
    self.createdAt = createdAt
    self.updatedAt = updatedAt
  }
}
