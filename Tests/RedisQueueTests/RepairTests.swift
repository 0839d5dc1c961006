import PostriderCore
import Testing

@testable import RedisQueue

/// Each rule of ``RepairReport/mended``, broken once in a real server.
@Suite("Repair of a broken queue", .gated, .timeLimit(.minutes(3)))
struct RepairTests {
  /// What is broken, with commands on keys below the epoch's prefix, and the rule that notices it.
  struct Break: Sendable, CustomTestStringConvertible {
    let rule: String
    let commands: [[String]]
    var count = 1

    var testDescription: String { commands.map { $0.joined(separator: " ") }.joined(separator: "; ") }
  }

  // Leased: 1p and 2s of profile 1 (limit 1 on the mailbox), 11p of profile 2 (limit 1 on the profile). Waiting: 1s parked,
  // 12p and 13s of profile 2, held 3t of profile 3.
  static let breaks = [
    Break(rule: "owner-without-lease", commands: [["ZREM", "leases", "1p"]]),
    Break(rule: "owner-without-lease", commands: [["DEL", "leases"]], count: 3),
    Break(rule: "lease-without-owner", commands: [["HDEL", "owners", "11p"], ["ZADD", "leases", "1", "11p"]]),
    Break(rule: "slot-without-lease", commands: [["HDEL", "owners", "11p"], ["ZREM", "leases", "11p"]], count: 2),
    Break(rule: "slot-without-lease", commands: [["HSET", "busy", "77", "p"]]),
    Break(rule: "slot-without-lease", commands: [["ZADD", "slots:2", "1", "88p"]]),
    Break(rule: "lease-without-slot", commands: [["HDEL", "busy", "2"]]),
    Break(rule: "lease-without-slot", commands: [["DEL", "busy"]], count: 3),
    Break(rule: "lease-without-slot", commands: [["DEL", "slots:2"]]),
    Break(rule: "job-in-two-places", commands: [["ZADD", "ready:2p:2", "5", "11p"]]),
    Break(
      rule: "job-in-two-places", commands: [["ZADD", "parked:2", "0", "12p:2:5"]]),
    Break(rule: "job-in-two-places", commands: [["ZADD", "ready:3p:2", "5", "12p"]]),
    Break(rule: "lane-without-turn", commands: [["HDEL", "full", "2"]], count: 2),
    Break(rule: "lane-without-turn", commands: [["DEL", "wait"]]),
    Break(rule: "parked-at-free-mailbox", commands: [["HSET", "busy", "1", "p"]]),
  ]

  @Test("is noticed, mended and counted", arguments: breaks)
  func mended(_ what: Break) async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [
        profile(1, limit: 1), profile(2, limit: 1, incoming: true, outgoing: true), profile(3),
      ])
      try await queue.hold(.incoming, of: 3, for: .seconds(600))
      try await queue.enqueue([job(1, due: 1), job(2, .send), job(11, profile: 2, as: .interactive)])
      #expect(try await queue.claimed().count == 3)
      try await queue.enqueue([
        job(1, .send), job(12, profile: 2), job(13, .send, profile: 2), job(3, .test, profile: 3),
      ])
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.verify() == [])
      #expect(try await repair(queue).isEmpty)

      let base = "\(queue.shards[0].prefix)1:"
      let connection = try await queue.shards[0].session().connection
      for command in what.commands {
        try await connection.command([command[0], base + command[1]] + command.dropFirst(2))
      }
      #expect(try await queue.verify() != [])
      let mended = try await repair(queue)
      #expect(mended[what.rule] ?? 0 >= what.count, "\(mended)")
      #expect(try await queue.verify() == [])
      #expect(try await repair(queue).isEmpty)
      // Whatever still waits runs when it may.
      try await queue.update(profiles: (1...3).map { profile($0, limit: 300) })
      try await queue.hold(.incoming, of: 3, for: .zero)
      let waiting = try await queue.statistics()
      let leases = try await queue.claimed(64)
      #expect(leases.count + (try await queue.statistics().blocked["busy-mailbox"] ?? 0) == waiting.totalReady)
    }
  }

  /// One whole round in small steps.
  private func repair(_ queue: RedisJobQueue) async throws -> [String: Int] {
    var mended: [String: Int] = [:]
    for _ in 0..<200 {
      let report = try await queue.repair(limit: 3)
      mended.merge(report.mended, uniquingKeysWith: +)
      if report.isComplete { return mended }
    }
    Issue.record("repair comes to no end")
    return mended
  }

  @Test("a lease without an owner keeps its slot until its worker must have closed the session")
  func lostOwner() async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile(limit: 1, incoming: true, outgoing: true)])
      try await queue.enqueue([job(1), job(2)])
      let leases = try await queue.claimed()
      #expect(leases.count == 1)
      try await queue.shards[0].session().connection.command(["DEL", "\(queue.shards[0].prefix)1:owners"])
      #expect(try await repair(queue).isEmpty)
      #expect(try await queue.claimed().isEmpty)
      #expect(try await queue.renew(leases).isEmpty)
      try await queue.endLeases(of: leases.map(\.job))
      let mended = try await repair(queue)
      #expect(mended == ["lease-without-owner": 1, "slot-without-lease": 2])
      #expect(try await queue.claimed().count == 1)
    }
  }

  @Test("a step looks at about as many entries as it is told, also in a big queue")
  func bounded() async throws {
    try await withRedisQueue { queue in
      try await queue.open(epoch: 1, delay: .zero)
      try await queue.update(profiles: [profile(limit: 300)])
      try await queue.enqueue((1...5_000).map { job($0) })
      var examined = 0
      var steps = 0
      while steps < 1_000 {
        let report = try await queue.repair(limit: 100)
        #expect(report.examined <= 400, "\(report)")
        #expect(report.mended.isEmpty)
        examined += report.examined
        steps += 1
        if report.isComplete { break }
      }
      #expect(examined >= 5_000)
      #expect(steps >= 20)
    }
  }
}
