import FoundationEssentials
import PostriderCore

/// The body of a delivery: JSON, the same in every attempt.
struct WebhookPayload: Encodable {
  /// `postrider-` and the number of the delivery; also in `webhook-id`.
  let id: String
  let type: String
  /// When the event happened, ISO 8601.
  let createdAt: String
  /// The message of `email.received`.
  let email: Email?

  struct Email: Encodable {
    let id: EmailID
    let mailboxID: MailboxID
    let mailboxAddress: String
    let messageID: String?
    let subject: String
    let from: [EmailAddress]
    let receivedAt: String?
    let storedAt: String
    let sizeOctets: Int64
    let attachmentCount: Int
    let messageClass: String
  }

  static func id(_ delivery: ClaimedDelivery) -> String { "postrider-\(delivery.id)" }

  init(_ delivery: ClaimedDelivery) {
    id = Self.id(delivery)
    type = delivery.event.rawValue
    createdAt = Self.text(delivery.createdAt)
    email = delivery.email.map { email in
      Email(
        id: email.id, mailboxID: email.mailboxID, mailboxAddress: email.mailboxAddress, messageID: email.messageID,
        subject: email.subject, from: email.from, receivedAt: email.receivedAt.map(Self.text),
        storedAt: Self.text(email.storedAt), sizeOctets: email.sizeOctets, attachmentCount: email.attachmentCount,
        messageClass: email.messageClass.rawValue)
    }
  }

  private static func text(_ date: Date) -> String {
    date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
  }

  /// The octets that are sent and signed.
  func octets() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(self))
  }
}
