import Foundation
import Logging
import PostriderCore
import Synchronization
import Telemetry

/// What `postrider dev` shows: lines that stay, and on a terminal one line at the bottom that changes.
final class Screen: Sendable {
  private let isTerminal = isatty(1) == 1
  private let status = Mutex("")

  /// A line that stays.
  func say(_ text: String) {
    status.withLock { status in
      write((status.isEmpty ? "" : "\r\u{1B}[2K") + text + "\n" + status)
    }
  }

  /// Something that is done.
  func done(_ what: String, _ detail: String) { say("  ✓ \(what)  \(detail)") }

  /// The line at the bottom; without a terminal it stays, so call it seldom then.
  func show(_ text: String) {
    guard isTerminal else { return say(text) }
    let cut = String(text.prefix(width - 1))
    status.withLock { status in
      write("\r\u{1B}[2K" + cut)
      status = cut
    }
  }

  /// Whether the bottom line can be redrawn.
  var redraws: Bool { isTerminal }

  private var width: Int {
    var size = winsize()
    return ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
  }

  private func write(_ text: String) {
    // A closed terminal must not end what runs behind it.
    try? FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
  }
}

/// Sends the process's log to a file, so that the screen stays readable.
enum LogFile {
  static func bootstrap(path: String) throws {
    if !FileManager.default.fileExists(atPath: path) {
      _ = FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o640])
    }
    guard let handle = FileHandle(forWritingAtPath: path) else {
      throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path])
    }
    try handle.seekToEnd()
    let level = Logger.Level(rawValue: ProcessInfo.processInfo.environment["POSTRIDER_LOG_LEVEL"] ?? "") ?? .info
    LoggingSystem.bootstrap { label in
      LineLogHandler(label: label, format: .text, level: level) { line in
        // A full disk must not end what runs.
        try? handle.write(contentsOf: Data(line.utf8))
      }
    }
  }
}

/// What a person can do next.
struct Guide {
  let directory: String
  let isDefault: Bool
  let token: Secret

  /// The program as it was called, for copying into another terminal.
  static var program: String {
    let name = CommandLine.arguments.first ?? "postrider"
    return name.contains("/") ? URL(fileURLWithPath: name).standardizedFileURL.path : name
  }

  func show(_ addresses: [String], on screen: Screen) {
    let program = Self.program
    // Started by sudo, everything here is root's.
    let asRoot = ProcessInfo.processInfo.environment["SUDO_USER"] == nil ? "" : "sudo "
    screen.done("API", addresses.joined(separator: "  "))
    screen.say(
      """

      Look closer, in another terminal:
        alias postrider='\(asRoot)\(isDefault ? "" : "env POSTRIDER_DATA=\(directory) ")\(program)'
        postrider mailbox list; postrider queue stats --watch; postrider alert list; postrider run list
        postrider worker --data \(directory)     one more worker; kill -9 it while it polls
        postrider dev --data \(directory) --stop
      Other programs find address and token of the API in \(directory)/\(ClusterFile.cli).
      The log is in \(directory)/logs.

      """)
  }
}
