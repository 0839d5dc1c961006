import PostriderCore
import Testing

/// Promise 11 of ``JobQueue``: holds.
@Suite("JobQueue contract: holds", .gated, .timeLimit(.minutes(3)))
struct JobQueueHoldTests {
  @Test("a hold keeps the jobs of its direction waiting", arguments: QueueKind.allCases)
  func direction(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(), profile(2)])
      let all = [job(1), job(2, .send), job(3, .test), job(4, profile: 2), job(5, .send, profile: 2)]
      try await queue.enqueue(all)
      try await queue.hold(.incoming, for: .seconds(60))
      // Polls and batch tests of this profile wait; nothing else does.
      let first = try await queue.claimed()
      #expect(Set(first.map(\.job)) == [job(2, .send).id, job(4).id, job(5, .send).id])
      try await queue.giveBack(first)
      try await queue.hold(.incoming, for: .zero)
      try await queue.hold(.outgoing, for: .seconds(60))
      // Sends and batch tests now: the last word on a direction counts.
      #expect(Set(try await queue.claimed().map(\.job)) == [job(1).id, job(4).id, job(5, .send).id])
    }
  }

  @Test("a halt keeps polls and sends, and no tests; a breaker beside it does", arguments: QueueKind.allCases)
  func halted(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1), job(2, .send), job(3, .test), job(4, .test)])
      try await queue.hold([
        LaneHold(profile: profile().id, direction: .incoming, duration: .seconds(60), reason: LaneHold.halted),
        LaneHold(profile: profile().id, direction: .outgoing, duration: .seconds(60), reason: LaneHold.halted),
      ])
      let tests = try await queue.claimed()
      #expect(Set(tests.map(\.job)) == [job(3, .test).id, job(4, .test).id])
      try await queue.giveBack(tests)
      try await queue.hold(.outgoing, for: .seconds(30))
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.inspect([job(3, .test)]).map(\.blockedBy) == ["breaker"])
      #expect(try await queue.inspect([job(1)]).map(\.blockedBy) == ["halted"])
    }
  }

  @Test("interactive jobs are never held", arguments: QueueKind.allCases)
  func interactive(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.hold(.incoming, for: .seconds(60))
      try await queue.hold(.outgoing, for: .seconds(60))
      try await queue.enqueue([
        job(1, as: .interactive), job(2, .test, as: .interactive), job(3, .send, as: .interactive), job(4),
      ])
      #expect(Set(try await queue.claimed().map(\.job.mailbox.value)) == [1, 2, 3])
    }
  }

  @Test("a hold ends by itself, and at once when it is lifted or shortened", arguments: QueueKind.allCases)
  func ends(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      try await queue.hold(.incoming, for: .seconds(60))
      #expect(try await queue.claimed().isEmpty)
      try await test.pass(.seconds(20))
      #expect(try await queue.claimed().isEmpty)
      try await test.pass(.seconds(41))
      var leases = try await queue.claimed()
      #expect(leases.count == 1)
      try await queue.giveBack(leases)

      try await queue.hold(.incoming, for: .seconds(600))
      #expect(try await queue.claimed().isEmpty)
      try await queue.hold(.incoming, for: .zero)
      leases = try await queue.claimed()
      #expect(leases.count == 1)
      try await queue.giveBack(leases)

      try await queue.hold(.incoming, for: .seconds(600))
      #expect(try await queue.claimed().isEmpty)
      try await queue.hold(.incoming, for: .seconds(60))
      try await test.pass(.seconds(61))
      #expect(try await queue.claimed().count == 1)
    }
  }

  @Test("a hold that is renewed before its end goes on", arguments: QueueKind.allCases)
  func extended(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1), job(2, .send)])
      try await queue.hold(.incoming, for: .seconds(60))
      #expect(try await queue.claimed().count == 1)
      try await queue.hold(.incoming, for: .seconds(120))
      try await test.pass(.seconds(61))
      #expect(try await queue.claimed().isEmpty)
      try await test.pass(.seconds(60))
      #expect(try await queue.claimed().map(\.job) == [job(1).id])
    }
  }

  @Test("both directions of a test must be free", arguments: QueueKind.allCases)
  func batchTest(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1, .test)])
      try await queue.hold(.incoming, for: .seconds(60))
      try await queue.hold(.outgoing, for: .seconds(60))
      #expect(try await queue.claimed().isEmpty)
      try await queue.hold(.incoming, for: .zero)
      #expect(try await queue.claimed().isEmpty)
      try await queue.hold(.outgoing, for: .zero)
      #expect(try await queue.claimed().count == 1)
    }
  }

  @Test("an outgoing hold does not delay a poll that waited for its mailbox", arguments: QueueKind.allCases)
  func parkedPoll(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 1)])
      try await queue.enqueue([job(1, .send), job(2, .send)])
      let sends = try await queue.claimed()
      #expect(sends.count == 2)
      try await queue.enqueue([job(1, due: 5), job(3, .send, due: 1)])
      // The poll is parked, then competes as a send.
      #expect(try await queue.claimed().map(\.job) == [job(3, .send).id])
      try await queue.hold(.outgoing, for: .seconds(60))
      try await queue.complete(sends)
      try await queue.enqueue((1...40).map { job($0, .send, lane: 1, due: 1) })
      #expect(try await queue.claimed().map(\.job) == [job(1).id])
      #expect(try await queue.claimed().isEmpty)
    }
  }

  @Test(
    "what stands behind held jobs of a lane is reached", arguments: QueueKind.allCases, [Direction.incoming, .outgoing])
  func mixedLane(_ kind: QueueKind, _ held: Direction) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 300)])
      // Polls that somebody asked for as urgently as sends, two hundred of the other kind before them.
      let sends = (1...200).map { job($0, .send, due: held == .outgoing ? $0 : 1_000 + $0) }
      let polls = (301...500).map { job($0, as: .send, due: held == .incoming ? $0 : 1_000 + $0) }
      try await queue.enqueue(sends + polls)
      try await queue.hold(held, for: .seconds(60))
      var seen: [JobID] = []
      while case let leases = try await queue.claimed(64), !leases.isEmpty { seen += leases.map(\.job) }
      #expect(Set(seen) == Set((held == .outgoing ? polls : sends).map(\.id)))
      try await queue.hold(held, for: .zero)
      while case let leases = try await queue.claimed(64), !leases.isEmpty { seen += leases.map(\.job) }
      #expect(seen.count == 400)
    }
  }

  @Test("held jobs are counted and explained", arguments: QueueKind.allCases)
  func explained(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(), profile(2)])
      try await queue.enqueue([
        job(1), job(2), job(3, .send), job(4, .test), job(5, as: .interactive), job(9, profile: 2),
      ])
      let before = try await queue.statistics().serverMilliseconds
      try await queue.hold(.incoming, for: .seconds(60), reason: "login-budget")
      var statistics = try await queue.statistics()
      #expect(statistics.blocked == ["limit": 0, "busy-mailbox": 0, "paused": 0, "login-budget": 3])
      try await queue.announce(worker: "w", slots: 8)
      let places = try await queue.inspect([job(1), job(3, .send), job(5), job(9, profile: 2)])
      try #require(places.map(\.blockedBy) == ["login-budget", "turn", "turn", "turn"])
      #expect(places.map(\.state) == ["ready", "ready", "ready", "ready"])
      let until = try #require(places[0].blockedUntilMilliseconds)
      #expect(until >= before + 60_000)
      #expect(until <= statistics.serverMilliseconds + 60_000)
      #expect(places[1].blockedUntilMilliseconds == nil)
      let parts = try await queue.profiles(limit: 10)
      try #require(parts.map(\.heldUntilMilliseconds) == [until, nil])
      #expect(parts[0].blocked == ["login-budget": 3])
      try await queue.hold(.incoming, for: .zero)
      statistics = try await queue.statistics()
      #expect(statistics.blocked.values.reduce(0, +) == 0)
    }
  }

  @Test("a hold and a limit at once: each ends for itself", arguments: QueueKind.allCases)
  func withLimit(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      // Sends count on the profile, polls on their mailboxes.
      try await queue.update(profiles: [profile(limit: 1, outgoing: true)])
      try await queue.enqueue([job(1, .send, due: 1), job(2, .send, due: 5), job(3, as: .send, due: 4)])
      let first = try await queue.claimed(1)
      #expect(first.map(\.job.kind) == [.send])
      try await queue.hold(.incoming, for: .seconds(60))
      #expect(try await queue.claimed().isEmpty)
      try await queue.complete(first)
      let second = try await queue.claimed()
      #expect(second.map(\.job.kind) == [.send])
      #expect(try await queue.claimed().isEmpty)
      try await queue.hold(.incoming, for: .zero)
      #expect(try await queue.claimed().map(\.job) == [job(3).id])
    }
  }

  @Test("a hold is forgotten with its epoch", arguments: QueueKind.allCases)
  func epoch(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.hold(.incoming, for: .seconds(60))
      try await queue.open(epoch: 8, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      #expect(try await queue.claimed().count == 1)
    }
  }
}
