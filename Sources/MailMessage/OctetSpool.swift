import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Keeps octets while they come: in memory while they are few, in a private file (0600) from then on.
struct OctetSpool {
  private let directory: String
  private let memoryOctets: Int
  private var bytes: [UInt8] = []
  private var file: (descriptor: Int32, path: String)?
  private var sizeOctets: Int64 = 0

  init(directory: String, memoryOctets: Int) {
    self.directory = directory
    self.memoryOctets = memoryOctets
  }

  mutating func append(_ octets: [UInt8]) throws(RawMessageError) {
    sizeOctets += Int64(octets.count)
    if file == nil, bytes.count + octets.count <= memoryOctets {
      bytes += octets
      return
    }
    let opened: (descriptor: Int32, path: String)
    if let file { opened = file } else { opened = try create() }
    file = opened
    try write(bytes, opened.descriptor)
    bytes = []
    try write(octets, opened.descriptor)
  }

  /// Everything that came; the file belongs to the caller from now on.
  mutating func finish() throws(RawMessageError) -> Content {
    guard let file else { return .bytes(bytes) }
    self.file = nil
    guard close(file.descriptor) == 0 else {
      let error = Self.failure(file.path)
      unlink(file.path)
      throw error
    }
    return .file(path: file.path, sizeOctets: sizeOctets)
  }

  mutating func remove() {
    if let file {
      close(file.descriptor)
      unlink(file.path)
    }
    file = nil
    bytes = []
  }

  private func create() throws(RawMessageError) -> (descriptor: Int32, path: String) {
    let path = Self.newPath(in: directory)
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Self.failure(path) }
    return (descriptor, path)
  }

  private func write(_ octets: [UInt8], _ descriptor: Int32) throws(RawMessageError) {
    var offset = 0
    while offset < octets.count {
      let count = octets.withUnsafeBytes {
        systemWrite(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw Self.failure(file?.path ?? directory) }
      offset += count
    }
  }

  static func newPath(in directory: String) -> String { "\(directory)/postrider-\(UUID().uuidString).eml" }

  private static func failure(_ path: String) -> RawMessageError {
    .notKept(
      reason:
        "the file \(path) cannot be written: \(String(cString: strerror(errno))); check the directory's rights and space"
    )
  }
}

/// Collects the decoded octets of one attachment; what cannot be written is told at the end.
struct AttachmentSpool {
  private var spool: OctetSpool
  private var isDropped = false
  /// Why it could not be kept.
  private(set) var failure: RawMessageError?

  /// Without a directory everything stays in memory.
  init(directory: String?, memoryOctets: Int) {
    spool = OctetSpool(directory: directory ?? "", memoryOctets: memoryOctets)
  }

  mutating func append(_ octets: [UInt8]) {
    guard failure == nil, !isDropped else { return }
    do throws(RawMessageError) { try spool.append(octets) } catch { fail(error) }
  }

  /// Forgets what came, and what comes.
  mutating func remove() {
    isDropped = true
    spool.remove()
  }

  /// What came; `nil` when it was forgotten or could not be kept.
  mutating func finish() -> Content? {
    guard failure == nil, !isDropped else { return nil }
    do throws(RawMessageError) { return try spool.finish() } catch { fail(error) }
    return nil
  }

  private mutating func fail(_ error: RawMessageError) {
    failure = error
    spool.remove()
  }
}

/// The system's `write`, which a method of the same name hides.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}

/// Files of messages on their way into the store.
public enum MessageFiles {
  /// A name for a new file that nobody has.
  public static func newPath(in directory: String) -> String { OctetSpool.newPath(in: directory) }

  /// Removes the file of a content that has one.
  public static func remove(_ content: Content) {
    // One that is left behind costs space only.
    if case .file(let path, _) = content { unlink(path) }
  }
}
