import PostriderCore

/// What a server guard knows, as plain values: the model that the one in Redis is compared with.
struct MemoryGuardState: Hashable, Sendable {
  struct Breaker: Hashable, Sendable {
    struct Opening: Hashable, Sendable {
      var since: Int64
      var tries = 0
      var probeAt: Int64
      var probe: ProbeToken?
      var probeUntil: Int64 = 0
      var isEarly = false
    }

    var row = 0
    var from: Set<MailboxID> = []
    var code = FailureCode.tcpRefused
    var words = ""
    var opening: Opening?
    /// `true` where a visit was refused, `false` where one failed.
    var lanes: [ServerLane: Bool] = [:]
    /// From a recovery on: until when somebody is telling the lanes.
    var told: Int64?
    var forgottenAt: Int64 = 0
  }

  struct Logins: Hashable, Sendable {
    var failed: [String: Int64] = [:]
    var taken: [String: Int64] = [:]
    var single: (String, Int64)?
    var heldUntil: Int64 = 0

    static func == (a: Self, b: Self) -> Bool {
      a.failed == b.failed && a.taken == b.taken && a.single?.0 == b.single?.0 && a.heldUntil == b.heldUntil
    }

    func hash(into hasher: inout Hasher) { hasher.combine(failed) }
  }

  let rules: BreakerRules
  private var breakers: [MailServer: Breaker] = [:]
  private var logins: [LoginPlace: Logins] = [:]
  private var refusals: [ServerLane: Refusals] = [:]
  private let rejection = MassRejectionRules()

  struct Refusals: Hashable, Sendable {
    var refused: [MailboxID: Int64] = [:]
    /// The latest window in which each tried.
    var tried: [MailboxID: Int64] = [:]
  }

  init(rules: BreakerRules) { self.rules = rules }

  // MARK: Breakers

  private func breaker(_ server: MailServer, at now: Int64) -> Breaker {
    guard let breaker = breakers[server], breaker.forgottenAt > now else { return Breaker() }
    return breaker
  }

  private func view(_ server: MailServer, _ breaker: Breaker, _ opening: Breaker.Opening, at now: Int64) -> OpenBreaker
  {
    let probing = opening.probe != nil && opening.probeUntil > now
    let next = max(0, opening.probeAt - now)
    return OpenBreaker(
      server: server, code: breaker.code, words: breaker.words, sinceMilliseconds: opening.since,
      failedProbes: opening.tries, nextProbeMilliseconds: next, isProbing: probing,
      waitMilliseconds: probing ? opening.probeUntil - now : next, isHalt: rules.areHalts)
  }

  mutating func admit(_ visit: ServerVisit, token: ProbeToken, at now: Int64) -> Admission {
    var breaker = breaker(visit.server, at: now)
    guard var opening = breaker.opening else {
      return .go(isFailing: breaker.row > 0, isUntold: breaker.told.map { $0 <= now } ?? false)
    }
    if opening.probeUntil <= now { opening.probe = nil }
    if opening.probe == nil, visit.isInteractive || opening.probeAt <= now {
      opening.probe = token
      opening.probeUntil = now + rules.probeHold.milliseconds
      opening.isEarly = opening.probeAt > now
      breaker.opening = opening
      breaker.forgottenAt = max(opening.probeAt, opening.probeUntil) + rules.memory.milliseconds
      breakers[visit.server] = breaker
      return .probe(token)
    }
    let first = !visit.isInteractive && breaker.lanes[visit.lane] != true
    if first {
      breaker.lanes[visit.lane] = true
      breakers[visit.server] = breaker
    }
    return .wait(view(visit.server, breaker, opening, at: now), isFirst: first)
  }

  mutating func report(_ result: VisitResult, of visit: ServerVisit, probe: ProbeToken?, at now: Int64) -> BreakerChange
  {
    var breaker = breaker(visit.server, at: now)
    defer { breakers[visit.server] = breaker.row == 0 && breaker.lanes.isEmpty ? nil : breaker }
    guard var opening = breaker.opening else {
      switch result {
      case .works where breaker.row > 0:
        recover(&breaker, at: now)
        return .recovered(wasOpen: false)
      case .works, .unknown: return .closed(isFailing: breaker.row > 0)
      case .failed(let code, let words):
        breaker.row += 1
        if breaker.from.count < rules.mailboxes { breaker.from.insert(visit.mailbox) }
        (breaker.code, breaker.words) = (code, words)
        if breaker.lanes[visit.lane] == nil { breaker.lanes[visit.lane] = false }
        breaker.told = nil
        let opens =
          breaker.row >= rules.failures && breaker.from.count >= rules.mailboxes || breaker.row >= rules.failuresOfFew
        guard opens else {
          breaker.forgottenAt = now + rules.memory.milliseconds
          return .closed(isFailing: true)
        }
        let first = rules.wait(afterFailedProbes: 0, for: code)
        let opening = Breaker.Opening(since: now, probeAt: now + first.milliseconds)
        breaker.opening = opening
        breaker.forgottenAt = opening.probeAt + rules.memory.milliseconds
        return .opened(view(visit.server, breaker, opening, at: now))
      }
    }
    let former = breaker.code
    guard let probe, opening.probe == probe else {
      if case .failed = result, breaker.lanes[visit.lane] == nil { breaker.lanes[visit.lane] = false }
      return .open(view(visit.server, breaker, opening, at: now), formerCode: former)
    }
    opening.probe = nil
    opening.probeUntil = 0
    switch result {
    case .works:
      recover(&breaker, at: now)
      return .recovered(wasOpen: true)
    case .unknown: break
    case .failed(let code, let words):
      (breaker.code, breaker.words) = (code, words)
      if breaker.lanes[visit.lane] == nil { breaker.lanes[visit.lane] = false }
      if !(opening.isEarly && opening.probeAt > now) {
        opening.tries += 1
        opening.probeAt = now + rules.wait(afterFailedProbes: opening.tries, for: code).milliseconds
      }
    }
    breaker.opening = opening
    breaker.forgottenAt = max(opening.probeAt, now) + rules.memory.milliseconds
    return .open(view(visit.server, breaker, opening, at: now), formerCode: former)
  }

  private func recover(_ breaker: inout Breaker, at now: Int64) {
    let lanes = breaker.lanes
    breaker = Breaker()
    breaker.lanes = lanes
    breaker.told = 0
    breaker.forgottenAt = now + rules.memory.milliseconds
  }

  mutating func extend(_ probe: ProbeToken, at server: MailServer, now: Int64) -> Bool {
    var breaker = breaker(server, at: now)
    guard breaker.opening?.probe == probe else { return false }
    breaker.opening?.probeUntil = now + rules.probeHold.milliseconds
    breaker.forgottenAt =
      max(breaker.opening?.probeAt ?? 0, now + rules.probeHold.milliseconds) + rules.memory.milliseconds
    breakers[server] = breaker
    return true
  }

  mutating func recovery(of server: MailServer, now: Int64) -> [ServerLane] {
    let breaker = breaker(server, at: now)
    guard breaker.opening == nil, let told = breaker.told, told <= now else { return [] }
    breakers[server]?.told = now + rules.handover.milliseconds
    return Array(breaker.lanes.keys.prefix(500))
  }

  mutating func recovered(_ lanes: [ServerLane], of server: MailServer, now: Int64) -> Bool {
    var breaker = breaker(server, at: now)
    if breaker.opening != nil || breaker.row > 0 {
      for lane in lanes { breaker.lanes[lane] = false }
      breakers[server] = breaker
      return false
    }
    for lane in lanes { breaker.lanes[lane] = nil }
    if breaker.lanes.isEmpty {
      breakers[server] = nil
      return false
    }
    breaker.told = 0
    breakers[server] = breaker
    return true
  }

  func openBreakers(at now: Int64) -> [OpenBreaker] {
    breakers.keys.compactMap { server in
      let breaker = breaker(server, at: now)
      return breaker.opening.map { view(server, breaker, $0, at: now) }
    }.sorted { $0.sinceMilliseconds < $1.sinceMilliseconds }
  }

  // MARK: Logins

  mutating func login(
    _ visitor: LoginVisitor, at place: LoginPlace, budget: LoginBudget, deadline: Duration, token: String, now: Int64
  ) -> LoginAnswer {
    let isProven = visitor.isProven
    if isCounting(visitor.lane, now) {
      refusals[visitor.lane]?.tried[visitor.mailbox] = now / rejection.window.milliseconds
      refusals[visitor.lane]?.refused[visitor.mailbox] = nil
    }
    var logins = logins[place] ?? Logins()
    defer { self.logins[place] = logins }
    let window = budget.window.milliseconds
    logins.failed = logins.failed.filter { $0.value > now - window }
    logins.taken = logins.taken.filter { $0.value > now - window }
    let lost = logins.taken.values.count { $0 <= now - deadline.milliseconds }
    func permit(_ kind: LoginPermit.Kind) -> LoginAnswer {
      .go(LoginPermit(place: place, budget: budget, kind: kind, token: token))
    }
    if isProven {
      if logins.failed.count + lost < budget.limit { return permit(.free) }
      if logins.heldUntil > now { return .wait(.milliseconds(logins.heldUntil - now), isShort: false) }
      if let (_, until) = logins.single, until > now { return .wait(.milliseconds(until - now), isShort: true) }
      logins.single = (token, now + deadline.milliseconds)
      return permit(.single)
    }
    if logins.failed.count + logins.taken.count < budget.limit {
      logins.taken[token] = now
      return permit(.token)
    }
    let oldest = (Array(logins.failed.values) + Array(logins.taken.values)).min() ?? now
    return .wait(.milliseconds(max(1, oldest + window - now)), isShort: logins.taken.count > lost)
  }

  mutating func settle(_ permit: LoginPermit, _ result: LoginResult, now: Int64) {
    var logins = logins[permit.place] ?? Logins()
    if permit.kind == .token && result != .lost { logins.taken[permit.token] = nil }
    if result == .refused { logins.failed[permit.token] = now }
    if permit.kind == .single, let (token, until) = logins.single, token == permit.token, until > now {
      logins.single = nil
      if result == .refused { logins.heldUntil = now + permit.budget.hold.milliseconds }
    }
    self.logins[permit.place] = logins
  }
}

extension MemoryGuardState {
  /// Whether a mailbox of the lane was refused within the window.
  private mutating func isCounting(_ lane: ServerLane, _ now: Int64) -> Bool {
    guard let last = refusals[lane]?.refused.values.max(), last > now - rejection.window.milliseconds else {
      refusals[lane]?.refused = [:]
      return false
    }
    return true
  }

  mutating func refused(_ visitor: LoginVisitor, now: Int64) -> Bool {
    let window = rejection.window.milliseconds
    _ = isCounting(visitor.lane, now)
    var counted = refusals[visitor.lane] ?? Refusals()
    counted.refused = counted.refused.filter { $0.value > now - window }
    counted.refused[visitor.mailbox] = now
    counted.tried[visitor.mailbox] = now / window
    counted.tried = counted.tried.filter { $0.value >= now / window - 1 }
    refusals[visitor.lane] = counted
    return counted.refused.count >= rejection.mailboxes
      && Double(counted.refused.count) >= rejection.share * Double(counted.tried.count)
  }
}

extension Duration {
  /// Whole milliseconds, rounded down.
  fileprivate var milliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }
}
