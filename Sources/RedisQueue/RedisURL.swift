import PostriderCore

/// Where the queue's servers are, as a URL names them.
///
/// - `redis://[user:password@]host[:port][/db]`, `rediss://…` over TLS
/// - `unix://[user:password@]/path/to.sock[?db=N]`
/// - `redis-sentinel://[user:password@]host[:port],host[:port],…/master[/db]`, `rediss-sentinel://…` over TLS
/// - `redis-cluster://[user:password@]host[:port],host[:port],…`, `rediss-cluster://…` over TLS
///
/// User and password, percent-encoded, are those of the Redis servers; `valkey` stands for `redis` as well.
struct RedisURL: Sendable {
  enum Kind: Hashable, Sendable {
    case server
    case sentinel(master: String)
    case cluster
  }

  var kind: Kind
  var isTLS: Bool
  /// The server, or the Sentinels, or some nodes of the Cluster; at least one.
  var endpoints: [RedisServerAddress.Endpoint]
  var user: String?
  var password: Secret?
  var database = 0

  /// - Throws: ``JobQueueError/misconfigured(reason:)`` naming the wrong part, never the URL itself.
  init(_ text: String) throws(JobQueueError) {
    func wrong(_ reason: String) -> JobQueueError { .misconfigured(reason: "the Redis URL \(reason)") }
    guard let colon = text.firstRange(of: "://") else {
      throw wrong("must look like redis://host:6379/0 or unix:///path/to/redis.sock?db=0")
    }
    var rest = text[colon.upperBound...]
    var query: [String: String] = [:]
    if let mark = rest.firstIndex(of: "?") {
      for item in rest[rest.index(after: mark)...].split(separator: "&") {
        let pair = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        query[String(pair[0])] = pair.count == 2 ? String(pair[1]) : ""
      }
      rest = rest[..<mark]
    }
    // A slash in a password must be percent-encoded, so the first one ends the authority.
    let slash = rest.firstIndex(of: "/") ?? rest.endIndex
    var authority = rest[..<slash]
    let path = rest[slash...].dropFirst()
    if let at = authority.lastIndex(of: "@") {
      let pair = authority[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      guard let name = Self.decoded(pair[0]),
        let word = Self.decoded(pair.count == 2 ? pair[1] : "")
      else { throw wrong("has a user or password with a wrong percent sign") }
      user = name.isEmpty ? nil : name
      password = pair.count == 2 ? Secret(word) : nil
      authority = authority[authority.index(after: at)...]
    }
    let scheme = text[..<colon.lowerBound].lowercased().replacing("valkey", with: "redis")
    var number = ""
    switch scheme {
    case "redis", "rediss":
      (kind, number) = (.server, String(path))
    case "unix":
      kind = .server
      guard authority.isEmpty else { throw wrong("needs three slashes before the path: unix:///path") }
      guard let file = Self.decoded(path), !file.isEmpty else { throw wrong("names no socket") }
      // sockaddr_un holds 108 bytes with the closing zero.
      guard file.utf8.count < 107 else { throw wrong("names a socket path of more than 107 bytes") }
      number = query.removeValue(forKey: "db") ?? ""
      (isTLS, endpoints) = (false, [.unix(path: "/" + file)])
      database = try Self.database(number)
      if let name = query.keys.min() { throw wrong("has an unknown parameter `\(name)`") }
      return
    case "redis-sentinel", "rediss-sentinel":
      let parts = path.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
      guard let master = Self.decoded(parts.first ?? ""), !master.isEmpty else {
        throw wrong("names no master; it must look like redis-sentinel://host1,host2,host3/mymaster")
      }
      kind = .sentinel(master: master)
      number = parts.count == 2 ? String(parts[1]) : ""
    case "redis-cluster", "rediss-cluster":
      guard path.isEmpty || path == "0" else { throw wrong("names a database, but a Redis Cluster has only one") }
      kind = .cluster
    default:
      throw wrong(
        "must begin with redis://, rediss://, unix://, redis-sentinel://, rediss-sentinel://, redis-cluster:// or "
          + "rediss-cluster://")
    }
    if let name = query.keys.min() { throw wrong("has an unknown parameter `\(name)`") }
    isTLS = scheme.hasPrefix("rediss")
    database = try Self.database(number)
    let port = if case .sentinel = kind { 26_379 } else { 6_379 }
    var endpoints: [RedisServerAddress.Endpoint] = []
    for host in authority.split(separator: ",", omittingEmptySubsequences: false) {
      endpoints.append(try Self.endpoint(host, port: port))
    }
    guard kind != .server || endpoints.count == 1 else {
      throw wrong("names several hosts; begin it with redis-sentinel:// or redis-cluster://")
    }
    self.endpoints = endpoints
  }

  /// Text with its percent-encoded octets; `nil` when a percent sign stands for nothing.
  private static func decoded(_ text: Substring) -> String? {
    var octets: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let octet = rest.popFirst() {
      guard octet == UInt8(ascii: "%") else {
        octets.append(octet)
        continue
      }
      guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
        return nil
      }
      octets.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: octets, as: UTF8.self)
  }

  private static func database(_ text: String) throws(JobQueueError) -> Int {
    if text.isEmpty { return 0 }
    guard let number = Int(text), (0...65_535).contains(number) else {
      throw .misconfigured(reason: "the Redis URL has a database that is not a number")
    }
    return number
  }

  /// `host`, `host:port`, `[address]` or `[address]:port`.
  private static func endpoint(_ text: Substring, port: Int) throws(JobQueueError) -> RedisServerAddress.Endpoint {
    func wrong(_ reason: String) -> JobQueueError { .misconfigured(reason: "the Redis URL \(reason)") }
    var host = text
    var number: Substring?
    if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
      host = text[text.index(after: text.startIndex)..<end]
      let rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { throw wrong("has a port that is not a number") }
      number = rest.isEmpty ? nil : rest.dropFirst()
    } else if let colon = text.firstIndex(of: ":") {
      host = text[..<colon]
      number = text[text.index(after: colon)...]
    }
    guard !host.isEmpty else { throw wrong("names no host") }
    guard host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && !"@%[]\\<>\"^`{|}".utf8.contains($0) }) else {
      throw wrong("has a host that is no name")
    }
    guard let number else { return .tcp(host: String(host), port: port) }
    guard let port = Int(number), (1...65_535).contains(port) else { throw wrong("has a port outside 1…65535") }
    return .tcp(host: String(host), port: port)
  }
}
