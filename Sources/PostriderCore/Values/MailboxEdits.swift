/// A change of several mailboxes at once (feature M5).
public struct MailboxEditRequest: Sendable, Decodable {
  /// Which, 1…1,000.
  public var ids: [MailboxID]
  /// What is changed; only what one value fits all of: no address, user name, password or version.
  public var change: MailboxChange
  /// Only says what would be done.
  public var dryRun: Bool?

  /// Describes a request.
  public init(ids: [MailboxID], change: MailboxChange, dryRun: Bool? = nil) {
    self.ids = ids
    self.change = change
    self.dryRun = dryRun
  }

  /// Throws ``StoreError/invalid(_:)`` for a change of nothing, and for fields that are for one mailbox alone.
  public func check() throws(StoreError) {
    var problems = FieldProblems()
    if change == MailboxChange() { problems.add("/change", "required", "must change something") }
    let ofOne = [
      ("address", change.address != nil), ("userName", change.userName != nil), ("password", change.password != nil),
      ("version", change.version != nil),
    ]
    for (field, isGiven) in ofOne where isGiven {
      problems.add("/change/\(field)", "not-allowed", "is for one mailbox: PATCH /mailboxes/{id}")
    }
    try problems.throwIfAny()
  }
}

/// The answer of one mailbox to a change of several.
public struct MailboxEditResult: Hashable, Sendable, Codable {
  /// The mailbox.
  public var id: MailboxID
  /// Whether it was, or would be, changed. `true` for one that is so already.
  public var ok: Bool
  /// Why not: a stable code.
  public var code: String?
  /// Why not, in words.
  public var message: String?
  /// The mailbox before.
  public var before: Mailbox?
  /// The mailbox after.
  public var mailbox: Mailbox?

  /// Describes an answer.
  public init(
    id: MailboxID, ok: Bool, code: String? = nil, message: String? = nil, before: Mailbox? = nil,
    mailbox: Mailbox? = nil
  ) {
    self.id = id
    self.ok = ok
    self.code = code
    self.message = message
    self.before = before
    self.mailbox = mailbox
  }
}

/// Applies the organization's defaults to mailboxes (feature M4).
public struct DefaultsRequest: Hashable, Sendable, Decodable {
  /// Which, 1…1,000.
  public var ids: [MailboxID]
  /// Only says what would be done.
  public var dryRun: Bool?
  /// Whether they are tested and enabled afterwards; they are when it is left out.
  public var test: Bool?

  /// Describes a request.
  public init(ids: [MailboxID], dryRun: Bool? = nil, test: Bool? = nil) {
    self.ids = ids
    self.dryRun = dryRun
    self.test = test
  }
}

/// What became of it.
public struct AppliedDefaults: Sendable, Codable {
  /// The values, of which profile and methods are written.
  public var settings: EmailSettings
  /// The answer of each mailbox, in the order asked.
  public var results: [MailboxEditResult]

  /// Describes it.
  public init(settings: EmailSettings, results: [MailboxEditResult]) {
    self.settings = settings
    self.results = results
  }
}
