#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// One question to a local server, for readiness checks.
enum Probe {
  /// Sends a text to a Unix socket and returns the answer's first line without its end; `nil` when nobody answers
  /// within `limit`.
  static func ask(_ text: String, at path: String, limitMilliseconds limit: Int = 250) -> String? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return exchange(text, family: AF_UNIX, limitMilliseconds: limit) { socket in
      withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
    }
  }

  /// The first line that a TCP server says by itself.
  static func greeting(host: String, port: Int, limitMilliseconds limit: Int = 250) -> String? {
    guard var address = LoopbackPorts.address(host, port) else { return nil }
    return exchange("", family: AF_INET, limitMilliseconds: limit) { socket in
      withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    }
  }

  private static func exchange(
    _ text: String, family: Int32, limitMilliseconds limit: Int, connect: (Int32) -> Int32
  ) -> String? {
    let socket = LoopbackPorts.streamSocket(family)
    guard socket >= 0 else { return nil }
    defer { close(socket) }
    var wait = timeval(tv_sec: limit / 1000, tv_usec: .init(limit % 1000 * 1000))
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    guard connect(socket) == 0 else { return nil }
    // A peer that has closed must not end this process by SIGPIPE.
    #if canImport(Darwin)
      var on: Int32 = 1
      setsockopt(socket, SOL_SOCKET, SO_NOSIGPIPE, &on, socklen_t(MemoryLayout<Int32>.size))
      let flags: Int32 = 0
    #else
      let flags = Int32(MSG_NOSIGNAL)
    #endif
    let question = Array(text.utf8)
    guard question.isEmpty || send(socket, question, question.count, flags) == question.count else { return nil }
    var answer = [UInt8](repeating: 0, count: 512)
    let count = recv(socket, &answer, answer.count, 0)
    guard count > 0 else { return nil }
    return String(decoding: answer[..<count].prefix { $0 != 13 && $0 != 10 }, as: UTF8.self)
  }
}
