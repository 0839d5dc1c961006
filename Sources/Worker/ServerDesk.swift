import Logging
import PostriderCore

/// Where sessions ask before they connect and before they log in, and say how it went: breakers of servers, halts of
/// profiles, login budgets.
final class ServerDesk: Sendable {
  /// How long a session waits for logins under way, with its connection open.
  static let loginPatience: Duration = .seconds(10)

  private let guards: (any ServerGuard)?
  private let desks: [BreakerDesk]
  private let configuration: WorkerConfiguration
  private let metrics: WorkerMetrics
  private let logger: Logger

  init(
    guards: (any ServerGuard)?, halts: (any ServerGuard)?, queue: any JobQueue, store: any WorkerStore,
    configuration: WorkerConfiguration, metrics: WorkerMetrics, logger: Logger
  ) {
    self.guards = guards
    self.configuration = configuration
    self.metrics = metrics
    self.logger = logger
    // A halted profile is not connected for, so it is asked about first.
    desks = [(BreakerDesk.Kind.profile, halts), (.server, guards)].compactMap { kind, guards in
      guards.map {
        BreakerDesk(
          kind, guards: $0, queue: queue, store: store, configuration: configuration, metrics: metrics,
          logger: logger)
      }
    }
  }

  /// Asks whether a session may connect. Throws ``ServerWait`` when it may not; nothing is held then.
  func enter(_ task: SessionTask, _ direction: Direction) async throws {
    for (index, desk) in desks.enumerated() {
      do {
        try await desk.enter(task, direction)
      } catch {
        for entered in desks[..<index] { _ = await entered.leave(task, direction, .unknown) }
        throw error
      }
    }
  }

  /// Keeps the jobs of a refused session's lane waiting, so that its job can be given back.
  func hold(_ task: SessionTask, _ wait: ServerWait) async {
    await desks.first { $0.isOf(wait) }?.hold(task, wait)
  }

  /// Server and profile have shown that they work: a probe need not last to the end of its session.
  func proved(_ task: SessionTask, _ direction: Direction) async {
    for desk in desks { await desk.proved(task, direction) }
  }

  /// Says how a session's visit went; `progress`: whether it has handed over mail. Returns what the failure opened or
  /// found open.
  @discardableResult
  func leave(
    _ task: SessionTask, _ direction: Direction, _ failure: Failure?, progress: Bool = false
  ) async -> OpenBreaker? {
    var open: OpenBreaker?
    for desk in desks {
      let its = await desk.leave(task, direction, failure, progress: progress)
      if desk.isCause(of: failure) { open = its }
    }
    return open
  }

  /// Ends what a session left open: it was interrupted.
  func abandon(_ task: SessionTask) async {
    for direction in Direction.allCases {
      for desk in desks { _ = await desk.leave(task, direction, .unknown) }
    }
  }

  /// Keeps the probes under way, until cancelled.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      for desk in desks { group.addTask { await desk.run() } }
    }
  }

  // MARK: Before logging in

  /// Runs a login under the budget of its server. Throws the failure `auth.budget` when it has to wait, and
  /// `auth.mass-rejection` when so many others are refused that this refusal says nothing of the mailbox.
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
      throw await weighed(failure, result, task, direction, guards)
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
    let place = place(task, direction)
    let end = ContinuousClock.now + min(Self.loginPatience, settings.sessionDeadline / 4)
    while true {
      let answer = try await guards.login(
        visitor(task, direction), at: place, budget: settings.loginBudget,
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

  private func place(_ task: SessionTask, _ direction: Direction) -> LoginPlace {
    LoginPlace(host: task.settings.server(direction).host, egress: configuration.egressID)
  }

  private func visitor(_ task: SessionTask, _ direction: Direction) -> LoginVisitor {
    LoginVisitor(
      mailbox: task.settings.mailboxID, lane: ServerLane(profile: task.settings.profileID, direction: direction),
      isProven: task.assignment.proven.contains(direction))
  }

  /// A refusal of a mailbox that was let in before, seen beside those of its profile's other mailboxes.
  private func weighed(
    _ failure: Failure, _ result: LoginResult, _ task: SessionTask, _ direction: Direction, _ guards: any ServerGuard
  ) async -> Failure {
    guard result == .refused, failure.failureClass == .credential, failure.scope == .mailbox,
      [.mailbox, .oauth].contains(task.settings.server(direction).credentials),
      task.assignment.proven.contains(direction)
    else { return failure }
    // A single refusal, however long after the others, does not end the halt.
    guard await isOneOfMany(task, direction, guards) || isProbeOfHalt(task, direction) else { return failure }
    return failure.oneOfMany(.authMassRejection)
  }

  /// The same of a consent that the token server says is over, by a mailbox that was let in before.
  func weighed(token failure: Failure, _ task: SessionTask, _ direction: Direction) async -> Failure {
    guard failure.code == .oauthGrantExpired, task.assignment.proven.contains(direction), let guards,
      await isOneOfMany(task, direction, guards)
    else { return failure }
    return failure.oneOfMany(.oauthMassRejection)
  }

  private func isOneOfMany(_ task: SessionTask, _ direction: Direction, _ guards: any ServerGuard) async -> Bool {
    do {
      return try await guards.refused(visitor(task, direction), at: place(task, direction))
    } catch {
      logger.warning("Cannot weigh a refused login", metadata: ["error": "\(error)"])
      return false
    }
  }

  /// Whether a session is the one that finds out whether its profile is halted still.
  func isProbeOfHalt(_ task: SessionTask, _ direction: Direction) -> Bool {
    desks.contains { $0.isProbeOfHalt(task, direction) }
  }
}

extension Failure {
  /// The refusal of one mailbox among many as the profile's.
  fileprivate func oneOfMany(_ code: FailureCode) -> Failure {
    Failure(code, serverWords: serverWords, context: "\(self.code.rawValue)" + (context.map { ": \($0)" } ?? ""))
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
