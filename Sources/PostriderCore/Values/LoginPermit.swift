/// Where failed logins are counted: a provider bans the address they come from.
public struct LoginPlace: Hashable, Sendable {
  /// The server's host, lower case.
  public let host: String
  /// Names the address that the worker's connections come from; workers behind one address share it.
  public let egress: String

  /// Names a place.
  public init(host: String, egress: String) {
    self.host = host.lowercased()
    self.egress = egress
  }
}

/// Who wants to log in.
public struct LoginVisitor: Hashable, Sendable {
  /// The mailbox.
  public var mailbox: MailboxID
  /// Its profile and the direction.
  public var lane: ServerLane
  /// Whether the mailbox has logged in since its credentials were last changed.
  public var isProven: Bool

  /// Describes a visitor.
  public init(mailbox: MailboxID, lane: ServerLane, isProven: Bool) {
    self.mailbox = mailbox
    self.lane = lane
    self.isProven = isProven
  }
}

/// How many failed logins are allowed, and for how long they count.
public struct LoginBudget: Hashable, Sendable {
  /// Logins within ``window`` that may fail, 1…1,000.
  public var limit: Int
  /// How long one counts.
  public var window: Duration
  /// How long proven logins wait after one of them failed although the budget was used up.
  public var hold: Duration

  /// The default of the errors table: 10 in 10 minutes, a hold of 60 s.
  public init(limit: Int = 10, window: Duration = .seconds(600), hold: Duration = .seconds(60)) {
    self.limit = min(max(limit, 1), 1_000)
    self.window = window
    self.hold = hold
  }
}

/// The leave to try one login; every permit is settled with ``ServerGuard/settle(_:_:)``.
public struct LoginPermit: Hashable, Sendable {
  /// What a permit stands for.
  public enum Kind: String, Hashable, Sendable {
    /// A token of the budget: returned by success, kept by failure or silence.
    case token
    /// A proven login while the budget is not used up: only its failure is counted.
    case free
    /// The one proven login at a time while the budget is used up.
    case single
  }

  /// Where.
  public var place: LoginPlace
  /// Under which budget.
  public var budget: LoginBudget
  /// What it stands for.
  public var kind: Kind
  /// Its name.
  public var token: String

  /// Describes a permit.
  public init(place: LoginPlace, budget: LoginBudget, kind: Kind, token: String) {
    self.place = place
    self.budget = budget
    self.kind = kind
    self.token = token
  }
}

/// The answer to a login that wants to begin.
public enum LoginAnswer: Hashable, Sendable {
  /// It may.
  case go(LoginPermit)
  /// Not now: a throttle, never a failure. `isShort`: only logins under way are waited for, so it is worth waiting with
  /// the connection open.
  case wait(Duration, isShort: Bool)
}

/// How a login ended.
public enum LoginResult: String, Hashable, Sendable {
  /// The server let it in, or put it off without refusing the credentials.
  case accepted
  /// The server refused the credentials.
  case refused
  /// The session was lost before the answer.
  case lost
}
