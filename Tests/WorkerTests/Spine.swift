import Foundation
import Logging
import MailMessage
import MailProtocols
import NIOPosix
import PostgresStore
import PostriderCore
import PostriderTesting
import RedisQueue
import Scheduler
import ServiceLifecycle
import Synchronization
import WebServices

@testable import Worker

/// Scheduler and workers of one test over its own ``TestCluster``, each with its own connections like a process.
///
/// They are child tasks of ``with(_:workers:scheduler:configure:_:)`` and end with it.
final class Spine: Sendable {
  let cluster: TestCluster
  /// The workers' spool directory.
  let spool: String
  private let names = Mutex(0)
  private let started: AsyncStream<Process>.Continuation

  /// When breakers open and how they are tried again.
  let breakerRules: BreakerRules
  /// The same of halted profiles.
  let haltRules: BreakerRules

  private init(
    cluster: TestCluster, spool: String, breakerRules: BreakerRules, haltRules: BreakerRules,
    started: AsyncStream<Process>.Continuation
  ) {
    self.cluster = cluster
    self.spool = spool
    self.breakerRules = breakerRules
    self.haltRules = haltRules
    self.started = started
  }

  /// Runs a test's body with a scheduler and so many workers.
  static func with<Result: Sendable>(
    _ options: TestCluster.Options = .init(), workers: Int = 1, scheduler: Bool = true,
    breakers: BreakerRules = BreakerRules(), halts: BreakerRules = .halts,
    configure: @escaping @Sendable (inout WorkerConfiguration) -> Void = { _ in },
    _ body: @escaping @Sendable (Spine) async throws -> Result
  ) async throws -> Result {
    await gate.enter()
    defer { gate.leave() }
    var options = options
    // A slow machine is no outage.
    options.callTimeout = max(options.callTimeout, .seconds(20))
    let cluster = try await TestCluster.make(options)
    try await cluster.sql(Self.onceADay)
    let spool = FileManager.default.temporaryDirectory.appendingPathComponent("postrider-spool-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: spool, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: spool) }
    let (stream, continuation) = AsyncStream<Process>.makeStream()
    let spine = Spine(
      cluster: cluster, spool: spool.path, breakerRules: breakers, haltRules: halts, started: continuation)
    let result = await withTaskGroup(of: Void.self, returning: Swift.Result<Result, any Error>.self) { group in
      group.addTask {
        await withDiscardingTaskGroup { processes in
          for await process in stream { processes.addTask { await process.live() } }
        }
      }
      let result: Swift.Result<Result, any Error>
      do {
        if scheduler { _ = try spine.startScheduler() }
        for _ in 0..<workers { _ = try spine.startWorker(configure: configure) }
        result = .success(try await body(spine))
      } catch {
        let state = await spine.state()
        result = .failure(TestFailure("\(error)\n\(state)"))
      }
      group.cancelAll()
      await group.waitForAll()
      return result
    }
    await cluster.close()
    return try result.get()
  }

  /// Has mailboxes polled once a day: however slowly a test gets on, no slot comes between two of its steps.
  private static let onceADay = """
    CREATE FUNCTION once_a_day() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN NEW.minimum_polling_interval_minutes := 1440; RETURN NEW; END $$;
    CREATE TRIGGER once_a_day BEFORE INSERT ON server_profile FOR EACH ROW EXECUTE FUNCTION once_a_day();
    """

  /// What stands in the schedule and in the queue, for the report of a failed test.
  private func state() async -> String {
    let rows = try? await cluster.sql(
      """
      SELECT mailbox_id || kind, enabled, next_due_at, reason, requested, served, failures, last_run_at, now(),
        (SELECT holder || ' ' || expires_at FROM leadership)
      FROM mailbox_schedule WHERE kind <> 's' ORDER BY mailbox_id, kind
      """)
    guard let queue = try? cluster.makeQueue() else { return rows ?? "" }
    let numbers = await withTaskGroup(of: Void.self) { group in
      group.addTask { try? await queue.run() }
      let numbers = try? await queue.statistics()
      group.cancelAll()
      return numbers
    }
    return "\(rows ?? "no schedule")\n\(numbers.map { "\($0)" } ?? "no queue")"
  }

  /// Starts one more scheduler, which asks often. Its term is production's, so that no pause of the machine ends it.
  func startScheduler(
    configure: (inout SchedulerConfiguration) -> Void = { _ in }
  ) throws -> Process {
    var configuration = SchedulerConfiguration(holder: name("scheduler"))
    configuration.retry = .milliseconds(300)
    configure(&configuration)
    let store = cluster.makeStore(poolSize: 3)
    let queue = try cluster.makeQueue()
    let service = SchedulerService(store: store, queue: queue, configuration: configuration, logger: cluster.logger)
    return start(configuration.holder, service, store, queue)
  }

  /// Starts one more worker, which may read messages in a way of the test's own.
  func startWorker(
    configure: (inout WorkerConfiguration) -> Void = { _ in },
    parser: @escaping MessageParser = MessageReader.parse(content:limits:)
  ) throws -> Process {
    var configuration = WorkerConfiguration(name: name("worker"))
    configuration.spoolDirectory = spool
    let queue = try cluster.makeQueue()
    configuration.renewal = queue.leaseDuration / 3
    configuration.idleWait = .milliseconds(200)
    configure(&configuration)
    let store = cluster.makeStore(poolSize: 3)
    let egress = try EgressPolicy(allow: "127.0.0.0/8:*")
    let client = MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: egress, resolver: TestNames())
    let tokens = TokenKeeper(
      store: store, web: try WebClient(egress: egress, resolver: TestNames()), logger: cluster.logger)
    let service = WorkerService(
      store: store, queue: queue, client: client, serverGuard: RedisServerGuard(queue: queue, rules: breakerRules),
      haltGuard: RedisServerGuard(queue: queue, rules: haltRules), tokens: tokens,
      configuration: configuration, logger: cluster.logger, parser: parser)
    return start(configuration.name, service, store, queue)
  }

  private func start(
    _ name: String, _ service: any Service, _ store: PostgresStore, _ queue: RedisJobQueue
  ) -> Process {
    let process = Process(name: name, service: service, store: store, queue: queue, logger: cluster.logger)
    started.yield(process)
    return process
  }

  private func name(_ word: String) -> String {
    names.withLock { number in
      number += 1
      return "\(word)-\(number)"
    }
  }

  private static let gate = Gate(places: 5)
}

/// A scheduler or a worker with its own connections, which can be stopped or crash.
final class Process: Sendable {
  let name: String
  private let service: any Service
  private let store: PostgresStore
  private let queue: RedisJobQueue
  private let group: ServiceGroup
  private let crash = ScriptSignal()
  private let ended = ScriptSignal()
  private let trouble = Mutex<(any Error)?>(nil)

  init(name: String, service: any Service, store: PostgresStore, queue: RedisJobQueue, logger: Logger) {
    self.name = name
    self.service = service
    self.store = store
    self.queue = queue
    group = ServiceGroup(
      configuration: .init(
        services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)], logger: logger))
  }

  /// What ended it although nobody asked for that.
  var error: (any Error)? { trouble.withLock { $0 } }

  /// Asks it to stop; ``waitUntilEnded()`` tells when it has.
  func stop() async { await group.triggerGracefulShutdown() }

  /// Ends it as a power cut would: the connections first, so that it can tell nobody.
  func kill() async {
    crash.fire()
    await ended.wait()
  }

  func waitUntilEnded() async { await ended.wait() }
  var hasEnded: Bool { ended.isFired }

  fileprivate func live() async {
    await withTaskGroup(of: Void.self) { connections in
      // A run that ends early shows in the calls that fail.
      connections.addTask { try? await self.queue.run() }
      await withTaskGroup(of: Void.self) { group in
        group.addTask {
          do { try await self.group.run() } catch { self.trouble.withLock { $0 = error } }
        }
        group.addTask { await self.crash.waitOrCancel() }
        await group.next()
        if self.crash.isFired {
          connections.cancelAll()
          await self.queueIsDown()
        }
        group.cancelAll()
      }
      connections.cancelAll()
    }
    await store.close()
    ended.fire()
  }

  private func queueIsDown() async {
    while (try? await queue.currentEpoch()) != nil { await Task.yield() }
  }
}

/// The names that the tests' profiles use, all of this machine.
struct TestNames: MailResolver {
  func resolve(_ host: String) async throws(Failure) -> [IPAddress] {
    if let address = IPAddress(host) { return [address] }
    guard host == "localhost" || host.hasSuffix("sandbox.test"), let loopback = IPAddress("127.0.0.1") else {
      throw Failure(.dnsUnknownHost, context: host)
    }
    return [loopback]
  }
}

/// Lets a few tests work at once: they share two cores and the servers.
private final class Gate: Sendable {
  private struct State {
    var free: Int
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state: Mutex<State>

  init(places: Int) { state = Mutex(State(free: places)) }

  func enter() async {
    await withCheckedContinuation { continuation in
      let enters = state.withLock { state in
        if state.free == 0 {
          state.waiting.append(continuation)
          return false
        }
        state.free -= 1
        return true
      }
      if enters { continuation.resume() }
    }
  }

  func leave() {
    let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
      if state.waiting.isEmpty {
        state.free += 1
        return nil
      }
      return state.waiting.removeFirst()
    }
    next?.resume()
  }
}

extension ScriptSignal {
  /// Waits for it, or for the end of the task.
  func waitOrCancel() async {
    let (stream, continuation) = AsyncStream<Void>.makeStream()
    whenFired { continuation.finish() }
    for await _ in stream {}
  }
}
