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

/// A message on its way to a server: held whole, or read while it is sent.
public struct SMTPMessage: Sendable {
  enum Source: Sendable {
    case whole([UInt8])
    case stream(AsyncThrowingStream<[UInt8], any Error>)
  }

  /// With CRLF line ends, without stuffed dots: what SIZE counts (RFC 1870 section 6).
  public let sizeOctets: Int64
  /// What it needs of the server.
  public let encoding: MessageEncoding
  let source: Source
  /// Which reports are asked for, where the server offers DSN.
  private(set) var notification: DSNParameters?

  /// A message held whole; line ends of any kind.
  public init(_ octets: [UInt8]) {
    sizeOctets = Int64(MessageEncoder.transferSize(of: octets))
    encoding = octets.contains { $0 >= 0x80 } ? .eightBit : .sevenBit
    source = .whole(octets)
  }

  /// A message that is read while it is sent, a piece when the one before has left.
  ///
  /// - Parameters:
  ///   - sizeOctets: Of all pieces together, lines ended by CRLF. A stream that gives another number ends the session
  ///     before the final dot.
  ///   - encoding: What it needs of the server.
  ///   - octets: The pieces, cut anywhere.
  public init(sizeOctets: Int64, encoding: MessageEncoding, octets: AsyncThrowingStream<[UInt8], any Error>) {
    self.sizeOctets = sizeOctets
    self.encoding = encoding
    source = .stream(octets)
  }

  /// The same message with a request for delivery reports; `envelopeID` names it in them.
  public func reporting(_ request: DSNRequest?, envelopeID: String?) -> SMTPMessage {
    var message = self
    message.notification = request.map { DSNParameters(request: $0, envelopeID: envelopeID) }
    return message
  }

  /// Holds a whole message, or nothing yet.
  func encoder(_ framing: MessageEncoder.Framing) -> MessageEncoder {
    switch source {
    case .whole(let octets): MessageEncoder(octets, framing)
    case .stream: MessageEncoder(framing)
    }
  }
}

/// What a session is asked to do.
enum SMTPOperation: Sendable {
  case secure
  case greeting
  case hello(String)
  case startTLS
  case login(any SASLMechanism, Credentials)
  case send(from: String, to: [String], message: SMTPMessage)
  case quit
}

/// What came of it.
enum SMTPOutcome: Sendable {
  case done(words: String)
  case extensions(SMTPExtensions, words: String)
  case delivery(SMTPDelivery)
}
