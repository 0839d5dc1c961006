import Foundation
import Synchronization

/// The `postrider` program as it was built beside the tests, run as a process of its own.
public enum Program {
  /// Where it is.
  public static let path: String = {
    let folder = Bundle.main.executableURL?.deletingLastPathComponent() ?? URL(filePath: ".")
    return folder.appending(path: "postrider").path
  }()

  /// What a run left behind.
  public struct Result: Sendable {
    /// The exit code; 128 and the signal's number when it was ended by one.
    public var exitCode: Int
    /// Standard output.
    public var output: String
    /// Standard error.
    public var errors: String
  }

  /// Runs it to its end, with an environment of its own, so that nothing of the developer's reaches the tests.
  public static func run(
    _ arguments: [String], environment: [String: String] = [:], input: String = ""
  ) async throws -> Result {
    let running = try RunningProgram(arguments, environment: environment, input: input)
    let code = await running.exit()
    defer { running.forget() }
    return Result(exitCode: code, output: running.output, errors: running.errors)
  }
}

/// A `postrider` process that goes on, or another program's.
///
/// Its output goes to files, so that it never waits for a reader.
public final class RunningProgram: Sendable {
  private let folder: String
  private let exitSignal = WakeFlag()
  /// Its process number.
  public let processID: Int32

  /// Starts it; `executable` is the path of another program.
  public init(
    _ arguments: [String], executable: String = Program.path, environment: [String: String] = [:], input: String = ""
  ) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "program-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    self.folder = folder
    for name in ["out", "err"] { _ = FileManager.default.createFile(atPath: "\(folder)/\(name)", contents: nil) }
    try Data(input.utf8).write(to: URL(fileURLWithPath: "\(folder)/in"))
    let words = Self.setpriv + [executable] + arguments
    let variables = ["PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "POSTRIDER_DATA": "/nonexistent/postrider"]
      .merging(environment) { $1 }
    let (flag, started) = (exitSignal, Started())
    // The thread that starts it also waits for its end: the kernel's signal is bound to the life of that thread.
    Thread.detachNewThread {
      let result = Result { try Self.spawn(words, variables, folder) }
      started.set(result)
      guard case .success(let child) = result else { return }
      var status: Int32 = 0
      while waitpid(child, &status, 0) < 0 && errno == EINTR {}
      let signal = status & 0x7F
      flag.set(Int(signal == 0 ? (status >> 8) & 0xFF : 128 + signal))
    }
    processID = try started.wait()
  }

  /// What a thread has started, for the one that asked for it.
  private final class Started: Sendable {
    private let result = Mutex<Result<Int32, any Error>?>(nil)
    private let isThere = DispatchSemaphore(value: 0)

    func set(_ value: Result<Int32, any Error>) {
      result.withLock { $0 = value }
      isThere.signal()
    }

    func wait() throws -> Int32 {
      isThere.wait()
      return try result.withLock { try ($0 ?? .failure(CancellationError())).get() }
    }
  }

  /// Has the kernel end it when the tests end without a word, as when a test traps.
  private static let setpriv: [String] =
    FileManager.default.isExecutableFile(atPath: "/usr/bin/setpriv")
    ? ["/usr/bin/setpriv", "--pdeathsig", "TERM", "--"] : []

  /// Starts a process as a shell would: no signal blocked or ignored, whatever this process does with its own.
  /// (Foundation's `Process` hands a blocked SIGCHLD on, and children wait for ever for theirs.)
  private static func spawn(_ arguments: [String], _ environment: [String: String], _ folder: String) throws -> Int32 {
    var actions = posix_spawn_file_actions_t()
    var attributes = posix_spawnattr_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawnattr_init(&attributes)
    defer {
      posix_spawn_file_actions_destroy(&actions)
      posix_spawnattr_destroy(&attributes)
    }
    posix_spawn_file_actions_addopen(&actions, 0, "\(folder)/in", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, "\(folder)/out", O_WRONLY | O_APPEND, 0)
    posix_spawn_file_actions_addopen(&actions, 2, "\(folder)/err", O_WRONLY | O_APPEND, 0)
    closeFrom(3, &actions)
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    var processID: pid_t = 0
    let code = posix_spawn(&processID, arguments[0], &actions, &attributes, &argv, &envp)
    guard code == 0 else { throw POSIXError(POSIXErrorCode(rawValue: code) ?? .EINVAL) }
    return processID
  }

  /// Keeps this process's files from the child: a socket that it accepted has no close-on-exec flag, and a copy in a
  /// child would keep it open whatever happens here.
  private static func closeFrom(_ first: Int32, _ actions: inout posix_spawn_file_actions_t) {
    #if canImport(Glibc)
      // In glibc since 2.34; its header hides it from Swift.
      typealias Function = @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
      guard let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") else { return }
      _ = unsafeBitCast(symbol, to: Function.self)(&actions, first)
    #endif
  }

  /// What it has written to standard output so far.
  public var output: String { read("out") }
  /// What it has written to standard error so far.
  public var errors: String { read("err") }

  /// Sends a signal, if it still runs.
  public func signal(_ number: Int32) {
    if exitSignal.value == nil { kill(processID, number) }
  }

  /// Waits for its end and says its exit code.
  public func exit() async -> Int { await exitSignal.wait() }

  /// Whether it still runs.
  public var isRunning: Bool { exitSignal.value == nil }

  /// Removes the files with its output.
  public func forget() {
    // Left-over files in the temporary folder harm nobody.
    try? FileManager.default.removeItem(atPath: folder)
  }

  private func read(_ name: String) -> String {
    String(decoding: FileManager.default.contents(atPath: "\(folder)/\(name)") ?? Data(), as: UTF8.self)
  }
}

/// A value that is set once and can be waited for.
private final class WakeFlag: Sendable {
  private struct State {
    var value: Int?
    var waiters: [CheckedContinuation<Int, Never>] = []
  }

  private let state = Mutex(State())

  var value: Int? { state.withLock(\.value) }

  func set(_ value: Int) {
    let waiters = state.withLock { state in
      state.value = value
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume(returning: value) }
  }

  func wait() async -> Int {
    await withCheckedContinuation { continuation in
      let value = state.withLock { state in
        if state.value == nil { state.waiters.append(continuation) }
        return state.value
      }
      if let value { continuation.resume(returning: value) }
    }
  }
}

/// Waits until a condition holds; `false` when it does not within the limit. Looks every 50 ms.
public func eventually(
  within limit: Duration = .seconds(60), _ condition: () async throws -> Bool
) async rethrows -> Bool {
  let clock = ContinuousClock()
  let end = clock.now + limit
  while true {
    if try await condition() { return true }
    guard clock.now < end else { return false }
    // A cancelled wait looks once more and ends by the limit.
    try? await clock.sleep(for: .milliseconds(50))
  }
}
