import FoundationEssentials
import PostriderCore

/// A Redis server as a URL names it.
struct RedisServerAddress: Sendable, CustomStringConvertible {
  enum Endpoint: Hashable, Sendable {
    case tcp(host: String, port: Int)
    case unix(path: String)
  }

  let endpoint: Endpoint
  /// `nil` with a password means the server's default user.
  let user: String?
  let password: Secret?
  let database: Int

  /// Without the credentials, so it can be shown.
  var description: String {
    switch endpoint {
    case .tcp(let host, let port): "\(host):\(port)"
    case .unix(let path): path
    }
  }

  init(url: String) throws(JobQueueError) {
    func wrong(_ reason: String) -> JobQueueError { .misconfigured(reason: "the Redis URL \(reason)") }
    guard let parts = URLComponents(string: url), let scheme = parts.scheme else {
      throw wrong("must look like redis://host:6379/0 or unix:///path/to/redis.sock?db=0")
    }
    var database = "0"
    switch scheme {
    case "redis":
      guard var host = parts.host, !host.isEmpty else { throw wrong("names no host") }
      if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
      let port = parts.port ?? 6_379
      guard (1...65_535).contains(port) else { throw wrong("has a port outside 1…65535") }
      endpoint = .tcp(host: host, port: port)
      if parts.path.count > 1 { database = String(parts.path.dropFirst()) }
      if let item = parts.queryItems?.first { throw wrong("has an unknown parameter `\(item.name)`") }
    case "unix":
      guard parts.host?.isEmpty ?? true else { throw wrong("needs three slashes before the path: unix:///path") }
      guard parts.path.count > 1 else { throw wrong("names no socket") }
      // sockaddr_un holds 108 bytes with the closing zero.
      guard parts.path.utf8.count <= 107 else { throw wrong("names a socket path of more than 107 bytes") }
      endpoint = .unix(path: parts.path)
      for item in parts.queryItems ?? [] {
        guard item.name == "db" else { throw wrong("has an unknown parameter `\(item.name)`") }
        database = item.value ?? ""
      }
    case "rediss": throw wrong("asks for TLS, which is not supported yet; use redis:// or unix://")
    default: throw wrong("must begin with redis:// or unix://")
    }
    guard let number = Int(database), (0...65_535).contains(number) else {
      throw wrong("has a database that is not a number")
    }
    self.database = number
    user = parts.user.flatMap { $0.isEmpty ? nil : $0 }
    password = parts.password.map { Secret($0) }
    if user != nil, password == nil { throw wrong("has a user without a password") }
  }
}
