import FoundationEssentials

/// An address at which new mail is announced, as a person gives it.
public struct WebhookDraft: Sendable, Decodable {
  /// `https://…`.
  public var url: String
  /// Free text, ≤2,000 characters.
  public var description: String?

  /// A draft.
  public init(url: String, description: String? = nil) {
    self.url = url
    self.description = description
  }

  /// Checks it; throws ``StoreError/invalid(_:)`` with every wrong field.
  public func checked() throws(StoreError) -> WebURL {
    var problems = FieldProblems()
    problems.check(description ?? "", at: "/description", maximum: 2_000, allowsNewlines: true)
    let url = WebURL.read(url, at: "/url", &problems)
    try problems.throwIfAny()
    guard let url else { throw .invalid([FieldProblem("/url", "required", "is required")]) }
    return url
  }
}

/// Names the webhook in ``WebhookID``.
public typealias WebhookID = Identifier<Webhook>
/// Names the delivery in ``WebhookDeliveryID``.
public typealias WebhookDeliveryID = Identifier<WebhookDelivery>

/// An address at which new mail is announced.
public struct Webhook: Hashable, Sendable, Codable {
  /// Its number.
  public var id: WebhookID
  /// Where to.
  public var url: String
  /// Free text.
  public var description: String
  /// Deliveries that wait.
  public var pending: Int
  /// Deliveries that were given up.
  public var dead: Int
  /// How often in a row it failed.
  public var failures: Int
  /// When it is tried again, after failures.
  public var retryAt: Date?
  /// When it last took something.
  public var lastSuccessAt: Date?
  /// When it last failed.
  public var lastFailureAt: Date?
  /// Why.
  public var lastError: String?
  /// Who made it.
  public var createdBy: String
  /// When.
  public var createdAt: Date

  /// Describes a webhook.
  public init(
    id: WebhookID, url: String, description: String, pending: Int = 0, dead: Int = 0, failures: Int = 0,
    retryAt: Date? = nil, lastSuccessAt: Date? = nil, lastFailureAt: Date? = nil, lastError: String? = nil,
    createdBy: String, createdAt: Date
  ) {
    self.id = id
    self.url = url
    self.description = description
    self.pending = pending
    self.dead = dead
    self.failures = failures
    self.retryAt = retryAt
    self.lastSuccessAt = lastSuccessAt
    self.lastFailureAt = lastFailureAt
    self.lastError = lastError
    self.createdBy = createdBy
    self.createdAt = createdAt
  }
}

/// What is announced.
public enum WebhookEvent: String, Hashable, Sendable, Codable, CaseIterable {
  /// A message was stored.
  case emailReceived = "email.received"
  /// A person tries the webhook.
  case test
}

/// What became of a delivery.
public enum WebhookDeliveryState: String, Hashable, Sendable, Codable, CaseIterable {
  /// It waits, or is under way.
  case pending
  /// The receiver answered 2xx.
  case delivered
  /// It was given up; a person can have it tried again.
  case dead
}

/// One event on its way to one webhook. Delivered at least once; its number is the same in every attempt.
public struct WebhookDelivery: Hashable, Sendable, Codable {
  /// Its number; the receiver sees it as `webhook-id`.
  public var id: WebhookDeliveryID
  /// To which webhook.
  public var webhookID: WebhookID
  /// What is announced.
  public var event: WebhookEvent
  /// The message.
  public var emailID: EmailID?
  /// What became of it.
  public var state: WebhookDeliveryState
  /// How often it was tried.
  public var attempts: Int
  /// When it is tried next, while it waits.
  public var nextTryAt: Date?
  /// The receiver's last status.
  public var lastStatus: Int?
  /// Why the last attempt failed.
  public var lastError: String?
  /// When the event happened.
  public var createdAt: Date
  /// When it was delivered or given up.
  public var finishedAt: Date?

  /// Describes a delivery.
  public init(
    id: WebhookDeliveryID, webhookID: WebhookID, event: WebhookEvent, emailID: EmailID?, state: WebhookDeliveryState,
    attempts: Int, nextTryAt: Date?, lastStatus: Int?, lastError: String?, createdAt: Date, finishedAt: Date?
  ) {
    self.id = id
    self.webhookID = webhookID
    self.event = event
    self.emailID = emailID
    self.state = state
    self.attempts = attempts
    self.nextTryAt = nextTryAt
    self.lastStatus = lastStatus
    self.lastError = lastError
    self.createdAt = createdAt
    self.finishedAt = finishedAt
  }
}

/// A delivery that a worker has taken for a while.
public struct ClaimedDelivery: Sendable {
  /// Its number.
  public var id: WebhookDeliveryID
  /// The webhook.
  public var webhookID: WebhookID
  /// Where to.
  public var url: WebURL
  /// Signs it.
  public var secret: Secret
  /// What is announced.
  public var event: WebhookEvent
  /// Which attempt this is, from 1; names the claim too.
  public var attempt: Int
  /// When the event happened.
  public var createdAt: Date
  /// For how long it waits, since it happened or was asked for again, seconds.
  public var ageSeconds: Double
  /// How often in a row the webhook failed before.
  public var failures: Int
  /// The message, without bodies; `nil` for a test, and when it was deleted meanwhile.
  public var email: AnnouncedEmail?

  /// Describes a claim.
  public init(
    id: WebhookDeliveryID, webhookID: WebhookID, url: WebURL, secret: Secret, event: WebhookEvent, attempt: Int,
    createdAt: Date, ageSeconds: Double, failures: Int, email: AnnouncedEmail?
  ) {
    self.id = id
    self.webhookID = webhookID
    self.url = url
    self.secret = secret
    self.event = event
    self.attempt = attempt
    self.createdAt = createdAt
    self.ageSeconds = ageSeconds
    self.failures = failures
    self.email = email
  }
}

/// What an event tells of a message. Bodies, attachments and all else are fetched by its number.
public struct AnnouncedEmail: Hashable, Sendable, Codable {
  /// Its number: `GET /api/v1/emails/{id}`.
  public var id: EmailID
  /// Its mailbox.
  public var mailboxID: MailboxID
  /// The mailbox's address.
  public var mailboxAddress: String
  /// Without angle brackets.
  public var messageID: String?
  /// What people wrote; data of strangers.
  public var subject: String
  /// Likewise.
  public var from: [EmailAddress]
  /// By its topmost `Received`.
  public var receivedAt: Date?
  /// When it was stored.
  public var storedAt: Date
  /// Octets of the raw message.
  public var sizeOctets: Int64
  /// How many attachments it has.
  public var attachmentCount: Int
  /// Whether a person, a program or a mail server wrote it.
  public var messageClass: MessageClass

  /// Describes a message.
  public init(
    id: EmailID, mailboxID: MailboxID, mailboxAddress: String, messageID: String?, subject: String,
    from: [EmailAddress], receivedAt: Date?, storedAt: Date, sizeOctets: Int64, attachmentCount: Int,
    messageClass: MessageClass
  ) {
    self.id = id
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.messageID = messageID
    self.subject = subject
    self.from = from
    self.receivedAt = receivedAt
    self.storedAt = storedAt
    self.sizeOctets = sizeOctets
    self.attachmentCount = attachmentCount
    self.messageClass = messageClass
  }
}
