import FoundationEssentials

/// A message that could not be received in three attempts. The rest of its mailbox goes on without it.
public struct QuarantinedMessage: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: QuarantineID
  /// The mailbox it was sent to.
  public var mailboxID: MailboxID
  /// That mailbox's address.
  public var mailboxAddress: String?
  /// The server's unique id of it.
  public var uidl: String
  /// Why the last attempt failed.
  public var failure: Failure
  /// How often it was tried in all.
  public var attempts: Int
  /// How many octets of it are kept: the whole message. `nil` when the server never handed it out.
  public var sizeOctets: Int64?
  /// Since when it is in quarantine.
  public var quarantinedAt: Date
  /// When a person asked for another attempt; `nil` when none is under way.
  public var reprocessRequestedAt: Date?

  /// Describes a message in quarantine.
  public init(
    id: QuarantineID, mailboxID: MailboxID, mailboxAddress: String? = nil, uidl: String, failure: Failure,
    attempts: Int, sizeOctets: Int64?, quarantinedAt: Date, reprocessRequestedAt: Date? = nil
  ) {
    self.id = id
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.uidl = uidl
    self.failure = failure
    self.attempts = attempts
    self.sizeOctets = sizeOctets
    self.quarantinedAt = quarantinedAt
    self.reprocessRequestedAt = reprocessRequestedAt
  }
}

/// Which messages in quarantine.
public struct QuarantineFilter: Hashable, Sendable {
  /// Of this mailbox.
  public var mailboxID: MailboxID?
  /// Those whose last attempt failed with this code.
  public var reason: FailureCode?

  /// Describes a filter.
  public init(mailboxID: MailboxID? = nil, reason: FailureCode? = nil) {
    self.mailboxID = mailboxID
    self.reason = reason
  }
}
