#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A file that a command makes; never one that was there before. Only its owner may read it.
struct NewFile {
  let path: String
  private(set) var sizeOctets: Int64 = 0
  private var descriptor: Int32

  /// Makes the file. Throws ``ClientError/failed(_:)``, also when there is one of that name.
  init(_ path: String) throws {
    self.path = path
    descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    if descriptor < 0 { throw Self.failure("made", path) }
  }

  /// Appends octets.
  mutating func write(_ bytes: [UInt8]) throws {
    var offset = 0
    while offset < bytes.count {
      let count = bytes[offset...].withUnsafeBytes { systemWrite(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && errno != EINTR { throw Self.failure("written", path) }
      offset += max(0, count)
    }
    sizeOctets += Int64(bytes.count)
  }

  /// Ends writing; what was written is whole only when this does not throw.
  mutating func close() throws {
    defer { descriptor = -1 }
    if systemClose(descriptor) != 0 { throw Self.failure("written", path) }
  }

  /// Removes the file: half a message is none.
  mutating func discard() {
    if descriptor >= 0 { _ = systemClose(descriptor) }
    descriptor = -1
    unlink(path)
  }

  private static func failure(_ what: String, _ path: String) -> ClientError {
    let reason = Terminal.words(errno: errno)
    return .failed("the file \(Terminal.safe(path)) cannot be \(what): \(reason)")
  }
}

/// The C functions under other names, which the methods hide.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}

private func systemClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
