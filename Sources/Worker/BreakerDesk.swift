import Logging
import PostriderCore
import Synchronization

/// A session must wait for its server, or until what halts its profile is over: its job goes back without a run.
struct ServerWait: Error, Hashable, Sendable {
  var direction: Direction
  var breaker: OpenBreaker
}

/// Where sessions ask before they connect, and say how it went: circuit breakers of mail servers, or halts of profiles,
/// which are the same thing with another place, other causes and other words.
///
/// Keeps what a visit needs between the two: its probe, which is kept alive while it lasts, and the lanes that this worker
/// made wait, so that they come back and their alerts are resolved also when nobody else remembers them.
final class BreakerDesk: Sendable {
  private struct Key: Hashable {
    var fence: Fence
    var direction: Direction
  }

  private struct Visit {
    var visit: ServerVisit
    var probe: ProbeToken?
  }

  private struct State {
    var visits: [Key: Visit] = [:]
    /// Lanes whose alert this worker raised or that it held, by server.
    var told: [MailServer: Set<ServerLane>] = [:]
    /// When a lane was held last, so that a claimed batch holds it once.
    var held: [ServerLane: ContinuousClock.Instant] = [:]
  }

  /// Lanes come back so long after they were held at the latest: if the word of a recovery gets lost, that is the delay.
  static let longestHold: Duration = .seconds(60)

  let guards: any ServerGuard
  private let kind: Kind
  private let queue: any JobQueue
  private let store: any WorkerStore
  private let configuration: WorkerConfiguration
  private let metrics: WorkerMetrics
  private let logger: Logger
  private let state = Mutex(State())

  init(
    _ kind: Kind, guards: any ServerGuard, queue: any JobQueue, store: any WorkerStore,
    configuration: WorkerConfiguration,
    metrics: WorkerMetrics, logger: Logger
  ) {
    self.kind = kind
    self.guards = guards
    self.queue = queue
    self.store = store
    self.configuration = configuration
    self.metrics = metrics
    self.logger = logger
  }

  // MARK: Before connecting

  /// Asks whether a session may connect. Throws ``ServerWait`` when it may not; nothing is held then.
  func enter(_ task: SessionTask, _ direction: Direction) async throws {
    let visit = kind.visit(task, direction)
    switch try await guards.admit(visit) {
    case .go(let isFailing, let isUntold):
      note(task, direction, Visit(visit: visit))
      let remembered = state.withLock { $0.told[visit.server] != nil }
      if isUntold {
        await tell(visit.server)
      } else if remembered && !isFailing {
        await resolveRemembered(visit.server)
      }
    case .probe(let token):
      logger.info("Probing \(kind.words)", metadata: ["server": "\(visit.server)", "job.id": "\(task.lease.job)"])
      note(task, direction, Visit(visit: visit, probe: token))
    case .wait(let breaker, let isFirst):
      metrics.refused(kind.reason)
      // What halts a profile has its alert from the session that found it.
      if isFirst && kind == .server { await raise(breaker, for: visit.lane) }
      throw ServerWait(direction: direction, breaker: breaker)
    }
  }

  /// Keeps the jobs of a refused session's lane waiting, so that its job can be given back.
  func hold(_ task: SessionTask, _ wait: ServerWait) async {
    let lane = ServerLane(profile: task.settings.profileID, direction: wait.direction)
    let now = ContinuousClock.now
    let isNew = state.withLock { state in
      _ = state.told[wait.breaker.server, default: []].insert(lane)
      if let last = state.held[lane], now - last < .seconds(1) { return false }
      if state.held.count > 10_000 { state.held = state.held.filter { now - $0.value < .seconds(1) } }
      state.held[lane] = now
      return true
    }
    guard isNew else { return }
    let duration = min(Self.longestHold, max(.milliseconds(wait.breaker.waitMilliseconds), .milliseconds(50)))
    do {
      try await queue.hold([
        LaneHold(profile: lane.profile, direction: lane.direction, duration: duration, reason: kind.reason)
      ])
      // The server may have come back between its answer and the hold; then nobody else lifts it.
      if try await guards.openBreaker(of: wait.breaker.server) == nil { try await lift([lane]) }
    } catch {
      logger.warning("Cannot hold jobs of \(kind.words)", metadata: ["error": "\(error)"])
      // What is given back is claimed again at once: not too often.
      try? await Task.sleep(for: .seconds(1))
    }
  }

  private func note(_ task: SessionTask, _ direction: Direction, _ visit: Visit) {
    state.withLock { $0.visits[Key(fence: task.lease.fence, direction: direction)] = visit }
  }

  // MARK: Afterwards

  /// The server has shown that it works: a probe need not last to the end of its session.
  func proved(_ task: SessionTask, _ direction: Direction) async {
    let key = Key(fence: task.lease.fence, direction: direction)
    guard let entry = state.withLock({ $0.visits[key] }), let probe = entry.probe else { return }
    state.withLock { $0.visits[key]?.probe = nil }
    _ = await report(.works, entry.visit, probe)
  }

  /// Says how a session's visit went. Returns the breaker where it is open now.
  func leave(_ task: SessionTask, _ direction: Direction, _ result: VisitResult) async -> OpenBreaker? {
    let key = Key(fence: task.lease.fence, direction: direction)
    guard let entry = state.withLock({ $0.visits.removeValue(forKey: key) }) else { return nil }
    // Nothing to say: it was no probe, and a session that learned nothing changes nothing. Nor does one that went well
    // where no failures are counted before it opens.
    if entry.probe == nil && (result == .unknown || result == .works && kind == .profile) { return nil }
    return await report(result, entry.visit, entry.probe)
  }

  /// The same with what the session's failure says of this kind of place.
  func leave(
    _ task: SessionTask, _ direction: Direction, _ failure: Failure?, progress: Bool
  ) async -> OpenBreaker? {
    await leave(task, direction, kind.result(failure, progress: progress))
  }

  /// Whether a session is the one that finds out whether its profile is halted still.
  func isProbeOfHalt(_ task: SessionTask, _ direction: Direction) -> Bool {
    kind == .profile
      && state.withLock { $0.visits[Key(fence: task.lease.fence, direction: direction)]?.probe != nil }
  }

  /// Whether this is the desk that made a session wait.
  func isOf(_ wait: ServerWait) -> Bool { wait.breaker.isHalt == (kind == .profile) }

  /// Whether a failure is of this kind of place.
  func isCause(of failure: Failure?) -> Bool { failure?.scope == (kind == .server ? .server : .profile) }

  private func report(_ result: VisitResult, _ visit: ServerVisit, _ probe: ProbeToken?) async -> OpenBreaker? {
    let change: BreakerChange
    do {
      change = try await guards.report(result, of: visit, probe: probe)
    } catch {
      logger.warning(
        "Cannot report on \(kind.words)", metadata: ["server": "\(visit.server)", "error": "\(error)"])
      return nil
    }
    if case .failed = result { state.withLock { _ = $0.told[visit.server, default: []].insert(visit.lane) } }
    switch change {
    case .closed: return nil
    case .opened(let breaker):
      metrics.breaker(kind == .server ? "opened" : "halted")
      logger.warning(
        kind == .server ? "The circuit breaker of a mail server opens" : "A direction of a profile is halted",
        metadata: ["server": "\(visit.server)", "error.kind": "\(breaker.code.rawValue)"])
      return breaker
    case .open(let breaker, let former):
      if former != breaker.code { await correct(former, to: breaker, of: visit.lane) }
      return breaker
    case .recovered(let wasOpen):
      if wasOpen {
        metrics.breaker(kind == .server ? "closed" : "resumed")
        logger.info(
          kind == .server ? "The circuit breaker of a mail server closes" : "A direction of a profile goes on",
          metadata: ["server": "\(visit.server)"])
      }
      await tell(visit.server)
      return nil
    }
  }

  /// Keeps the probes under way, until cancelled.
  func run() async {
    while (try? await Task.sleep(for: configuration.renewal)) != nil {
      for entry in state.withLock({ Array($0.visits.values) }) {
        guard let probe = entry.probe else { continue }
        // Away for longer than its hold: the leases of this worker are lost as well, and with them its sockets.
        _ = try? await guards.extend(probe, at: entry.visit.server)
      }
    }
  }

  // MARK: Telling the lanes

  /// Lets every lane go on and resolves the alerts of its profile.
  private func tell(_ server: MailServer) async {
    do {
      while true {
        let lanes = try await guards.recovery(of: server)
        if lanes.isEmpty { break }
        try await lift(lanes)
        try await resolve(lanes)
        state.withLock { state in
          state.told[server]?.subtract(lanes)
          if state.told[server]?.isEmpty == true { state.told[server] = nil }
        }
        if try await !guards.recovered(lanes, of: server) { break }
      }
    } catch {
      // Somebody else does it after the handover; a hold ends by itself.
      logger.warning(
        "Cannot tell everybody that a mail server is back", metadata: ["server": "\(server)", "error": "\(error)"])
    }
  }

  /// The guard has forgotten the lanes (it was emptied, or another worker died telling them) or somebody else told them
  /// before a late alert was written.
  private func resolveRemembered(_ server: MailServer) async {
    guard let lanes = state.withLock({ $0.told.removeValue(forKey: server) }) else { return }
    do {
      try await lift(Array(lanes))
      try await resolve(Array(lanes))
    } catch {
      state.withLock { $0.told[server, default: []].formUnion(lanes) }
      logger.warning("Cannot resolve the alerts of a mail server", metadata: ["error": "\(error)"])
    }
  }

  private func lift(_ lanes: [ServerLane]) async throws {
    state.withLock { state in for lane in lanes { state.held[lane] = nil } }
    try await queue.hold(
      lanes.map { LaneHold(profile: $0.profile, direction: $0.direction, duration: .zero, reason: kind.reason) })
  }

  private func resolve(_ lanes: [ServerLane]) async throws {
    try await store.change(
      profileAlerts: lanes.map { lane in
        ProfileAlertChange(profileID: lane.profile, .resolve(codes: kind.codes, direction: lane.direction))
      })
  }

  /// One alert for each profile behind the server, whichever of its sessions is refused first.
  private func raise(_ breaker: OpenBreaker, for lane: ServerLane) async {
    do {
      try await store.change(
        profileAlerts: [ProfileAlertChange(profileID: lane.profile, .raise(AlertDraft(breaker, lane.direction)))])
    } catch {
      logger.warning("Cannot raise the alert of a mail server", metadata: ["error": "\(error)"])
    }
  }

  /// It fails in another way now: the alert says that instead.
  private func correct(_ former: FailureCode, to breaker: OpenBreaker, of lane: ServerLane) async {
    var changes = [
      ProfileAlertChange(profileID: lane.profile, .resolve(codes: [former.rawValue], direction: lane.direction))
    ]
    if kind == .server {
      changes.append(ProfileAlertChange(profileID: lane.profile, .raise(AlertDraft(breaker, lane.direction))))
    }
    do {
      try await store.change(profileAlerts: changes)
    } catch {
      logger.warning("Cannot change the alert of a mail server", metadata: ["error": "\(error)"])
    }
  }
}

extension BreakerDesk {
  /// What breaks.
  enum Kind: Hashable, Sendable {
    /// A mail server, by failures of scope ``FailureScope/server``.
    case server
    /// One direction of a profile, by failures of scope ``FailureScope/profile``.
    case profile

    /// What people read where jobs wait for it.
    var reason: String { self == .server ? "breaker" : LaneHold.halted }

    var words: String { self == .server ? "a mail server" : "a halted profile" }

    /// The codes that stand on a profile's wall because of it.
    var codes: [String] {
      switch self {
      case .server: FailureCode.ofServers
      case .profile: FailureCode.allCases.map(\.rawValue).filter { !FailureCode.ofServers.contains($0) }
      }
    }

    /// What the guard is told of a session.
    func visit(_ task: SessionTask, _ direction: Direction) -> ServerVisit {
      let settings = task.settings
      let lane = ServerLane(profile: settings.profileID, direction: direction)
      let server = settings.server(direction)
      return ServerVisit(
        server: self == .server
          ? MailServer(host: server.host, port: server.port)
          : MailServer(profile: lane, version: settings.profileVersion),
        mailbox: settings.mailboxID, lane: lane, isInteractive: task.isInteractive)
    }

    /// What a session's end says. `progress`: whether it has handed over mail.
    func result(_ failure: Failure?, progress: Bool) -> VisitResult {
      guard let failure else { return .works }
      switch failure.code {
      // Nothing was sent, or what went wrong is ours.
      case .credentialsMissing, .credentialsUnreadable, .profileNotSupported, .internalError, .runAborted,
        .messageStore:
        return .unknown
      // The mail server was not reached: the token server said it, or nobody was asked.
      case .oauthGrantExpired, .oauthReplaced, .oauthTemporary, .oauthMassRejection, .oauthNotConnected: return .unknown
      case .oauthClient, .oauthNotConfigured: if self == .server { return .unknown }
      // The server was reached; whether it lets anybody in was not asked.
      case .authBudget: if self == .profile { return .unknown }
      // Too much work, not a fault of the server.
      case .sessionDeadline where progress: return .works
      default: break
      }
      switch (self, failure.scope) {
      case (.server, .server), (.profile, .profile):
        return .failed(failure.code, words: failure.serverWords ?? failure.context ?? "")
      case (.server, _): return [.dnsUnknownHost, .egressDenied].contains(failure.code) ? .unknown : .works
      // It got no further than the server.
      case (.profile, .server): return .unknown
      // Nor does one refused login show that others are let in.
      case (.profile, _) where failure.failureClass == .credential: return .unknown
      case (.profile, _): return .works
      }
    }
  }
}

extension SessionTask {
  /// Whether a person waits for it.
  var isInteractive: Bool { lease.jobClass == .interactive }
}
extension FailureCode {
  /// The codes that stand on a profile's wall because of its server.
  static let ofServers = allCases.filter { $0.defaultScope == .server || $0 == .smtpBusy }.map(\.rawValue)
}

extension AlertDraft {
  /// The alert of a profile whose server is down.
  init(_ breaker: OpenBreaker, _ direction: Direction) {
    self.init(
      level: .warning, code: breaker.code.rawValue,
      text: "\(Failure(breaker.code, context: "\(breaker.server)")); its mailboxes wait, one session at a time looks "
        + "whether it is back",
      remedy: breaker.code.remedy,
      parameters: [
        "direction": direction.rawValue, "server": "\(breaker.server)", "breaker": "open",
        "serverWords": breaker.words,
      ], onProfile: true)
  }
}
