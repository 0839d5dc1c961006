import PostriderCore
import Testing

/// Promise 3 of ``JobQueue`` under change, and mailboxes that move.
@Suite("JobQueue contract: limits", .gated, .timeLimit(.minutes(3)))
struct JobQueueLimitTests {
  @Test("a mailbox with limit 4 and many lanes shows exactly four sessions", arguments: QueueKind.allCases)
  func lanes(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 4)])
      let lanes = (0..<8).map { job(1, .send, lane: $0, due: Int64($0)) }
      var held: [Lease] = []
      for round in 0..<20 {
        try await queue.enqueue(lanes)
        held += try await queue.claimed(round.isMultiple(of: 2) ? 32 : 3)
        held += try await queue.claimed()
        try #require(held.count == 4, "round \(round)")
        try await queue.complete([held.removeFirst()])
        if round.isMultiple(of: 3) { try await queue.giveBack([held.removeFirst()]) }
      }
    }
  }

  @Test("with limit 1 polling and sending alternate strictly", arguments: QueueKind.allCases, [1, 32])
  func alternate(_ kind: QueueKind, _ places: Int) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 1)])
      var kinds: [JobKind] = []
      for round in Int64(0)..<24 {
        // Both always want to run, whichever is enqueued first.
        try await queue.enqueue([job(1, .send, due: 1_000 + 2 * round)])
        try await queue.enqueue([job(1, due: 1_001 + 2 * round)])
        let leases = try await queue.claimed(places)
        #expect(leases.count == 1)
        #expect(try await queue.claimed(places).isEmpty)
        kinds += leases.map(\.job.kind)
        try await queue.complete(leases)
      }
      for (one, next) in zip(kinds, kinds.dropFirst()) { #expect(one != next, "\(kinds)") }
    }
  }

  @Test("a test holds one connection and counts for each identity it uses", arguments: QueueKind.allCases)
  func testIdentities(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      // Polls count on the profile, sends on the mailbox: a test needs a place of both.
      try await queue.update(profiles: [profile(limit: 1, incoming: true)])
      try await queue.enqueue([job(1, .test, as: .interactive)])
      let tests = try await queue.claimed()
      #expect(tests.count == 1)
      try await queue.enqueue([job(1, .send), job(2), job(2, .send), job(3, .test)])
      // The profile's place is the test's, and so is mailbox 1's; mailbox 2's is free.
      let beside = try await queue.claimed()
      #expect(beside.map(\.job) == [job(2, .send).id])
      try await queue.complete(tests)
      // One place on the profile: a poll or a test.
      let next = try await queue.claimed()
      #expect(next.count == 2)
      #expect(next.count { $0.job.kind == .send } == 1)
      try await queue.complete(next + beside)
      #expect(try await queue.claimed().count == 1)
    }
  }

  @Test("a test of a mailbox without a free connection waits", arguments: QueueKind.allCases)
  func testWaits(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 2, incoming: true)])
      try await queue.enqueue([job(1, .send), job(1, .send, lane: 1)])
      let sends = try await queue.claimed()
      try #require(sends.count == 2)
      try await queue.enqueue([job(1, .test, as: .interactive)])
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.inspect([job(1, .test)]).map(\.state) == ["parked"])
      try await queue.complete([sends[0]])
      #expect(try await queue.claimed().map(\.job) == [job(1, .test).id])
    }
  }

  @Test("limits changed at random under load are never exceeded by a new grant", arguments: QueueKind.allCases)
  func changedUnderLoad(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      let seed = testSeed()
      var random = SeededGenerator(state: seed)
      var held: [Lease] = []
      for step in 0..<60 {
        let limit = Int.random(in: 0...6, using: &random)
        let perProfile = Bool.random(using: &random)
        try await queue.update(profiles: [profile(limit: limit, incoming: perProfile, outgoing: perProfile)])
        try await queue.enqueue((1...8).flatMap { [job($0), job($0, .send), job($0, .send, lane: 1)] })
        let before = held
        #expect(try await queue.renew(held).count == held.count, "seed \(seed) step \(step): a change ended a lease")
        let new = try await queue.claimed(Int.random(in: 1...20, using: &random))
        held += new
        if perProfile {
          #expect(new.isEmpty || held.count <= limit, "seed \(seed) step \(step)")
          if before.count < limit { #expect(!new.isEmpty, "seed \(seed) step \(step): raising took no effect") }
        } else {
          for (mailbox, leases) in Dictionary(grouping: held, by: \.job.mailbox) {
            let grew = new.contains { $0.job.mailbox == mailbox }
            #expect(!grew || leases.count <= limit, "seed \(seed) step \(step)")
          }
        }
        let ended = held.filter { _ in Int.random(in: 0..<3, using: &random) == 0 }
        try await queue.complete(ended)
        held.removeAll { lease in ended.contains { $0.fence == lease.fence } }
      }
    }
  }

  @Test("a pause keeps jobs and sessions, its end gives turns at once", arguments: QueueKind.allCases)
  func pause(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(limit: 2, incoming: true, outgoing: true)])
      try await queue.enqueue((1...6).map { job($0) })
      let first = try await queue.claimed(1)
      try await queue.update(profiles: [profile(limit: 2, incoming: true, outgoing: true, paused: true)])
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.renew(first).count == 1)
      try await queue.complete(first)
      try await queue.enqueue([job(7, as: .interactive)])
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.statistics().blocked["paused"] == 6)
      try await queue.update(profiles: [profile(limit: 2, incoming: true, outgoing: true)])
      #expect(try await queue.claimed().count == 2)
    }
  }

  @Test("a change of credential mode counts on, whichever way", arguments: QueueKind.allCases)
  func mode(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      func change(_ limit: Int, incoming: Bool, outgoing: Bool) async throws {
        try await queue.update(profiles: [profile(limit: limit, incoming: incoming, outgoing: outgoing)])
      }
      try await change(2, incoming: false, outgoing: false)
      try await queue.enqueue([job(1), job(1, .send), job(2, .send), job(3, .test)])
      let held = try await queue.claimed()
      #expect(held.count == 4)
      // Two POP3 sessions (a poll and a test) now count on the profile, three SMTP ones on their mailboxes.
      try await change(3, incoming: true, outgoing: false)
      #expect(try await queue.profiles(limit: 1).first?.slotsInUse == 2)
      try await queue.enqueue([job(5), job(6)])
      #expect(try await queue.claimed().count == 1)
      try await change(4, incoming: false, outgoing: true)
      #expect(try await queue.profiles(limit: 1).first?.slotsInUse == 3)
      try await queue.enqueue([job(7, .send), job(8, .send)])
      #expect(try await queue.claimed().count == 2)
      try await change(7, incoming: true, outgoing: true)
      #expect(try await queue.profiles(limit: 1).first?.slotsInUse == 7)
      #expect(try await queue.claimed().isEmpty)
      try await change(2, incoming: false, outgoing: false)
      // Mailbox 1 has two, so a third waits; mailbox 8's send has its own place.
      try await queue.enqueue([job(1, .send, lane: 1)])
      #expect(try await queue.claimed().map(\.job) == [job(8, .send).id])
    }
  }

  // The scheduler withdraws under the old profile until nothing is leased there.
  @Test("a mailbox that moves while it is leased never has two sessions", arguments: QueueKind.unsharded)
  func moved(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(1), profile(2)])
      try await queue.enqueue([job(1), job(1, .send)])
      let old = try await queue.claimed(1)
      #expect(try await queue.withdraw([job(1), job(1, .send)]).count == 1)
      #expect(try await queue.enqueue([job(1, profile: 2), job(1, .send, profile: 2)]) == 1)
      let beside = try await queue.claimed()
      #expect(beside.allSatisfy { $0.job != old.first?.job })
      #expect(try await queue.renew(old).isEmpty)
      try await queue.complete(old)
      // What was asked for under the new profile meanwhile is there, under that profile.
      let all = beside + (try await queue.claimed())
      #expect(Set(all.map(\.job)) == [job(1).id, job(1, .send).id])
      #expect(all.allSatisfy { $0.profile == ProfileID(2) })
    }
  }

  @Test(
    "a job enqueued under another profile while it is leased runs there afterwards", arguments: QueueKind.unsharded,
    JobClass.allCases)
  func enqueuedElsewhere(_ kind: QueueKind, _ jobClass: JobClass) async throws {
    for ending in 0..<4 {
      try await kind.withQueue { test in
        let queue = test.queue
        try await queue.update(profiles: [profile(1), profile(2)])
        try await queue.enqueue([job(1)])
        let old = try await queue.claimed()
        #expect(try await queue.enqueue([job(1, profile: 2, as: jobClass, due: 77)]) == 0)
        #expect(try await queue.claimed().isEmpty)
        switch ending {
        case 0: try await queue.complete(old)
        case 1: try await queue.giveBack(old)
        case 2: try await test.expire()
        default:
          // The wish under the new profile outlives a withdrawal under the old one.
          #expect(try await queue.withdraw([job(1)]) == [job(1).id])
          try await queue.complete(old)
        }
        // The claim that takes an expired lease back gives the job again.
        let new = try await queue.claimed()
        #expect(new.map(\.profile.value) == [2], "ending \(ending)")
        #expect(new.map(\.jobClass) == [jobClass], "ending \(ending)")
        #expect(new.map(\.dueMilliseconds) == [77], "ending \(ending)")
        try await queue.complete(new)
        #expect(try await queue.statistics().totalReady == 0)
      }
    }
  }
}
