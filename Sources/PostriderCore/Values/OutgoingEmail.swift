import FoundationEssentials

/// Where an outgoing message is on its way (feature O1).
public enum OutgoingState: String, Hashable, Sendable, Codable, CaseIterable {
  /// Kept, not to be sent until a person says so.
  case draft
  /// Waits for its time.
  case pendingSend = "pending-send"
  /// A session has begun to hand it over.
  case sending
  /// Every recipient was accepted.
  case sent
  /// Some recipients were accepted, the others failed.
  case partlySent = "partly-sent"
  /// No recipient was accepted.
  case failed
  /// A person took it back before it was sent.
  case canceled
  /// The link was lost after the body: it may or may not have arrived, and is never sent again by itself.
  case uncertain
}

/// Which messages of a mailbox go first.
public enum OutgoingPriority: String, Hashable, Sendable, Codable, CaseIterable {
  /// After all others.
  case low
  /// In the order of submission.
  case normal
  /// Before all others.
  case high

  /// 0 for the first.
  public var rank: Int64 {
    switch self {
    case .high: 0
    case .normal: 1
    case .low: 2
    }
  }

  /// The priority of a rank.
  public init(rank: Int64) { self = rank <= 0 ? .high : rank == 1 ? .normal : .low }
}

/// What became of one recipient.
public enum RecipientState: String, Hashable, Sendable, Codable, CaseIterable {
  /// Not decided.
  case pending
  /// The server took the message for this recipient.
  case accepted
  /// Refused for good.
  case failed
  /// Taken back.
  case canceled
  /// Nobody knows.
  case uncertain
}

/// One recipient of an outgoing message.
public struct OutgoingRecipient: Hashable, Sendable, Codable {
  /// The envelope address.
  public var address: String
  /// What became of it.
  public var state: RecipientState
  /// Why it was refused last.
  public var failure: Failure?
  /// What a delivery report said later, after the server had accepted it.
  public var report: DeliveryReport?

  /// Describes a recipient.
  public init(
    address: String, state: RecipientState = .pending, failure: Failure? = nil, report: DeliveryReport? = nil
  ) {
    self.address = address
    self.state = state
    self.failure = failure
    self.report = report
  }
}

/// What goes over the wire with a message: which extensions it needs.
public enum MessageEncoding: String, Hashable, Sendable, Codable, CaseIterable {
  /// ASCII only.
  case sevenBit = "7bit"
  /// ASCII header fields, other octets in the body (8BITMIME, RFC 6152).
  case eightBit = "8bit"
  /// Header fields hold UTF-8: only servers with SMTPUTF8 may have it (RFC 6531, RFC 6532).
  case utf8
}

/// An outgoing message as people see it.
public struct OutgoingEmail: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: OutgoingEmailID
  /// The mailbox it is sent from.
  public var mailboxID: MailboxID
  /// Where it is.
  public var state: OutgoingState
  /// Which messages go first.
  public var priority: OutgoingPriority
  /// Not before this time.
  public var sendAfter: Date?
  /// When it is tried next, while it waits.
  public var nextTryAt: Date?
  /// How often a session has begun to hand it over.
  public var attempts: Int
  /// The last failure.
  public var failure: Failure?
  /// The Message-ID without angle brackets; the same on every attempt.
  public var messageID: String
  /// The submitter's own key: a second submit with it returns this message.
  public var idempotencyKey: String?
  /// The subject.
  public var subject: String
  /// The envelope sender.
  public var sender: String
  /// The size of the whole message.
  public var sizeOctets: Int64
  /// When it was submitted.
  public var createdAt: Date
  /// When it last changed.
  public var updatedAt: Date
  /// When a server took it.
  public var sentAt: Date?
  /// The recipients, blind copies included; empty in lists.
  public var recipients: [OutgoingRecipient]
  /// Which delivery reports are asked for; `nil` for none in particular.
  public var notification: DSNRequest?
  /// For how many recipients it came back after a server had taken it; `nil` for none.
  public var bounced: Int?

  /// Describes a message.
  public init(
    id: OutgoingEmailID, mailboxID: MailboxID, state: OutgoingState, priority: OutgoingPriority, sendAfter: Date?,
    nextTryAt: Date?, attempts: Int, failure: Failure?, messageID: String, idempotencyKey: String?, subject: String,
    sender: String, sizeOctets: Int64, createdAt: Date, updatedAt: Date, sentAt: Date?,
    recipients: [OutgoingRecipient] = [], bounced: Int? = nil, notification: DSNRequest? = nil
  ) {
    self.notification = notification
    self.id = id
    self.mailboxID = mailboxID
    self.state = state
    self.priority = priority
    self.sendAfter = sendAfter
    self.nextTryAt = nextTryAt
    self.attempts = attempts
    self.failure = failure
    self.messageID = messageID
    self.idempotencyKey = idempotencyKey
    self.subject = subject
    self.sender = sender
    self.sizeOctets = sizeOctets
    self.createdAt = createdAt
    self.updatedAt = updatedAt
    self.sentAt = sentAt
    self.recipients = recipients
    self.bounced = bounced
  }
}

/// A composed message about to be stored for sending.
public struct OutgoingSubmission: Hashable, Sendable {
  /// The mailbox it is sent from; its address is the envelope sender.
  public var mailboxID: MailboxID
  /// The envelope sender: the mailbox's address, its domain in A-labels; `nil` for the address as it is stored.
  public var sender: String?
  /// Envelope recipients, each once, domains in A-labels; at least one, checked.
  public var recipients: [String]
  /// The subject, for lists.
  public var subject: String
  /// The Message-ID that stands in ``raw``, without angle brackets.
  public var messageID: String
  /// The whole message (RFC 5322), without `Bcc:`, each line ended by CRLF.
  public var raw: Content
  /// What it needs of a server.
  public var encoding: MessageEncoding
  /// Which messages go first.
  public var priority: OutgoingPriority
  /// Not before this time.
  public var sendAfter: Date?
  /// The submitter's own key.
  public var idempotencyKey: String?
  /// Keeps it as a draft.
  public var hold: Bool
  /// Which delivery reports are asked for.
  public var notification: DSNRequest?
  /// The message that it answers, without angle brackets.
  public var inReplyTo: String?
  /// What a program says that wrote it; `nil` for a person's message.
  public var autoSubmitted: AutoSubmitted?

  /// Whom it would answer again and again in a loop: the first recipient of an answer or an automatic message.
  public var correspondent: String? {
    inReplyTo == nil && autoSubmitted == nil ? nil : recipients.first?.lowercased()
  }

  /// Describes a submission.
  public init(
    mailboxID: MailboxID, sender: String? = nil, recipients: [String], subject: String, messageID: String,
    raw: Content, encoding: MessageEncoding = .sevenBit, priority: OutgoingPriority = .normal,
    sendAfter: Date? = nil, idempotencyKey: String? = nil, hold: Bool = false, notification: DSNRequest? = nil,
    inReplyTo: String? = nil, autoSubmitted: AutoSubmitted? = nil
  ) {
    self.inReplyTo = inReplyTo
    self.autoSubmitted = autoSubmitted
    self.notification = notification
    self.mailboxID = mailboxID
    self.sender = sender
    self.recipients = recipients
    self.subject = subject
    self.messageID = messageID
    self.raw = raw
    self.encoding = encoding
    self.priority = priority
    self.sendAfter = sendAfter
    self.idempotencyKey = idempotencyKey
    self.hold = hold
  }
}
