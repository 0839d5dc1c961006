import PostriderCore

/// An attachment with its decoded content.
public struct ParsedAttachment: Hashable, Sendable {
  /// What is listed.
  public var record: AttachmentRecord
  /// The decoded octets; `nil` when it is above the limit (``AttachmentRecord/dropped``), or in a file.
  public var content: [UInt8]?
  /// The decoded octets in a file that belongs to the caller: only with ``MessageLimits/spoolDirectory``.
  public var spooled: Content?

  /// Describes an attachment.
  public init(record: AttachmentRecord, content: [UInt8]?, spooled: Content? = nil) {
    self.record = record
    self.content = content
    self.spooled = spooled
  }
}

/// What a message says, as far as it can be understood. All texts are valid UTF-8 without NUL.
public struct ParsedMessage: Hashable, Sendable {
  /// The header fields, decoded and bounded.
  public var envelope: MessageEnvelope
  /// Whether somebody, a program or a mail server wrote it.
  public var messageClass: MessageClass
  /// What a delivery status notification says; `nil` for every other message.
  public var notification: DeliveryNotification?
  /// The text body with LF line ends; `nil` when there is none.
  public var text: String?
  /// The HTML body, untrusted; `nil` when there is none.
  public var html: String?
  /// Everything that is neither of them, in the message's order.
  public var attachments: [ParsedAttachment]
  /// What was broken or left out, in words, at most 50; empty for a good message. Never content of the message.
  public var problems: [String]

  /// Describes a message.
  public init(
    envelope: MessageEnvelope, messageClass: MessageClass = .ordinary, notification: DeliveryNotification? = nil,
    text: String? = nil, html: String? = nil, attachments: [ParsedAttachment] = [], problems: [String] = []
  ) {
    self.envelope = envelope
    self.messageClass = messageClass
    self.notification = notification
    self.text = text
    self.html = html
    self.attachments = attachments
    self.problems = problems
  }
}

/// Why a message could not be read or built at all.
public enum MessageError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file cannot be opened or read; carries `errno`'s words.
  case unreadable(reason: String)
  /// A value given to ``MessageBuilder`` cannot stand in a message: `field` names it, never its value.
  case invalid(field: String, reason: String)
  /// GMime did not write the message.
  case notWritten

  /// The reason in words.
  public var description: String {
    switch self {
    case .unreadable(let reason): "the message cannot be read: \(reason)"
    case .invalid(let field, let reason): "\(field) \(reason)"
    case .notWritten: "the message could not be written"
    }
  }
}
