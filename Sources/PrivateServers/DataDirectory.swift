import FoundationEssentials
import Synchronization

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// The directory in which private servers keep their data, held by one supervisor at a time.
///
/// An exclusive lock on the file `lock` is held until ``close()`` or the end of the process. PostgreSQL protects its
/// own data; Redis does not: a second server would silently take the first one's socket and open the same file.
///
/// Sockets stand in a short directory elsewhere (``runtimePath``), because a socket's path has at most 107 bytes.
public final class DataDirectory: Sendable {
  /// The absolute path, links resolved.
  public let path: String
  /// A directory for sockets, removed by ``close()``. Its name depends on ``path`` only.
  public let runtimePath: String
  /// The system user that the servers run as.
  public let user: ServerUser
  /// The data directory's name in ``runtimePath``: a path without blanks or other characters that configuration files
  /// give a meaning to.
  var alias: String { runtimePath + "/data" }
  private let lock: Mutex<Int32?>

  /// `/var/lib/postrider` for root, `$XDG_STATE_HOME/postrider` or `~/.local/state/postrider` for everybody else.
  public static var defaultPath: String {
    let environment = ProcessInfo.processInfo.environment
    if geteuid() == 0 { return "/var/lib/postrider" }
    if let state = environment["XDG_STATE_HOME"], state.hasPrefix("/") { return state + "/postrider" }
    return (environment["HOME"] ?? "/tmp") + "/.local/state/postrider"
  }

  private init(path: String, runtimePath: String, user: ServerUser, lock: Int32) {
    self.path = path
    self.runtimePath = runtimePath
    self.user = user
    self.lock = Mutex(lock)
  }

  /// Opens a data directory, creating it when it is absent, and stops what a killed supervisor left running in it.
  ///
  /// Throws ``PrivateServerError/locked(directory:holder:)`` while another process holds it, and
  /// ``PrivateServerError/unusable(path:reason:)`` when it, or a directory above it, cannot be entered by the servers'
  /// user.
  public static func open(_ path: String = defaultPath) async throws -> DataDirectory {
    let user = try ServerUser.forServers()
    let absolute = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
    // Servers of another user pass through it to their own directories; nothing in it can be listed.
    try Files.ensureDirectory(absolute, mode: user.isOther ? 0o711 : 0o700)
    let path = Files.resolved(absolute)
    try checkEntry(to: path, for: user)
    let lock = try takeLock(in: path)
    do {
      let runtimePath = try makeRuntimeDirectory(for: path, user: user)
      let data = DataDirectory(path: path, runtimePath: runtimePath, user: user, lock: lock)
      try Files.ensureDirectory(data.recordsPath, mode: 0o700)
      try Files.ensureDirectory(path + "/logs", mode: user.isOther ? 0o711 : 0o700)
      await data.stopLeftovers()
      return data
    } catch {
      closeFile(lock)
      throw error
    }
  }

  /// Gives the directory up. Stop its servers first.
  public func close() { release(removing: runtimePath) }

  private func release(removing runtimePath: String?) {
    guard
      let file = lock.withLock({ file in
        defer { file = nil }; return file
      })
    else { return }
    if let runtimePath { Files.remove(runtimePath) }
    ftruncate(file, 0)
    // Explicitly: a child that is just being forked elsewhere still has a copy of the file, and with it the lock.
    flock(file, LOCK_UN)
    closeFile(file)
  }

  deinit { close() }

  /// Who holds a data directory.
  public enum Holder: Hashable, Sendable {
    /// Nobody, or there is no such directory.
    case none
    /// A process; its id is `nil` for the moment between its start and its first words.
    case process(Int32?)
    /// The lock may not be looked at: the directory is another user's, who may or may not be using it.
    case otherUser
  }

  /// Who holds a data directory.
  ///
  /// For `postrider dev --status` and `--stop`: the holder ends its servers in order on SIGTERM.
  public static func holder(of path: String = defaultPath) -> Holder {
    let file = openFile(path + "/lock", O_RDWR | O_CLOEXEC)
    guard file >= 0 else { return errno == EACCES || errno == EPERM ? .otherUser : .none }
    defer { closeFile(file) }
    if flock(file, LOCK_EX | LOCK_NB) == 0 { return .none }
    return .process(Files.read(path + "/lock").flatMap { Int32($0.prefix { $0.isNumber }) })
  }

  /// Removes the directory with everything in it and the one for sockets, and gives it up. Stop its servers first.
  ///
  /// The lock goes last, so that nobody opens the directory in between. Throws what stops a file from being removed; the
  /// directory is held then as before.
  public func remove() throws {
    Files.remove(runtimePath)
    for name in Files.names(in: path) where name != "lock" {
      try FileManager.default.removeItem(atPath: "\(path)/\(name)")
    }
    try FileManager.default.removeItem(atPath: path + "/lock")
    // A mount point stays, and so does what somebody else has put there since.
    rmdir(path)
    // Without the one for sockets: whoever opened the directory just now has one of the same name.
    release(removing: nil)
  }

  /// Removes a data directory that nobody holds, and those inside it, with everything that still runs in them.
  ///
  /// Does nothing while it is held or is no data directory.
  public static func removeAbandoned(_ path: String) async {
    for name in Files.names(in: path) where Files.isOwnDirectory("\(path)/\(name)") {
      await removeAbandoned("\(path)/\(name)")
    }
    // Held, or not to be opened: left alone.
    guard Files.exists(path + "/lock"), let data = try? await open(path) else { return }
    Files.remove(data.path)
    data.close()
  }

  /// A server's own directory below ``path``, mode 0700, owned by ``user``.
  public func directory(for name: String) throws -> String {
    let directory = path + "/" + name
    try Files.ensureDirectory(directory, mode: 0o700, owner: user)
    return directory
  }

  /// A server's directory for sockets below ``runtimePath``, owned by ``user``.
  ///
  /// Mode 0700; 0755 where other users' servers have to reach a socket in it.
  func socketDirectory(for name: String, mode: UInt32 = 0o700) throws -> String {
    let directory = runtimePath + "/" + name
    try Files.ensureDirectory(directory, mode: mode, owner: user)
    return directory
  }

  /// A path below ``path`` as one below ``alias``; others as they are.
  func aliased(_ file: String) -> String {
    file.hasPrefix(path + "/") ? alias + file.dropFirst(path.count) : file
  }

  /// Where a server's output goes.
  public func logPath(_ name: String) -> String { "\(path)/logs/\(name).log" }

  /// Opens a server's log for appending; one beyond 16 MiB is moved to `.1` first.
  func openLog(_ name: String) throws -> Int32 {
    let log = logPath(name)
    if let size = Files.status(log)?.size, size > 16 << 20 { rename(log, log + ".1") }
    let file = openFile(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else {
      throw PrivateServerError.unusable(path: log, reason: "cannot be opened: \(Files.lastError)")
    }
    // Some servers open it again by themselves.
    try Files.own(log, by: user)
    return file
  }

  private static func takeLock(in path: String) throws -> Int32 {
    let file = openFile(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else {
      throw PrivateServerError.unusable(path: path, reason: "its lock file cannot be opened: \(Files.lastError)")
    }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      defer { closeFile(file) }
      let holder = Files.read(path + "/lock").flatMap { Int32($0.prefix { $0.isNumber }) }
      throw PrivateServerError.locked(directory: path, holder: holder)
    }
    ftruncate(file, 0)
    try Files.writeAll(Array("\(getpid())\n".utf8), to: file, path: path + "/lock")
    return file
  }

  /// Every directory from the root to the data must let the servers' user pass.
  private static func checkEntry(to path: String, for user: ServerUser) throws {
    guard user.isOther else { return }
    var directory = path
    while directory != "/" {
      directory = Files.parent(of: directory)
      guard let status = Files.status(directory) else { continue }
      let bit: UInt32 =
        if status.owner == user.userID { 0o100 } else if user.groups.contains(status.group) { 0o010 } else { 0o001 }
      guard status.mode & bit != 0 else {
        throw PrivateServerError.unusable(
          path: path,
          reason: """
            the servers run as user \(user.name), who cannot enter \(directory) \
            (mode \(String(status.mode & 0o7777, radix: 8))). Choose a directory elsewhere, such as /var/lib/postrider, \
            or run: chmod \(bit == 0o001 ? "o" : bit == 0o010 ? "g" : "u")+x \(directory)
            """)
      }
    }
  }

  /// A short directory of this process's user, entered by the servers' user.
  private static func makeRuntimeDirectory(for path: String, user: ServerUser) throws -> String {
    let environment = ProcessInfo.processInfo.environment
    let bases = [geteuid() == 0 ? "/run" : nil, environment["XDG_RUNTIME_DIR"], "/tmp"].compactMap(\.self)
    let name = "postrider-" + String(fingerprint(path), radix: 36)
    for base in bases where access(base, W_OK | X_OK) == 0 && base.utf8.count <= 60 {
      // In a shared folder another user may have taken the name: only a real directory of our own will do.
      for suffix in ["", "-1", "-2", "-3"] {
        let directory = "\(base)/\(name)\(suffix)"
        guard mkdir(directory, 0o700) == 0 || Files.isOwnDirectory(directory) else { continue }
        try Files.ensureDirectory(directory, mode: user.isOther ? 0o711 : 0o700)
        unlink(directory + "/data")
        guard symlink(path, directory + "/data") == 0 else { continue }
        return directory
      }
    }
    throw PrivateServerError.unusable(
      path: bases.joined(separator: ", "), reason: "no directory for sockets can be created; set XDG_RUNTIME_DIR")
  }

  /// FNV-1a, 64 bits: the same name for the same path in each run.
  private static func fingerprint(_ text: String) -> UInt64 {
    text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

// Inside the class the system's names would be taken for its own functions.
@discardableResult
private func closeFile(_ file: Int32) -> Int32 { close(file) }
private func openFile(_ path: String, _ flags: Int32, _ mode: mode_t = 0) -> Int32 { open(path, flags, mode) }
