import FoundationEssentials

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// Small file operations with the owner and mode that a server needs.
enum Files {
  /// The last error of a system call, in words.
  static var lastError: String { String(cString: strerror(errno)) }

  /// Owner and mode of a path, links followed; `nil` when there is nothing.
  static func status(_ path: String) -> (owner: UInt32, group: UInt32, mode: UInt32, size: Int)? {
    var info = stat()
    guard stat(path, &info) == 0 else { return nil }
    return (info.st_uid, info.st_gid, UInt32(info.st_mode), Int(info.st_size))
  }

  /// Whether the path itself, no link followed, is a directory of ours.
  static func isOwnDirectory(_ path: String) -> Bool {
    var info = stat()
    guard lstat(path, &info) == 0 else { return false }
    return info.st_mode & S_IFMT == S_IFDIR && info.st_uid == geteuid()
  }

  /// Whether there is something at the path.
  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// Whether the path is a file that may be run.
  static func isProgram(_ path: String) -> Bool {
    guard access(path, X_OK) == 0, let status = status(path) else { return false }
    return status.mode & UInt32(S_IFMT) == UInt32(S_IFREG)
  }

  /// Creates a directory with its parents, or takes the one that is there, and gives it this mode and owner.
  static func ensureDirectory(_ path: String, mode: UInt32, owner: ServerUser? = nil) throws {
    if mkdir(path, mode_t(mode)) != 0 && errno == ENOENT {
      let parent = parent(of: path)
      if parent != path { try ensureDirectory(parent, mode: 0o755) }
      _ = mkdir(path, mode_t(mode))
    }
    guard let status = status(path), status.mode & UInt32(S_IFMT) == UInt32(S_IFDIR) else {
      throw PrivateServerError.unusable(path: path, reason: "cannot be created as a directory: \(lastError)")
    }
    try own(path, by: owner)
    if status.mode & 0o7777 != mode && chmod(path, mode_t(mode)) != 0 {
      throw PrivateServerError.unusable(path: path, reason: "cannot get mode \(String(mode, radix: 8)): \(lastError)")
    }
  }

  /// Gives a path to a user; nothing when it is ours already.
  static func own(_ path: String, by owner: ServerUser?) throws {
    guard let owner, let status = status(path) else { return }
    if status.owner == owner.userID && status.group == owner.groupID { return }
    guard chown(path, owner.userID, owner.groupID) == 0 || status.owner == owner.userID else {
      throw PrivateServerError.unusable(path: path, reason: "cannot be given to user \(owner.name): \(lastError)")
    }
  }

  /// Replaces a file at once: readers see the old text or the new one.
  static func write(_ text: String, to path: String, mode: UInt32 = 0o600, owner: ServerUser? = nil) throws {
    // Two writers at once must not share it.
    let temporary = path + ".\(UInt64.random(in: 0 ... .max)).tmp"
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(mode))
    guard file >= 0 else { throw PrivateServerError.unusable(path: path, reason: "cannot be written: \(lastError)") }
    defer { close(file) }
    try writeAll(Array(text.utf8), to: file, path: path)
    fchmod(file, mode_t(mode))
    try own(temporary, by: owner)
    guard rename(temporary, path) == 0 else {
      throw PrivateServerError.unusable(path: path, reason: "cannot be replaced: \(lastError)")
    }
  }

  /// Adds text to the end of a file, creating it when it is absent.
  static func append(_ text: String, to path: String, mode: UInt32 = 0o600) throws {
    let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode_t(mode))
    guard file >= 0 else { throw PrivateServerError.unusable(path: path, reason: "cannot be written: \(lastError)") }
    defer { close(file) }
    try writeAll(Array(text.utf8), to: file, path: path)
  }

  static func writeAll(_ bytes: [UInt8], to file: Int32, path: String) throws {
    var written = 0
    while written < bytes.count {
      let count = bytes[written...].withUnsafeBytes { unistdWrite(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw PrivateServerError.unusable(path: path, reason: "cannot be written: \(lastError)") }
      written += count
    }
  }

  /// The text of a file, at most `limit` octets from its end; `nil` when it cannot be read.
  ///
  /// Reads until the end instead of asking for the size, which is 0 for files of `/proc`.
  static func read(_ path: String, last limit: Int = 1 << 20) -> String? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    if let size = status(path)?.size, size > limit { lseek(file, off_t(size - limit), SEEK_SET) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16_384)
    while bytes.count < limit {
      let count = chunk.withUnsafeMutableBytes { unistdRead(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The last lines of a log file, those written after `offset` only.
  static func tail(_ path: String, lines: Int = 20, after offset: Int = 0) -> [String] {
    guard let size = status(path)?.size, size > offset else { return [] }
    let text = read(path, last: min(size - offset, 65_536)) ?? ""
    return text.split(separator: "\n").suffix(lines).map(String.init)
  }

  /// The names in a directory; empty when it cannot be read.
  static func names(in path: String) -> [String] {
    // A directory that is not there holds nothing: every caller means it so.
    (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
  }

  /// Removes a file or a whole directory; nothing when it is absent.
  static func remove(_ path: String) {
    // What cannot be removed is left: the next start meets it again and says so where it matters.
    try? FileManager.default.removeItem(atPath: path)
  }

  /// The directory above a path.
  static func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return "/" }
    return String(path[..<slash])
  }

  /// The absolute path without links; the path itself where nothing is there yet.
  static func resolved(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    return String(cString: real)
  }
}

// Inside `Files` the system's names would be taken for its own functions.
private func unistdRead(_ file: Int32, _ buffer: UnsafeMutableRawPointer?, _ count: Int) -> Int {
  read(file, buffer, count)
}
private func unistdWrite(_ file: Int32, _ buffer: UnsafeRawPointer?, _ count: Int) -> Int {
  write(file, buffer, count)
}
