import ArgumentParser
import Foundation
import PostriderCore
import PrivateServers

/// `postrider dev`
struct DevCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dev",
    abstract: "Runs everything on this machine: private PostgreSQL and Redis, scheduler, worker, API.",
    discussion: """
      Nothing listens on the network but the API on a free loopback port. Data are kept in --data until --reset.
      Not for production: there the same roles run as processes of their own.

      Examples:
        postrider dev                         an empty Postrider of your own
        postrider dev --sandbox               with 20 mailboxes on a private mail server, tested, enabled and polled
        postrider dev --sandbox --once        the same as a check: ends by itself, 0 when everything worked
        postrider worker --data DIR           joins with one more worker
        postrider dev --status | --stop | --reset
      """)

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Where everything is kept (default: POSTRIDER_DATA, else \(DataDirectory.defaultPath)).", valueName: "dir"),
    completion: .directory)
  var data: String?

  @Flag(
    name: .long,
    help: "Add a private mail server (Dovecot, Postfix) with demo mailboxes and a trickle of mail. Needs root.")
  var sandbox = false

  @Option(name: .long, help: ArgumentHelp("Demo mailboxes of the sandbox, 1…200.", valueName: "n"))
  var mailboxes = 20

  @Flag(
    name: .long, help: "With --sandbox: end as soon as everything was seen to work; else with the reason it did not.")
  var once = false

  @Option(name: .long, help: ArgumentHelp("With --once: give up after so many seconds.", valueName: "s"))
  var timeout = 300

  @Option(name: .long, help: ArgumentHelp("Port of the API on 127.0.0.1; 0 takes a free one.", valueName: "port"))
  var apiPort = 0

  @Flag(name: .long, help: "Start no worker: nothing is polled, tested, sent or delivered.")
  var noWorker = false

  @Flag(name: .long, help: "Say whether it runs in this data directory and how to reach it.")
  var status = false

  @Flag(name: .long, help: "Stop the one that runs in this data directory.")
  var stop = false

  @Flag(name: .long, help: "Delete the data directory. Asks first, unless --yes is given.")
  var reset = false

  @Flag(name: .long, help: "Do not ask.")
  var yes = false

  @Flag(name: .long, help: "Start although POSTRIDER_DATABASE_URL is set (it is ignored).")
  var force = false

  /// As given, else as the administration commands find it: POSTRIDER_DATA or the default.
  var directory: String {
    let given = data ?? ProcessInfo.processInfo.environment["POSTRIDER_DATA"].flatMap { $0.isEmpty ? nil : $0 }
    return given.map { URL(fileURLWithPath: $0).standardizedFileURL.path } ?? DataDirectory.defaultPath
  }

  func validate() throws {
    if [status, stop, reset].count(where: { $0 }) > 1 {
      throw ValidationError("only one of --status, --stop and --reset can be given")
    }
    guard (1...200).contains(mailboxes) else { throw ValidationError("--mailboxes must be from 1 to 200") }
    guard (0...65_535).contains(apiPort) else { throw ValidationError("--api-port must be from 0 to 65535") }
    if noWorker && sandbox { throw ValidationError("--sandbox needs the worker: leave --no-worker out") }
    if once && !sandbox { throw ValidationError("--once checks the sandbox: add --sandbox") }
    if ProcessInfo.processInfo.environment[Setting.databaseURL.environmentName] != nil && !force && !status && !stop {
      throw ValidationError(
        "POSTRIDER_DATABASE_URL is set, but `dev` brings its own database; unset it, or add --force to ignore it")
    }
  }

  func run() async throws {
    if status { return try showStatus() }
    if stop { return try await stopRunning() }
    if reset { return try await resetData() }
    try await DevEnvironment(command: self).run()
  }

  // MARK: Status, stop, reset

  /// The process that runs in the directory; `nil` for none. Ends the command for a directory of another user.
  private func running() throws -> Int32? {
    switch DataDirectory.holder(of: directory) {
    case .none: return nil
    case .process(let pid?): return pid
    case .process(nil):
      writeError("error: a process is just opening or leaving \(directory); try again")
      throw ExitCode(1)
    case .otherUser:
      writeError("error: \(directory) belongs to another user; use sudo")
      throw ExitCode(1)
    }
  }

  private func showStatus() throws {
    guard let pid = try running() else {
      print("Not running in \(directory).")
      throw ExitCode(1)
    }
    print("Running in \(directory) as process \(pid).")
    if let cli = try? ClusterFile.read(in: directory, name: ClusterFile.cli) {
      for (name, value) in cli.sorted(by: { $0.key < $1.key }) where name != "POSTRIDER_TOKEN" {
        print("  \(name)=\(value)")
      }
      print("  The token is in \(directory)/\(ClusterFile.cli); on this machine the commands find it by themselves.")
    }
  }

  private func stopRunning() async throws {
    guard let pid = try running() else {
      print("Not running in \(directory).")
      return
    }
    guard kill(pid, SIGTERM) == 0 else {
      throw ServiceUnreachable(description: "process \(pid) cannot be stopped: \(String(cString: strerror(errno)))")
    }
    let clock = ContinuousClock()
    let end = clock.now + .seconds(60)
    while DataDirectory.holder(of: directory) == .process(pid) {
      guard clock.now < end else {
        throw ServiceUnreachable(description: "process \(pid) did not stop within 60 seconds")
      }
      try await Task.sleep(for: .milliseconds(100))
    }
    print("Stopped.")
  }

  private func resetData() async throws {
    if let pid = try running() { throw inUse(by: pid) }
    guard FileManager.default.fileExists(atPath: directory) else {
      print("Nothing to delete: \(directory) does not exist.")
      return
    }
    guard FileManager.default.fileExists(atPath: "\(directory)/\(DevEnvironment.marker)") else {
      throw ValidationError("\(directory) was not made by `postrider dev`; it is left alone")
    }
    guard yes || isatty(0) == 1 else {
      throw ValidationError("add --yes to delete \(directory) without being asked")
    }
    // Held from the question to the end, so that no `dev` starts meanwhile; opening ends what a killed one left running.
    let data: DataDirectory
    do {
      data = try await DataDirectory.open(directory)
    } catch PrivateServerError.locked(_, let holder) {
      throw inUse(by: holder)
    }
    defer { data.close() }
    if !yes {
      print("Delete \(directory) with its mailboxes, messages and keys? [y/N] ", terminator: "")
      fflush(nil)
      guard readLine()?.lowercased().hasPrefix("y") == true else {
        print("Nothing was deleted.")
        return
      }
    }
    try data.remove()
    // The data were where a link led.
    if (try? FileManager.default.destinationOfSymbolicLink(atPath: directory)) != nil { unlink(directory) }
    print("Deleted \(directory).")
  }

  private func inUse(by holder: Int32?) -> ValidationError {
    ValidationError(
      "\(holder.map { "process \($0)" } ?? "another process") runs in \(directory); "
        + "stop it first: postrider dev --data \(directory) --stop")
  }
}
