import Foundation
import PostriderCore
import Testing

@testable import RedisQueue

/// The release before this one, as Redis sees it: its scripts, kept in `Previous`, and the arguments that it gives them.
///
/// It stays as that release was. When a release is made, `Previous` becomes a copy of `Sources/RedisQueue/Scripts`, and
/// what changed in the calls is changed here; when `RedisLayout.version` was raised there is nothing to be compared.
struct PreviousRelease {
  /// The layout that it works with.
  static let layout: Int64 = 1

  /// A lease as its claim returned it.
  struct Held: Hashable {
    var job: String
    var counter: Int64
    var profile: String
    var jobClass: Int
  }

  let connection: RedisConnection
  let shard: RedisShard
  var epoch: Int64
  let runID: String

  private static func source(_ names: String...) throws -> String {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Previous")
    return try names.map { try String(contentsOf: folder.appending(path: "\($0).lua"), encoding: .utf8) }
      .joined(separator: "\n")
  }

  private static let scripts: [String: String] = {
    do {
      var scripts = ["open": try source("open"), "claim": try source("prelude", "release", "claim")]
      for name in ["complete", "give_back"] { scripts[name] = try source("prelude", "release", name) }
      for name in ["update", "hold", "enqueue", "renew", "withdraw", "announce", "repair"] {
        scripts[name] = try source("prelude", name)
      }
      return scripts
    } catch {
      Issue.record("the scripts of the release before are not there: \(error)")
      return [:]
    }
  }()

  @discardableResult
  private func call(_ script: String, _ arguments: [String]) async throws -> RedisValue {
    let text = try #require(Self.scripts[script])
    return try await connection.command(
      ["EVAL", text, "1", shard.epochKey, String(epoch), runID] + arguments)
  }

  private static func ones(_ reply: RedisValue) -> [Bool] { (reply.array ?? []).map { $0.integer == 1 } }

  private static func pairs(_ leases: [Held]) -> [String] { leases.flatMap { [$0.job, String($0.counter)] } }

  // MARK: Its calls

  func open() async throws { try await call("open", ["0", "1"]) }

  func update(_ profiles: [QueueProfile]) async throws {
    try await call(
      "update",
      profiles.flatMap {
        [
          $0.id.description, String($0.limit), $0.countsIncomingOnProfile ? "1" : "0",
          $0.countsOutgoingOnProfile ? "1" : "0", String($0.weight), $0.paused ? "1" : "0",
        ]
      })
  }

  func hold(_ profile: Int64, _ direction: String, milliseconds: Int) async throws {
    try await call("hold", [String(profile), direction, String(milliseconds), "breaker"])
  }

  func enqueue(_ jobs: [Job]) async throws -> Int64 {
    let arguments = jobs.flatMap {
      [
        $0.profile.description, "1", $0.id.description, String($0.jobClass.rawValue), String($0.dueMilliseconds),
      ]
    }
    return try #require(try await call("enqueue", arguments).integer)
  }

  func announce(_ worker: String, slots: Int) async throws {
    try await call("announce", [worker, String(slots), "15000"])
  }

  func claim(_ limit: Int, by worker: String = "old") async throws -> [Held] {
    let reply = try #require(try await call("claim", [String(limit), worker, "600000"]).array)
    var counter = try #require(reply[1].integer)
    var held: [Held] = []
    var at = 3
    while at < reply.count {
      let profile = try #require(reply[at].string)
      let jobClass = Int(try #require(reply[at + 1].integer))
      let count = Int(try #require(reply[at + 2].integer))
      at += 3
      for _ in 0..<count {
        held.append(
          Held(job: try #require(reply[at].string), counter: counter, profile: profile, jobClass: jobClass))
        counter += 1
        at += 2
      }
    }
    return held
  }

  func renew(_ leases: [Held]) async throws -> [Bool] {
    Self.ones(try await call("renew", ["600000"] + Self.pairs(leases)))
  }

  func complete(_ leases: [Held]) async throws -> [Bool] {
    Self.ones(try await call("complete", Self.pairs(leases)))
  }

  func giveBack(_ leases: [Held]) async throws -> [Bool] {
    Self.ones(try await call("give_back", Self.pairs(leases)))
  }

  func withdraw(_ jobs: [Job]) async throws -> [String] {
    let reply = try await call("withdraw", jobs.flatMap { [$0.profile.description, "1", $0.id.description] })
    return (reply.array ?? []).compactMap(\.string)
  }

  /// One walk over everything; what was mended, by rule.
  func repair() async throws -> [String] {
    let reply = try #require(try await call("repair", ["10000", "600000"]).array)
    return stride(from: 2, to: reply.count, by: 2).compactMap { reply[$0].string }
  }
}
