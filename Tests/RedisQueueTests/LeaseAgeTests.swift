import PostriderCore
import Testing

@testable import RedisQueue

@Suite("Since when a worker holds a job", .gated, .timeLimit(.minutes(3)))
struct LeaseAgeTests {
  @Test("inspect says it; renewing and wishes do not move it; a name may hold any character")
  func since() async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile()])
      try await queue.enqueue([job(1)])
      let before = try await queue.statistics().serverMilliseconds
      let leases = try await queue.claim(limit: 1, worker: "w:1@2").leases
      let after = try await queue.statistics().serverMilliseconds
      let first = try #require(try await queue.inspect([job(1)]).first)
      let since = try #require(first.leasedSinceMilliseconds)
      #expect((before...after).contains(since) && first.worker == "w:1@2")
      _ = try await eventually("a millisecond passes") {
        try await queue.statistics().serverMilliseconds > after ? true : nil
      }
      #expect(try await queue.renew(leases).count == 1)
      try await queue.enqueue([job(1, as: .interactive)])
      let later = try #require(try await queue.inspect([job(1)]).first)
      #expect(later.leasedSinceMilliseconds == since && later.worker == "w:1@2" && later.state == "leased")
      #expect(try await queue.complete(leases) == [.ended])
      #expect(try await queue.inspect([job(1)]).first?.leasedSinceMilliseconds == nil)
    }
  }
}
