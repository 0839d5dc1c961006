/// What to do after a failure. Decides when the work is tried again.
public enum FailureClass: String, Hashable, Sendable, Codable, CaseIterable {
  /// Likely to pass by itself: exponential back-off with full jitter.
  case transient
  /// Somebody else holds the maildrop: a short retry, not a failure.
  case contention
  /// The server asked to wait.
  case throttle
  /// A provider's allowance is used up: the direction pauses, mail stays queued.
  case quota
  /// The credentials were refused: one confirming retry, then the direction is disabled.
  case credential
  /// Will not pass without a person.
  case permanent
  /// One message only; the mailbox goes on.
  case message
  /// One recipient only.
  case recipient
  /// Sending only: the link was lost after the final dot.
  case uncertain
  /// Somebody interferes with the connection: fail closed.
  case attack
}

/// Who is hit by a failure. Only ``mailbox`` ever disables a mailbox direction.
public enum FailureScope: String, Hashable, Sendable, Codable, CaseIterable {
  /// One message.
  case message
  /// One mailbox.
  case mailbox
  /// Every mailbox of the profile.
  case profile
  /// Every mailbox behind that host and port.
  case server
}

/// A failure of a session, sorted once where it happened.
///
/// Back-off, breaker, alert and status all read this one value; nobody looks at a server's words again.
public struct Failure: Error, Hashable, Sendable, Codable, CustomStringConvertible {
  /// Stable and documented; see ``FailureCode``.
  public let code: FailureCode
  /// When to try again.
  public let failureClass: FailureClass
  /// Who is hit.
  public let scope: FailureScope
  /// The server's own words, redacted, control characters escaped, ≤512 characters; `nil` when it said nothing.
  public let serverWords: String?
  /// What was tried, for people: "connect to 192.0.2.1 port 995".
  public let context: String?
  /// A wait that the server asked for, in seconds.
  public let retryAfterSeconds: Int?

  /// Sorts a failure by its code's row in the table, or by the given class and scope where a row leaves a choice.
  public init(
    _ code: FailureCode, class failureClass: FailureClass? = nil, scope: FailureScope? = nil,
    serverWords: String? = nil, context: String? = nil, retryAfterSeconds: Int? = nil
  ) {
    self.code = code
    self.failureClass = failureClass ?? code.defaultClass
    self.scope = scope ?? code.defaultScope
    self.serverWords = serverWords.map(Failure.presentable)
    self.context = context
    self.retryAfterSeconds = retryAfterSeconds
  }

  /// What went wrong and what the server said, safe to show and to log.
  public var description: String {
    var text = "\(code.rawValue): \(code.summary)"
    if let context { text += " (\(context))" }
    if let serverWords { text += "; the server said: \(serverWords)" }
    return text
  }

  /// What a person can do about it.
  public var remedy: String { code.remedy }

  /// Makes a server's words fit to show: control and bidirectional characters escaped, at most 512 characters.
  ///
  /// Redaction of secrets happens before, by protocol state; this only makes the text harmless.
  public static func presentable(_ words: String) -> String {
    var text = ""
    var count = 0
    for scalar in words.unicodeScalars {
      let shown =
        switch scalar.value {
        case 0..<0x20, 0x7F..<0xA0, 0x200E...0x200F, 0x202A...0x202E, 0x2066...0x2069:
          "\\u{" + String(scalar.value, radix: 16) + "}"
        default: String(scalar)
        }
      count += shown.unicodeScalars.count
      if count > 512 { return text + "…" }
      text += shown
    }
    return text
  }
}
