import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Reads content in chunks of at most 1 MiB, from memory or from a spool file, on the connection's own thread.
enum ContentReader {
  static let chunkOctets = 1_048_576

  /// Hands out the chunks in order. Throws ``StoreError/statement(sqlState:message:)`` with SQLSTATE 58030 (I/O error)
  /// when a file cannot be read or is shorter or longer than announced.
  static func chunks(of content: Content, _ body: (_ position: Int, _ octets: [UInt8]) throws -> Void) throws {
    switch content {
    case .bytes(let bytes):
      var position = 0
      var start = 0
      while start < bytes.count {
        let end = min(start + chunkOctets, bytes.count)
        try body(position, Array(bytes[start..<end]))
        position += 1
        start = end
      }
    case .file(let path, let size):
      try file(path, size, body)
    }
  }

  private static func file(
    _ path: String, _ size: Int64, _ body: (_ position: Int, _ octets: [UInt8]) throws -> Void
  ) throws {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure("opened") }
    defer { close(descriptor) }
    var left = size
    var position = 0
    while left > 0 {
      let want = Int(min(Int64(chunkOctets), left))
      var count = 0
      var failed = false
      let octets = [UInt8](unsafeUninitializedCapacity: want) { buffer, initialized in
        while count < want {
          let got = read(descriptor, buffer.baseAddress?.advanced(by: count), want - count)
          if got < 0 && errno == EINTR { continue }
          if got <= 0 {
            failed = got < 0
            break
          }
          count += got
        }
        initialized = count
      }
      if failed { throw failure("read") }
      if octets.count < want { throw wrongSize }
      try body(position, octets)
      position += 1
      left -= Int64(want)
    }
    var extra: UInt8 = 0
    if read(descriptor, &extra, 1) != 0 { throw wrongSize }
  }

  private static func failure(_ what: String) -> StoreError {
    .statement(sqlState: "58030", message: "a spool file cannot be \(what): \(String(cString: strerror(errno)))")
  }

  private static var wrongSize: StoreError {
    .statement(sqlState: "58030", message: "a spool file has another size than announced")
  }
}
