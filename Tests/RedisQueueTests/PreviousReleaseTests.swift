import PostriderCore
import Testing

@testable import RedisQueue

/// Two releases at once, as during a rolling upgrade.
@Suite("The release before, on the same queue", .gated, .timeLimit(.minutes(3)))
struct PreviousReleaseTests {
  /// This release's queue and the one before, over the same keys. The epoch is opened by either.
  private func withBoth(
    openedByPrevious: Bool, _ body: (RedisJobQueue, PreviousRelease) async throws -> Void
  ) async throws {
    try await withRedisQueue { queue in
      try await withRawConnection { connection in
        let previous = PreviousRelease(
          connection: connection, shard: queue.shards[0], epoch: 7,
          runID: try await queue.shards[0].session().server.runID)
        if openedByPrevious { try await previous.open() } else { try await queue.open(epoch: 7, delay: .zero) }
        try await body(queue, previous)
        #expect(try await queue.verify().filter { !$0.hasPrefix("limit:") } == [])
      }
    }
  }

  @Test("an epoch goes by the layout of who opened it, and work goes on in either direction", arguments: [true, false])
  func sideBySide(openedByPrevious: Bool) async throws {
    try #require(
      RedisLayout.version == PreviousRelease.layout, "another layout: take the new scripts as the release before")
    try await withBoth(openedByPrevious: openedByPrevious) { queue, previous in
      #expect(try await queue.currentEpoch() == 7)
      try await previous.update([profile(1, limit: 2), profile(2, limit: 3, incoming: true, outgoing: true)])
      try await queue.update(profiles: [profile(2, limit: 4, incoming: true, outgoing: true)])
      try await previous.announce("old", slots: 8)
      try await queue.announce(worker: "new", slots: 8)
      #expect(try await queue.statistics().workers == 2)

      // The one enqueues what the other claims; nobody enqueues twice.
      #expect(try await previous.enqueue([job(1), job(2, .send)]) == 2)
      #expect(try await queue.enqueue([job(1), job(2, .send), job(3, .test, profile: 2)]) == 1)
      #expect(try await previous.enqueue([job(3, .test, profile: 2)]) == 0)
      let new = try await queue.claimed(2, by: "new")
      let old = try await previous.claim(8)
      #expect(new.count == 2 && old.count == 1)
      #expect(Set(new.map { Int64($0.fence.value & 0xFFFF_FFFF) }).isDisjoint(with: old.map(\.counter)))
      #expect(try await previous.renew(old) == [true])
      #expect(try await queue.renew(new).count == 2)
      #expect(try await previous.repair() == [])
      #expect(try await queue.repair(limit: 1_000).mended.isEmpty)

      // A wish for a running job is kept through the other's completion.
      let running = try #require(new.first)
      let wish = Job(id: running.job, profile: running.profile, jobClass: .interactive, dueMilliseconds: 5)
      #expect(try await previous.enqueue([wish]) == 0)
      #expect(try await queue.complete([running]) == [.ended])
      let again = try await previous.claim(1)
      #expect(again.map(\.job) == [running.job.description] && again.map(\.jobClass) == [0])
      #expect(try await previous.giveBack(again) == [true])
      #expect(try await queue.claimed(1, by: "new").map(\.job) == [running.job])

      // A job that is withdrawn by the one is lost for the other.
      let taken = try #require(old.first)
      let withdrawn = try #require(JobID(taken.job))
      let itsProfile = try #require(ProfileID(taken.profile))
      _ = try await queue.withdraw([
        Job(id: withdrawn, profile: itsProfile, jobClass: .poll, dueMilliseconds: 1)
      ])
      #expect(try await previous.renew(old) == [false])
      #expect(try await previous.complete(old) == [true])
    }
  }

  @Test("holds and busy mailboxes of the one are known to the other")
  func holdsAndParking() async throws {
    try await withBoth(openedByPrevious: true) { queue, previous in
      try await queue.update(profiles: [profile(1, limit: 5)])
      _ = try await previous.enqueue([job(1), job(2)])
      try await queue.hold(.incoming, for: .seconds(600))
      #expect(try await previous.claim(8).isEmpty)
      try await previous.hold(1, "i", milliseconds: 0)
      let polls = try await queue.claimed(8, by: "new")
      #expect(polls.count == 2)
      // A test of a mailbox that is polled is parked by the one and freed by the other.
      #expect(try await queue.enqueue([job(1, .test)]) == 1)
      #expect(try await previous.claim(8).isEmpty)
      #expect(try await queue.verify().isEmpty)
      #expect(try await queue.complete(polls) == [.ended, .ended])
      let tests = try await previous.claim(8)
      #expect(tests.map(\.job) == ["1t"])
      #expect(try await previous.complete(tests) == [true])
    }
  }

  @Test("expired leases of the one are taken back by the other and cannot be used any more")
  func reclaims() async throws {
    try await withBoth(openedByPrevious: false) { queue, previous in
      try await queue.update(profiles: [profile(1, limit: 5)])
      try await queue.enqueue([job(1)])
      let old = try await previous.claim(1)
      #expect(try await previous.renew(old) == [true])
      try await queue.age(by: .seconds(601))
      let claim = try await queue.claim(limit: 1, worker: "new")
      #expect(claim.reclaimed == 1 && claim.leases.map(\.reclaims) == [1])
      #expect(try await previous.complete(old) == [false])
      #expect(try await queue.renew(claim.leases).count == 1)
      try await queue.age(by: .seconds(601))
      let back = try await previous.claim(1)
      #expect(back.map(\.job) == ["1p"])
      #expect(try await queue.complete(claim.leases) == [.lost])
      #expect(try await previous.complete(back) == [true])
    }
  }

  @Test("any sequence of both keeps every rule and loses no job")
  func sequence() async throws {
    let seed = testSeed()
    var random = SeededGenerator(state: seed)
    try await withBoth(openedByPrevious: Bool.random(using: &random)) { queue, previous in
      try await queue.update(profiles: RandomizedQueueTests.profiles)
      var waiting: Set<String> = []
      var old: [PreviousRelease.Held] = []
      var new: [Lease] = []
      for step in 0..<400 {
        let byPrevious = Bool.random(using: &random)
        switch Int.random(in: 0..<8, using: &random) {
        case 0...2:
          let jobs = Dictionary(
            (0..<5).map { _ in RandomizedQueueTests.anyJob(&random) }.map { ($0.id, $0) }, uniquingKeysWith: { $1 })
          if byPrevious {
            _ = try await previous.enqueue(Array(jobs.values))
          } else {
            try await queue.enqueue(Array(jobs.values))
          }
          waiting.formUnion(jobs.keys.map(\.description))
        case 3...4:
          if byPrevious { old += try await previous.claim(6) } else { new += try await queue.claimed(6, by: "new") }
        case 5:
          // Renewed, nobody else may have it.
          #expect(try await previous.renew(old).allSatisfy { $0 }, "seed \(seed), step \(step)")
          #expect(try await queue.renew(new).count == new.count, "seed \(seed), step \(step)")
        case 6:
          if byPrevious {
            _ = try await previous.giveBack(old)
            old = []
          } else {
            _ = try await queue.giveBack(new)
            new = []
          }
        default:
          #expect(try await previous.complete(old).allSatisfy { $0 }, "seed \(seed), step \(step)")
          #expect(try await queue.complete(new) == new.map { _ in .ended }, "seed \(seed), step \(step)")
          waiting.subtract(old.map(\.job))
          waiting.subtract(new.map(\.job.description))
          (old, new) = ([], [])
        }
        if step.isMultiple(of: 20) {
          #expect(try await queue.verify().filter { !$0.hasPrefix("limit:") } == [], "seed \(seed), step \(step)")
        }
      }
      // Everything that was asked for comes out in the end, whoever put it in.
      for round in 0..<200 where !waiting.isEmpty {
        if round.isMultiple(of: 2) {
          old += try await previous.claim(16)
          waiting.subtract(old.map(\.job))
          _ = try await previous.complete(old)
          old = []
        } else {
          new += try await queue.claimed(16, by: "new")
          waiting.subtract(new.map(\.job.description))
          _ = try await queue.complete(new)
          new = []
        }
      }
      #expect(waiting.isEmpty, "seed \(seed): \(waiting) did not come out")
      #expect(try await queue.repair(limit: 10_000).mended.isEmpty, "seed \(seed)")
    }
  }

  @Test("an epoch of an unknown layout is worked in by nobody who does not know it, until such a leader opens its own")
  func layouts() async throws {
    try await withBoth(openedByPrevious: false) { queue, _ in
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let lease = try await queue.claimed(1)
      // A leader of a later release has opened an epoch of its own.
      let shard = queue.shards[0]
      try await withRawConnection { connection in
        let layout = String(RedisLayout.version + 1)
        try await connection.command(["HSET", shard.epochKey, "epoch", "8", "layout", layout, "open_at", "0"])
      }
      for _ in 0..<2 {
        let error = await #expect(throws: JobQueueError.self) { try await queue.claim(limit: 1, worker: "w") }
        guard case .epochLost(let reason)? = error else {
          Issue.record("\(String(describing: error))")
          return
        }
        #expect(
          reason.contains("layout \(RedisLayout.version + 1)") && reason.contains("works with \(RedisLayout.version)"))
      }
      await expectEpochLost("renew") { _ = try await queue.renew(lease) }
      await expectEpochLost("enqueue") { try await queue.enqueue([job(2)]) }
      // To a leader it is as good as none.
      #expect(try await queue.currentEpoch() == nil)
      try await queue.open(epoch: 9, delay: .zero)
      #expect(try await queue.currentEpoch() == 9)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      #expect(try await queue.claimed(1).count == 1)
      // And an older leader cannot take it back.
      try await queue.open(epoch: 8, delay: .zero)
      #expect(try await queue.currentEpoch() == 9)
    }
  }
}
