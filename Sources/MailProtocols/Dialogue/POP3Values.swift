import PostriderCore

/// A message on the server, as listed in this session.
public struct POP3Entry: Hashable, Sendable {
  /// The message number, 1 and up; valid in this session only.
  public let number: Int
  /// Its unique id. Two identical copies may have the same one (RFC 1939 section 7).
  public let uidl: UniqueID
  /// The size from LIST; advisory, differs from what RETR gives on many servers. 0 when LIST leaves the message out.
  public let sizeOctets: Int64

  /// Describes a listed message.
  public init(number: Int, uidl: UniqueID, sizeOctets: Int64) {
    self.number = number
    self.uidl = uidl
    self.sizeOctets = sizeOctets
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

/// A chunk with the number of its message.
struct POP3Item: Sendable {
  var number: Int
  var chunk: MessageChunk
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
  case retrieve([Int], maximumOctets: Int64)
  case top(Int, lines: Int)
  case delete([Int])
  case quit
}

/// What came of it.
enum POP3Outcome: Sendable {
  case done(words: String)
  case capabilities(POP3Capabilities)
  case entries([POP3Entry])
  case octets([UInt8])
  case deleted([Int: Failure])
}
