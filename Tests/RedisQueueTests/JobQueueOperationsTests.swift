import PostriderCore
import Testing

/// Promises 12 and 13 of ``JobQueue``, and what operators see.
@Suite("JobQueue contract: operations", .gated, .timeLimit(.minutes(3)))
struct JobQueueOperationsTests {
  /// Lets a job's lease be renewed and then taken back.
  private func loseOnce(_ test: QueueUnderTest, worker: String = "w") async throws {
    let leases = try await test.queue.claimed(8, by: worker)
    try #require(leases.count == 1)
    #expect(try await test.queue.renew(leases).count == 1)
    try await test.expire()
  }

  // Promise 12
  @Test("a job taken back three times after renewals is set aside", arguments: QueueKind.allCases)
  func poison(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      for name in ["a", "b", "c"] {
        #expect(try await queue.poisoned(limit: 10).isEmpty)
        try await loseOnce(test, worker: name)
      }
      // The reaper does it, and counts it as taken back.
      let claim = try await queue.claim(limit: 8, worker: "d")
      #expect(claim.leases.isEmpty)
      #expect(claim.reclaimed == 1)
      let aside = try await queue.poisoned(limit: 10)
      try #require(aside.map(\.job) == ["1p"])
      #expect(aside.map(\.profileID) == [ProfileID(1)])
      #expect(aside.map(\.reclaims) == [3])
      #expect(aside.map(\.worker) == ["c"])
      let statistics = try await queue.statistics()
      #expect((0...60_000).contains(statistics.serverMilliseconds - aside[0].sinceMilliseconds))
      #expect(statistics.poisoned == 1)
      #expect(statistics.totalReady == 0)
      #expect(statistics.inFlight == 0)
      #expect(statistics.reclaimed == 3)
      let place = try await queue.inspect([job(1)])
      #expect(place.map(\.state) == ["poisoned"])
      #expect(place.map(\.worker) == ["c"])
      // Enqueuing changes nothing, in no class.
      for jobClass in JobClass.allCases { #expect(try await queue.enqueue([job(1, as: jobClass)]) == 0) }
      #expect(try await queue.claimed().isEmpty)
      // Its mailbox's other jobs run.
      try await queue.enqueue([job(1, .test)])
      #expect(try await queue.claimed().map(\.job) == [job(1, .test).id])

      #expect(try await queue.withdraw([job(1)]).isEmpty)
      #expect(try await queue.poisoned(limit: 10).isEmpty)
      #expect(try await queue.statistics().poisoned == 0)
      #expect(try await queue.inspect([job(1)]).map(\.state) == ["absent"])
      #expect(try await queue.enqueue([job(1)]) == 1)
    }
  }

  @Test(
    "completing forgets reclaims; what was never renewed or was given back does not count",
    arguments: QueueKind.allCases)
  func notPoison(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      for _ in 0..<2 { try await loseOnce(test) }
      // A lost reply and a worker that stops in order change nothing of the count.
      #expect(try await queue.claimed().map(\.reclaims) == [2])
      try await test.expire()
      var leases = try await queue.claimed()
      #expect(leases.map(\.reclaims) == [2])
      #expect(try await queue.giveBack(try await queue.renew(leases)) == [.ended])
      leases = try await queue.claimed()
      #expect(leases.map(\.reclaims) == [2])
      #expect(try await queue.complete(leases) == [.ended])
      try await queue.enqueue([job(1)])
      for _ in 0..<2 { try await loseOnce(test) }
      #expect(try await queue.claimed().map(\.reclaims) == [2])
      #expect(try await queue.poisoned(limit: 10).isEmpty)
    }
  }

  @Test("a withdrawn job is not set aside, and withdrawing forgets reclaims", arguments: QueueKind.allCases)
  func withdrawnPoison(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      for _ in 0..<2 { try await loseOnce(test) }
      let third = try await queue.claimed()
      #expect(try await queue.renew(third).count == 1)
      #expect(try await queue.withdraw([job(1)]) == [job(1).id])
      try await test.expire()
      #expect(try await queue.claim(limit: 8, worker: "w").reclaimed == 1)
      #expect(try await queue.poisoned(limit: 10).isEmpty)
      #expect(try await queue.enqueue([job(1)]) == 1)
      #expect(try await queue.claimed().map(\.reclaims) == [0])
    }
  }

  @Test("jobs set aside are listed oldest first, as many as asked for", arguments: QueueKind.allCases)
  func poisonedOrder(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 300)])
      for mailbox: Int64 in [3, 1, 2] {
        try await queue.enqueue([job(mailbox)])
        for _ in 0..<3 { try await loseOnce(test) }
        _ = try await queue.claimed()
        try await test.pass(.milliseconds(2))
      }
      #expect(try await queue.poisoned(limit: 10).map(\.job) == ["3p", "1p", "2p"])
      #expect(try await queue.poisoned(limit: 2).map(\.job) == ["3p", "1p"])
      #expect(try await queue.poisoned(limit: 0).isEmpty)
    }
  }

  // Promise 13
  @Test("workers count for fifteen seconds after they announced themselves", arguments: QueueKind.allCases)
  func workers(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.announce(worker: "a", slots: 10)
      try await queue.announce(worker: "b", slots: 5)
      try await queue.announce(worker: "a", slots: 20)
      var statistics = try await queue.statistics()
      #expect(statistics.workers == 2)
      #expect(statistics.workerSlots == 25)
      // Seven seconds are left each time, whatever the machine does.
      try await test.agePresence(.seconds(8))
      try await queue.announce(worker: "b", slots: 5)
      #expect(try await queue.statistics().workers == 2)
      try await test.agePresence(.seconds(8))
      statistics = try await queue.statistics()
      #expect(statistics.workers == 1)
      #expect(statistics.workerSlots == 5)
      try await queue.announce(worker: "b", slots: 0)
      statistics = try await queue.statistics()
      #expect(statistics.workers == 0)
      #expect(statistics.workerSlots == 0)
    }
  }

  @Test("a job that waits for a worker says so", arguments: QueueKind.allCases)
  func waitsForWorker(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(), profile(2)])
      try await queue.enqueue([job(1), job(2, profile: 2), job(3, profile: 2)])
      #expect(try await queue.inspect([job(1)]).map(\.blockedBy) == ["no-worker"])
      try await queue.announce(worker: "w", slots: 2)
      #expect(try await queue.inspect([job(1)]).map(\.blockedBy) == ["turn"])
      let leases = try await queue.claimed(2)
      #expect(leases.count == 2)
      let waiting = [job(1), job(2, profile: 2), job(3, profile: 2)].filter { job in
        !leases.contains { $0.job == job.id }
      }
      try await queue.announce(worker: "w", slots: 2)
      #expect(try await queue.inspect(waiting).map(\.blockedBy) == ["workers-busy"])
      try await test.agePresence(.seconds(16))
      #expect(try await queue.inspect(waiting).map(\.blockedBy) == ["no-worker"])
    }
  }

  @Test("statistics count what was finished", arguments: QueueKind.allCases)
  func finished(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      try await queue.enqueue((1...5).map { job($0) })
      let leases = try await queue.claimed()
      #expect(try await queue.statistics().finished == 0)
      try await queue.complete(Array(leases.prefix(3)))
      try await queue.giveBack(Array(leases.suffix(2)))
      try await queue.complete(leases)
      #expect(try await queue.statistics().finished == 3)
    }
  }

  @Test("each profile's part of the queue, the longest first", arguments: QueueKind.allCases)
  func profiles(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [
        profile(1, limit: 3, incoming: true, outgoing: true), profile(2, limit: 1), profile(3, paused: true),
        profile(4),
        profile(6, limit: 2, incoming: true),
      ])
      #expect(try await queue.profiles(limit: 10).isEmpty)
      try await queue.enqueue((1...9).map { job($0, due: 100 + $0) } + [job(50, .send, due: 90)])
      try await queue.enqueue([job(60, .send, profile: 2, due: 7), job(60, profile: 2, due: 8), job(61, profile: 2)])
      try await queue.enqueue([job(70, profile: 3), job(71, profile: 3), job(80, profile: 5)])
      try await queue.enqueue([job(90, profile: 6), job(91, .send, profile: 6)])
      var claimed = 0
      while case let leases = try await queue.claimed(), !leases.isEmpty { claimed += leases.count }
      #expect(claimed == 3 + 2 + 2)
      let parts = try await queue.profiles(limit: 10)
      try #require(parts.map(\.profileID.value) == [1, 3, 2, 5, 6])
      #expect(parts[0].inFlight == 3)
      #expect(parts[0].slotsInUse == 3)
      #expect(parts[0].limit == 3)
      #expect(parts[0].limitIsPerProfile)
      #expect(parts[0].totalReady == 7)
      #expect(parts[0].blocked.filter { $0.value > 0 } == ["limit": 7])
      #expect(parts[1].blocked.filter { $0.value > 0 } == ["paused": 2])
      #expect(parts[1].ready["poll"] == 2)
      #expect(parts[2].blocked.filter { $0.value > 0 } == ["busy-mailbox": 1])
      #expect(parts[2].inFlight == 2)
      #expect(parts[2].slotsInUse == 0)
      #expect(!parts[2].limitIsPerProfile)
      #expect(parts[2].oldestDueMilliseconds == 8)
      #expect(parts[3].limit == 0)
      #expect(parts[3].blocked.filter { $0.value > 0 } == ["limit": 1])
      #expect(parts[4].totalReady == 0)
      #expect(parts[4].inFlight == 2)
      #expect(parts[4].slotsInUse == 1)
      #expect(try await queue.profiles(limit: 2).map(\.profileID.value) == [1, 3])
      #expect(try await queue.statistics().blocked == ["limit": 8, "paused": 2, "busy-mailbox": 1])
    }
  }

  @Test("repairing a sound queue mends nothing and comes to an end", arguments: QueueKind.allCases)
  func soundRepair(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 1), profile(2, limit: 2, incoming: true, outgoing: true)])
      try await queue.enqueue(
        (1...20).flatMap { [job($0), job($0, .send), job($0, .test), job(100 + $0, profile: 2)] })
      try await queue.hold(.incoming, for: .seconds(60))
      _ = try await queue.claimed()
      var steps = 0
      var rounds = 0
      while rounds < 8, steps < 200 {
        let report = try await queue.repair(limit: 7)
        #expect(report.mended.isEmpty)
        steps += 1
        if report.isComplete { rounds += 1 }
      }
      #expect(rounds == 8)
    }
  }

  @Test("after the queue was emptied these calls refuse too", arguments: QueueKind.allCases)
  func emptied(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await test.empty()
      await expectEpochLost("hold") { try await queue.hold(.incoming, for: .seconds(1)) }
      await expectEpochLost("announce") { try await queue.announce(worker: "w", slots: 1) }
      await expectEpochLost("poisoned") { _ = try await queue.poisoned(limit: 1) }
      await expectEpochLost("profiles") { _ = try await queue.profiles(limit: 1) }
      await expectEpochLost("repair") { _ = try await queue.repair(limit: 1) }
      await expectEpochLost("statistics") { _ = try await queue.statistics() }
    }
  }
}
