import PostriderCore

/// Where the queue's servers are and how its clients behave.
public struct RedisQueueConfiguration: Sendable {
  /// What the URL says.
  let url: RedisURL
  /// The servers' credentials, database and TLS; the endpoint is the first of the URL.
  let server: RedisServerAddress
  /// The Sentinels' credentials; those of the servers say nothing about them.
  let sentinelUser: String?
  let sentinelPassword: Secret?
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

  /// Users and passwords that are not part of the URL.
  public struct Credentials: Sendable {
    /// The user of the Redis servers; `nil` means the one of the URL, or the default user.
    public var user: String?
    /// The password of the Redis servers; `nil` means the one of the URL.
    public var password: Secret?
    /// The user of the Sentinels; `nil` with a password means their default user.
    public var sentinelUser: String?
    /// The password of the Sentinels.
    public var sentinelPassword: Secret?

    /// Describes credentials.
    public init(
      user: String? = nil, password: Secret? = nil, sentinelUser: String? = nil, sentinelPassword: Secret? = nil
    ) {
      self.user = user
      self.password = password
      self.sentinelUser = sentinelUser
      self.sentinelPassword = sentinelPassword
    }
  }

  /// Describes a queue.
  ///
  /// - Parameters:
  ///   - url: one server, `redis://[user:password@]host[:port][/db]` or `unix://[user:password@]/path/to.sock[?db=N]`;
  ///     Sentinels, `redis-sentinel://[user:password@]host[:port],…/master[/db]`; or nodes of a Cluster,
  ///     `redis-cluster://[user:password@]host[:port],…`. `rediss` for `redis` means TLS. User and password are
  ///     percent-encoded. Secret, as it may hold a password.
  ///   - credentials: what the URL does not hold.
  ///   - tls: how TLS servers are verified; their URLs begin with `rediss`.
  ///   - keyPrefix: 1…64 characters of `A–Z a–z 0–9 _ . : -`, default `pr`.
  ///   - shards: 1…64, default 1; the same in every process.
  ///   - leaseDuration: 100 ms…1 hour, default 15 s.
  ///   - callTimeout: 10 ms…1 minute, default 3 s.
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` naming the wrong part, never the URL itself.
  public init(
    url: String, credentials: Credentials = Credentials(), tls: RedisTLSSettings = RedisTLSSettings(),
    keyPrefix: String = "pr", shards: Int = 1, leaseDuration: Duration = .seconds(15),
    callTimeout: Duration = .seconds(3)
  ) throws(JobQueueError) {
    let url = try RedisURL(url)
    self.url = url
    server = try Self.server(url, credentials, tls)
    let hasSentinels = if case .sentinel = url.kind { true } else { false }
    if !hasSentinels, credentials.sentinelUser != nil || credentials.sentinelPassword != nil {
      throw .misconfigured(reason: "credentials of Sentinels are set, but the Redis URL names none (redis-sentinel://)")
    }
    if credentials.sentinelUser != nil, credentials.sentinelPassword == nil {
      throw .misconfigured(reason: "the Sentinels' user has no password")
    }
    sentinelUser = credentials.sentinelUser
    sentinelPassword = credentials.sentinelPassword
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

  /// Puts together what the URL and the other settings say of the servers.
  private static func server(
    _ url: RedisURL, _ credentials: Credentials, _ tls: RedisTLSSettings
  ) throws(JobQueueError) -> RedisServerAddress {
    func twice(_ what: String) -> JobQueueError {
      .misconfigured(reason: "the \(what) stands in the Redis URL and in a setting of its own; remove one")
    }
    if url.user != nil, credentials.user != nil { throw twice("user") }
    if url.password != nil, credentials.password != nil { throw twice("password") }
    let user = url.user ?? credentials.user
    let password = url.password ?? credentials.password
    if user != nil, password == nil {
      throw .misconfigured(reason: "the Redis URL or setting has a user without a password")
    }
    if url.isTLS {
      // Read now as well, so that a wrong file is told at the start.
      _ = try tls.context()
      if let name = tls.serverName { _ = try RedisTLSSettings.handler(try tls.context(), name: name) }
    } else if !tls.isEmpty {
      throw .misconfigured(reason: "TLS files are set, but the Redis URL does not ask for TLS; begin it with rediss")
    }
    guard let first = url.endpoints.first else { throw .misconfigured(reason: "the Redis URL names no host") }
    return RedisServerAddress(
      endpoint: first, user: user, password: password, database: url.database, tls: url.isTLS ? tls : nil)
  }

  /// The way to the servers.
  func topology(_ tools: RedisTools) -> any RedisTopology {
    switch url.kind {
    case .server: return RedisSingleServer(server, sentinels: nil, configuration: self, tools: tools)
    case .sentinel(let master):
      var address = server
      (address.user, address.password, address.database) = (sentinelUser, sentinelPassword, 0)
      let sentinels = RedisSentinels(
        url.endpoints.map(address.at), master: master, configuration: self, logger: tools.logger)
      return RedisSingleServer(server, sentinels: sentinels, configuration: self, tools: tools)
    case .cluster: return RedisCluster(seeds: url.endpoints, configuration: self, tools: tools)
    }
  }
}
