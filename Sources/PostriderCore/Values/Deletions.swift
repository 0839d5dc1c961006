/// What the deletion of a server profile does, or would do.
public struct ProfileDeletion: Hashable, Sendable, Codable {
  /// The profile.
  public var id: ProfileID
  /// Its name.
  public var name: String
  /// How many mailboxes are without a server profile by it. They stay, and stand still until they get another one.
  public var mailboxes: Int
  /// Whether it is gone. `false` for a dry run, and for a profile with so many mailboxes that they are taken from it
  /// step by step: it is inactive at once and gone with the last of them.
  public var isDone: Bool

  /// Up to so many mailboxes lose their profile at once.
  public static let immediateMailboxes = 1_000

  /// Describes a deletion.
  public init(id: ProfileID, name: String, mailboxes: Int, isDone: Bool) {
    self.id = id
    self.name = name
    self.mailboxes = mailboxes
    self.isDone = isDone
  }
}

/// How mailboxes are deleted.
public struct MailboxDeletionRequest: Hashable, Sendable, Decodable {
  /// Which, 1…1,000.
  public var ids: [MailboxID]
  /// Says that mail of theirs that waits to be sent never will be.
  public var confirmsUnsentMail: Bool?
  /// Only says what would be done.
  public var dryRun: Bool?

  /// Describes a request.
  public init(ids: [MailboxID], confirmsUnsentMail: Bool? = nil, dryRun: Bool? = nil) {
    self.ids = ids
    self.confirmsUnsentMail = confirmsUnsentMail
    self.dryRun = dryRun
  }
}

/// The answer of one mailbox to its deletion.
public struct MailboxDeletion: Hashable, Sendable, Codable {
  /// The mailbox.
  public var id: MailboxID
  /// Whether it was, or would be, deleted.
  public var ok: Bool
  /// Why not: `not-found`, `unsent-mail` or `sends-alerts`.
  public var code: String?
  /// Why not, in words.
  public var message: String?
  /// Its address; `nil` when there is no such mailbox.
  public var address: String?
  /// How many stored messages go with it.
  public var storedEmails: Int
  /// How many messages wait to be sent.
  public var unsentEmails: Int

  /// Describes an answer.
  public init(
    id: MailboxID, ok: Bool, code: String? = nil, message: String? = nil, address: String? = nil, storedEmails: Int = 0,
    unsentEmails: Int = 0
  ) {
    self.id = id
    self.ok = ok
    self.code = code
    self.message = message
    self.address = address
    self.storedEmails = storedEmails
    self.unsentEmails = unsentEmails
  }
}
