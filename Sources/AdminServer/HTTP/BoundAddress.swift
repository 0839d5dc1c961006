/// An address that a server listens on.
public enum BoundAddress: Hashable, Sendable, CustomStringConvertible {
  /// TCP: the configured host and the real port.
  case tcp(host: String, port: Int, tls: Bool)
  /// A Unix socket: its path.
  case unixSocket(path: String)

  /// As a URL: `http://127.0.0.1:8080`, `http+unix:///run/postrider.sock`.
  public var description: String {
    switch self {
    case .tcp(let host, let port, let tls):
      "\(tls ? "https" : "http")://\(host.contains(":") ? "[\(host)]" : host):\(port)"
    case .unixSocket(let path): "http+unix://\(path)"
    }
  }
}

/// Why an address cannot be listened on.
public enum ListenError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Another process serves there.
  case inUse(String)
  /// Something that is not a socket is in the place of the socket; it was left alone.
  case notASocket(path: String)
  /// The path is longer than the system takes.
  case pathTooLong(path: String, maximum: Int)
  /// The certificate or key cannot be used.
  case tls(reason: String)
  /// The system said no.
  case system(what: String, reason: String)
  /// There is neither a TCP address nor a Unix socket to serve on.
  case nothingToServe

  /// What is wrong and what to do.
  public var description: String {
    switch self {
    case .inUse(let address): "\(address) is in use by another process"
    case .notASocket(let path): "\(path) exists and is not a socket; move it away or choose another path"
    case .pathTooLong(let path, let maximum): "the socket path \(path) is too long; use at most \(maximum) octets"
    case .tls(let reason): "the certificate or key cannot be used: \(reason)"
    case .system(let what, let reason): "cannot \(what): \(reason)"
    case .nothingToServe: "there is neither a TCP address nor a Unix socket to serve on"
    }
  }
}
