import FoundationEssentials

/// A step of a session. The raw value is shown to people and stored.
public enum StepName: String, Hashable, Sendable, Codable, CaseIterable {
  /// Looking up the host's addresses and checking each against the egress policy.
  case resolve
  /// Getting an OAuth access token.
  case token
  /// Opening the TCP connection.
  case connect
  /// The TLS handshake and the check of the certificate.
  case tls
  /// The server's greeting.
  case greeting
  /// Asking what the server can do (CAPA, EHLO).
  case capabilities
  /// Logging in.
  case authenticate
  /// Listing the mailbox (STAT, UIDL, LIST).
  case list
  /// Fetching new messages (RETR, TOP).
  case fetch
  /// Parsing and storing them. Of a test: claiming the address where it is another organization's.
  case store
  /// Removing processed messages (DELE).
  case delete
  /// Handing over a message (MAIL, RCPT, DATA).
  case send
  /// Logging out (QUIT).
  case quit
  /// Waiting until the message that was sent is back over POP3.
  case roundTrip = "round-trip"
}

/// What became of a step.
public enum StepResult: String, Hashable, Sendable, Codable, CaseIterable {
  /// It passed.
  case ok
  /// It failed; the code says why.
  case failed
  /// It did not pass, and that need not mean anything.
  case warning
  /// It did not apply.
  case skipped
}

/// One step of a session: the same value feeds tests, polls, `analyze`, run history and metrics.
public struct TraceStep: Hashable, Sendable, Codable {
  /// Which direction of the mailbox the step belongs to.
  public var direction: Direction
  /// Which step.
  public var name: StepName
  /// What was tried, for people: `pop.example.com:995 → 192.0.2.1`. Never a secret.
  public var tried: String
  /// What became of it.
  public var result: StepResult
  /// When it began.
  public var startedAt: Date
  /// How long it took, in milliseconds.
  public var milliseconds: Double
  /// The server's own words, redacted, ≤512 characters.
  public var serverWords: String?
  /// Why it failed.
  public var code: FailureCode?
  /// What to do about it.
  public var remedy: String?

  /// Describes a finished step.
  public init(
    direction: Direction, name: StepName, tried: String, result: StepResult, startedAt: Date, milliseconds: Double,
    serverWords: String? = nil, code: FailureCode? = nil, remedy: String? = nil
  ) {
    self.direction = direction
    self.name = name
    self.tried = tried
    self.result = result
    self.startedAt = startedAt
    self.milliseconds = milliseconds
    self.serverWords = serverWords.map(Failure.presentable)
    self.code = code
    self.remedy = remedy ?? code?.remedy
  }
}
