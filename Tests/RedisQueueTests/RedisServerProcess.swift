import Foundation
import Synchronization
import Testing

@testable import RedisQueue

/// A redis-server of the tests' own on a Unix socket. It ends when it is stopped, or when the test process ends, whose
/// pipe then closes.
final class RedisServerProcess: Sendable {
  struct NotReady: Error {}

  /// One for all tests that only need keys of their own.
  static let shared = Result { try RedisServerProcess() }

  let directory: String
  var url: String { "unix://\(directory)/s" }
  private let lifeline = Mutex<(process: Process, pipe: Pipe)?>(nil)
  private let arguments: [String]

  /// Starts a server in a new folder under /tmp, as a socket's path is short.
  init(arguments: [String] = []) throws {
    self.arguments = arguments
    directory = "/tmp/rq\(UInt32.random(in: 0...UInt32.max))"
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    try start()
  }

  /// Starts the server (again) over the same folder and returns when it answers. With more arguments it only returns when
  /// it listens, as those may make it load its data slowly.
  func start(with more: [String] = []) throws {
    let process = Process()
    process.executableURL = URL(filePath: "/bin/sh")
    // SIGKILL, as the threads that tests run on block other signals and a child inherits that.
    let script = """
      dir=$1; shift
      exec 3<&0
      redis-server --port 0 --unixsocket "$dir/s" --dir "$dir" --save "" --appendonly no \
        --maxmemory-policy noeviction "$@" </dev/null >"$dir/log" 2>&1 3<&- &
      pid=$!
      cat <&3 >/dev/null
      kill -9 $pid; wait $pid
      if [ ! -e "$dir/keep" ]; then rm -rf "$dir"; fi
      """
    process.arguments = ["-c", script, "redis", directory] + arguments + more
    let pipe = Pipe()
    process.standardInput = pipe
    try process.run()
    lifeline.withLock { $0 = (process, pipe) }
    let deadline = ContinuousClock.now + .seconds(60)
    while !(FileManager.default.fileExists(atPath: directory + "/s")
      && (log.contains("ready to accept") || !more.isEmpty))
    {
      guard ContinuousClock.now < deadline else { throw NotReady() }
      usleep(5_000)
    }
  }

  /// Stops the server; `keeping` its folder for another start.
  func stop(keeping: Bool = false) {
    let life = lifeline.withLock { life in
      defer { life = nil }
      return life
    }
    guard let life else { return }
    if keeping { _ = FileManager.default.createFile(atPath: directory + "/keep", contents: nil) }
    try? life.pipe.fileHandleForWriting.close()
    life.process.waitUntilExit()
    if keeping {
      try? FileManager.default.removeItem(atPath: directory + "/keep")
      try? FileManager.default.removeItem(atPath: directory + "/log")
    }
  }

  private var log: String { (try? String(contentsOfFile: directory + "/log", encoding: .utf8)) ?? "" }

  deinit { stop() }
}
