/// Where in its work a sending worker is killed.
enum SendStage: String, Sendable, Codable, CaseIterable {
  /// Connected, logged in or not; a message is taken on or not.
  case beforeMail
  /// Between MAIL and the server's word to go ahead.
  case beforeData
  /// The message is on its way.
  case duringData
  /// The final dot has arrived, the answer has not left.
  case afterDot
  /// The server has answered, the answer is not committed.
  case afterAnswer
  /// The answer is committed, nothing else is taken on.
  case betweenMessages
  /// QUIT has arrived.
  case atQuit

  /// The exact places of a stage.
  var places: [SendPlace] {
    switch self {
    case .beforeMail:
      [.sink(.hello), .sink(.login), .wire(.messageClaimSent), .wire(.messageClaimAnswered)]
    case .beforeData: [.sink(.mail), .sink(.recipient), .sink(.data)]
    case .duringData: [.sink(.body), .wire(.handoverSent), .wire(.handoverAnswered)]
    case .afterDot: [.sink(.whole)]
    case .afterAnswer: [.wire(.resultSent)]
    case .betweenMessages: [.wire(.resultAnswered)]
    case .atQuit: [.sink(.quit)]
    }
  }
}

/// Where a trap is set.
enum SendPlace: Sendable, Hashable {
  case sink(SinkPhase)
  case wire(WirePoint)

  var name: String {
    switch self {
    case .sink(let phase): "sink \(phase)"
    case .wire(let point): "wire \(point.rawValue)"
    }
  }
}

/// One thing that is done to a cluster that sends.
enum SendFault: Sendable {
  case kill(SendStage, SendPlace)
  case killScheduler
  /// Redis is killed and started with its data, or without them.
  case restartRedis(keepsData: Bool)
  case restartPostgres(crash: Bool)

  var description: String {
    switch self {
    case .kill(let stage, _): "kill a worker: \(stage.rawValue)"
    case .killScheduler: "kill the scheduler"
    case .restartRedis(let keepsData): "kill Redis and start it \(keepsData ? "with" : "without") its data"
    case .restartPostgres(let crash): crash ? "kill PostgreSQL and start it" : "restart PostgreSQL"
    }
  }
}

/// How big a cluster that sends is, and what is done to it.
struct SendOptions: Sendable {
  var seed: UInt64
  var mailboxes = 6
  var connections = 3
  var workers = 3
  var sessionsPerWorker = 16
  /// Longer than a process may stand still on a busy machine: only a kill may end a lease.
  var leaseSeconds = 6
  /// How long the server thinks about a message, milliseconds.
  var answerMilliseconds: ClosedRange<Double> = 15...60
  var kills: Int
  /// Stages to kill at; the rounds go through all of them evenly.
  var stages = SendStage.allCases
  var schedulerKills = 0
  var redisRestarts = 0
  var postgresRestarts = 0
  /// A mistake that the suite has to notice.
  var mistake: SendMistake?

  /// Each place once at least, each server once.
  static func short(seed: UInt64) -> SendOptions {
    SendOptions(seed: seed, kills: 14, schedulerKills: 1, redisRestarts: 2, postgresRestarts: 1)
  }

  /// A few kills after the dot, where the mistake shows.
  static func small(seed: UInt64, mistake: SendMistake?) -> SendOptions {
    SendOptions(
      seed: seed, mailboxes: 3, workers: 2, kills: 3, stages: [.afterDot], mistake: mistake)
  }

  /// The long run, as the environment of `ops/chaos --sending` describes it.
  static func long(_ environment: [String: String]) -> SendOptions {
    func number(_ name: String, _ fallback: Int) -> Int { environment["CHAOS_\(name)"].flatMap { Int($0) } ?? fallback }
    return SendOptions(
      seed: ChaosOptions.seed(environment), mailboxes: 12, workers: 4, leaseSeconds: number("LEASE", 5),
      kills: number("KILLS", 210), schedulerKills: number("LEADERS", 2), redisRestarts: number("REDIS", 10),
      postgresRestarts: number("POSTGRES", 10))
  }

  /// The faults in their order; the same for the same seed and counts.
  var faults: [SendFault] {
    var dice = Dice(seed: seed)
    var faults: [SendFault] = []
    // Shuffled rounds, so that stages, and the places of each, are drawn evenly.
    var (round, rounds): ([SendStage], [SendStage: [SendPlace]]) = ([], [:])
    for _ in 0..<kills {
      if round.isEmpty { round = stages.shuffled(using: &dice) }
      let stage = round.removeLast()
      var places = rounds[stage] ?? []
      if places.isEmpty { places = stage.places.shuffled(using: &dice) }
      faults.append(.kill(stage, places.removeLast()))
      rounds[stage] = places
    }
    for _ in 0..<schedulerKills { faults.append(.killScheduler) }
    for number in 0..<redisRestarts { faults.append(.restartRedis(keepsData: number % 2 == 0)) }
    for number in 0..<postgresRestarts { faults.append(.restartPostgres(crash: number % 2 == 0)) }
    faults.shuffle(using: &dice)
    return faults
  }
}

/// A mistake built into the cluster on purpose: the suite has to fail with it.
enum SendMistake: String, Sendable, CaseIterable {
  /// That the end of a message leaves is not committed before it does.
  case handoverUnmarked = "handover-unmarked"
  /// What may have arrived is sent again without a person's word.
  case uncertainResent = "uncertain-resent"

  /// The trigger that makes it.
  var trigger: String {
    let body =
      switch self {
      case .handoverUnmarked: "IF NEW.state = 'sending' THEN NEW.unsent_fence := NEW.fence; END IF;"
      case .uncertainResent: "IF NEW.state = 'uncertain' THEN NEW.state := 'pending-send'; END IF;"
      }
    return """
      CREATE FUNCTION chaos_mistake() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \(body) RETURN NEW; END $$;
      CREATE TRIGGER chaos_mistake BEFORE UPDATE ON outgoing_email FOR EACH ROW EXECUTE FUNCTION chaos_mistake();
      """
  }
}
