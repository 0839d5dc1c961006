import ArgumentParser
import Foundation
import Logging
import MailProtocols
import Metrics
import NIOPosix
import PostgresStore
import PostriderCore
import RedisQueue
import ServiceLifecycle
import Telemetry
import WebServices

/// A needed service cannot be reached; the process ends with exit code 69 (EX_UNAVAILABLE).
struct ServiceUnreachable: Error, CustomStringConvertible {
  var description: String
}

/// Writes a line to standard error.
func writeError(_ text: String) {
  FileHandle.standardError.write(Data((text + "\n").utf8))
}

/// Where a role's configuration comes from.
struct RoleOptions: ParsableArguments {
  @Option(
    name: .long, help: ArgumentHelp("A JSON file with configuration; the environment wins over it.", valueName: "file"),
    completion: .file())
  var config: String?

  @Option(
    name: .long,
    help: ArgumentHelp("Join a running `postrider dev`: take its addresses from this data directory.", valueName: "dir")
  )
  var data: String?

  /// Reads the configuration; with `--data` from a running `postrider dev`, where only given variables win over it.
  func settings(required: [Setting], overrides: [String: String] = [:]) async throws -> Settings {
    try await Settings.load(
      file: config, environment: try environment(), overrides: overrides, required: required)
  }

  /// The variables that count.
  func environment() throws -> [String: String] {
    var environment = ProcessInfo.processInfo.environment
    if let data {
      let cluster = try ClusterFile.read(in: data)
      environment.merge(cluster) { given, _ in given }
      // Several processes of one machine cannot share a port.
      if environment[Setting.probePort.environmentName] == nil {
        environment[Setting.probePort.environmentName] = "0"
      }
    }
    return environment
  }
}

/// The pieces every role is wired from.
struct Deployment: Sendable {
  let settings: Settings
  let logger: Logger
  let registry: PrometheusRegistry
  private let hasParts: Bool

  /// The logger of a part; where one process is everything (`postrider dev`), the one for all.
  func logger(_ part: LogPart) -> Logger { hasParts ? part.logger : logger }

  /// Starts logging and metrics of a role's process, once.
  init(_ settings: Settings, role: String) {
    let level = Logger.Level(rawValue: settings.text(.logLevel) ?? "info") ?? .info
    LineLogHandler.bootstrap(
      format: settings.text(.logFormat) == "json" ? .json : .text, level: level,
      levels: settings.text(.logLevels).flatMap(LogPart.levels) ?? [:])
    self.init(settings, logger: Logger(label: "postrider.\(role)"), hasParts: true)
  }

  /// Starts metrics of a process that logs already, once.
  init(_ settings: Settings, logger: Logger, hasParts: Bool = false) {
    self.settings = settings
    self.logger = logger
    self.hasParts = hasParts
    // Metrics that are dropped and collectors that fail are told where probes log.
    registry = PrometheusRegistry(logger: hasParts ? LogPart.probes.logger : logger)
    registry.setBuildInfo(version: Version.text, commit: "", swift: Self.swiftVersion)
    ProcessCollector.register(in: registry)
    MetricsSystem.bootstrap(registry)
  }

  private static var swiftVersion: String {
    #if compiler(>=6.3)
      "6.3"
    #else
      "6.2"
    #endif
  }

  /// Unique per process: host, process number and start.
  static func processName() -> String {
    let host = ProcessInfo.processInfo.hostName.split(separator: ".").first.map(String.init) ?? "host"
    return "\(host)-\(ProcessInfo.processInfo.processIdentifier)-\(String(UInt32.random(in: 0...0xFFFF), radix: 16))"
  }

  func store() throws -> PostgresStore {
    PostgresStore(
      configuration: PostgresStoreConfiguration(
        url: try settings.required(.databaseURL), directURL: settings.text(.databaseDirectURL),
        poolSize: settings.number(.databasePool), keyRing: try settings.keyRing()),
      logger: logger(.store))
  }

  func queue() throws -> RedisJobQueue {
    RedisJobQueue(configuration: try settings.queueConfiguration(), logger: logger(.queue))
  }

  /// Calls token endpoints and webhooks.
  func webClient() throws -> WebClient { try WebClient(egress: try settings.egress()) }

  /// Gets access tokens for sessions.
  func tokens(store: PostgresStore) throws -> TokenKeeper {
    TokenKeeper(store: store, web: try webClient(), logger: logger(.worker))
  }

  /// Delivers new-mail events.
  func webhooks(store: PostgresStore) throws -> WebhookDispatcher {
    WebhookDispatcher(queue: store, web: try webClient(), logger: logger(.worker))
  }

  func mailClient() throws -> MailClient {
    MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: try settings.egress())
  }
}

/// A closure with the life of a service: stopping the service cancels it.
struct Running: Service {
  let body: @Sendable () async throws -> Void

  init(_ body: @escaping @Sendable () async throws -> Void) { self.body = body }

  func run() async throws {
    do {
      try await cancelWhenGracefulShutdown { try await body() }
    } catch is CancellationError {
      // Stopped as asked.
    }
  }
}

extension Deployment {
  /// How long a scheduler may take to give its leadership up.
  static let schedulerGrace: Duration = .seconds(5)
  /// How long requests in flight may go on.
  static let apiGrace: Duration = .seconds(10)
  /// After its grace, and once more after that, a process waits so long before it cancels what does not stop, and then
  /// leaves behind what is not cancelled. Whoever kills processes has to wait longer than both.
  static let stopMargin: Duration = .seconds(5)

  /// Runs services until SIGTERM or SIGINT; each stands after what it uses and is stopped before it.
  func serve(_ services: [any Service], grace: Duration) async throws {
    var configuration = ServiceGroupConfiguration(
      services: services.map {
        .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
      }, gracefulShutdownSignals: [.sigterm, .sigint],
      logger: logger(.process))
    // A service that neither stops nor is cancelled in time must not keep the process alive.
    configuration.maximumGracefulShutdownDuration = grace + Self.stopMargin
    configuration.maximumCancellationDuration = Self.stopMargin
    try await ServiceGroup(configuration: configuration).run()
  }
}
