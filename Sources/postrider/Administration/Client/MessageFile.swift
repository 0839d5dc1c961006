import NIOCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A file, or standard input, that is read piece by piece.
struct MessageFile: Sendable {
  /// Its size; `nil` when only its end will show it.
  let sizeOctets: Int64?
  private let descriptor: Int32
  private let path: String

  private static let pieceOctets = 65_536

  /// Opens a file; `-` is standard input. Throws ``ClientError/failed(_:)`` when it cannot be read.
  init(_ path: String) throws(ClientError) {
    self.path = path
    if path == "-" {
      descriptor = STDIN_FILENO
      sizeOctets = nil
      return
    }
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    var status = stat()
    guard descriptor >= 0, fstat(descriptor, &status) == 0 else { throw Self.unreadable(path, errno) }
    if status.st_mode & S_IFMT == S_IFDIR {
      _ = systemClose(descriptor)
      throw Self.unreadable(path, EISDIR)
    }
    sizeOctets = status.st_mode & S_IFMT == S_IFREG ? Int64(status.st_size) : nil
  }

  /// Closes it; standard input stays open.
  func close() { if path != "-" { _ = systemClose(descriptor) } }

  /// What is left of it.
  var pieces: AsyncThrowingStream<ByteBuffer, any Error> { AsyncThrowingStream { try piece() } }

  /// The next octets; `nil` at the end. It may wait for whoever writes standard input: a command has nothing else to do.
  private func piece() throws -> ByteBuffer? {
    var octets = [UInt8](repeating: 0, count: Self.pieceOctets)
    while true {
      let count = octets.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
      if count > 0 { return ByteBuffer(bytes: octets[..<count]) }
      if count == 0 { return nil }
      if errno != EINTR { throw Self.unreadable(path, errno) }
    }
  }

  private static func unreadable(_ path: String, _ code: Int32) -> ClientError {
    .failed("the file \(Terminal.safe(path)) cannot be read: \(Terminal.words(errno: code))")
  }
}

/// The system's `close`, which a method of the same name hides.
private func systemClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
