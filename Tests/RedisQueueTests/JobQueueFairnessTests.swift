import PostriderCore
import Testing

/// Promise 4 of ``JobQueue`` with many jobs.
@Suite("JobQueue contract: fairness", .gated, .timeLimit(.minutes(10)))
struct JobQueueFairnessTests {
  @Test("a hundred small profiles beside one with very many jobs", arguments: QueueKind.unsharded)
  func oneBig(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      let many: Int64 = kind == .memory ? 400 : 100_000
      try await queue.update(profiles: [profile(1, limit: 300)] + (101...200).map { profile($0) })
      for start in stride(from: 1, through: many, by: 10_000) {
        try await queue.enqueue((start..<min(start + 10_000, many + 1)).map { job($0, due: $0) })
      }
      // The big one has had the queue for itself for a while.
      var held: [Lease] = []
      for _ in 0..<8 { held += try await queue.claimed() }
      #expect(held.count == 256)
      for small in Int64(101)...200 {
        try await queue.enqueue((1...10).map { job(1_000_000 + 100 * small + $0, profile: small, due: 9_000_000) })
      }
      // 1,000 jobs of small profiles; by turns the big one gets a 101st part of each round.
      var small = 0
      var big = 0
      var claims = 0
      while small < 1_000, claims < 60 {
        for lease in try await queue.claimed() {
          if lease.profile == ProfileID(1) { big += 1 } else { small += 1 }
        }
        claims += 1
      }
      #expect(small == 1_000)
      #expect(claims <= 34, "\(claims) claims")
      #expect(big <= 40, "\(big) jobs of the big profile")
    }
  }

  @Test("an interactive test is granted by the next claim, whatever waits", arguments: QueueKind.unsharded)
  func interactive(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      let many: Int64 = kind == .memory ? 300 : 20_000
      try await queue.update(profiles: [profile(1, limit: 300), profile(2, limit: 10, incoming: true, outgoing: true)])
      try await queue.enqueue((1...many).map { job($0, .test, due: $0) })
      for _ in 0..<3 { #expect(try await queue.claimed(8).count == 8) }
      for (number, profile) in [Int64(1), 2].enumerated() {
        let wanted = job(many + 1 + Int64(number), .test, profile: profile, as: .interactive, due: 9_000_000)
        try await queue.enqueue([wanted])
        #expect(try await queue.claimed(8).map(\.job).contains(wanted.id))
      }
      // One of the batch that a person now waits for.
      try await queue.enqueue([job(many, .test, as: .interactive)])
      #expect(try await queue.claimed(8).first?.job == job(many, .test).id)
    }
  }

  @Test("each class keeps its share while more urgent ones never end", arguments: QueueKind.unsharded)
  func shares(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: (1...4).map { profile($0, limit: 300) })
      var counts: [JobClass: Int] = [:]
      var next: Int64 = 1
      for _ in 0..<20 {
        for jobClass in JobClass.allCases {
          let kind: JobKind = jobClass == .send ? .send : jobClass == .poll ? .poll : .test
          let jobs = (next..<next + 24).map { job($0, kind, profile: 1 + $0 % 4, as: jobClass, due: $0) }
          try await queue.enqueue(jobs)
          next += 24
        }
        let leases = try await queue.claimed(24)
        #expect(leases.count == 24)
        for lease in leases { counts[lease.jobClass, default: 0] += 1 }
        try await queue.complete(leases)
      }
      #expect(counts[.send, default: 0] >= 60)
      #expect(counts[.poll, default: 0] >= 60)
      #expect(counts[.batchTest, default: 0] >= 60)
      #expect(counts[.interactive, default: 0] >= 240, "\(counts)")
    }
  }

  @Test("weights hold inside every class and over classes' kinds", arguments: QueueKind.unsharded)
  func weights(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [
        profile(1, limit: 300, weight: 1), profile(2, limit: 300, weight: 2), profile(3, limit: 300, weight: 5),
      ])
      // In the interactive class, of two kinds: a second kind is no second turn.
      for id in Int64(1)...3 {
        let from = id * 10_000
        try await queue.enqueue((from..<from + 150).map { job($0, .test, profile: id, as: .interactive, due: $0) })
        if id == 1 {
          try await queue.enqueue((from + 500..<from + 650).map { job($0, profile: id, as: .interactive, due: $0) })
        }
      }
      var counts: [Int64: Int] = [:]
      for _ in 0..<5 { for lease in try await queue.claimed() { counts[lease.profile.value, default: 0] += 1 } }
      #expect(counts.values.reduce(0, +) == 160)
      #expect((12...32).contains(counts[1] ?? 0), "\(counts)")
      #expect((32...52).contains(counts[2] ?? 0), "\(counts)")
      #expect((84...112).contains(counts[3] ?? 0), "\(counts)")
    }
  }

  @Test("a weight that is changed counts from the next turn", arguments: QueueKind.unsharded)
  func changedWeight(_ kind: QueueKind) async throws {
    try await kind.withQueue { test in
      let queue = test.queue
      try await queue.update(profiles: [profile(1, limit: 300), profile(2, limit: 300)])
      try await queue.enqueue((1...300).map { job($0) } + (1_001...1_300).map { job($0, profile: 2) })
      #expect(try await queue.claimed().count { $0.profile == ProfileID(1) } == 16)
      try await queue.update(profiles: [profile(1, limit: 300, weight: 3)])
      var first = 0
      for _ in 0..<4 { first += try await queue.claimed().count { $0.profile == ProfileID(1) } }
      #expect((88...104).contains(first), "\(first)")
    }
  }
}
