import PostriderCore
import PostriderTesting
import Testing

/// The sentences of ``JobQueue``'s documentation, for every queue there is.
@Suite("JobQueue contract", .gated, .timeLimit(.minutes(3)))
struct JobQueueContractTests {
  // Promise 1
  @Test("enqueuing a ready job changes nothing", arguments: QueueKind.allCases)
  func enqueueTwice(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      #expect(try await test.queue.enqueue([job(1, due: 5), job(2, due: 6), job(1, due: 9)]) == 2)
      #expect(try await test.queue.enqueue([job(1, due: 99), job(1, .test, as: .batchTest, due: 3)]) == 1)
      #expect(try await test.queue.enqueue([job(1, as: .batchTest, due: 1)]) == 0)
      let statistics = try await test.queue.statistics()
      #expect(statistics.ready == ["interactive": 0, "send": 0, "poll": 2, "batch-test": 1])
      #expect(statistics.oldestDueMilliseconds == ["poll": 5, "batch-test": 3])
      #expect(statistics.epoch == 7)
    }
  }

  @Test("a more urgent class moves a ready job up", arguments: QueueKind.allCases)
  func moveUp(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1, due: 5), job(2, due: 1)])
      #expect(try await test.queue.enqueue([job(1, as: .interactive, due: 50)]) == 0)
      let claim = try await test.queue.claim(limit: 1, worker: "w")
      #expect(claim.leases.map(\.job) == [job(1).id])
      #expect(claim.leases.first?.jobClass == .interactive)
      #expect(claim.leases.first?.dueMilliseconds == 5)
      #expect(try await test.queue.statistics().totalReady == 1)
    }
  }

  // Promise 2
  @Test(
    "an urgent enqueue of a leased job runs it again", arguments: QueueKind.allCases, [JobClass.interactive, .send])
  func again(_ kind: QueueKind, _ jobClass: JobClass) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let first = try await test.queue.claim(limit: 8, worker: "w").leases
      #expect(try await test.queue.enqueue([job(1, as: jobClass, due: 2_000)]) == 0)
      #expect(try await test.queue.claim(limit: 8, worker: "w").leases.isEmpty)
      #expect(try await test.queue.complete(first) == [.ended])
      let second = try await test.queue.claim(limit: 8, worker: "w").leases
      #expect(second.map(\.jobClass) == [jobClass])
      #expect(second.map(\.dueMilliseconds) == [2_000])
      try await test.queue.complete(second)
      #expect(try await test.queue.claim(limit: 8, worker: "w").leases.isEmpty)
    }
  }

  @Test("another class changes nothing of a leased job", arguments: QueueKind.allCases, [JobClass.poll, .batchTest])
  func notAgain(_ kind: QueueKind, _ jobClass: JobClass) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let first = try await test.queue.claim(limit: 8, worker: "w").leases
      #expect(try await test.queue.enqueue([job(1, as: jobClass)]) == 0)
      try await test.queue.complete(first)
      #expect(try await test.queue.statistics().totalReady == 0)
    }
  }

  // Promise 3
  @Test("a limit on the profile counts every session of it", arguments: QueueKind.allCases)
  func profileLimit(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 3, incoming: true, outgoing: true)])
      try await test.queue.enqueue(
        (1...10).map { job($0) } + (1...10).map { job($0, .send) } + (11...13).map { job($0, .test) })
      let first = try await test.queue.claim(limit: 32, worker: "a").leases
      try #require(first.count == 3)
      #expect(try await test.queue.claim(limit: 32, worker: "b").leases.isEmpty)
      var statistics = try await test.queue.statistics()
      #expect(statistics.blocked["limit"] == 20)
      #expect(statistics.inFlight == 3)
      let waiting = try await test.queue.inspect([job(10)])
      #expect(waiting.first?.state == "ready")
      #expect(waiting.first?.blockedBy == "limit")
      // A freed slot, and only that, is given on: whichever way it was freed.
      try await test.queue.complete([first[0]])
      #expect(try await test.queue.claim(limit: 32, worker: "b").leases.count == 1)
      try await test.queue.giveBack([first[1]])
      #expect(try await test.queue.claim(limit: 32, worker: "b").leases.count == 1)
      #expect(try await test.queue.claim(limit: 32, worker: "b").leases.isEmpty)
      statistics = try await test.queue.statistics()
      #expect(statistics.inFlight == 3)
    }
  }

  @Test("a limit on the mailbox counts its POP3 and SMTP sessions together", arguments: QueueKind.allCases)
  func mailboxLimit(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 2)])
      try await test.queue.enqueue([job(1), job(1, .send), job(1, .send, lane: 1), job(2)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(first.count == 3)
      #expect(first.count { $0.job.mailbox == MailboxID(1) } == 2)
      #expect(try await test.queue.statistics().blocked["busy-mailbox"] == 1)
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.isEmpty)
      let parked = try await test.queue.inspect([job(1)])
      #expect(parked.first?.state == "parked")
      #expect(parked.first?.blockedBy == "busy-mailbox")
      try await test.queue.complete(first.filter { $0.job == job(1, .send).id })
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.map(\.job) == [job(1).id])
    }
  }

  @Test("directions may be counted on different identities", arguments: QueueKind.allCases)
  func mixedModes(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      // Polls count on their mailbox, sends on the profile, a test on both.
      try await test.queue.update(profiles: [profile(limit: 1, outgoing: true)])
      try await test.queue.enqueue([job(1), job(2), job(3), job(1, .send), job(2, .send), job(9, .test)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(Set(first.map(\.job)) == [job(1).id, job(2).id, job(3).id, job(1, .send).id])
      try await test.queue.complete(first.filter { $0.job.kind == .send })
      let second = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(second.map(\.job) == [job(2, .send).id])
      try await test.queue.complete(second)
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.map(\.job) == [job(9, .test).id])
    }
  }

  @Test("a mailbox never has two POP3 sessions", arguments: QueueKind.allCases, [true, false])
  func exclusivePOP3(_ kind: QueueKind, _ onProfile: Bool) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 300, incoming: onProfile, outgoing: onProfile)])
      try await test.queue.enqueue([job(1), job(1, .test, as: .interactive), job(1, .send)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(Set(first.map(\.job)) == [job(1, .test).id, job(1, .send).id])
      // Only the test in the way matters.
      try await test.queue.complete(first.filter { $0.job.kind == .send })
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.isEmpty)
      try await test.queue.giveBack(first.filter { $0.job.kind == .test })
      let second = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(second.count == 1)
      #expect(second.first?.job == job(1, .test).id)
    }
  }

  @Test("a paused, unknown or zero-limit profile grants nothing and keeps its jobs", arguments: QueueKind.allCases)
  func noGrant(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(1, paused: true), profile(2, limit: 0)])
      try await test.queue.enqueue([job(1, profile: 1), job(2, profile: 2), job(3, profile: 3)])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.isEmpty)
      let statistics = try await test.queue.statistics()
      #expect(statistics.ready["poll"] == 3)
      #expect(statistics.blocked == ["limit": 2, "paused": 1, "busy-mailbox": 0])
      let places = try await test.queue.inspect([job(1, profile: 1), job(3, profile: 3), job(4)])
      #expect(places.map(\.blockedBy) == ["paused", "limit", nil])
      #expect(places.map(\.state) == ["ready", "ready", "absent"])
      try await test.queue.update(profiles: [profile(1), profile(2), profile(3)])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.count == 3)
    }
  }

  @Test("a higher limit takes effect at once, a lower one stops grants", arguments: QueueKind.allCases)
  func changedLimit(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 1, incoming: true, outgoing: true)])
      try await test.queue.enqueue((1...5).map { job($0) })
      var leases = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(leases.count == 1)
      try await test.queue.update(profiles: [profile(limit: 3, incoming: true, outgoing: true)])
      leases += try await test.queue.claim(limit: 8, worker: "a").leases
      try #require(leases.count == 3)
      try await test.queue.update(profiles: [profile(limit: 2, incoming: true, outgoing: true)])
      #expect(try await test.queue.renew(leases).count == 3)
      try await test.queue.complete([leases[0]])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.isEmpty)
      try await test.queue.complete([leases[1]])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.count == 1)
    }
  }

  @Test("a change of mode counts the sessions in flight exactly", arguments: QueueKind.allCases)
  func changedMode(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 3)])
      try await test.queue.enqueue((1...2).map { job($0) })
      let leases = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(leases.count == 2)
      try await test.queue.update(profiles: [profile(limit: 3, incoming: true, outgoing: true)])
      try await test.queue.enqueue((3...6).map { job($0) })
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.count == 1)
      try await test.queue.update(profiles: [profile(limit: 3)])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.count == 3)
    }
  }

  // Promise 4
  @Test("interactive jobs go first, lower classes keep an eighth each", arguments: QueueKind.allCases)
  func classes(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 300)])
      try await test.queue.enqueue((1...40).map { job($0, as: .interactive) })
      try await test.queue.enqueue((101...140).map { job($0, .send) } + (201...240).map { job($0) })
      try await test.queue.enqueue((301...340).map { job($0, .test) })
      let claim = try await test.queue.claim(limit: 32, worker: "a").leases
      let counts = Dictionary(grouping: claim, by: \.jobClass).mapValues(\.count)
      #expect(counts == [.interactive: 20, .send: 4, .poll: 4, .batchTest: 4])
      #expect(claim.prefix(20).allSatisfy { $0.jobClass == .interactive })
    }
  }

  @Test("places that no lower class needs are not kept", arguments: QueueKind.allCases)
  func unusedShare(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 300), profile(2, paused: true)])
      try await test.queue.enqueue((1...40).map { job($0, as: .interactive) } + [job(50, profile: 2)])
      #expect(try await test.queue.claim(limit: 32, worker: "a").leases.count == 32)
    }
  }

  @Test("small claims starve no class", arguments: QueueKind.allCases)
  func smallClaims(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 300)])
      let all =
        (1...20).map { job($0, as: .interactive) } + (21...40).map { job($0, .send) } + [job(50), job(51, .test)]
      try await test.queue.enqueue(all)
      var seen: [JobClass] = []
      for _ in 0..<16 { seen += try await test.queue.claim(limit: 1, worker: "a").leases.map(\.jobClass) }
      #expect(seen.count == 16)
      #expect(Set(seen) == Set(JobClass.allCases))
      #expect(seen.first == .interactive)
    }
  }

  @Test("a full profile's lower class gets a slot now and then", arguments: QueueKind.allCases)
  func scarceSlots(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 1, incoming: true, outgoing: true)])
      try await test.queue.enqueue((1...30).map { job($0, .send) } + [job(50)])
      var seen: [JobClass] = []
      for _ in 0..<12 {
        let leases = try await test.queue.claim(limit: 8, worker: "a").leases
        #expect(leases.count == 1)
        seen += leases.map(\.jobClass)
        try await test.queue.complete(leases)
      }
      #expect(seen.contains(.poll))
    }
  }

  @Test("a parked poll gets its turn between sends of its mailbox", arguments: QueueKind.allCases)
  func parkedTurn(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 1)])
      try await test.queue.enqueue([job(1, .send, due: 1_000), job(1, due: 1_001)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(first.map(\.job.kind) == [.send])
      try await test.queue.enqueue([job(1, .send, due: 2_000)])
      try await test.queue.complete(first)
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.map(\.job.kind) == [.poll])
    }
  }

  @Test("profiles take turns, also one with few jobs beside one with many", arguments: QueueKind.unsharded)
  func turns(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: (1...3).map { profile($0, limit: 300) })
      try await test.queue.enqueue((1...300).map { job($0, profile: 1, due: 1) })
      #expect(try await test.queue.claim(limit: 32, worker: "a").leases.count == 32)
      try await test.queue.enqueue((1_001...1_002).map { job($0, profile: 2, due: 9_000) })
      try await test.queue.enqueue((2_001...2_100).map { job($0, profile: 3, due: 9_000) })
      let claim = try await test.queue.claim(limit: 32, worker: "a").leases
      let counts = Dictionary(grouping: claim, by: \.profile.value).mapValues(\.count)
      #expect(counts[2] == 2)
      #expect((14...16).contains(counts[3] ?? 0), "\(counts)")
    }
  }

  @Test("turns follow the weights", arguments: QueueKind.unsharded)
  func weights(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(1, limit: 300, weight: 3), profile(2, limit: 300)])
      try await test.queue.enqueue((1...400).map { job($0, profile: 1) } + (1_001...1_400).map { job($0, profile: 2) })
      var counts: [Int64: Int] = [:]
      for _ in 0..<10 {
        for lease in try await test.queue.claim(limit: 32, worker: "a").leases {
          counts[lease.profile.value, default: 0] += 1
        }
      }
      #expect(counts[1, default: 0] + counts[2, default: 0] == 320)
      #expect((224...256).contains(counts[1, default: 0]), "\(counts)")
    }
  }

  // Promise 5
  @Test("fences only grow, over epochs too", arguments: QueueKind.allCases)
  func fences(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      var last = Fence(0)
      for epoch in [Int64(8), 9] {
        try await test.queue.open(epoch: epoch, delay: .zero)
        try await test.queue.update(profiles: [profile()])
        for _ in 0..<3 {
          try await test.queue.enqueue((1...4).map { job($0) })
          let leases = try await test.queue.claim(limit: 8, worker: "a").leases
          try #require(leases.count == 4)
          for lease in leases {
            #expect(lease.fence > last)
            #expect(lease.fence.epoch == epoch)
            last = lease.fence
          }
          try await test.queue.giveBack([leases[0]])
          try await test.queue.complete(Array(leases.dropFirst()))
        }
      }
    }
  }

  // Promise 6
  @Test("a lease that is not renewed is taken back", arguments: QueueKind.allCases)
  func expiry(_ kind: QueueKind) async throws {
    let lease = Duration.seconds(600)
    try await kind.withQueue(lease: lease) { test in
      try await test.queue.update(profiles: [profile(limit: 1, incoming: true, outgoing: true)])
      try await test.queue.enqueue([job(1, due: 77), job(2, due: 78)])
      let before = ContinuousClock.now
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(first.map(\.job) == [job(1).id])
      let trusted = try #require(first.first?.trustedUntil)
      #expect(trusted <= ContinuousClock.now + lease)
      #expect(trusted >= before + lease - .seconds(1))
      try await test.pass(lease / 2)
      #expect(try await test.queue.claim(limit: 8, worker: "b").leases.isEmpty)
      try await test.pass(lease / 2 + .milliseconds(1))
      #expect(try await test.queue.renew(first).isEmpty)
      let second = try await test.queue.claim(limit: 8, worker: "b")
      #expect(second.reclaimed == 1)
      #expect(second.leases.map(\.job) == [job(1).id])
      #expect(second.leases.map(\.dueMilliseconds) == [77])
      // It was never renewed, so nobody may have begun it.
      #expect(second.leases.map(\.reclaims) == [0])
      #expect(try await test.queue.complete(first) == [.lost])
      #expect(try await test.queue.statistics().reclaimed == 1)
    }
  }

  @Test("renewals keep a lease; losing a renewed one counts until it completes", arguments: QueueKind.allCases)
  func renewal(_ kind: QueueKind) async throws {
    let lease = Duration.seconds(600)
    try await kind.withQueue(lease: lease) { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      let trusted = try #require(first.first?.trustedUntil)
      for _ in 0..<3 {
        try await test.pass(lease / 2)
        let renewed = try await test.queue.renew(first)
        #expect(renewed.map(\.fence) == first.map(\.fence))
        let renewedUntil = try #require(renewed.first?.trustedUntil)
        #expect(renewedUntil > trusted)
        #expect(try await test.queue.claim(limit: 8, worker: "b").leases.isEmpty)
      }
      try await test.expire()
      let second = try await test.queue.claim(limit: 8, worker: "b").leases
      #expect(second.map(\.reclaims) == [1])
      try await test.queue.complete(second)
      try await test.queue.enqueue([job(1)])
      #expect(try await test.queue.claim(limit: 8, worker: "b").leases.map(\.reclaims) == [0])
    }
  }

  // Promise 7
  @Test("another fence than the current one changes nothing", arguments: QueueKind.allCases)
  func wrongFence(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let old = try await test.queue.claim(limit: 8, worker: "a").leases
      try await test.queue.giveBack(old)
      let new = try await test.queue.claim(limit: 8, worker: "b").leases
      #expect(new.count == 1)
      #expect(try await test.queue.complete(old) == [.lost])
      #expect(try await test.queue.giveBack(old) == [.lost])
      #expect(try await test.queue.renew(old).isEmpty)
      #expect(try await test.queue.inspect([job(1)]).first?.worker == "b")
      #expect(try await test.queue.complete(old + new + new) == [.lost, .ended, .lost])
      #expect(try await test.queue.statistics().inFlight == 0)
    }
  }

  @Test("a lease of an older epoch is lost", arguments: QueueKind.allCases)
  func olderEpoch(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let old = try await test.queue.claim(limit: 8, worker: "a").leases
      try await test.queue.open(epoch: 8, delay: .zero)
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      let new = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(new.count == 1)
      #expect(try await test.queue.renew(old + new).map(\.fence) == new.map(\.fence))
      #expect(try await test.queue.complete(old + new) == [.lost, .ended])
    }
  }

  // Promise 8
  @Test("a job given back is ready at its old due time, uncounted", arguments: QueueKind.allCases)
  func givenBack(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1, due: 5), job(2, due: 6)])
      let first = try await test.queue.claim(limit: 8, worker: "a").leases
      let renewed = try await test.queue.renew(first)
      #expect(try await test.queue.giveBack(renewed) == [.ended, .ended])
      let second = try await test.queue.claim(limit: 8, worker: "a").leases
      #expect(second.map(\.dueMilliseconds) == [5, 6])
      #expect(second.map(\.reclaims) == [0, 0])
      #expect(try await test.queue.statistics().reclaimed == 0)
    }
  }

  // Promise 9
  @Test("withdrawing removes waiting jobs and flags leased ones", arguments: QueueKind.allCases)
  func withdrawal(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile(limit: 1)])
      try await test.queue.enqueue([job(1, .send, due: 1), job(1, due: 2), job(2)])
      let leases = try await test.queue.claim(limit: 2, worker: "a").leases
      #expect(Set(leases.map(\.job)) == [job(1, .send).id, job(2).id])
      #expect(try await test.queue.claim(limit: 8, worker: "a").leases.isEmpty)
      try await test.queue.enqueue([job(3)])
      // One is leased, one parked, one ready, one unknown.
      #expect(try await test.queue.withdraw([job(1, .send), job(1), job(3), job(4)]) == [job(1, .send).id])
      #expect(try await test.queue.renew(leases).map(\.job) == [job(2).id])
      #expect(try await test.queue.statistics().totalReady == 0)
      #expect(try await test.queue.giveBack(leases.filter { $0.job.kind == .send }) == [.ended])
      #expect(try await test.queue.statistics().totalReady == 0)
    }
  }

  // Promise 10
  @Test("an emptied queue refuses every call until it is opened", arguments: QueueKind.allCases, [true, false])
  func emptied(_ kind: QueueKind, _ neverOpened: Bool) async throws {
    try await kind.withQueue(opened: !neverOpened) { test in
      let queue = test.queue
      var leases = [
        Lease(
          job: job(1).id, profile: ProfileID(1), jobClass: .poll, fence: Fence(7 << 32 | 1), dueMilliseconds: 0,
          trustedUntil: .now)
      ]
      if !neverOpened {
        try await queue.update(profiles: [profile()])
        try await queue.enqueue([job(1)])
        leases = try await queue.claim(limit: 1, worker: "a").leases
        try await test.empty()
      }
      for _ in 0..<2 {
        await expectEpochLost("update") { try await queue.update(profiles: [profile()]) }
        await expectEpochLost("enqueue") { try await queue.enqueue([job(1)]) }
        await expectEpochLost("claim") { _ = try await queue.claim(limit: 1, worker: "a") }
        await expectEpochLost("renew") { _ = try await queue.renew(leases) }
        await expectEpochLost("complete") { try await queue.complete(leases) }
        await expectEpochLost("giveBack") { try await queue.giveBack(leases) }
        await expectEpochLost("withdraw") { try await queue.withdraw([job(1)]) }
        await expectEpochLost("statistics") { _ = try await queue.statistics() }
        await expectEpochLost("inspect") { _ = try await queue.inspect([job(1)]) }
        #expect(try await queue.currentEpoch() == nil)
      }
      try await queue.open(epoch: 8, delay: .zero)
      #expect(try await queue.currentEpoch() == 8)
      #expect(try await queue.statistics().totalReady == 0)
      try await queue.update(profiles: [profile()])
      #expect(try await queue.enqueue([job(1)]) == 1)
      #expect(try await queue.claim(limit: 1, worker: "a").leases.count == 1)
    }
  }

  @Test("opening an equal or older epoch changes nothing", arguments: QueueKind.allCases, [Int64(7), 6])
  func openOlder(_ kind: QueueKind, _ epoch: Int64) async throws {
    try await kind.withQueue { test in
      try await test.queue.update(profiles: [profile()])
      try await test.queue.enqueue([job(1)])
      try await test.queue.open(epoch: epoch, delay: .seconds(60))
      #expect(try await test.queue.currentEpoch() == 7)
      #expect(try await test.queue.claim(limit: 1, worker: "a").leases.count == 1)
    }
  }

  @Test("no lease is given before the epoch's delay is over", arguments: QueueKind.allCases)
  func openLater(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      try await test.queue.open(epoch: 8, delay: .seconds(30))
      try await test.queue.update(profiles: [profile()])
      #expect(try await test.queue.enqueue([job(1)]) == 1)
      let error = await #expect(throws: JobQueueError.self) { try await test.queue.claim(limit: 1, worker: "a") }
      guard case .notOpenYet(let milliseconds)? = error else {
        Issue.record("threw \(String(describing: error))")
        return
      }
      #expect((1...30_000).contains(milliseconds))
      #expect(try await test.queue.statistics().totalReady == 1)
    }
  }

  @Test("waiting ends when something becomes ready", arguments: QueueKind.allCases)
  func wakeUp(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile()])
      // Until the wake-ups are heard, the hint may be missing: so it is given again and again.
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          for number in Int64(1)... {
            try await queue.enqueue([job(number)])
            try await Task.sleep(for: .milliseconds(20))
          }
        }
        defer { group.cancelAll() }
        for _ in 0..<3 {
          _ = try await queue.claim(limit: 8, worker: "a")
          let start = ContinuousClock.now
          try await queue.waitForWork(timeout: .seconds(60))
          #expect(ContinuousClock.now - start < .seconds(30))
        }
      }
    }
  }

  @Test("waiting ends after its timeout and when it is cancelled", arguments: QueueKind.allCases)
  func waitingEnds(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      _ = try await queue.claim(limit: 8, worker: "a")
      try await queue.waitForWork(timeout: .milliseconds(20))
      let waiting = Task {
        // Each wake-up ends one wait.
        while true { try await queue.waitForWork(timeout: .seconds(60)) }
      }
      waiting.cancel()
      await #expect(throws: CancellationError.self) { try await waiting.value }
    }
  }
}
