import PostriderCore

/// Breakers and login budgets in the queue's Redis, over the queue's connections.
///
/// Keys lie outside the epochs, `<prefix>:breaker:{<shard>}:…`, `<prefix>:login:{<shard>}:…` and
/// `<prefix>:refused:{<shard>}:…`, where the shard is chosen by the host: they carry the hash tag of a shard so that they
/// are found where that shard is, and every worker finds the same ones. A guard of halts has `halt` for `breaker`.
public final class RedisServerGuard: ServerGuard {
  let queue: RedisJobQueue
  let rules: BreakerRules
  private let rejection: MassRejectionRules

  /// A guard beside a queue, which has to run.
  public init(
    queue: RedisJobQueue, rules: BreakerRules = BreakerRules(), rejection: MassRejectionRules = MassRejectionRules()
  ) {
    self.queue = queue
    self.rules = rules
    self.rejection = rejection
  }

  var keyWord: String { rules.areHalts ? "halt" : "breaker" }

  /// May this session connect?
  public func admit(_ visit: ServerVisit) async throws -> Admission {
    let token = ProbeToken()
    let reply = try await evaluate(
      .breakerAdmit, visit.server,
      [
        visit.server.description, visit.lane.written, token.description, visit.isInteractive ? "1" : "0",
        milliseconds(rules.probeHold), milliseconds(rules.memory),
      ])
    switch reply.first?.string {
    case "go": return .go(isFailing: (reply[1].integer ?? 0) > 0, isUntold: reply[2].integer == 1)
    case "probe": return .probe(token)
    case "wait":
      return .wait(try breaker(visit.server, reply.dropFirst(2), .breakerAdmit), isFirst: reply[1].integer == 1)
    default: throw unexpected(.breakerAdmit)
    }
  }

  /// Says how an admitted visit went.
  @discardableResult
  public func report(_ result: VisitResult, of visit: ServerVisit, probe: ProbeToken?) async throws -> BreakerChange {
    let (word, code, words) =
      switch result {
      case .works: ("works", "", "")
      case .unknown: ("unknown", "", "")
      case .failed(let code, let words): ("failed", code.rawValue, words)
      }
    let probes =
      if case .failed(let code, _) = result { rules.probes(for: code) } else { rules.probes(for: .tcpRefused) }
    let reply = try await evaluate(
      .breakerReport, visit.server,
      [
        visit.server.description, visit.lane.written, probe?.description ?? "", word, visit.mailbox.description, code,
        words, String(rules.failures), String(rules.mailboxes), String(rules.failuresOfFew),
        milliseconds(probes.lowerBound), milliseconds(probes.upperBound), milliseconds(rules.memory),
      ])
    switch reply.first?.string {
    case "closed": return .closed(isFailing: (reply[1].integer ?? 0) > 0)
    case "recovered": return .recovered(wasOpen: reply[1].integer == 1)
    case "opened": return .opened(try breaker(visit.server, reply.dropFirst(), .breakerReport))
    case "open":
      let breaker = try breaker(visit.server, reply.dropFirst(2), .breakerReport)
      return .open(breaker, formerCode: reply[1].string.flatMap { FailureCode(rawValue: $0) } ?? breaker.code)
    default: throw unexpected(.breakerReport)
    }
  }

  /// Keeps a probe.
  public func extend(_ probe: ProbeToken, at server: MailServer) async throws -> Bool {
    let reply = try await evaluate(
      .breakerExtend, server,
      [server.description, probe.description, milliseconds(rules.probeHold), milliseconds(rules.memory)])
    return reply.first?.integer == 1
  }

  /// The lanes that nobody has told yet that their server is back.
  public func recovery(of server: MailServer) async throws -> [ServerLane] {
    try await evaluate(.breakerRecovery, server, [milliseconds(rules.handover)])
      .compactMap { $0.string.flatMap { ServerLane(written: $0) } }
  }

  /// Strikes lanes that have been told.
  @discardableResult
  public func recovered(_ lanes: [ServerLane], of server: MailServer) async throws -> Bool {
    var more = false
    for part in lanes.parts(of: maximumBatch) {
      let arguments = [milliseconds(rules.handover)] + part.map(\.written)
      more = try await evaluate(.breakerRecovery, server, arguments).first?.integer == 1
    }
    return more
  }

  /// The breaker of one server; `nil` while it is closed.
  public func openBreaker(of server: MailServer) async throws -> OpenBreaker? {
    let reply = try await evaluate(.breakerView, server, [])
    return reply.isEmpty ? nil : try breaker(server, reply[...], .breakerView)
  }

  /// The open breakers, oldest first.
  public func openBreakers(limit: Int) async throws -> [OpenBreaker] {
    var open: [OpenBreaker] = []
    for place in places {
      let reply = try await place.evaluate(
        .breakerList, keys: [place.key(keyWord + "s", nil)], [place.key(keyWord, ""), String(max(0, limit))])
      guard let now = reply.first?.integer else { throw unexpected(.breakerList) }
      open += reply.dropFirst().compactMap { entry in
        guard let fields = entry.array, fields.count == 7, let server = fields[0].string.flatMap({ MailServer($0) }),
          let code = fields[5].string.flatMap({ FailureCode(rawValue: $0) })
        else { return nil }
        let numbers = fields.map { $0.integer ?? 0 }
        let next = max(0, numbers[3] - now)
        let probing = numbers[4] > now
        return OpenBreaker(
          server: server, code: code, words: fields[6].string ?? "", sinceMilliseconds: numbers[1],
          failedProbes: Int(numbers[2]), nextProbeMilliseconds: next, isProbing: probing,
          waitMilliseconds: probing ? numbers[4] - now : next, isHalt: rules.areHalts)
      }
    }
    return Array(open.sorted { $0.sinceMilliseconds < $1.sinceMilliseconds }.prefix(max(0, limit)))
  }

  // MARK: Logins

  /// May this login begin?
  public func login(
    _ visitor: LoginVisitor, at place: LoginPlace, budget: LoginBudget, deadline: Duration
  ) async throws -> LoginAnswer {
    let token = ProbeToken().description
    let reply = try await evaluate(
      .login, place, visitor.lane,
      [
        token, visitor.isProven ? "1" : "0", String(budget.limit), milliseconds(budget.window), milliseconds(deadline),
        visitor.mailbox.description, milliseconds(rejection.window),
      ])
    if let kind = reply.first?.string.flatMap({ LoginPermit.Kind(rawValue: $0) }) {
      return .go(LoginPermit(place: place, budget: budget, kind: kind, token: token))
    }
    guard reply.first?.string == "wait", reply.count == 3, let wait = reply[1].integer else { throw unexpected(.login) }
    return .wait(.milliseconds(wait), isShort: reply[2].integer == 1)
  }

  /// Says how a permitted login ended.
  public func settle(_ permit: LoginPermit, _ result: LoginResult) async throws {
    // Nothing was taken and nothing is counted: no need to tell.
    if permit.kind == .free && result != .refused { return }
    _ = try await evaluate(
      .loginSettle, permit.place, nil,
      [
        permit.token, permit.kind.rawValue, result.rawValue, milliseconds(permit.budget.window),
        milliseconds(permit.budget.hold),
      ])
  }

  /// Notes that a proven mailbox was refused.
  public func refused(_ visitor: LoginVisitor, at place: LoginPlace) async throws -> Bool {
    let reply = try await evaluate(
      .loginRefused, place, visitor.lane, [visitor.mailbox.description, milliseconds(rejection.window)])
    guard reply.count == 2, let refused = reply[0].integer, let tried = reply[1].integer else {
      throw unexpected(.loginRefused)
    }
    return refused >= rejection.mailboxes && Double(refused) >= rejection.share * Double(tried)
  }

  // MARK: Replies

  private func milliseconds(_ duration: Duration) -> String { String(max(1, duration.milliseconds)) }

  private func unexpected(_ script: RedisScript) -> JobQueueError {
    .unavailable(reason: "the script \(script.rawValue) gave an unexpected reply")
  }

  /// since, tries, ms to the next probe, probing, ms to wait, code, words.
  private func breaker(
    _ server: MailServer, _ view: ArraySlice<RedisValue>, _ script: RedisScript
  ) throws(JobQueueError) -> OpenBreaker {
    let fields = Array(view)
    guard fields.count == 7, let since = fields[0].integer, let tries = fields[1].integer, let next = fields[2].integer,
      let wait = fields[4].integer
    else { throw unexpected(script) }
    return OpenBreaker(
      // A code of a newer release still is a fault of the server.
      server: server, code: fields[5].string.flatMap { FailureCode(rawValue: $0) } ?? .tcpUnreachable,
      words: fields[6].string ?? "", sinceMilliseconds: since, failedProbes: Int(tries), nextProbeMilliseconds: next,
      isProbing: fields[3].integer == 1, waitMilliseconds: wait, isHalt: rules.areHalts)
  }
}

extension ServerLane {
  /// `<profile>:<i|o>`, as in the scripts.
  var written: String { "\(profile):\(direction == .incoming ? "i" : "o")" }

  init?(written: String) {
    guard let colon = written.lastIndex(of: ":"), let profile = ProfileID(written[..<colon]) else { return nil }
    switch written[written.index(after: colon)...] {
    case "i": self.init(profile: profile, direction: .incoming)
    case "o": self.init(profile: profile, direction: .outgoing)
    default: return nil
    }
  }
}

extension MailServer {
  /// Reads the form of `description`.
  init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) else { return nil }
    let host = text[..<colon]
    self.init(host: String(host.first == "[" ? host.dropFirst().dropLast() : host), port: port)
  }
}
