import AdminServer
import ArgumentParser
import Foundation
import Logging
import MailMessage
import PostgresStore
import PostriderCore
import RedisQueue
import Scheduler
import ServiceLifecycle
import Telemetry
import Worker

/// `postrider scheduler`
struct SchedulerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scheduler", abstract: "Puts due work into the queue. One leads, others stand by.",
    discussion: "Example: POSTRIDER_DATABASE_URL=… POSTRIDER_REDIS_URL=… POSTRIDER_KEYS_FILE=… postrider scheduler")

  @OptionGroup var role: RoleOptions

  func run() async throws {
    let settings = try await role.settings(required: [.databaseURL, .redisURL])
    let deployment = Deployment(settings, role: "scheduler")
    let store = try deployment.store()
    let queue = try deployment.queue()
    let scheduler = deployment.scheduler(store: store, queue: queue)
    try await deployment.serve(
      [
        Running { try await store.run() }, Running { try await queue.run() },
        try deployment.probes(store: store, queue: queue, pulse: scheduler.pulse), scheduler,
      ], grace: Deployment.schedulerGrace)
  }
}

/// `postrider worker`
struct WorkerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "worker", abstract: "Runs sessions with mail servers. Start as many as you like.",
    discussion: """
      Examples:
        POSTRIDER_DATABASE_URL=… POSTRIDER_REDIS_URL=… POSTRIDER_KEYS_FILE=… postrider worker
        postrider worker --data DIR      joins a running `postrider dev --data DIR`

      SIGTERM drains: sessions go on for worker.graceSeconds, the rest is given back uncounted.
      """)

  @OptionGroup var role: RoleOptions

  @Option(name: .long, help: ArgumentHelp("Sessions at once, 1…10,000 (default: worker.sessions).", valueName: "n"))
  var sessions: Int?

  func run() async throws {
    let settings = try await role.settings(
      required: [.databaseURL, .redisURL],
      overrides: sessions.map { [Setting.workerSessions.key: String($0)] } ?? [:])
    let deployment = Deployment(settings, role: "worker")
    let store = try deployment.store()
    let queue = try deployment.queue()
    let worker = try deployment.worker(
      store: store, queue: queue, serverGuard: deployment.serverGuard(queue: queue),
      haltGuard: deployment.haltGuard(queue: queue), tokens: deployment.tokens(store: store))
    try await deployment.serve(
      [
        Running { try await store.run() }, Running { try await queue.run() },
        try deployment.probes(store: store, queue: queue, pulse: worker.pulse), try deployment.webhooks(store: store),
        worker,
      ], grace: .seconds(settings.number(.workerGrace)))
  }
}

/// `postrider api`
struct APICommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "api", abstract: "Serves the REST API under /api/v1; probes and metrics on probe.port as well.",
    discussion: """
      Examples:
        POSTRIDER_DATABASE_URL=… POSTRIDER_REDIS_URL=… POSTRIDER_KEYS_FILE=… postrider api
        postrider api --print-openapi > openapi.json
      """)

  @OptionGroup var role: RoleOptions

  @Flag(
    name: .customLong("print-openapi"),
    help: "Print the API as an OpenAPI 3.1 document, as /openapi.json answers it, and end.")
  var printsOpenAPI = false

  func run() async throws {
    if printsOpenAPI {
      var configuration = AdminServerConfiguration()
      configuration.version = Version.text
      return print(AdminServer.openAPI(configuration))
    }
    let settings = try await role.settings(required: [.databaseURL, .redisURL])
    let deployment = Deployment(settings, role: "api")
    let store = try deployment.store()
    let queue = try deployment.queue()
    let api = try deployment.api(store: store, queue: queue)
    try await deployment.serve(
      [
        Running { try await store.run() }, Running { try await queue.run() },
        try deployment.probes(store: store, queue: queue), deployment.batches(store: store),
      ] + (try deployment.certificateReloads(of: api)) + [api], grace: Deployment.apiGrace)
  }
}

extension Deployment {
  func scheduler(store: any SchedulerStore, queue: any JobQueue) -> SchedulerService {
    var configuration = SchedulerConfiguration(holder: Self.processName())
    configuration.composeAlertMail = { try AlertMessage.submission(of: $0) }
    return SchedulerService(store: store, queue: queue, configuration: configuration, logger: logger(.scheduler))
  }

  /// Breakers and login budgets beside the queue, and the gauge of the open ones.
  func serverGuard(queue: RedisJobQueue) -> RedisServerGuard {
    var rules = BreakerRules()
    // Longer than a lease and a renewal: a worker that cannot reach Redis has closed the probe's socket by then.
    rules.probeHold = .seconds(settings.number(.queueLease)) * 2
    let serverGuard = RedisServerGuard(queue: queue, rules: rules)
    ServerGuardCollector(serverGuard).register(in: registry)
    return serverGuard
  }

  /// Halts of profiles beside the queue.
  func haltGuard(queue: RedisJobQueue) -> RedisServerGuard {
    var rules = BreakerRules.halts
    rules.probeHold = .seconds(settings.number(.queueLease)) * 2
    return RedisServerGuard(queue: queue, rules: rules)
  }

  func worker(
    store: any WorkerStore, queue: any JobQueue, serverGuard: any ServerGuard, haltGuard: any ServerGuard,
    tokens: any AccessTokenSource
  ) throws -> WorkerService {
    var configuration = WorkerConfiguration(name: Self.processName())
    configuration.sessions = settings.number(.workerSessions)
    configuration.grace = .seconds(settings.number(.workerGrace))
    configuration.renewal = .seconds(settings.number(.queueLease)) / 3
    configuration.heloName = settings.heloName
    configuration.roundTripWait = .seconds(settings.number(.workerRoundTrip))
    configuration.spoolDirectory = settings.text(.workerSpool) ?? "/tmp"
    configuration.octetsPerPoll = Int64(settings.number(.workerOctetsPerPoll)) << 20
    configuration.newestFirst = settings.flag(.workerNewestFirst)
    configuration.egressID = settings.text(.egressID) ?? configuration.egressID
    return WorkerService(
      store: store, queue: queue, client: try mailClient(), serverGuard: serverGuard, haltGuard: haltGuard,
      tokens: tokens, configuration: configuration, logger: logger(.worker))
  }
}
