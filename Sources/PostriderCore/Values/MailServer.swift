/// A mail server as breaker and login budget know it: whoever shares host and port shares its fate.
public struct MailServer: Hashable, Sendable, Codable, CustomStringConvertible {
  /// Host name or literal address, lower case.
  public let host: String
  /// TCP port, 1…65535.
  public let port: Int

  /// Names a server; case of the host does not matter.
  public init(host: String, port: Int) {
    self.host = host.lowercased()
    self.port = port
  }

  /// One direction of a profile as a place of its own: what is wrong with the profile stops its mailboxes there as a
  /// server's fault stops those of the server. With other settings (`version`) it is another place, so that an edit
  /// begins anew.
  public init(profile lane: ServerLane, version: Int64) {
    self.init(host: "profile-\(lane.profile).\(version)", port: lane.direction == .incoming ? 1 : 2)
  }

  /// `host:port`, with brackets around a literal IPv6 address.
  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// The part of a queue that a server's fault stops: one direction of one profile.
public struct ServerLane: Hashable, Sendable, Codable {
  /// The profile.
  public var profile: ProfileID
  /// The direction whose server it is.
  public var direction: Direction

  /// Names a lane.
  public init(profile: ProfileID, direction: Direction) {
    self.profile = profile
    self.direction = direction
  }
}

/// A session that is about to connect to a server.
public struct ServerVisit: Hashable, Sendable {
  /// Where it goes.
  public var server: MailServer
  /// For which mailbox.
  public var mailbox: MailboxID
  /// What waits when it may not go.
  public var lane: ServerLane
  /// Whether a person waits for it: then it may be the probe at any time, and its refusal holds nothing.
  public var isInteractive: Bool

  /// Describes a visit.
  public init(server: MailServer, mailbox: MailboxID, lane: ServerLane, isInteractive: Bool = false) {
    self.server = server
    self.mailbox = mailbox
    self.lane = lane
    self.isInteractive = isInteractive
  }
}

/// An open circuit breaker: why, since when, and when it is tried again.
public struct OpenBreaker: Hashable, Sendable, Codable {
  /// The server.
  public var server: MailServer
  /// The code of the last failure: the cause.
  public var code: FailureCode
  /// What was tried and what the server said, safe to show; may be empty.
  public var words: String
  /// When it opened, milliseconds since 1970 on the server's clock.
  public var sinceMilliseconds: Int64
  /// How many probes failed since then.
  public var failedProbes: Int
  /// Milliseconds until the next regular probe; 0 when it is due.
  public var nextProbeMilliseconds: Int64
  /// Whether a probe is under way now.
  public var isProbing: Bool
  /// Milliseconds until it is worth asking again: the next probe, or the end of the one under way.
  public var waitMilliseconds: Int64
  /// Whether it is a direction of a profile that is halted, and no server.
  public var isHalt: Bool

  /// Describes an open breaker.
  public init(
    server: MailServer, code: FailureCode, words: String = "", sinceMilliseconds: Int64, failedProbes: Int = 0,
    nextProbeMilliseconds: Int64, isProbing: Bool = false, waitMilliseconds: Int64, isHalt: Bool = false
  ) {
    self.server = server
    self.code = code
    self.words = words
    self.sinceMilliseconds = sinceMilliseconds
    self.failedProbes = failedProbes
    self.nextProbeMilliseconds = nextProbeMilliseconds
    self.isProbing = isProbing
    self.waitMilliseconds = waitMilliseconds
    self.isHalt = isHalt
  }

  /// One sentence for people: which server, and when it is tried again.
  public var summary: String {
    let next =
      isProbing
      ? "one session is trying it now" : "the next try is in \(max(1, (nextProbeMilliseconds + 999) / 1_000)) s"
    return isHalt ? "the profile is halted, \(next)" : "the circuit breaker of \(server) is open, \(next)"
  }
}

/// Names one admission, so that only the session that was the probe decides.
public struct ProbeToken: Hashable, Sendable, CustomStringConvertible {
  /// A random text.
  public let description: String

  /// A new one.
  public init() {
    description = String(UInt64.random(in: .min ... .max), radix: 36)
  }
}

/// What a server's guard says to a session before it connects.
public enum Admission: Hashable, Sendable {
  /// Connect. `isFailing`: the last visits failed, though not enough of them. `isUntold`: the server is back, and not
  /// every lane was told yet (``ServerGuard/recovery(of:)``).
  case go(isFailing: Bool, isUntold: Bool)
  /// Connect: this is the one session that finds out whether the server is back. Keep it alive with
  /// ``ServerGuard/extend(_:at:)`` and say how it went.
  case probe(ProbeToken)
  /// Do not connect. `isFirst`: nobody of this lane was refused since the breaker opened.
  case wait(OpenBreaker, isFirst: Bool)
}

/// How a visit went, as far as the server is concerned.
public enum VisitResult: Hashable, Sendable {
  /// The server did its part, whatever else went wrong.
  case works
  /// A failure of scope ``FailureScope/server``; words are safe to show.
  case failed(FailureCode, words: String)
  /// It says nothing about the server: interrupted, or ended before anything was sent.
  case unknown
}

/// What a visit's report changed.
public enum BreakerChange: Hashable, Sendable {
  /// The breaker is closed, as before. `isFailing`: some failures in a row are counted.
  case closed(isFailing: Bool)
  /// This report opened it.
  case opened(OpenBreaker)
  /// It is open, as before. `formerCode`: the cause that was counted before this report.
  case open(OpenBreaker, formerCode: FailureCode)
  /// This report closed it, or ended a row of failures.
  case recovered(wasOpen: Bool)
}
