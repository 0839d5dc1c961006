import PostriderCore
import Synchronization

/// What a session has really done so far. It outlives a session that is ended from outside, so that its outcome is true.
final class SessionProgress: Sendable {
  struct Counts: Sendable {
    /// Messages stored, and their octets.
    var stored = 0
    var octets: Int64 = 0
    /// Messages that were known already.
    var known = 0
    /// Messages that failed, and why.
    var failed = 0
    var messageFailures: [Failure] = []
    /// A message that an earlier session left uncertain. Its alert is raised already.
    var leftUncertain: Failure?
    /// The unique id of the message that the server is about to hand out, or is handing out.
    var underWay: String?
    /// Whether more wait than one session fetches.
    var moreMail = false
    /// How long the server wants to be left alone after a login.
    var loginDelaySeconds: Int?
    /// Whether the server may remove what was fetched although nobody asked it to (RFC 2449 section 6.7, `EXPIRE 0`).
    var expiresAtOnce = false
    /// Whether the server may not list again what was fetched in a session that said QUIT.
    var forgetsFetched = false
    /// Messages handed over.
    var sent = 0
    /// The directions whose test has ended.
    var tests: [DirectionTest] = []
  }

  private let state = Mutex(Counts())

  /// The counts now.
  var counts: Counts { state.withLock { $0 } }

  func note(_ body: (inout Counts) -> Void) { state.withLock { body(&$0) } }
}

extension RunRecord {
  /// Enters what was done.
  mutating func enter(_ counts: SessionProgress.Counts) {
    messagesStored = counts.stored
    octetsStored = counts.octets
    messagesKnown = counts.known
    messagesFailed = counts.failed
    messagesSent = counts.sent
  }
}
