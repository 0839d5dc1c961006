/// Why a private server could not be started, kept running or asked.
///
/// Each text names what to do, and carries the server's last log lines where there are any.
public enum PrivateServerError: Error, Hashable, Sendable, CustomStringConvertible {
  /// A program is not installed, or not where it was looked for.
  case missingProgram(name: String, looked: [String], install: String)
  /// Another process works in this data directory. `holder` is its process id, `nil` when it did not leave one.
  case locked(directory: String, holder: Int32?)
  /// A directory or file cannot be used; the reason says why and what to do.
  case unusable(path: String, reason: String)
  /// The data were written by another major version of the server.
  case versionMismatch(server: String, data: String, program: String, hint: String)
  /// The server needs the rights of root.
  case needsRoot(server: String, reason: String)
  /// The server ended, or did not answer in time, while it was being started.
  case notStarted(server: String, reason: String, log: [String])
  /// The server ended by itself and is not started again.
  case died(server: String, reason: String, log: [String])
  /// A command of the server's own tools failed.
  case command(name: String, reason: String, output: String)
  /// A value cannot be used: an address, a name.
  case invalid(String)

  /// The whole reason, with the last log lines below it.
  public var description: String {
    switch self {
    case .missingProgram(let name, let looked, let install):
      "\(name) was not found (looked in \(looked.joined(separator: ", "))). Install it with: \(install)"
    case .locked(let directory, let holder?):
      "\(directory) is in use by process \(holder). Stop that one first (kill \(holder)), or choose another directory."
    case .locked(let directory, nil):
      "\(directory) is in use by another process. Stop that one first, or choose another directory."
    case .unusable(let path, let reason): "\(path): \(reason)"
    case .versionMismatch(let server, let data, let program, let hint):
      "The data are of \(server) \(data), the program found is \(server) \(program). \(hint)"
    case .needsRoot(let server, let reason): "\(server) can only be started by root: \(reason)"
    case .notStarted(let server, let reason, let log): Self.text("\(server) did not start: \(reason)", log)
    case .died(let server, let reason, let log): Self.text("\(server) ended: \(reason)", log)
    case .command(let name, let reason, let output):
      Self.text("\(name) failed: \(reason)", output.split(separator: "\n").suffix(20).map(String.init))
    case .invalid(let reason): reason
    }
  }

  private static func text(_ head: String, _ log: [String]) -> String {
    log.isEmpty ? head : head + "\n" + log.map { "  | \($0)" }.joined(separator: "\n")
  }
}
