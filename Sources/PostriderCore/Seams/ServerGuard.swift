/// When breakers open and how they are tried again (errors table, scope `server`).
public struct BreakerRules: Hashable, Sendable {
  /// So many failures in a row open it, if they come from ``mailboxes`` different mailboxes …
  public var failures = 5
  /// … at least so many, up to 16.
  public var mailboxes = 3
  /// So many failures in a row open it, whoever they come from.
  public var failuresOfFew = 10
  /// From opening to the first probe; each failed probe doubles it …
  public var firstProbe: Duration = .seconds(30)
  /// … up to this.
  public var longestProbe: Duration = .seconds(900)
  /// The first and the longest wait where the cause asks for others.
  public var probesByCode: [FailureCode: ClosedRange<Duration>] = [:]
  /// A probe frees itself so long after it was last heard of. Longer than a lease and a renewal, so that the socket of a
  /// worker that cannot reach the queue is closed by then.
  public var probeHold: Duration = .seconds(30)
  /// A closed breaker forgets failures so long after the last one; an open one is forgotten so long after its next
  /// probe was due, when nobody came.
  public var memory: Duration = .seconds(7_200)
  /// How long one worker has to tell everybody of a recovery before another is asked to do it.
  public var handover: Duration = .seconds(5)

  /// Whether what opens is a halt of a profile's direction (``halts``).
  public var areHalts = false

  /// The rules of the errors table, scope `server`.
  public init() {}

  /// Halts of a profile's direction, scope `profile`: the first failure opens one, since every mailbox would meet it.
  ///
  /// A provider that refuses everybody is asked often, so that its mailboxes go on within one usual interval of its
  /// recovery. The profile's own account is asked seldom, so that it is not locked; a test asks at once.
  public static let halts: BreakerRules = {
    var rules = BreakerRules()
    rules.failures = 1
    rules.mailboxes = 1
    rules.failuresOfFew = 1
    rules.firstProbe = .seconds(60)
    rules.probesByCode[.authMassRejection] = .seconds(60) ... .seconds(300)
    for code in FailureCode.allCases where code.defaultClass == .credential && code != .authMassRejection {
      rules.probesByCode[code] = .seconds(300) ... .seconds(3_600)
    }
    rules.areHalts = true
    return rules
  }()

  /// The first and the longest wait between probes for a cause.
  public func probes(for code: FailureCode) -> ClosedRange<Duration> {
    probesByCode[code] ?? min(firstProbe, longestProbe)...longestProbe
  }

  /// From the failure of the n-th probe (0: from opening) to the next one.
  public func wait(afterFailedProbes count: Int, for code: FailureCode) -> Duration {
    let probes = probes(for: code)
    return min(probes.upperBound, probes.lowerBound * Double(UInt64(1) << UInt64(min(max(count, 0), 30))))
  }
}

/// When refused logins are the provider's fault and no mailbox's (errors table, mass rejection).
public struct MassRejectionRules: Hashable, Sendable {
  /// So many mailboxes whose last login succeeded are refused …
  public var mailboxes = 5
  /// … and at least this share of those of the profile that tried, 0…1 …
  public var share = 0.1
  /// … within this time.
  public var window: Duration = .seconds(600)

  /// The rules of the errors table.
  public init() {}
}

/// The cluster's common knowledge of mail servers: one circuit breaker for each host and port, one login budget for each
/// host and egress address. Asked by workers before they connect and before they log in, never by claims.
///
/// Every call throws ``JobQueueError`` `unavailable` or `misconfigured`. Decisions are made in one place on one clock, so
/// any number of workers act as one. Nothing here must be remembered: an emptied server only forgets, and what is
/// forgotten is closed and unspent.
///
/// Promises, each a case of the contract suite. Breaker:
/// 1. It opens after ``BreakerRules/failures`` failures in a row from at least ``BreakerRules/mailboxes`` mailboxes, or
///    after ``BreakerRules/failuresOfFew`` from fewer. A visit that works begins a new row; `unknown` changes nothing.
/// 2. While it is open, visits wait, except one: the probe. The first is due ``BreakerRules/firstProbe`` after opening,
///    each failed one doubles the wait up to ``BreakerRules/longestProbe``.
/// 3. At most one probe is under way, whoever asks. It is kept by ``extend(_:at:)`` and frees itself
///    ``BreakerRules/probeHold`` after the last word from it; one that ends `unknown` is free at once.
/// 4. An interactive visit is the probe at any time when none is under way; when it fails before the regular probe is
///    due, that one's time stays.
/// 5. The probe's success closes the breaker. Reports of other visits, begun before it opened, change nothing.
/// 6. Another port of the same host is another breaker.
/// 7. Lanes that failed or were refused are told of the recovery once: ``recovery(of:)`` gives them to one caller, and
///    again to another ``BreakerRules/handover`` later until ``recovered(_:of:)`` says that it is done.
/// 8. `isFirst` of a refusal is true once for each lane and opening.
///
/// Login budget:
/// 9. A mailbox that is not proven takes a token; no more than ``LoginBudget/limit`` are out or spent within
///    ``LoginBudget/window``. Success returns the token, a refused or lost login keeps it.
/// 10. A proven mailbox passes free while fewer than the limit of failures are counted. From then on one proven login at
///     a time passes, and its failure holds the proven logins of the place for ``LoginBudget/hold``.
/// 11. A permit whose worker died counts as a failure once its time is over, and frees the one place of 10.
/// 12. Another host or another egress is another budget.
///
/// Mass rejection:
/// 13. ``refused(_:at:)`` says yes from the mailbox on with which ``MassRejectionRules`` hold for its lane: mailboxes
///     whose latest login was refused against those that asked to log in since the first of them was. After a window without a
///     refusal it begins anew. Another profile or direction is counted apart.
public protocol ServerGuard: Sendable {
  /// May this session connect?
  func admit(_ visit: ServerVisit) async throws -> Admission

  /// Says how an admitted visit went; `probe` is the token of its admission, if it was the probe.
  @discardableResult
  func report(_ result: VisitResult, of visit: ServerVisit, probe: ProbeToken?) async throws -> BreakerChange

  /// Keeps a probe; `false` when it is the probe no more.
  func extend(_ probe: ProbeToken, at server: MailServer) async throws -> Bool

  /// The lanes, at most 500, that nobody has told yet that their server is back; empty when there are none, or another
  /// caller is at it.
  func recovery(of server: MailServer) async throws -> [ServerLane]

  /// Strikes lanes that have been told. Returns whether more wait; ask again then.
  @discardableResult
  func recovered(_ lanes: [ServerLane], of server: MailServer) async throws -> Bool

  /// The breaker of one server; `nil` while it is closed.
  func openBreaker(of server: MailServer) async throws -> OpenBreaker?

  /// The open breakers, oldest first, at most `limit`.
  func openBreakers(limit: Int) async throws -> [OpenBreaker]

  /// May this login begin?
  ///
  /// - Parameter deadline: after which a login that was not settled counts as lost.
  func login(
    _ visitor: LoginVisitor, at place: LoginPlace, budget: LoginBudget, deadline: Duration
  ) async throws -> LoginAnswer

  /// Says how a permitted login ended.
  func settle(_ permit: LoginPermit, _ result: LoginResult) async throws

  /// Notes that a proven mailbox was refused. Returns whether so many are that the provider is at fault.
  func refused(_ visitor: LoginVisitor, at place: LoginPlace) async throws -> Bool
}
