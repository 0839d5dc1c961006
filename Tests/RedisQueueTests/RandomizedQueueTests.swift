import Foundation
import PostriderCore
import Synchronization
import Testing

@testable import RedisQueue

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// The seed of a random test: `POSTRIDER_SEED` replays a failure.
func testSeed() -> UInt64 {
  ProcessInfo.processInfo.environment["POSTRIDER_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
}

@Suite("Random use of the queue", .gated, .timeLimit(.minutes(10)))
struct RandomizedQueueTests {
  /// Every mode of counting, so that each way to be limited occurs.
  static let profiles = [
    profile(1, limit: 2), profile(2, limit: 3, incoming: true, outgoing: true), profile(3, limit: 2, incoming: true),
    profile(4, limit: 2, outgoing: true, weight: 5), profile(5, limit: 1, incoming: true, outgoing: true),
  ]

  /// Any job of twelve mailboxes; a mailbox always has the same profile.
  static func anyJob(_ random: inout SeededGenerator) -> Job {
    let mailbox = Int64.random(in: 1...12, using: &random)
    let kind = JobKind.allCases.randomElement(using: &random) ?? .poll
    return job(
      mailbox, kind, lane: kind == .send ? Int.random(in: 0...2, using: &random) : 0, profile: 1 + mailbox % 5,
      as: JobClass.allCases.randomElement(using: &random), due: Int64.random(in: 1...1_000, using: &random))
  }

  @Test("each step keeps the rules and no job is lost", arguments: QueueKind.allCases)
  func sequence(_ kind: QueueKind) async throws {
    let seed = testSeed()
    var random = SeededGenerator(state: seed)
    var log: [String] = []
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: Self.profiles)
      var present: [JobID: Job] = [:]
      var again: Set<JobID> = []
      var withdrawn: Set<JobID> = []
      var held: [JobID: Lease] = [:]
      steps: for step in 0..<400 {
        switch Int.random(in: 0..<10, using: &random) {
        case 0...2:
          let jobs = (0..<Int.random(in: 1...6, using: &random)).map { _ in Self.anyJob(&random) }
          log.append("enqueue \(jobs.map { "\($0.id):\($0.jobClass.rawValue)" })")
          let added = try await queue.enqueue(jobs)
          let absent = Set(jobs.map(\.id)).subtracting(present.keys).count
          #expect(added == absent, "seed \(seed) step \(step)")
          for job in jobs {
            if held[job.id] == nil { present[job.id] = job } else if job.jobClass <= .send { again.insert(job.id) }
          }
        case 3...5:
          let limit = Int.random(in: 1...12, using: &random)
          let leases = try await queue.claim(limit: limit, worker: "w").leases
          log.append("claim \(limit): \(leases.map(\.job))")
          #expect(leases.count <= limit)
          for lease in leases {
            #expect(held[lease.job] == nil && present[lease.job] != nil, "seed \(seed) step \(step)")
            held[lease.job] = lease
          }
        case 6...7:
          let some = held.values.sorted { $0.fence < $1.fence }.filter { _ in Bool.random(using: &random) }
          log.append("complete \(some.map(\.job))")
          #expect(try await queue.complete(some).allSatisfy { $0 == .ended }, "seed \(seed) step \(step)")
          for lease in some {
            held[lease.job] = nil
            withdrawn.remove(lease.job)
            if again.remove(lease.job) == nil { present[lease.job] = nil }
          }
        case 8:
          let some = held.values.sorted { $0.fence < $1.fence }.filter { _ in Bool.random(using: &random) }
          log.append("give back \(some.map(\.job))")
          #expect(try await queue.giveBack(some).allSatisfy { $0 == .ended }, "seed \(seed) step \(step)")
          for lease in some {
            held[lease.job] = nil
            let wasWithdrawn = withdrawn.remove(lease.job) != nil
            if again.remove(lease.job) == nil, wasWithdrawn { present[lease.job] = nil }
          }
        default:
          let jobs = (0..<3).map { _ in Self.anyJob(&random) }
          log.append("withdraw \(jobs.map(\.id))")
          let leased = Set(try await queue.withdraw(jobs))
          for job in jobs {
            #expect(leased.contains(job.id) == (held[job.id] != nil), "seed \(seed) step \(step)")
            if leased.contains(job.id) {
              withdrawn.insert(job.id)
              again.remove(job.id)
            } else {
              present[job.id] = nil
            }
          }
          let renewed = Set(try await queue.renew(Array(held.values)).map(\.job))
          #expect(renewed == Set(held.keys).subtracting(withdrawn), "seed \(seed) step \(step)")
        }
        let broken = try await test.verify()
        let statistics = try await queue.statistics()
        #expect(broken.isEmpty, "seed \(seed) step \(step)")
        #expect(statistics.inFlight == held.count, "seed \(seed) step \(step)")
        #expect(statistics.totalReady == present.count - held.count, "seed \(seed) step \(step)")
        if !broken.isEmpty || statistics.totalReady != present.count - held.count {
          Issue.record("seed \(seed), last steps:\n\(log.suffix(12).joined(separator: "\n"))")
          break steps
        }
      }
      // Everything can be finished: nothing is stuck in a lane that nobody visits.
      try await queue.complete(Array(held.values))
      var rounds = 0
      while try await queue.statistics().totalReady > 0 {
        let leases = try await queue.claim(limit: 32, worker: "w").leases
        #expect(!leases.isEmpty, "seed \(seed): jobs wait that nobody can take")
        if leases.isEmpty { break }
        try await queue.complete(leases)
        rounds += 1
        if rounds > 1_000 { break }
      }
    }
  }

  /// The sessions that workers believe they may have, by identity.
  private struct Sessions {
    var ofProfile: [ProfileID: Int] = [:]
    var ofMailbox: [MailboxID: Int] = [:]
    var pop3: [MailboxID: Int] = [:]

    mutating func add(_ lease: Lease, _ amount: Int) -> String? {
      guard let profile = RandomizedQueueTests.profiles.first(where: { $0.id == lease.profile }) else {
        return "profile"
      }
      let kind = lease.job.kind
      if (kind != .send && profile.countsIncomingOnProfile) || (kind != .poll && profile.countsOutgoingOnProfile) {
        ofProfile[profile.id, default: 0] += amount
      }
      if (kind != .send && !profile.countsIncomingOnProfile) || (kind != .poll && !profile.countsOutgoingOnProfile) {
        ofMailbox[lease.job.mailbox, default: 0] += amount
      }
      if kind != .send { pop3[lease.job.mailbox, default: 0] += amount }
      if ofProfile[profile.id, default: 0] > profile.limit { return "profile \(profile.id) above its limit" }
      if ofMailbox[lease.job.mailbox, default: 0] > profile.limit { return "mailbox above its limit: \(lease.job)" }
      if pop3[lease.job.mailbox, default: 0] > 1 { return "two POP3 sessions: \(lease.job)" }
      return nil
    }
  }

  private final class Shared: Sendable {
    let sessions = Mutex(Sessions())
    let done = Mutex(Set<JobID>())
  }

  @Test("no limit is exceeded with many claimers, of whom some die")
  func manyClaimers() async throws {
    let seed = testSeed()
    let prefix = "many\(UInt32.random(in: 0...UInt32.max))"
    try await withRedisQueue(prefix: prefix) { first in
      try await withRedisQueue(prefix: prefix) { second in
        try await first.open(epoch: 1, delay: .zero)
        try await first.update(profiles: Self.profiles)
        var random = SeededGenerator(state: seed)
        var wanted: Set<JobID> = []
        for _ in 0..<30 {
          let jobs = (0..<20).map { _ in Self.anyJob(&random) }
          wanted.formUnion(jobs.map(\.id))
          try await first.enqueue(jobs)
        }
        let shared = Shared()
        let all = wanted
        try await withThrowingTaskGroup(of: Void.self) { group in
          for number in 0..<8 {
            let queue = number.isMultiple(of: 2) ? first : second
            var random = SeededGenerator(state: seed &+ UInt64(number))
            group.addTask {
              var dead = 0
              let deadline = ContinuousClock.now + .seconds(300)
              while shared.done.withLock({ $0.count }) < all.count, ContinuousClock.now < deadline {
                let limit = Int.random(in: 1...10, using: &random)
                let leases = try await queue.claim(limit: limit, worker: "w\(number)").leases
                for lease in leases {
                  if let wrong = shared.sessions.withLock({ $0.add(lease, 1) }) {
                    Issue.record("seed \(seed): \(wrong)")
                  }
                }
                let renewed = Bool.random(using: &random) ? try await queue.renew(leases) : leases
                // A job that is lost a third time is set aside and never done.
                let mayDie = dead < 3 && leases.allSatisfy { $0.reclaims < 2 }
                let dies = Int.random(in: 0..<4, using: &random) == 0 && mayDie
                // A session ends before its lease does, so the local count goes down before the server's.
                for lease in leases { _ = shared.sessions.withLock { $0.add(lease, -1) } }
                if dies {
                  dead += 1
                  try await queue.endLeases(of: leases.map(\.job))
                } else {
                  let ends = try await queue.complete(renewed)
                  for (lease, end) in zip(renewed, ends) where end == .ended {
                    _ = shared.done.withLock { $0.insert(lease.job) }
                  }
                }
                if leases.isEmpty { try await queue.waitForWork(timeout: .milliseconds(30)) }
              }
            }
          }
          group.addTask {
            while shared.done.withLock({ $0.count }) < all.count {
              let broken = try await first.verify()
              #expect(broken.isEmpty, "seed \(seed)")
              if !broken.isEmpty { break }
              try await Task.sleep(for: .milliseconds(10))
            }
          }
          // The checker alone would wait for ever if jobs were lost.
          for _ in 0..<8 { try await group.next() }
          group.cancelAll()
        }
        #expect(shared.done.withLock { $0 } == all, "seed \(seed)")
        #expect(try await first.verify() == [])
      }
    }
  }
}
