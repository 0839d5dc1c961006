import Logging
import PostriderCore
import Synchronization

/// A session must wait for its server: its job goes back without a run.
struct ServerWait: Error, Hashable, Sendable {
  var direction: Direction
  var breaker: OpenBreaker
}

/// Where sessions ask before they connect and before they log in, and say how it went.
///
/// Keeps what a visit needs between the two: its probe, which is kept alive while it lasts, and the lanes that this worker
/// made wait, so that they come back and their alerts are resolved also when nobody else remembers them.
final class ServerDesk: Sendable {
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
  /// How long a session waits for logins under way, with its connection open.
  static let loginPatience: Duration = .seconds(10)

  let guards: (any ServerGuard)?
  private let queue: any JobQueue
  private let store: any WorkerStore
  private let configuration: WorkerConfiguration
  private let metrics: WorkerMetrics
  private let logger: Logger
  private let state = Mutex(State())

  init(
    guards: (any ServerGuard)?, queue: any JobQueue, store: any WorkerStore, configuration: WorkerConfiguration,
    metrics: WorkerMetrics, logger: Logger
  ) {
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
    guard let guards else { return }
    let visit = task.visit(direction)
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
      logger.info("Probing a mail server", metadata: ["server": "\(visit.server)", "job.id": "\(task.lease.job)"])
      note(task, direction, Visit(visit: visit, probe: token))
    case .wait(let breaker, let isFirst):
      metrics.refused("breaker")
      if isFirst { await raise(breaker, for: visit.lane) }
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
        LaneHold(profile: lane.profile, direction: lane.direction, duration: duration, reason: "breaker")
      ])
      // The server may have come back between its answer and the hold; then nobody else lifts it.
      if let guards, try await guards.openBreaker(of: wait.breaker.server) == nil { try await lift([lane]) }
    } catch {
      logger.warning("Cannot hold jobs of a broken mail server", metadata: ["error": "\(error)"])
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
  @discardableResult
  func leave(_ task: SessionTask, _ direction: Direction, _ result: VisitResult) async -> OpenBreaker? {
    let key = Key(fence: task.lease.fence, direction: direction)
    guard let entry = state.withLock({ $0.visits.removeValue(forKey: key) }) else { return nil }
    // Nothing to say: it was no probe, and a session that learned nothing changes nothing.
    if result == .unknown && entry.probe == nil { return nil }
    return await report(result, entry.visit, entry.probe)
  }

  /// Ends what a session left open: it was interrupted.
  func abandon(_ task: SessionTask) async {
    guard guards != nil else { return }
    for direction in Direction.allCases { await leave(task, direction, .unknown) }
  }

  private func report(_ result: VisitResult, _ visit: ServerVisit, _ probe: ProbeToken?) async -> OpenBreaker? {
    guard let guards else { return nil }
    let change: BreakerChange
    do {
      change = try await guards.report(result, of: visit, probe: probe)
    } catch {
      logger.warning(
        "Cannot report on a mail server", metadata: ["server": "\(visit.server)", "error": "\(error)"])
      return nil
    }
    if case .failed = result { state.withLock { _ = $0.told[visit.server, default: []].insert(visit.lane) } }
    switch change {
    case .closed: return nil
    case .opened(let breaker):
      metrics.breaker("opened")
      logger.warning(
        "The circuit breaker of a mail server opens",
        metadata: ["server": "\(visit.server)", "error.kind": "\(breaker.code.rawValue)"])
      return breaker
    case .open(let breaker, let former):
      if former != breaker.code { await correct(former, to: breaker, of: visit.lane) }
      return breaker
    case .recovered(let wasOpen):
      if wasOpen {
        metrics.breaker("closed")
        logger.info("The circuit breaker of a mail server closes", metadata: ["server": "\(visit.server)"])
      }
      await tell(visit.server)
      return nil
    }
  }

  /// Keeps the probes under way, until cancelled.
  func run() async {
    guard let guards else { return }
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
    guard let guards else { return }
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
      lanes.map { LaneHold(profile: $0.profile, direction: $0.direction, duration: .zero, reason: "breaker") })
  }

  private func resolve(_ lanes: [ServerLane]) async throws {
    try await store.change(
      profileAlerts: lanes.map { lane in
        ProfileAlertChange(profileID: lane.profile, .resolve(codes: FailureCode.ofServers, direction: lane.direction))
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

  /// The server fails in another way now: the alert says that instead.
  private func correct(_ former: FailureCode, to breaker: OpenBreaker, of lane: ServerLane) async {
    do {
      try await store.change(
        profileAlerts: [
          ProfileAlertChange(profileID: lane.profile, .resolve(codes: [former.rawValue], direction: lane.direction)),
          ProfileAlertChange(profileID: lane.profile, .raise(AlertDraft(breaker, lane.direction))),
        ])
    } catch {
      logger.warning("Cannot change the alert of a mail server", metadata: ["error": "\(error)"])
    }
  }

  // MARK: Before logging in

  /// Runs a login under the budget of its server. Throws the failure `auth.budget` when it has to wait.
  func login(_ task: SessionTask, _ direction: Direction, _ body: () async throws -> Void) async throws {
    guard let guards else { return try await body() }
    let permit = try await permit(task, direction, guards)
    var result = LoginResult.lost
    do {
      try await body()
      result = .accepted
    } catch let failure as Failure {
      result = LoginResult(failure)
      await settle(permit, result, guards)
      throw failure
    } catch {
      await settle(permit, .lost, guards)
      throw error
    }
    await settle(permit, result, guards)
  }

  private func permit(
    _ task: SessionTask, _ direction: Direction, _ guards: any ServerGuard
  ) async throws -> LoginPermit {
    let settings = task.settings
    let place = LoginPlace(host: settings.server(direction).host, egress: configuration.egressID)
    let end = ContinuousClock.now + min(Self.loginPatience, settings.sessionDeadline / 4)
    while true {
      let answer = try await guards.login(
        at: place, isProven: task.assignment.proven.contains(direction), budget: settings.loginBudget,
        // A login has at most three answers and three computations, each with the time for an answer.
        deadline: settings.connectionTimeout * 6)
      switch answer {
      case .go(let permit): return permit
      case .wait(_, isShort: true) where ContinuousClock.now < end:
        try await Task.sleep(for: .milliseconds(Int.random(in: 50...150)))
      case .wait(let wait, _):
        metrics.refused("login-budget")
        throw Failure(
          .authBudget, context: "logins at \(place.host)", retryAfterSeconds: Int((wait / .seconds(1)).rounded(.up)))
      }
    }
  }

  private func settle(_ permit: LoginPermit, _ result: LoginResult, _ guards: any ServerGuard) async {
    do {
      try await guards.settle(permit, result)
    } catch {
      // It counts as lost.
      logger.warning("Cannot settle a login", metadata: ["error": "\(error)"])
    }
  }
}

extension SessionTask {
  /// What the guard is told of this session.
  func visit(_ direction: Direction) -> ServerVisit {
    let server = settings.server(direction)
    return ServerVisit(
      server: MailServer(host: server.host, port: server.port), mailbox: settings.mailboxID,
      lane: ServerLane(profile: settings.profileID, direction: direction), isInteractive: isInteractive)
  }

  /// Whether a person waits for it.
  var isInteractive: Bool { lease.jobClass == .interactive }
}

extension VisitResult {
  /// What a session's end says of the server. `progress`: whether it has handed over mail.
  init(_ failure: Failure?, progress: Bool) {
    guard let failure else {
      self = .works
      return
    }
    switch failure.code {
    // Too much work, not a fault of the server.
    case .sessionDeadline where progress: self = .works
    case _ where failure.scope == .server:
      self = .failed(failure.code, words: failure.serverWords ?? failure.context ?? "")
    // Nothing was sent, or what went wrong is ours.
    case .dnsUnknownHost, .egressDenied, .credentialsMissing, .credentialsUnreadable, .profileNotSupported,
      .internalError,
      .runAborted, .messageStore:
      self = .unknown
    default: self = .works
    }
  }
}

extension LoginResult {
  /// What a failed login means for the budget.
  init(_ failure: Failure) {
    switch failure.failureClass {
    case .credential: self = .refused
    // The account exists and is in use, or the server puts it off: no failed login.
    case .contention, .throttle, .quota: self = .accepted
    // Nothing was sent.
    case .permanent where failure.code == .authNoMechanism || failure.code == .profileNotSupported: self = .accepted
    case .permanent where failure.scope == .mailbox: self = .refused
    case .transient where failure.code == .pop3SysTemp || failure.code == .authKerberos: self = .accepted
    default: self = .lost
    }
  }
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
