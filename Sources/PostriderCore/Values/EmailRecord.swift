import FoundationEssentials

/// An address of a header: display name and address, both as data, never as routing.
public struct EmailAddress: Hashable, Sendable, Codable {
  /// The display name, decoded; `nil` when there is none.
  public var name: String?
  /// `local@domain`.
  public var address: String

  /// Describes an address.
  public init(name: String? = nil, address: String) {
    self.name = name
    self.address = address
  }
}

/// The header fields of a message that people search by; decoded, sanitised (no NUL, valid UTF-8), bounded.
public struct MessageEnvelope: Hashable, Sendable, Codable {
  /// Without angle brackets; `nil` when the message has none.
  public var messageID: String?
  /// Decoded, ≤2,000 characters.
  public var subject: String
  /// The authors.
  public var from: [EmailAddress]
  /// The main recipients.
  public var to: [EmailAddress]
  /// The other recipients.
  public var cc: [EmailAddress]
  /// Where to answer.
  public var replyTo: [EmailAddress]
  /// The message this one answers.
  public var inReplyTo: String?
  /// The conversation, oldest first, at most 100.
  public var references: [String]
  /// The `Date:` field; `nil` when missing or not a date.
  public var date: Date?
  /// The date of the topmost valid `Received:` field.
  public var receivedDate: Date?

  /// Describes an envelope.
  public init(
    messageID: String? = nil, subject: String = "", from: [EmailAddress] = [], to: [EmailAddress] = [],
    cc: [EmailAddress] = [], replyTo: [EmailAddress] = [], inReplyTo: String? = nil, references: [String] = [],
    date: Date? = nil, receivedDate: Date? = nil
  ) {
    self.messageID = messageID
    self.subject = subject
    self.from = from
    self.to = to
    self.cc = cc
    self.replyTo = replyTo
    self.inReplyTo = inReplyTo
    self.references = references
    self.date = date
    self.receivedDate = receivedDate
  }
}

/// What kind of mail a message is (RFC 3834, RFC 3464).
public enum MessageClass: String, Hashable, Sendable, Codable, CaseIterable {
  /// Written by somebody.
  case ordinary
  /// An automatic reply or notification.
  case automatic
  /// A delivery status notification.
  case bounce
}

/// An attachment as listed.
public struct AttachmentRecord: Hashable, Sendable, Codable {
  /// The decoded file name; `nil` when there is none.
  public var fileName: String?
  /// `type/subtype`, lower case.
  public var contentType: String
  /// Octets after decoding.
  public var sizeOctets: Int64
  /// Whether the content was dropped because it is above the organization's limit.
  public var dropped: Bool

  /// Describes an attachment.
  public init(fileName: String?, contentType: String, sizeOctets: Int64, dropped: Bool = false) {
    self.fileName = fileName
    self.contentType = contentType
    self.sizeOctets = sizeOctets
    self.dropped = dropped
  }
}

/// A stored message as people list and show it.
public struct EmailRecord: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: EmailID
  /// The mailbox it came from.
  public var mailboxID: MailboxID
  /// That mailbox's address.
  public var mailboxAddress: String?
  /// The server's unique id of it.
  public var uidl: String
  /// The header fields.
  public var envelope: MessageEnvelope
  /// What kind of mail it is.
  public var messageClass: MessageClass
  /// Octets of the raw message.
  public var sizeOctets: Int64
  /// When it was stored.
  public var storedAt: Date
  /// Its attachments; empty in listings.
  public var attachments: [AttachmentRecord]
  /// The text body; `nil` in listings and when there is none.
  public var text: String?
  /// The HTML body, untrusted; `nil` in listings and when there is none.
  public var html: String?
  /// How many attachments it has.
  public var attachmentCount: Int
  /// The outgoing message that it reports on.
  public var reportOfID: OutgoingEmailID?

  /// Describes a stored message.
  public init(
    id: EmailID, mailboxID: MailboxID, mailboxAddress: String? = nil, uidl: String, envelope: MessageEnvelope,
    messageClass: MessageClass = .ordinary, sizeOctets: Int64, storedAt: Date, attachments: [AttachmentRecord] = [],
    text: String? = nil, html: String? = nil, attachmentCount: Int = 0, reportOfID: OutgoingEmailID? = nil
  ) {
    self.id = id
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.uidl = uidl
    self.envelope = envelope
    self.messageClass = messageClass
    self.sizeOctets = sizeOctets
    self.storedAt = storedAt
    self.attachments = attachments
    self.text = text
    self.html = html
    self.attachmentCount = attachmentCount
    self.reportOfID = reportOfID
  }
}
