import PostriderCore

/// A reply in RESP2. Names, numbers and statuses of this program are all text, so bulk strings are read as UTF-8.
enum RedisValue: Hashable, Sendable {
  case null
  case integer(Int64)
  case string(String)
  /// What the server refused a command with: `NOSCRIPT No matching script…`. The first word is its code.
  case error(String)
  case array([RedisValue])

  var string: String? {
    switch self {
    case .string(let text): text
    case .integer(let number): String(number)
    default: nil
    }
  }

  var integer: Int64? {
    switch self {
    case .integer(let number): number
    case .string(let text): Int64(text)
    default: nil
    }
  }

  var array: [RedisValue]? {
    if case .array(let values) = self { values } else { nil }
  }
}

/// Why a connection is of no more use.
enum RedisConnectionFailure: Error, Hashable, Sendable, CustomStringConvertible {
  case closed
  case timedOut
  case tooManyRequests
  case malformedReply(String)
  /// Closed before the server answered anything.
  case neverAnswered
  /// The server said why and hung up without being asked.
  case refused(String)
  /// The TLS connection failed; the text says how.
  case tls(String)
  /// The TLS connection failed in a way that only another configuration mends.
  case untrusted(String)

  /// The error that a caller gets, with this reason.
  func error(_ reason: String) -> JobQueueError {
    switch self {
    case .untrusted: .misconfigured(reason: reason)
    case .refused(let text) where text.hasPrefix("DENIED"): .misconfigured(reason: reason)
    default: .unavailable(reason: reason)
    }
  }

  var description: String {
    switch self {
    case .closed: "the connection was closed"
    case .timedOut: "no answer in time"
    case .tooManyRequests: "too many requests are waiting for answers"
    case .malformedReply(let reason): "a malformed reply: \(reason)"
    case .neverAnswered:
      "the server closed the connection without an answer; does this port expect TLS (rediss://)?"
    case .refused(let text): "the server refused the connection: \(text)"
    case .tls(let reason), .untrusted(let reason): reason
    }
  }
}
