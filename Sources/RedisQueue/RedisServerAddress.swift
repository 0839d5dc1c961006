import PostriderCore

/// One Redis server: where it is and how to log in.
struct RedisServerAddress: Sendable, CustomStringConvertible {
  enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case tcp(host: String, port: Int)
    case unix(path: String)

    var description: String {
      switch self {
      case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
      case .unix(let path): path
      }
    }
  }

  var endpoint: Endpoint
  /// `nil` with a password means the server's default user.
  var user: String?
  var password: Secret?
  var database = 0
  /// `nil` means plain text.
  var tls: RedisTLSSettings?

  /// Without the credentials, so it can be shown.
  var description: String { endpoint.description }

  /// The same credentials and TLS at another place.
  func at(_ endpoint: Endpoint) -> RedisServerAddress {
    var address = self
    address.endpoint = endpoint
    return address
  }
}
