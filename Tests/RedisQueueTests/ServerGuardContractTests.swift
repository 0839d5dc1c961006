import PostriderCore
import PostriderTesting
import Testing

/// The sentences of ``ServerGuard``'s documentation about breakers, for every guard there is.
@Suite("ServerGuard contract: breakers", .gated, .timeLimit(.minutes(3)))
struct BreakerContractTests {
  // Promise 1
  @Test("five failures in a row from three mailboxes open it", arguments: GuardKind.allCases)
  func opens(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      #expect(try await test.fail([1, 2, 3, 1]) == .closed(isFailing: true))
      #expect(try await test.admit() == .go(isFailing: true, isUntold: false))
      let change = try #require(try await test.fail([2]))
      #expect(change.isOpened)
      let breaker = try #require(change.breaker)
      #expect(breaker.server == MailServer(host: "mail.example.org", port: 995))
      #expect(breaker.code == .tcpRefused && breaker.words == "no" && breaker.failedProbes == 0)
      #expect((20_000...30_000).contains(breaker.nextProbeMilliseconds) && !breaker.isProbing)
      #expect(try await test.admit().waiting?.code == .tcpRefused)
      let open = try await test.serverGuard.openBreakers(limit: 10)
      #expect(open.map(\.server) == [mail] && open[0].sinceMilliseconds == breaker.sinceMilliseconds)
      #expect(try await test.serverGuard.openBreaker(of: mail)?.sinceMilliseconds == breaker.sinceMilliseconds)
    }
  }

  @Test("two mailboxes alone need ten, and so does one", arguments: GuardKind.allCases, [[1, 2], [1]] as [[Int64]])
  func opensOfFew(_ kind: GuardKind, _ mailboxes: [Int64]) async throws {
    try await kind.withGuard { test in
      for count in 1...9 {
        let mailbox = mailboxes[count % mailboxes.count]
        #expect(try await test.fail([mailbox]) == .closed(isFailing: true), "failure \(count)")
      }
      let last = try await test.fail([1])
      #expect(last?.isOpened == true)
    }
  }

  @Test("a visit that works begins a new row, `unknown` changes nothing", arguments: GuardKind.allCases)
  func row(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4])
      #expect(try await test.report(.works) == .recovered(wasOpen: false))
      #expect(try await test.fail([1, 2, 3, 4]) == .closed(isFailing: true))
      #expect(try await test.report(.unknown) == .closed(isFailing: true))
      #expect(try await test.fail([5])?.isOpened == true)
    }
    try await kind.withGuard { test in
      let change = try await test.report(.works)
      #expect(change == .closed(isFailing: false))
      #expect(try await test.report(.unknown) == .closed(isFailing: false))
    }
  }

  // Promise 2
  @Test("probes at 30 s, then 1, 2, 4, 8, 15 and 15 minutes", arguments: GuardKind.allCases)
  func schedule(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      for (count, seconds) in [30, 60, 120, 240, 480, 900, 900].enumerated() {
        try await test.advance(Int64(seconds - 15) * 1_000)
        let waiting = try #require(try await test.admit().waiting)
        #expect(waiting.failedProbes == count && (1...15_000).contains(waiting.waitMilliseconds))
        try await test.advance(15_000)
        let token = try await test.probe()
        let change = try await test.report(.failed(.tcpTimeout, words: "silence"), token)
        #expect(change.breaker?.code == .tcpTimeout && change.breaker?.failedProbes == count + 1)
        guard case .open(_, let former) = change else { continue }
        #expect(former == (count == 0 ? .tcpRefused : .tcpTimeout))
      }
    }
  }

  // Promise 3
  @Test("one probe, whoever asks; it is kept, and frees itself after the last word", arguments: GuardKind.allCases)
  func oneProbe(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      try await test.advance(30_000)
      let token = try #require(try await test.probe())
      for interactive in [false, true] {
        let waiting = try #require(try await test.admit(interactive: interactive).waiting)
        #expect(waiting.isProbing && (15_000...30_000).contains(waiting.waitMilliseconds))
      }
      // Longer than one word lasts, which leaves a busy machine fourteen seconds each time.
      try await test.advance(16_000)
      #expect(try await test.serverGuard.extend(token, at: mail))
      try await test.advance(16_000)
      #expect(try await test.admit().waiting?.isProbing == true)
      // Its worker is dead.
      try await test.advance(14_000)
      let second = try #require(try await test.probe())
      #expect(try await !test.serverGuard.extend(token, at: mail))
      #expect(try await test.serverGuard.extend(second, at: mail))
      // What the first one says late changes nothing.
      #expect(try await test.report(.works, token).breaker != nil)
      #expect(try await test.admit().waiting?.isProbing == true)
    }
  }

  @Test("a probe that ends `unknown` is free at once and counts as none", arguments: GuardKind.allCases)
  func unknownProbe(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      try await test.advance(30_000)
      for _ in 1...3 {
        let token = try await test.probe()
        #expect(try await test.report(.unknown, token).breaker?.failedProbes == 0)
      }
      #expect(try await test.serverGuard.extend(ProbeToken(), at: mail) == false)
    }
  }

  // Promise 4
  @Test("an interactive visit is the probe at any time; its early failure moves nothing", arguments: GuardKind.allCases)
  func interactive(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      try await test.advance(10_000)
      for _ in 1...3 {
        let token = try await test.probe(interactive: true)
        let breaker = try await test.report(.failed(.tcpRefused, words: ""), token).breaker
        #expect(breaker?.failedProbes == 0)
        #expect((1...20_000).contains(breaker?.nextProbeMilliseconds ?? 0))
      }
      // One that lasts until the regular probe is due is that probe.
      let token = try await test.probe(interactive: true)
      try await test.advance(20_000)
      #expect(try await test.report(.failed(.tcpRefused, words: ""), token).breaker?.failedProbes == 1)
      let early = try await test.probe(interactive: true)
      #expect(try await test.report(.works, early) == .recovered(wasOpen: true))
      #expect(try await test.admit().isGo)
    }
  }

  // Promise 5
  @Test("the probe's success closes it; what began before it opened changes nothing", arguments: GuardKind.allCases)
  func closes(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      #expect(try await test.report(.works).breaker?.failedProbes == 0)
      #expect(try await test.fail([6, 7])?.breaker?.failedProbes == 0)
      #expect(try await test.admit().waiting != nil)
      try await test.advance(30_000)
      let token = try await test.probe()
      #expect(try await test.report(.works, token) == .recovered(wasOpen: true))
      #expect(try await test.admit().isGo)
      #expect(try await test.serverGuard.openBreakers(limit: 10).isEmpty)
      #expect(try await test.serverGuard.openBreaker(of: mail) == nil)
      // From the beginning.
      #expect(try await test.fail([1, 2, 3, 4]) == .closed(isFailing: true))
      #expect(try await test.fail([5])?.breaker?.failedProbes == 0)
    }
  }

  // Promise 6
  @Test("another port is another breaker; the oldest stands first", arguments: GuardKind.allCases)
  func ports(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      let smtp = MailServer(host: "mail.example.org", port: 465)
      let literal = MailServer(host: "2001:DB8::1", port: 110)
      try await test.fail([1, 2, 3, 4, 5])
      #expect(try await test.admit(at: smtp).isGo)
      try await test.advance(10)
      try await test.fail([1, 2, 3, 4, 5], at: literal)
      #expect(try await test.serverGuard.openBreakers(limit: 10).map(\.server) == [mail, literal])
      #expect(try await test.serverGuard.openBreakers(limit: 1).map(\.server) == [mail])
      #expect(try await test.serverGuard.openBreakers(limit: 0).isEmpty)
    }
  }

  // Promises 7 and 8
  @Test("lanes are told once of a recovery, and again only when nobody did it", arguments: GuardKind.allCases)
  func lanes(_ kind: GuardKind) async throws {
    var rules = BreakerRules()
    // Longer than a busy machine takes for what is done meanwhile.
    rules.handover = .seconds(60)
    try await kind.withGuard(rules) { test in
      try await test.fail([1, 2, 3, 4, 5], profile: 1)
      #expect(try await test.admit(profile: 2).isFirst == true)
      #expect(try await test.admit(profile: 2).isFirst == false)
      #expect(try await test.admit(profile: 1).isFirst == true, "a lane that failed was not refused before")
      #expect(try await test.admit(profile: 3, interactive: true).isFirst == nil, "it is the probe")
      #expect(try await test.admit(profile: 4, interactive: true).isFirst == false, "its refusal holds nothing")
      try await test.advance(31_000)
      let token = try await test.probe()
      #expect(try await test.serverGuard.recovery(of: mail).isEmpty, "not yet")
      try await test.report(.works, token)
      let told = try await test.serverGuard.recovery(of: mail)
      #expect(Set(told) == [lane(1), lane(2)])
      #expect(try await test.serverGuard.recovery(of: mail).isEmpty, "somebody is at it")
      #expect(try await test.admit() == .go(isFailing: false, isUntold: false))
      try await test.advance(60_000)
      #expect(try await test.admit() == .go(isFailing: false, isUntold: true), "it died")
      #expect(Set(try await test.serverGuard.recovery(of: mail)) == [lane(1), lane(2)])
      #expect(try await test.serverGuard.recovered([lane(1)], of: mail), "one is left")
      #expect(try await test.serverGuard.recovery(of: mail) == [lane(2)])
      #expect(try await !test.serverGuard.recovered([lane(2)], of: mail))
      #expect(try await test.serverGuard.recovery(of: mail).isEmpty)
      #expect(try await test.admit() == .go(isFailing: false, isUntold: false))
      // The next opening is a new one.
      try await test.fail([1, 2, 3, 4, 5])
      #expect(try await test.admit(profile: 2).isFirst == true)
    }
  }

  @Test("the end of a short row of failures is a recovery as well", arguments: GuardKind.allCases)
  func shortRow(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1], profile: 5)
      #expect(try await test.report(.works) == .recovered(wasOpen: false))
      #expect(try await test.serverGuard.recovery(of: mail) == [lane(5)])
      try await test.serverGuard.recovered([lane(5)], of: mail)
      #expect(try await test.admit() == .go(isFailing: false, isUntold: false))
    }
  }

  @Test("a failure while lanes are told: they are told of the next recovery again", arguments: GuardKind.allCases)
  func failureWhileTelling(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      _ = try await test.admit(profile: 2)
      try await test.advance(30_000)
      let token = try await test.probe()
      try await test.report(.works, token)
      let told = try await test.serverGuard.recovery(of: mail)
      try await test.fail([1, 2, 3, 4, 5], profile: 3)
      #expect(try await !test.serverGuard.recovered(told, of: mail))
      #expect(try await test.serverGuard.recovery(of: mail).isEmpty)
      // Their alerts were resolved meanwhile, so they are raised again.
      #expect(try await test.admit(profile: 2).isFirst == true)
      try await test.advance(30_000)
      let second = try await test.probe()
      try await test.report(.works, second)
      #expect(Set(try await test.serverGuard.recovery(of: mail)) == [lane(1), lane(2), lane(3)])
    }
  }

  @Test("an emptied guard is closed, and failures long ago are forgotten", arguments: GuardKind.allCases)
  func forgets(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      try await test.fail([1, 2, 3, 4, 5])
      try await test.advance(30_000)
      let token = try await test.probe()
      try await test.empty()
      #expect(try await test.admit() == .go(isFailing: false, isUntold: false))
      #expect(try await test.serverGuard.extend(try #require(token), at: mail) == false)
      #expect(try await test.report(.works, token) == .closed(isFailing: false))

      try await test.fail([1, 2, 3, 4])
      try await test.advance(7_200_001)
      #expect(try await test.admit() == .go(isFailing: false, isUntold: false))
      try await test.fail([1, 2, 3, 4, 5])
      try await test.advance(30_000 + 7_200_001)
      #expect(try await test.admit().isGo, "nobody came for two hours")
      #expect(try await test.serverGuard.openBreakers(limit: 10).isEmpty)
    }
  }
}

/// The sentences of ``ServerGuard``'s documentation about logins.
@Suite("ServerGuard contract: login budgets", .gated, .timeLimit(.minutes(3)))
struct LoginBudgetContractTests {
  static let place = LoginPlace(host: "Mail.example.org", egress: "a")
  static let budget = LoginBudget(limit: 3)

  private func login(
    _ test: GuardUnderTest, proven: Bool = false, at place: LoginPlace = place, budget: LoginBudget = budget
  ) async throws -> LoginAnswer {
    try await test.serverGuard.login(visitor(proven: proven), at: place, budget: budget, deadline: .seconds(60))
  }

  /// A permit; records an issue when there is none.
  private func permit(
    _ test: GuardUnderTest, proven: Bool = false, _ kind: LoginPermit.Kind,
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> LoginPermit {
    let answer = try await login(test, proven: proven)
    guard case .go(let permit) = answer else {
      Issue.record("no permit but \(answer)", sourceLocation: sourceLocation)
      throw CancellationError()
    }
    #expect(permit.kind == kind, sourceLocation: sourceLocation)
    return permit
  }

  private func wait(
    _ test: GuardUnderTest, proven: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> (seconds: Double, isShort: Bool) {
    let answer = try await login(test, proven: proven)
    guard case .wait(let wait, let isShort) = answer else {
      Issue.record("no wait but \(answer)", sourceLocation: sourceLocation)
      return (0, false)
    }
    return (wait / .seconds(1), isShort)
  }

  // Promise 9
  @Test("tokens: success returns one, a refused or lost login keeps it", arguments: GuardKind.allCases)
  func tokens(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      let first = try await permit(test, .token)
      let second = try await permit(test, .token)
      let third = try await permit(test, .token)
      #expect(try await wait(test).isShort, "all are under way")
      try await test.serverGuard.settle(first, .accepted)
      let fourth = try await permit(test, .token)
      try await test.advance(1_000)
      try await test.serverGuard.settle(second, .refused)
      try await test.serverGuard.settle(third, .lost)
      let still = try await wait(test)
      #expect(still.isShort, "the fourth is under way")
      try await test.serverGuard.settle(fourth, .accepted)
      _ = try await permit(test, .token)
      try await test.advance(60_000)
      // Two lost, one refused: nothing comes back before the oldest is ten minutes old.
      let full = try await wait(test)
      #expect(!full.isShort && (400...540).contains(full.seconds))
      try await test.advance(540_000)
      for _ in 1...3 { _ = try await permit(test, .token) }
      #expect(try await wait(test).isShort)
    }
  }

  @Test("twenty workers together get no more than the budget", arguments: GuardKind.allCases)
  func concurrent(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      let serverGuard = test.serverGuard
      for _ in 1...3 {
        let permits = try await withThrowingTaskGroup(of: LoginPermit?.self) { group in
          for _ in 0..<20 {
            group.addTask {
              for _ in 0..<5 {
                let answer = try await serverGuard.login(
                  visitor(), at: Self.place, budget: LoginBudget(), deadline: .seconds(60))
                guard case .go(let permit) = answer else { return nil }
                // Nine of ten work and return their token.
                guard permit.token.last != "a" else { return permit }
                try await serverGuard.settle(permit, .accepted)
              }
              return nil
            }
          }
          return try await group.reduce(into: [LoginPermit]()) { if let permit = $1 { $0.append(permit) } }
        }
        #expect(permits.count <= 10)
        for permit in permits { try await serverGuard.settle(permit, .accepted) }
      }
      var refused = 0
      for _ in 1...50 {
        if case .go(let permit) = try await serverGuard.login(
          visitor(), at: Self.place, budget: LoginBudget(), deadline: .seconds(60))
        {
          try await serverGuard.settle(permit, .refused)
          refused += 1
        }
      }
      #expect(refused == 10)
    }
  }

  // Promise 10
  @Test("proven logins are free, then one at a time, then held", arguments: GuardKind.allCases)
  func proven(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      var free: [LoginPermit] = []
      for _ in 1...20 { free.append(try await permit(test, proven: true, .free)) }
      for index in 0..<2 { try await test.serverGuard.settle(free[index], .refused) }
      for index in 2..<20 { try await test.serverGuard.settle(free[index], .accepted) }
      try await test.serverGuard.settle(try await permit(test, proven: true, .free), .refused)
      // Three failures: from now on one by one.
      let one = try await permit(test, proven: true, .single)
      let waiting = try await wait(test, proven: true)
      #expect(waiting.isShort && waiting.seconds <= 60)
      #expect(try await !wait(test).isShort, "an unproven one has to wait for the window")
      try await test.serverGuard.settle(one, .accepted)
      try await test.serverGuard.settle(try await permit(test, proven: true, .single), .lost)
      try await test.serverGuard.settle(try await permit(test, proven: true, .single), .refused)
      let held = try await wait(test, proven: true)
      #expect(!held.isShort && (1...60).contains(held.seconds))
      try await test.advance(60_000)
      try await test.serverGuard.settle(try await permit(test, proven: true, .single), .accepted)
      try await test.advance(540_000)
      // The failure of the single one still counts, the three before it do not.
      _ = try await permit(test, proven: true, .free)
    }
  }

  // Promise 11
  @Test("a dead worker's login counts as a failure, and frees the one place", arguments: GuardKind.allCases)
  func dead(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      for _ in 1...3 { _ = try await permit(test, .token) }
      _ = try await permit(test, proven: true, .free)
      try await test.advance(60_001)
      #expect(try await !wait(test).isShort)
      _ = try await permit(test, proven: true, .single)
      #expect(try await wait(test, proven: true).isShort)
      try await test.advance(60_001)
      _ = try await permit(test, proven: true, .single)
    }
  }

  // Promise 12
  @Test("another host or egress is another budget", arguments: GuardKind.allCases)
  func places(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      for _ in 1...3 { try await test.serverGuard.settle(try await permit(test, .token), .refused) }
      _ = try await wait(test)
      for place in [LoginPlace(host: "mail.example.org", egress: "b"), LoginPlace(host: "m.example.org", egress: "a")] {
        guard case .go = try await login(test, at: place) else {
          Issue.record("\(place) shares a budget")
          continue
        }
      }
      guard case .go = try await login(test, budget: LoginBudget(limit: 4)) else {
        Issue.record("a profile's larger budget counts for its own logins")
        return
      }
      try await test.empty()
      _ = try await permit(test, .token)
    }
  }
}

/// Promise 13 of ``ServerGuard``: mass rejection.
@Suite("ServerGuard contract: mass rejection", .gated, .timeLimit(.minutes(3)))
struct MassRejectionContractTests {
  private static let place = LoginPlace(host: "mail.example.org", egress: "a")

  private func tryLogin(_ test: GuardUnderTest, _ mailboxes: ClosedRange<Int64>, profile: Int64 = 1) async throws {
    for mailbox in mailboxes {
      _ = try await test.serverGuard.login(
        visitor(mailbox, proven: true, profile: profile), at: Self.place, budget: LoginBudget(limit: 1_000),
        deadline: .seconds(60))
    }
  }

  private func refuse(
    _ test: GuardUnderTest, _ mailboxes: ClosedRange<Int64>, profile: Int64 = 1
  ) async throws -> [Bool] {
    var answers: [Bool] = []
    for mailbox in mailboxes {
      let who = visitor(mailbox, proven: true, profile: profile)
      answers.append(try await test.serverGuard.refused(who, at: Self.place))
    }
    return answers
  }

  @Test("from the fifth mailbox on, whichever is refused again", arguments: GuardKind.allCases)
  func five(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      #expect(try await refuse(test, 1...4) == [false, false, false, false])
      #expect(try await refuse(test, 4...4) == [false])
      #expect(try await refuse(test, 11...15, profile: 2) == [false, false, false, false, true])
      #expect(try await refuse(test, 5...6) == [true, true])
      // After a window without a refusal it begins anew.
      try await test.advance(600_001)
      #expect(try await refuse(test, 7...10) == [false, false, false, false])
    }
  }

  @Test("five of more than fifty that tried are no mass", arguments: GuardKind.allCases)
  func share(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      #expect(try await refuse(test, 1...1) == [false])
      try await tryLogin(test, 100...180)
      #expect(try await refuse(test, 2...7) == [Bool](repeating: false, count: 6))
      // Nine of about ninety: near enough to a tenth that a rough count may say either; twenty are more in any case.
      _ = try await refuse(test, 8...19)
      #expect(try await refuse(test, 20...20) == [true])
    }
  }

  @Test("a mailbox that tries again counts by how that ends", arguments: GuardKind.allCases)
  func latest(_ kind: GuardKind) async throws {
    try await kind.withGuard { test in
      #expect(try await refuse(test, 1...5).last == true)
      try await tryLogin(test, 1...3)
      #expect(try await refuse(test, 6...6) == [false])
    }
  }
}
