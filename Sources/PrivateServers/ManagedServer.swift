import Logging
import Subprocess

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// What happens when a server ends by itself.
public enum RestartPolicy: Hashable, Sendable {
  /// It stays ended; for tests.
  case never
  /// It is started again after 0.2 s, 0.4 s and so on; given up when it ends `deaths` times within the window.
  case backoff(deaths: Int, within: Duration)

  /// Given up after three deaths within 30 seconds.
  public static let standard = RestartPolicy.backoff(deaths: 3, within: .seconds(30))
}

/// The life of one server: started, watched, started again, stopped.
actor ManagedServer {
  /// Starts the program and waits until it answers.
  typealias Launcher = @Sendable () async throws -> ChildProcess

  /// The errors after which the server stays ended; ends at the first ``stop()``.
  nonisolated let failures: AsyncStream<PrivateServerError>
  private let report: AsyncStream<PrivateServerError>.Continuation
  private let name: String
  private let logPath: String
  private let policy: RestartPolicy
  private let logger: Logger
  private let launch: Launcher
  private var child: ChildProcess?
  private var watcher: Task<Void, Never>?
  private var isWanted = false

  init(name: String, logPath: String, policy: RestartPolicy, logger: Logger, launch: @escaping Launcher) {
    self.name = name
    self.logPath = logPath
    self.policy = policy
    self.logger = logger
    self.launch = launch
    (failures, report) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  /// The process id while it runs.
  var processID: Int32? { child.flatMap { $0.isRunning ? $0.processID : nil } }

  /// Starts it; nothing when it runs.
  func start() async throws {
    guard processID == nil else { return }
    await watcher?.value
    let child = try await launch()
    self.child = child
    isWanted = true
    logger.info("Private server started", metadata: ["server.name": "\(name)", "process.id": "\(child.processID)"])
    watcher = Task { await self.watch() }
  }

  /// Ends it in order. It can be started again.
  func stop(finally: Bool = true) async {
    isWanted = false
    watcher?.cancel()
    if let child, child.isRunning {
      await child.stop()
      logger.info("Private server stopped", metadata: ["server.name": "\(name)"])
    }
    await watcher?.value
    child = nil
    if finally { report.finish() }
  }

  /// Kills it as the kernel would, without a restart.
  func kill9() async {
    isWanted = false
    watcher?.cancel()
    await child?.killFamily()
    await watcher?.value
    child = nil
  }

  /// Sends a signal to the program alone.
  func signal(_ signal: Signal) { child?.signal(signal) }

  /// Sends a signal to every process of the server, the program first.
  func signalFamily(_ signal: Signal) {
    guard let child else { return }
    child.signal(signal)
    for process in child.family { kill(process, signal.rawValue) }
  }

  private func watch() async {
    var deaths: [ContinuousClock.Instant] = []
    while let child, isWanted {
      let how = await child.waitUntilExit()
      guard isWanted else { return }
      // What is left of it would keep ports and sockets.
      await child.killFamily()
      deaths.append(.now)
      guard await restart(after: &deaths, how: how) else { return }
    }
  }

  /// Starts it again, as often as the policy allows. Returns whether it runs.
  private func restart(after deaths: inout [ContinuousClock.Instant], how: String) async -> Bool {
    var how = how
    while isWanted {
      guard case .backoff(let limit, let window) = policy else { return giveUp(how) }
      deaths.removeAll { $0 < .now - window }
      guard deaths.count < limit else { return giveUp("\(limit) times within \(window), last by \(how)") }
      logger.warning("Private server ended, starting it again", metadata: ["server.name": "\(name)", "how": "\(how)"])
      // Cancelled: `stop` has been called, and the loop ends.
      try? await Task.sleep(for: .milliseconds(100 << deaths.count))
      guard isWanted else { return false }
      do {
        let next = try await launch()
        guard isWanted else {
          await next.stop()
          return false
        }
        child = next
        return true
      } catch {
        how = "\(error)"
        deaths.append(.now)
      }
    }
    return false
  }

  private func giveUp(_ how: String) -> Bool {
    isWanted = false
    let error = PrivateServerError.died(server: name, reason: how, log: Files.tail(logPath))
    logger.error("Private server ended and is given up", metadata: ["server.name": "\(name)", "error": "\(error)"])
    report.yield(error)
    return false
  }

  /// Waits until a started program answers; throws with its last lines when it ends first or takes too long.
  static func waitUntilReady(
    _ child: ChildProcess, within limit: Duration, logPath: String, logOffset: Int, isReady: () -> Bool
  ) async throws {
    let deadline = ContinuousClock.now + limit
    do {
      while !isReady() {
        guard child.isRunning else {
          throw PrivateServerError.notStarted(
            server: child.name, reason: "it ended by \(await child.waitUntilExit())",
            log: Files.tail(logPath, after: logOffset))
        }
        guard ContinuousClock.now < deadline else {
          throw PrivateServerError.notStarted(
            server: child.name, reason: "it did not answer within \(limit)", log: Files.tail(logPath, after: logOffset))
        }
        try await Task.sleep(for: .milliseconds(10))
      }
    } catch {
      await child.stop(grace: .seconds(2))
      throw error
    }
  }
}
