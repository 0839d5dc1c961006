import ArgumentParser
import Foundation
import Logging
import Metrics
import PrivateServers
import ServiceLifecycle
import Synchronization
import Telemetry

/// The life of one benchmark: servers, measuring, the report, and the end of the servers however it went.
enum Bench {
  /// Runs a benchmark until it is done or interrupted. Prints the report on standard output, progress on standard error.
  static func run(
    _ name: String, _ options: BenchOptions,
    _ measure: @escaping @Sendable (BenchServers, inout BenchReport) async throws -> Void
  ) async throws {
    LineLogHandler.bootstrap(format: .text, level: .error)
    // Counting costs time in every process, so it does here.
    MetricsSystem.bootstrap(PrometheusRegistry())
    let result = Mutex<BenchReport?>(nil)
    let body = Running {
      try await BenchServers.with(options) { servers in
        var report = BenchReport(name: name)
        report.load["seconds"] = .integer(options.seconds)
        try await measure(servers, &report)
        result.withLock { [report] in $0 = report }
      }
    }
    var configuration = ServiceGroupConfiguration(
      services: [.init(service: body, successTerminationBehavior: .gracefullyShutdownGroup)],
      gracefulShutdownSignals: [.sigterm, .sigint], logger: Logger(label: "postrider.bench"))
    configuration.maximumCancellationDuration = .seconds(30)
    do {
      try await ServiceGroup(configuration: configuration).run()
    } catch let error as PrivateServerError {
      throw ServiceUnreachable(description: "\(error)")
    }
    guard let report = result.withLock({ $0 }) else {
      Terminal.warn("Interrupted; nothing is left behind.")
      throw ExitCode(130)
    }
    try show(report, options)
  }

  private static func show(_ report: BenchReport, _ options: BenchOptions) throws {
    if options.json { return try Terminal.print(try report.json()) }
    try Terminal.print(report.table(width: Terminal.width))
    try Terminal.print(try report.json())
    #if DEBUG
      Terminal.warn("This is a debug build: figures of a release build are several times better.")
    #endif
  }

  /// Says on standard error what happens now.
  static func say(_ text: String) { Terminal.warn(text) }
}

/// A benchmark cannot go on; the text says why and what to do.
struct BenchFailure: Error, CustomStringConvertible {
  var description: String
}

/// The PostgreSQL and the Redis that a benchmark measures.
struct BenchServers: Sendable {
  /// `nil` when only given servers are used and nothing private runs.
  let directory: DataDirectory
  let options: BenchOptions
  private let postgresBox = Mutexed<PrivatePostgres>()
  private let redisBox = Mutexed<PrivateRedis>()

  private static let prefix = "postrider-bench-"

  /// Lends servers for the time of a closure; then ends the private ones and removes their data.
  static func with(
    _ options: BenchOptions, _ body: @Sendable (BenchServers) async throws -> Void
  ) async throws {
    let temporary = FileManager.default.temporaryDirectory
    // A benchmark that was killed left its data; a folder that cannot be listed holds none of ours.
    for name in (try? FileManager.default.contentsOfDirectory(atPath: temporary.path)) ?? []
    where name.hasPrefix(prefix) {
      await DataDirectory.removeAbandoned(temporary.appending(path: name).path)
    }
    let folder = temporary.appending(path: "\(prefix)\(ProcessInfo.processInfo.processIdentifier)").path
    let directory = try await DataDirectory.open(folder)
    let servers = BenchServers(directory: directory, options: options)
    let result: Result<Void, any Error>
    do {
      result = .success(try await body(servers))
    } catch {
      result = .failure(error)
    }
    await servers.redisBox.value?.stop()
    await servers.postgresBox.value?.stop()
    try directory.remove()
    try result.get()
  }

  /// The Redis to measure, empty. Without persistence: everything in it can be filled again.
  func redisURL() async throws -> String {
    if let url = options.redisURL {
      let probe = try RedisProbe(url: url)
      guard try probe.integer(["DBSIZE"]) == 0 else {
        throw BenchFailure(description: "the Redis database of --redis-url holds keys; a benchmark would remove them")
      }
      return url
    }
    if let running = redisBox.value { return running.url }
    Bench.say("Starting Redis …")
    var settings = PrivateRedis.Options()
    settings.keepsData = false
    let redis = try await PrivateRedis.start(in: directory, options: settings)
    redisBox.value = redis
    return redis.url
  }

  /// What the private PostgreSQL is told beyond its defaults; commits are durable.
  static let postgresSettings = [
    "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min", "autovacuum_naptime": "10s",
  ]

  /// An empty database to measure.
  func databaseURL() async throws -> String {
    if let url = options.databaseURL {
      let probe = try PostgresProbe(url: url)
      let tables = try probe.number(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")
      guard tables == 0 else {
        throw BenchFailure(description: "the database of --database-url is not empty; give one made for this benchmark")
      }
      return url
    }
    Bench.say("Starting PostgreSQL …")
    var settings = PrivatePostgres.Options()
    settings.settings = Self.postgresSettings
    let postgres = try await PrivatePostgres.start(in: directory, options: settings)
    postgresBox.value = postgres
    try await postgres.createDatabase("bench")
    return postgres.url(database: "bench")
  }

  /// Stops and starts the private PostgreSQL; `false` for a given one, which is left alone.
  func restartPostgres() async throws -> Bool {
    guard let postgres = postgresBox.value else { return false }
    try await postgres.restart()
    return true
  }

  /// Where the private PostgreSQL logs.
  var postgresLog: String? { postgresBox.value?.logPath }

  /// The private Redis's process, for its CPU.
  var redisProcess: Int32? { get async { await redisBox.value?.processID } }
  /// The private PostgreSQL's first process.
  var postgresProcess: Int32? { get async { await postgresBox.value?.processID } }
}

/// A value that is set once by a task and read by another.
final class Mutexed<Value: Sendable>: Sendable {
  private let state = Mutex<Value?>(nil)

  /// The value, if it was set.
  var value: Value? {
    get { state.withLock { $0 } }
    set { state.withLock { $0 = newValue } }
  }
}
