import PostriderCore

/// A message on the server, as listed in this session.
public struct POP3Entry: Hashable, Sendable {
  /// The message number, 1 and up; valid in this session only.
  public let number: Int
  /// Its unique id. Two identical copies may have the same one (RFC 1939 section 7).
  public let uidl: UniqueID

  /// Describes a listed message.
  public init(number: Int, uidl: UniqueID) {
    self.number = number
    self.uidl = uidl
  }
}

/// How much one session fetches. Once it is used up, no further message is asked for; what was asked for still comes, and
/// at least one message is.
public struct RetrievalBudget: Hashable, Sendable {
  /// Octets of all messages together, 1 and up.
  public var octets: Int64
  /// Until when further messages are asked for.
  public var until: ContinuousClock.Instant?

  /// Describes a budget; without values there is no bound.
  public init(octets: Int64 = .max, until: ContinuousClock.Instant? = nil) {
    self.octets = octets
    self.until = until
  }

  func isUsedUp(_ received: Int64) -> Bool {
    if received >= octets { return true }
    return until.map { ContinuousClock.now >= $0 } ?? false
  }
}

/// A part of a retrieved message.
public enum MessageChunk: Hashable, Sendable {
  /// Octets of the message, in order, dots unstuffed; at most about 64 KiB.
  case octets([UInt8])
  /// The message is complete.
  case end(sizeOctets: Int64)
  /// The message is not coming: refused by the server, or larger than allowed. Octets may have come before.
  case refused(Failure)
}

/// What comes piece by piece.
enum POP3Item: Sendable {
  /// A part of the message of a number.
  case message(Int, MessageChunk)
  /// A part of a listing.
  case entries([POP3Entry])
}

/// How to log in.
enum POP3Login: Sendable {
  /// USER and PASS (RFC 1939 section 7).
  case userPass(userName: String, password: Secret)
  /// AUTH (RFC 5034); the credentials are what must not be shown of it.
  case sasl(any SASLMechanism, Credentials)
}

/// What a session is asked to do.
enum POP3Operation: Sendable {
  case secure
  case greeting
  case capabilities
  case startTLS
  case login(POP3Login)
  case list
  case retrieve([Int], maximumOctets: Int64, budget: RetrievalBudget)
  case top(Int, lines: Int)
  case delete([Int])
  case quit
}

/// What came of it.
enum POP3Outcome: Sendable {
  case done(words: String)
  case capabilities(POP3Capabilities)
  case octets([UInt8])
  case deleted([Int: Failure])
}
