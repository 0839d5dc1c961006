/// Where in its work a worker is killed.
enum KillStage: String, Sendable, Codable, CaseIterable {
  /// Between the queue's grant and the first connection.
  case claim
  /// In the middle of a session with the mail server.
  case session
  /// Around a transaction of messages or outcomes: sent or not, answered or not.
  case commit
  /// Around the end of the lease: the outcome is committed, the queue knows or not.
  case complete
}

/// One thing that is done to the cluster.
enum Fault: Sendable {
  /// `choice` selects the process and the exact place.
  case killWorker(KillStage, choice: Int)
  case killScheduler(leader: Bool, choice: Int)
  case restartRedis(crash: Bool)
  case emptyRedis(flush: Bool)
  case restartPostgres(crash: Bool, downSeconds: Double)
  /// A worker is stopped in the middle of a commit for longer than its lease, then its write arrives.
  case stopWorker(outcome: Bool, choice: Int)
  /// A worker cannot reach Redis, or Redis answers no more, for longer than its lease.
  case splitNetwork(silent: Bool, choice: Int)
  /// The leader is stopped for longer than its term; then there are two.
  case stopLeader

  var description: String {
    switch self {
    case .killWorker(let stage, _): "kill a worker at \(stage.rawValue)"
    case .killScheduler(let leader, _): leader ? "kill the leading scheduler" : "kill a standby scheduler"
    case .restartRedis(let crash): crash ? "kill Redis and start it with its data" : "restart Redis with its data"
    case .emptyRedis(let flush): flush ? "FLUSHALL" : "restart Redis without its data"
    case .restartPostgres(let crash, _): crash ? "kill PostgreSQL and start it" : "restart PostgreSQL"
    case .stopWorker(let outcome, _): "stop a worker while it \(outcome ? "commits outcomes" : "stores messages")"
    case .splitNetwork(let silent, _): silent ? "Redis falls silent for a worker" : "a worker cannot reach Redis"
    case .stopLeader: "stop the leading scheduler"
    }
  }
}

/// The faults of a run in their order; the same for the same seed and counts.
struct FaultPlan: Sendable {
  var faults: [Fault] = []

  init(_ counts: ChaosOptions.Faults, seed: UInt64) {
    var dice = Dice(seed: seed)
    // Stages in shuffled rounds, so that they are drawn evenly.
    var round: [KillStage] = []
    for _ in 0..<counts.workerKills {
      if round.isEmpty { round = KillStage.allCases.shuffled(using: &dice) }
      faults.append(.killWorker(round.removeLast(), choice: dice.number(below: 1_000_000)))
    }
    for number in 0..<counts.schedulerKills {
      faults.append(.killScheduler(leader: number % 2 == 0, choice: dice.number(below: 1_000_000)))
    }
    for number in 0..<counts.redisRestarts { faults.append(.restartRedis(crash: number % 2 == 0)) }
    for number in 0..<counts.redisLosses { faults.append(.emptyRedis(flush: number % 3 == 2)) }
    for number in 0..<counts.postgresRestarts {
      faults.append(.restartPostgres(crash: number % 2 == 0, downSeconds: dice.seconds(0...1.5)))
    }
    for number in 0..<counts.workerStops {
      faults.append(.stopWorker(outcome: number % 2 == 0, choice: dice.number(below: 1_000_000)))
    }
    for number in 0..<counts.networkSplits {
      faults.append(.splitNetwork(silent: number % 2 == 0, choice: dice.number(below: 1_000_000)))
    }
    for _ in 0..<counts.schedulerStops { faults.append(.stopLeader) }
    faults.shuffle(using: &dice)
  }
}
