import PostriderCore

/// What became of one recipient.
public struct SMTPRecipientResult: Hashable, Sendable {
  /// The address as given.
  public let address: String
  /// Why the server refused it; `nil` when it was accepted.
  public let failure: Failure?

  /// Describes a recipient's fate.
  public init(address: String, failure: Failure?) {
    self.address = address
    self.failure = failure
  }
}

/// What became of a message that the server answered for.
public struct SMTPDelivery: Hashable, Sendable {
  /// One result per recipient, in the order given.
  public let recipients: [SMTPRecipientResult]
  /// The answer to the final dot; `nil` when no recipient was accepted and so nothing was sent.
  public let reply: SMTPReply?

  /// Describes a delivery.
  public init(recipients: [SMTPRecipientResult], reply: SMTPReply?) {
    self.recipients = recipients
    self.reply = reply
  }

  /// Whether the server took the message for at least one recipient.
  public var isAccepted: Bool { reply != nil }
}

/// What a session is asked to do.
enum SMTPOperation: Sendable {
  case secure
  case greeting
  case hello(String)
  case startTLS
  case login(any SASLMechanism, Credentials)
  case send(from: String, to: [String], message: [UInt8])
  case quit
}

/// What came of it.
enum SMTPOutcome: Sendable {
  case done(words: String)
  case extensions(SMTPExtensions, words: String)
  case delivery(SMTPDelivery)
}
