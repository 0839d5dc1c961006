import PostriderCore

/// Where the queue's server is and how its clients behave.
public struct RedisQueueConfiguration: Sendable {
  /// The server, its credentials and database.
  let server: RedisServerAddress
  /// What every key begins with; 1…64 characters of `A–Z a–z 0–9 _ . : -`.
  public let keyPrefix: String
  /// How many shards the keys are spread over; 1…64, fixed when the queue is installed. One is
  /// enough for one server; a Redis Cluster spreads several over its nodes.
  public let shards: Int
  /// How long a lease lasts without renewal.
  public let leaseDuration: Duration
  /// How long one call may take, and how long connecting may take, before it counts as unreachable.
  public let callTimeout: Duration
  /// The greatest pause between two attempts to connect; the first attempts follow each other faster.
  public var maximumReconnectDelay: Duration = .seconds(2)

  /// Describes a queue.
  ///
  /// - Parameters:
  ///   - url: `redis://[user:password@]host[:port][/db]` or `unix://[user:password@]/path/to.sock[?db=N]`; user and
  ///     password percent-encoded. Secret, as it may hold a password.
  ///   - keyPrefix: 1…64 characters of `A–Z a–z 0–9 _ . : -`, default `pr`.
  ///   - shards: 1…64, default 1; the same in every process.
  ///   - leaseDuration: 100 ms…1 hour, default 15 s.
  ///   - callTimeout: 10 ms…1 minute, default 3 s.
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` naming the wrong part, never the URL itself.
  public init(
    url: String, keyPrefix: String = "pr", shards: Int = 1, leaseDuration: Duration = .seconds(15),
    callTimeout: Duration = .seconds(3)
  ) throws(JobQueueError) {
    server = try RedisServerAddress(url: url)
    let allowed = keyPrefix.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: "_.:-".utf8.contains(byte)
      }
    }
    guard allowed, (1...64).contains(keyPrefix.utf8.count) else {
      throw .misconfigured(reason: "the key prefix must be 1 to 64 of the characters A-Z a-z 0-9 _ . : -")
    }
    guard (1...64).contains(shards) else { throw .misconfigured(reason: "the number of shards must be 1 to 64") }
    guard leaseDuration >= .milliseconds(100), leaseDuration <= .seconds(3_600) else {
      throw .misconfigured(reason: "the lease must last 100 ms to 1 hour")
    }
    guard callTimeout >= .milliseconds(10), callTimeout <= .seconds(60) else {
      throw .misconfigured(reason: "the call timeout must be 10 ms to 60 s")
    }
    self.keyPrefix = keyPrefix
    self.shards = shards
    self.leaseDuration = leaseDuration
    self.callTimeout = callTimeout
  }
}
