#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// Free TCP ports on a loopback address.
///
/// A port is free when it is looked for, not when the server binds it: a server that meets a taken port is started
/// again with others.
enum LoopbackPorts {
  /// What a server's log says when it met a taken port.
  static let takenMark = "Address already in use"

  /// As many different ports, those of `preferred` that are free first.
  static func free(_ count: Int, host: String, preferred: [Int] = []) throws -> [Int] {
    var open: [Int32] = []
    // All are held until all are found, so that no port is found twice.
    defer { for socket in open { close(socket) } }
    var ports: [Int] = []
    for index in 0..<count {
      let wish = index < preferred.count ? preferred[index] : 0
      guard let (socket, port) = bind(host: host, port: wish) ?? bind(host: host, port: 0) else {
        throw PrivateServerError.unusable(path: host, reason: "no free port on this address: \(Files.lastError)")
      }
      open.append(socket)
      ports.append(port)
    }
    return ports
  }

  /// Starts a server, with other ports when it finds one taken. The closure gets the attempt's number, from 0.
  static func retrying<Server>(_ start: (_ attempt: Int) async throws -> Server) async throws -> Server {
    var attempt = 0
    while true {
      do {
        return try await start(attempt)
      } catch PrivateServerError.notStarted(let server, let reason, let log) {
        attempt += 1
        guard attempt < 5, log.contains(where: { $0.contains(takenMark) }) else {
          throw PrivateServerError.notStarted(server: server, reason: reason, log: log)
        }
      }
    }
  }

  /// A socket bound to a port, 0 meaning any, and the port.
  private static func bind(host: String, port: Int) -> (socket: Int32, port: Int)? {
    guard var address = address(host, port) else { return nil }
    let socket = streamSocket(AF_INET)
    guard socket >= 0 else { return nil }
    var on: Int32 = 1
    // As servers do: connections of an earlier run that still fade out are no obstacle.
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        systemBind(socket, $0, size) == 0 && listen(socket, 1) == 0 && getsockname(socket, $0, &size) == 0
      }
    }
    guard bound else {
      close(socket)
      return nil
    }
    return (socket, Int(UInt16(bigEndian: address.sin_port)))
  }

  static func address(_ host: String, _ port: Int) -> sockaddr_in? {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    guard let number = UInt16(exactly: port), inet_pton(AF_INET, host, &address.sin_addr) == 1 else { return nil }
    address.sin_port = number.bigEndian
    return address
  }

  static func streamSocket(_ family: Int32) -> Int32 {
    #if canImport(Darwin)
      socket(family, SOCK_STREAM, 0)
    #elseif canImport(Musl)
      socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)
    #else
      socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    #endif
  }
}

// Inside `LoopbackPorts` the system's name would be taken for its own function.
private func systemBind(_ socket: Int32, _ address: UnsafePointer<sockaddr>, _ size: socklen_t) -> Int32 {
  bind(socket, address, size)
}
