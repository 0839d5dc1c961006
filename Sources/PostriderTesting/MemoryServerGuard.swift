import Foundation
import PostriderCore
import Synchronization

/// A server guard in memory that keeps every promise of ``ServerGuard``, with a clock that tests set.
public final class MemoryServerGuard: ServerGuard {
  private struct State {
    var known: MemoryGuardState
    var offset: Int64 = 0
    var unavailable: String?
  }

  private let rules: BreakerRules
  private let frozenAt: Int64?
  private let state: Mutex<State>

  /// An empty guard.
  ///
  /// - Parameter frozenAt: where the clock stands, milliseconds since 1970; `nil` for a running clock.
  public init(rules: BreakerRules = BreakerRules(), frozenAt: Int64? = nil) {
    self.rules = rules
    self.frozenAt = frozenAt
    state = Mutex(State(known: MemoryGuardState(rules: rules)))
  }

  /// Moves the clock on.
  public func advance(by duration: Duration) {
    state.withLock { $0.offset += Int64(duration / .milliseconds(1)) }
  }

  /// Forgets everything, as an emptied Redis does.
  public func empty() { state.withLock { $0.known = MemoryGuardState(rules: rules) } }

  /// Makes every call throw `unavailable` with this reason, or lets them pass again with `nil`.
  public func setUnavailable(_ reason: String?) { state.withLock { $0.unavailable = reason } }

  private func change<Value>(
    _ body: (inout MemoryGuardState, Int64) -> Value
  ) throws -> Value where Value: Sendable {
    try state.withLock { state in
      if let reason = state.unavailable { throw JobQueueError.unavailable(reason: reason) }
      let now = (frozenAt ?? Int64(Date().timeIntervalSince1970 * 1_000)) + state.offset
      return body(&state.known, now)
    }
  }

  /// May this session connect?
  public func admit(_ visit: ServerVisit) async throws -> Admission {
    try change { $0.admit(visit, token: ProbeToken(), at: $1) }
  }

  /// Says how an admitted visit went.
  @discardableResult
  public func report(_ result: VisitResult, of visit: ServerVisit, probe: ProbeToken?) async throws -> BreakerChange {
    try change { $0.report(result, of: visit, probe: probe, at: $1) }
  }

  /// Keeps a probe.
  public func extend(_ probe: ProbeToken, at server: MailServer) async throws -> Bool {
    try change { $0.extend(probe, at: server, now: $1) }
  }

  /// The lanes that nobody has told yet that their server is back.
  public func recovery(of server: MailServer) async throws -> [ServerLane] {
    try change { $0.recovery(of: server, now: $1) }
  }

  /// Strikes lanes that have been told.
  @discardableResult
  public func recovered(_ lanes: [ServerLane], of server: MailServer) async throws -> Bool {
    try change { $0.recovered(lanes, of: server, now: $1) }
  }

  /// The breaker of one server; `nil` while it is closed.
  public func openBreaker(of server: MailServer) async throws -> OpenBreaker? {
    try change { state, now in state.openBreakers(at: now).first { $0.server == server } }
  }

  /// The open breakers, oldest first.
  public func openBreakers(limit: Int) async throws -> [OpenBreaker] {
    try change { Array($0.openBreakers(at: $1).prefix(max(0, limit))) }
  }

  /// May this login begin?
  public func login(
    _ visitor: LoginVisitor, at place: LoginPlace, budget: LoginBudget, deadline: Duration
  ) async throws -> LoginAnswer {
    let token = ProbeToken().description
    return try change {
      $0.login(visitor, at: place, budget: budget, deadline: deadline, token: token, now: $1)
    }
  }

  /// Notes that a proven mailbox was refused.
  public func refused(_ visitor: LoginVisitor, at place: LoginPlace) async throws -> Bool {
    try change { $0.refused(visitor, now: $1) }
  }

  /// Says how a permitted login ended.
  public func settle(_ permit: LoginPermit, _ result: LoginResult) async throws {
    try change { $0.settle(permit, result, now: $1) }
  }
}
