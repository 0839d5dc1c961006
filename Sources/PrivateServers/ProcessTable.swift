#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// What the system tells about running processes.
///
/// Linux only (`/proc`). Elsewhere every answer is empty, and leftovers of a killed supervisor are not found by start
/// time; the servers' own lock files still protect the data.
enum ProcessTable {
  /// When a process started, as a word that no other process of this machine has had under the same id.
  ///
  /// The boot's id is part of it: ticks since boot alone repeat after a restart of the machine.
  static func startTime(of pid: Int32) -> String? {
    guard let fields = fields(of: pid), let boot = Files.read("/proc/sys/kernel/random/boot_id") else { return nil }
    return boot.prefix { $0 != "\n" } + "/" + fields[19]
  }

  /// Whether a process runs; one that ended and waits to be collected does not.
  static func isRunning(_ pid: Int32) -> Bool {
    if let fields = fields(of: pid) { return fields[0] != "Z" && fields[0] != "X" }
    return !Files.exists("/proc/self/stat") && kill(pid, 0) == 0
  }

  /// The running processes of a session.
  static func members(ofSession session: Int32) -> [Int32] {
    all().filter { pid in
      guard let fields = fields(of: pid) else { return false }
      return fields[3] == String(session) && fields[0] != "Z" && fields[0] != "X"
    }
  }

  /// The running processes whose working directory this is.
  static func processes(workingIn directory: String) -> [Int32] {
    let directory = Files.resolved(directory)
    return all().filter { Files.resolved("/proc/\($0)/cwd") == directory && isRunning($0) }
  }

  /// The running processes of a session and those that work in a directory, `/` meaning none.
  static func family(of session: Int32, workingIn directory: String) -> [Int32] {
    let members = members(ofSession: session)
    return members + (directory == "/" ? [] : processes(workingIn: directory).filter { !members.contains($0) })
  }

  private static func all() -> [Int32] { Files.names(in: "/proc").compactMap { Int32($0) } }

  /// The fields of `/proc/<pid>/stat` after the name in parentheses, which may hold anything: [0] is the state, [3] the
  /// session, [19] the start time.
  private static func fields(of pid: Int32) -> [Substring]? {
    guard let text = Files.read("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 19 ? fields : nil
  }
}
