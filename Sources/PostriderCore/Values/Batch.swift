import FoundationEssentials

/// One piece of long work over many mailboxes.
public typealias BatchID = Identifier<Batch>

/// What a batch does to each of its mailboxes.
public enum BatchVerb: String, Hashable, Sendable, Codable, CaseIterable {
  /// Lets them process mail.
  case approve
  /// Keeps them from processing mail.
  case reject
  /// Tests and enables them, behind everything else that workers do.
  case test
  /// Polls them now.
  case poll
  /// Gives them the organization's default email settings, then tests and enables them.
  case applyDefaults = "apply-defaults"
  /// Gives them the organization's default email settings, and does not test them.
  case writeDefaults = "write-defaults"
  /// Deletes them with their mail; those with mail that waits to be sent are refused.
  case delete
  /// Deletes them, also those with mail that waits to be sent; it never will be.
  case deleteWithUnsentMail = "delete-with-unsent-mail"
  /// Creates them from a file.
  case importMailboxes = "import"

  /// Those that are asked for with a filter or with ids.
  public static let ofMailboxes: [BatchVerb] = [
    .approve, .reject, .test, .poll, .applyDefaults, .writeDefaults, .delete, .deleteWithUnsentMail,
  ]

  /// What workers have to do for it; a mailbox is done when they have. `nil`: done as soon as it is written.
  public var job: JobKind? {
    switch self {
    case .test, .applyDefaults: .test
    case .poll: .poll
    case .approve, .reject, .writeDefaults, .delete, .deleteWithUnsentMail, .importMailboxes: nil
    }
  }
}

/// How far a batch has come.
public enum BatchState: String, Hashable, Sendable, Codable, CaseIterable {
  /// Its file is still arriving.
  case receiving
  /// At work.
  case running
  /// A person has ended it; what was asked of workers is being taken back.
  case canceling
  /// A person has ended it. What was done stays done.
  case canceled
  /// Every row is done or failed.
  case finished

  /// Whether nothing of it changes any more.
  public var isOver: Bool { self == .canceled || self == .finished }
}

/// What became of one row of a batch.
public enum BatchRowState: String, Hashable, Sendable, Codable, CaseIterable {
  /// Its turn has not come.
  case pending
  /// Workers were asked and have not answered.
  case waiting
  /// Done.
  case done
  /// There was nothing to do: it was so already.
  case unchanged
  /// Refused or failed.
  case failed
  /// Not done, because the batch was ended.
  case canceled
}

/// One row of a batch: a mailbox, or a row of an imported file.
public struct BatchResult: Hashable, Sendable, Codable {
  /// Its number, 1 and up; in a file the header is row 1.
  public var row: Int
  /// The mailbox; `nil` for a row of a file that became none.
  public var mailboxID: MailboxID?
  /// Its address; `nil` when there is no such mailbox.
  public var address: String?
  /// What became of it.
  public var result: BatchRowState
  /// Why, for `failed` and `unchanged`: stable.
  public var code: String?
  /// Why, in words.
  public var message: String?
  /// What is wrong with a row of a file; pointers name its columns (`/address`).
  public var problems: [FieldProblem]?

  /// Describes a row.
  public init(
    row: Int, mailboxID: MailboxID? = nil, address: String? = nil, result: BatchRowState, code: String? = nil,
    message: String? = nil, problems: [FieldProblem]? = nil
  ) {
    self.row = row
    self.mailboxID = mailboxID
    self.address = address
    self.result = result
    self.code = code
    self.message = message
    self.problems = problems
  }
}

/// Long work over many mailboxes, carried out in small steps by the API's processes: whoever of them has time takes the
/// next step, so one that is killed loses nothing.
public struct Batch: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: BatchID
  /// What it does.
  public var verb: BatchVerb
  /// How far it is.
  public var state: BatchState
  /// Whether it only finds out what would be done.
  public var dryRun: Bool
  /// Which mailboxes were asked for; `nil` for a list of ids and for an import.
  public var filter: BatchFilter?
  /// Rows in all. For a filter: those it met when the batch was made.
  public var total: Int
  /// Rows that were carried out. A test or poll counts when a worker has done it and it passed.
  public var done: Int
  /// Those of ``done`` where there was nothing to do.
  public var unchanged: Int
  /// Rows that were refused or failed.
  public var failed: Int
  /// Rows that are neither done nor failed. They stay so when the batch is canceled.
  public var remaining: Int
  /// Those of ``remaining`` that workers were asked for.
  public var waiting: Int
  /// Who asked for it.
  public var requestedBy: String
  /// When it was asked for.
  public var createdAt: Date
  /// When its first row was carried out.
  public var startedAt: Date?
  /// When it was over.
  public var finishedAt: Date?
  /// The first rows that failed, at most ``listedFailures``; `nil` in lists.
  public var failures: [BatchResult]?
  /// Grows with each step.
  public var version: Int64

  /// How many failures a batch shows by itself.
  public static let listedFailures = 10
  /// The most ids in one batch.
  public static let maximumIDs = 100_000

  /// Describes a batch.
  public init(
    id: BatchID, verb: BatchVerb, state: BatchState, dryRun: Bool = false, filter: BatchFilter? = nil, total: Int,
    done: Int = 0, unchanged: Int = 0, failed: Int = 0, waiting: Int = 0, requestedBy: String, createdAt: Date,
    startedAt: Date? = nil, finishedAt: Date? = nil, failures: [BatchResult]? = nil, version: Int64 = 1
  ) {
    self.id = id
    self.verb = verb
    self.state = state
    self.dryRun = dryRun
    self.filter = filter
    self.total = total
    self.done = done
    self.unchanged = unchanged
    self.failed = failed
    self.waiting = waiting
    self.requestedBy = requestedBy
    self.createdAt = createdAt
    self.startedAt = startedAt
    self.finishedAt = finishedAt
    self.failures = failures
    self.version = version
    remaining = total - done - failed
  }
}

extension MailboxFilter.View: Codable {}

/// The mailboxes of a batch; what is left out leaves all.
public struct BatchFilter: Hashable, Sendable, Codable {
  /// A view of the list.
  public var view: MailboxFilter.View?
  /// Of this profile.
  public var profileID: ProfileID?
  /// Of users or of shared queues.
  public var ownerKind: OwnerKind?
  /// With this text in their address, in any case; 1…254 characters.
  public var addressText: String?

  /// Describes a filter.
  public init(
    view: MailboxFilter.View? = nil, profileID: ProfileID? = nil, ownerKind: OwnerKind? = nil,
    addressText: String? = nil
  ) {
    self.view = view
    self.profileID = profileID
    self.ownerKind = ownerKind
    self.addressText = addressText
  }
}

/// A batch as a person asks for it.
public struct BatchDraft: Sendable, Codable {
  /// One of ``BatchVerb/ofMailboxes``.
  public var verb: BatchVerb
  /// These mailboxes, 1…100,000; or ``filter``.
  public var ids: [MailboxID]?
  /// The mailboxes that it meets now; `{}` is all of them.
  public var filter: BatchFilter?
  /// Only finds out what would be done.
  public var dryRun: Bool?

  /// Asks for a batch.
  public init(verb: BatchVerb, ids: [MailboxID]? = nil, filter: BatchFilter? = nil, dryRun: Bool? = nil) {
    self.verb = verb
    self.ids = ids
    self.filter = filter
    self.dryRun = dryRun
  }

  /// Throws ``StoreError/invalid(_:)`` with every wrong field.
  public func check() throws(StoreError) {
    var problems = FieldProblems()
    if !BatchVerb.ofMailboxes.contains(verb) {
      let words = BatchVerb.ofMailboxes.map(\.rawValue).joined(separator: ", ")
      problems.add("/verb", "not-a-choice", "must be one of \(words)")
    }
    if (ids == nil) == (filter == nil) {
      problems.add("", "required", "must have either `ids` or `filter`; an empty filter means all mailboxes")
    }
    if let ids, !(1...Batch.maximumIDs).contains(ids.count) {
      problems.add("/ids", "out-of-range", "must have 1 to \(Batch.maximumIDs) items, has \(ids.count)")
    }
    if let text = filter?.addressText { problems.check(text, at: "/filter/addressText", maximum: 254, minimum: 1) }
    try problems.throwIfAny()
  }
}
