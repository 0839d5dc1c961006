import Foundation
import Synchronization

/// Ports on 127.0.0.1 for programs that are told theirs before they start.
public enum LoopbackPort {
  private static let given = Mutex<Set<Int>>([])

  /// One that is free now and was not given out here before.
  ///
  /// It lies below the range from which the kernel hands out ports by itself: no server that takes any free port and no
  /// outgoing connection gets it between this moment and the one in which the program listens.
  public static func free() throws -> Int {
    // Test processes run beside each other; chance keeps them apart.
    for _ in 0..<1_000 {
      let port = Int.random(in: 10_000..<kernelsFirst)
      if given.withLock({ $0.insert(port).inserted }), isFree(UInt16(port)) { return port }
    }
    throw TestFailure("no free port on 127.0.0.1")
  }

  /// The lowest port that the kernel hands out (Linux: `ip_local_port_range`, 32,768 unless changed).
  private static let kernelsFirst: Int = {
    let range = try? String(contentsOfFile: "/proc/sys/net/ipv4/ip_local_port_range", encoding: .utf8)
    let first = range?.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) } ?? 32_768
    return first > 12_000 ? first : 32_768
  }()

  private static func isFree(_ port: UInt16) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = loopback(port)
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }

  /// Whether a POP3 server greets there.
  static func greets(_ port: Int) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var limit = timeval(tv_sec: 2, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var address = loopback(UInt16(port))
    let isConnected = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    var octets = [UInt8](repeating: 0, count: 3)
    return isConnected && recv(descriptor, &octets, 3, 0) == 3 && octets == Array("+OK".utf8)
  }

  private static func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return address
  }
}
