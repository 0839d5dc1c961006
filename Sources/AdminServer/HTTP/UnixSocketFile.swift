#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The place of a Unix socket in the file system.
///
/// A socket file has no protected mode before `chmod`, so it is bound in a directory that nobody else can enter, made
/// 0600 there, and then moved to its path. The move also replaces a stale file at once.
struct UnixSocketFile: Sendable {
  /// Where clients look for it.
  let path: String
  /// Where it is bound first.
  let temporaryPath: String
  private let temporaryDirectory: String

  /// The most octets of a path to a socket, less one for the NUL.
  private static let maximumPathOctets = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

  /// Makes the place ready.
  ///
  /// - Throws: ``ListenError`` when somebody listens at the path, something else is there, or it cannot be written.
  init(preparing path: String) throws {
    let slash = path.lastIndex(of: "/")
    let parent = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let template = (parent == "/" ? "" : parent) + "/.sock-XXXXXX"
    let longest = max(path.utf8.count, template.utf8.count + 2)
    guard longest <= Self.maximumPathOctets else {
      throw ListenError.pathTooLong(path: path, maximum: Self.maximumPathOctets - (longest - path.utf8.count))
    }
    try Self.makeSureNobodyListens(at: path)
    var bytes = template.utf8CString.map { $0 }
    guard mkdtemp(&bytes) != nil else {
      throw ListenError.system(what: "make a directory in \(parent)", reason: Self.reason(errno))
    }
    self.path = path
    temporaryDirectory = String(decoding: bytes.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    temporaryPath = temporaryDirectory + "/s"
  }

  /// Protects the bound socket and moves it to its path.
  ///
  /// - Returns: what ``remove(_:)`` needs to recognize it.
  func publish() throws -> Identity {
    guard chmod(temporaryPath, 0o600) == 0, rename(temporaryPath, path) == 0, let identity = Self.identity(path) else {
      let reason = Self.reason(errno)
      discard()
      throw ListenError.system(what: "create the socket \(path)", reason: reason)
    }
    rmdir(temporaryDirectory)
    return identity
  }

  /// Removes what is left of an attempt that failed before ``publish()``.
  func discard() {
    unlink(temporaryPath)
    rmdir(temporaryDirectory)
  }

  /// Removes the socket, if the path still holds the one that was published.
  func remove(_ identity: Identity) {
    if Self.identity(path) == identity { unlink(path) }
  }

  /// Which file it is.
  struct Identity: Hashable, Sendable {
    let device: UInt64
    let node: UInt64
  }

  private static func identity(_ path: String) -> Identity? {
    var status = stat()
    guard lstat(path, &status) == 0 else { return nil }
    return Identity(device: UInt64(truncatingIfNeeded: status.st_dev), node: UInt64(truncatingIfNeeded: status.st_ino))
  }

  private static func makeSureNobodyListens(at path: String) throws {
    var status = stat()
    guard lstat(path, &status) == 0 else {
      if errno == ENOENT { return }
      throw ListenError.system(what: "look at \(path)", reason: reason(errno))
    }
    guard status.st_mode & S_IFMT == S_IFSOCK else { throw ListenError.notASocket(path: path) }
    switch connectError(path) {
    case 0: throw ListenError.inUse(path)
    case ECONNREFUSED, ENOENT: return
    case let code: throw ListenError.system(what: "look whether somebody listens at \(path)", reason: reason(code))
    }
  }

  /// 0 when somebody accepted the connection.
  private static func connectError(_ path: String) -> Int32 {
    #if canImport(Glibc)
      let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    #else
      let descriptor = socket(AF_UNIX, SOCK_STREAM, 0)
    #endif
    guard descriptor >= 0 else { return errno }
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return result == 0 ? 0 : errno
  }

  private static func reason(_ code: Int32) -> String { String(cString: strerror(code)) }
}
