import Subprocess
import Synchronization

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// The id of this process.
var ownProcessID: Int32 { getpid() }

/// One run of a server's program.
///
/// The child has a session of its own (Ctrl-C reaches only the supervisor), a clean environment and a log file, and
/// ends when the supervisor does, also by SIGKILL. Its id and start time are recorded in the data directory, so that
/// the next start finds it where the kernel does not offer that.
public final class ChildProcess: Sendable {
  /// What to run and how to end it.
  struct Launch: Sendable {
    /// Names the log file and the record.
    var name: String
    var program: String
    var arguments: [String]
    var user: ServerUser?
    /// Asks for a quick, orderly end: SIGINT for PostgreSQL, whose SIGTERM waits for its clients.
    var stopSignal: Signal = .terminate
    var environment: [String: String] = [:]
    /// Belongs to this server alone, unless it is `/`: whatever works in it is one of its processes.
    var workingDirectory = "/"
    /// Runs the program below a small shell that ends what the program leaves behind.
    ///
    /// For programs that lose the kernel's death signal, which a change of the effective user clears (Postfix), or whose
    /// children stay for a while when they end (Dovecot). The shell is then the process that is named and signaled.
    var isGuarded = false

    /// The command to run.
    var command: [String] {
      isGuarded ? ["/bin/sh", "-c", Self.guardian, "sh", program] + arguments : [program] + arguments
    }

    /// A trapped signal ends the first `wait`; the program gets a second, then SIGKILL. Its process group may be its
    /// own (Postfix) or the shell's (Dovecot).
    private static let guardian = """
      "$@" & child=$!
      trap 'kill -TERM $child; (sleep 1; kill -KILL $child) &' TERM INT HUP
      wait $child; status=$?
      trap '' TERM INT HUP
      if test $status -gt 128; then wait $child; status=$?; fi
      echo "$1 ended with status $status"
      kill -KILL -$child 2>/dev/null
      kill -KILL 0
      """
  }

  /// The process id, that of its session as well.
  public let processID: Int32
  /// The name of the server.
  public let name: String
  let stopSignal: Signal
  let workingDirectory: String
  private let data: DataDirectory
  private let state: Mutex<State>

  private enum State {
    case running([CheckedContinuation<String, Never>])
    /// How it ended, in words.
    case ended(String)
  }

  private init(_ launch: Launch, processID: Int32, data: DataDirectory) {
    self.processID = processID
    self.data = data
    name = launch.name
    stopSignal = launch.stopSignal
    workingDirectory = launch.workingDirectory
    state = Mutex(.running([]))
  }

  /// Starts a program. Returns as soon as it runs, ready or not.
  static func start(_ launch: Launch, in data: DataDirectory) async throws -> ChildProcess {
    let log = try data.openLog(launch.name)
    let configuration = Configuration.child(
      launch.command, user: launch.user, deathSignal: launch.stopSignal,
      environment: Command.environment.merging(launch.environment) { $1 },
      workingDirectory: launch.workingDirectory)
    return try await withCheckedThrowingContinuation { continuation in
      // Not a child task: the process lives on after the call that started it.
      Task.detached {
        var child: ChildProcess?
        do {
          let result = try await Subprocess.run(
            configuration, input: .none,
            output: .fileDescriptor(.init(rawValue: log), closeAfterSpawningProcess: false),
            error: .combinedWithOutput
          ) { execution in
            let started = ChildProcess(launch, processID: execution.processIdentifier.value, data: data)
            child = started
            close(log)
            data.record(started)
            continuation.resume(returning: started)
          }
          child?.end("\(result.terminationStatus)")
        } catch {
          if let child {
            child.end("\(error)")
          } else {
            close(log)
            continuation.resume(
              throwing: PrivateServerError.notStarted(server: launch.name, reason: "\(error)", log: []))
          }
        }
      }
    }
  }

  /// Whether it has not ended yet.
  public var isRunning: Bool {
    state.withLock { if case .running = $0 { true } else { false } }
  }

  /// Waits for the end and tells how it ended, in words.
  public func waitUntilExit() async -> String {
    await withCheckedContinuation { continuation in
      let ended: String? = state.withLock { state in
        switch state {
        case .ended(let how): return how
        case .running(let waiting):
          state = .running(waiting + [continuation])
          return nil
        }
      }
      if let ended { continuation.resume(returning: ended) }
    }
  }

  /// Sends a signal to the program alone; nothing once it has ended.
  func signal(_ signal: Signal) {
    state.withLock { if case .running = $0 { _ = kill(processID, signal.rawValue) } }
  }

  /// Ends the program: its stop signal, up to `grace`, then SIGKILL for every process of the server that is left.
  ///
  /// Runs to its end also in a cancelled task.
  func stop(grace: Duration = .seconds(10)) async {
    await Task.detached { [self] in
      signal(stopSignal)
      // Paused processes take the signal only once they go on.
      for process in family { kill(process, SIGCONT) }
      await Self.wait(atMost: grace) { !self.isRunning }
      // Children of the program often end a moment after it.
      if !isRunning { await Self.wait(atMost: .seconds(2)) { self.family.isEmpty } }
      await killFamily()
    }.value
  }

  /// Kills every process of the server at once, and waits until they are gone.
  func killFamily() async {
    await Task.detached { [self] in
      signal(.kill)
      await Self.wait(atMost: .seconds(10)) {
        let family = self.family
        for process in family { kill(process, SIGKILL) }
        return !self.isRunning && family.isEmpty
      }
    }.value
  }

  /// The running processes of the server: those of its session, and those that work in its directory.
  ///
  /// PostgreSQL's backends have sessions of their own.
  var family: [Int32] { ProcessTable.family(of: processID, workingIn: workingDirectory) }

  /// Looks every few milliseconds whether a condition holds; returns whether it did in time.
  @discardableResult
  static func wait(atMost limit: Duration, until condition: () -> Bool) async -> Bool {
    let deadline = ContinuousClock.now + limit
    while !condition() {
      if ContinuousClock.now >= deadline { return false }
      // Cancelled: the caller's loop ends by its deadline or its condition, a little busier.
      try? await Task.sleep(for: .milliseconds(5))
    }
    return true
  }

  private func end(_ how: String) {
    data.forget(self)
    let waiting = state.withLock { state in
      guard case .running(let waiting) = state else { return [CheckedContinuation<String, Never>]() }
      state = .ended(how)
      return waiting
    }
    for continuation in waiting { continuation.resume(returning: how) }
  }
}
