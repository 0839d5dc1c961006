import AdminServer
import Foundation
import Logging
import Metrics
import PostgresStore
import PostriderCore
import PrivateServers
import ServiceLifecycle
import Telemetry

/// The life of one `postrider dev`: private servers, then every role in this process, then their end in reverse order.
struct DevEnvironment {
  /// A file that says that a directory is ours to delete.
  static let marker = ".postrider-dev"

  let command: DevCommand

  /// The private servers that run so far, to be stopped in the end however far the start came.
  private struct Servers {
    var postgres: PrivatePostgres?
    var redis: PrivateRedis?
    var mail: MailSandbox?

    /// Mail servers, then Redis, then PostgreSQL: each after what uses it.
    func stop() async {
      await mail?.stop()
      await redis?.stop()
      await postgres?.stop()
    }
  }

  func run() async throws {
    if command.sandbox && geteuid() != 0 {
      throw CheckFailed(
        description: "the sandbox's Postfix must be started by root: run it with sudo, or leave --sandbox out")
    }
    let directory = try await DataDirectory.open(command.directory)
    defer { directory.close() }
    let keys = try ensureKeys(directory)
    try Data("made by postrider dev\n".utf8).write(to: URL(fileURLWithPath: "\(directory.path)/\(Self.marker)"))
    try LogFile.bootstrap(path: directory.logPath("postrider"))
    let logger = Logger(label: "postrider.dev")
    let screen = Screen()
    screen.say("Postrider \(Version.text), for development – not for production")
    screen.say("  data    \(directory.path)")

    var servers = Servers()
    do {
      try await start(&servers, directory, screen, logger)
      try await serve(directory, servers, keys, screen, logger)
    } catch {
      await end(servers, directory)
      throw error
    }
    await end(servers, directory)
    if command.once { screen.say("Everything worked.") }
  }

  private func end(_ servers: Servers, _ directory: DataDirectory) async {
    for name in [ClusterFile.cluster, ClusterFile.cli] {
      // Left-over files only lead to a socket that nobody answers on.
      try? FileManager.default.removeItem(atPath: "\(directory.path)/\(name)")
    }
    await servers.stop()
  }

  /// The key ring of the data directory, made before its database. Never made for a database that is there already:
  /// what it holds could not be read any more.
  private func ensureKeys(_ directory: DataDirectory) throws -> String {
    let keys = "\(directory.path)/keys"
    if FileManager.default.fileExists(atPath: keys) { return keys }
    guard !FileManager.default.fileExists(atPath: "\(directory.path)/postgres") else {
      throw CheckFailed(
        description: "the key ring \(keys) is gone, and without it the passwords in the database cannot be read; "
          + "put it back, or delete everything with `postrider dev --data \(directory.path) --reset`")
    }
    guard
      FileManager.default.createFile(
        atPath: keys, contents: Data(KeyRing.generate().text.revealed.utf8), attributes: [.posixPermissions: 0o600])
    else { throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: keys]) }
    return keys
  }

  private func start(
    _ servers: inout Servers, _ directory: DataDirectory, _ screen: Screen, _ logger: Logger
  ) async throws {
    var postgresOptions = PrivatePostgres.Options()
    postgresOptions.restart = .standard
    let postgres = try await PrivatePostgres.start(in: directory, options: postgresOptions, logger: logger)
    servers.postgres = postgres
    screen.done("PostgreSQL", postgres.socketDirectory)
    var redisOptions = PrivateRedis.Options()
    redisOptions.restart = .standard
    let redis = try await PrivateRedis.start(in: directory, options: redisOptions, logger: logger)
    servers.redis = redis
    screen.done("Redis", redis.socketPath)
    guard command.sandbox else { return }
    var mailOptions = MailSandbox.Options()
    mailOptions.dovecot.restart = .standard
    mailOptions.postfix.restart = .standard
    let mail = try await MailSandbox.start(in: directory, options: mailOptions, logger: logger)
    servers.mail = mail
    screen.done("Dovecot, Postfix", "POP3S port \(mail.pop3sPort), submission port \(mail.submissionPort ?? 0)")
  }

  private func serve(
    _ directory: DataDirectory, _ servers: Servers, _ keys: String, _ screen: Screen, _ logger: Logger
  ) async throws {
    guard let postgres = servers.postgres, let redis = servers.redis else { return }
    let mail = servers.mail
    _ = try await postgres.ensureDatabase("postrider")
    let databaseURL = postgres.url(database: "postrider")
    let socket = "\(directory.runtimePath)/api.sock"
    let cluster = [
      Setting.databaseURL.environmentName: databaseURL, Setting.redisURL.environmentName: redis.url,
      Setting.keysFile.environmentName: keys,
      Setting.egressAllow.environmentName: mail == nil ? "" : "127.0.0.1/32:*",
    ]
    var environment = ProcessInfo.processInfo.environment
    environment.merge(cluster) { $1 }
    let settings = try await Settings.load(environment: environment)
    let deployment = Deployment(settings, logger: logger)

    _ = try await Migrator(url: databaseURL, applicationURL: databaseURL, logger: logger).migrate()
    let (_, token) = try await Bootstrap(url: databaseURL, logger: logger).ensureOrganization(
      name: "Development", administratorName: "Administrator", administratorAddress: "admin@sandbox.test")
    try ClusterFile.write(cluster, to: ClusterFile.cluster, in: directory.path)

    let store = try deployment.store()
    let queue = try deployment.queue()
    let api = try deployment.api(store: store, queue: queue, port: command.apiPort, socket: socket)
    let escaped = socket.replacingOccurrences(of: "/", with: "%2F")
    try ClusterFile.write(
      ["POSTRIDER_API_URL": "http+unix://\(escaped)", "POSTRIDER_TOKEN": token.revealed], to: ClusterFile.cli,
      in: directory.path)

    let verdict = Verdict()
    let failures =
      [postgres.failures, redis.failures]
      + (mail.map { [$0.dovecot.failures] + ($0.postfix.map { [$0.failures] } ?? []) } ?? [])
    var services: [any Service] = [
      Running { try await failOnFirst(of: failures) },
      Running { try await store.run() }, Running { try await queue.run() },
    ]
    // Stopped from the end: first nobody asks any more, then nothing is enqueued, then the sessions drain.
    if !command.noWorker {
      services.append(
        try deployment.worker(
          store: store, queue: queue, serverGuard: deployment.serverGuard(queue: queue),
          haltGuard: deployment.haltGuard(queue: queue), tokens: deployment.tokens(store: store)))
      services.append(try deployment.webhooks(store: store))
    }
    services += [deployment.scheduler(store: store, queue: queue), deployment.batches(store: store), api]
    let guide = Guide(
      directory: directory.path, isDefault: command.directory == DataDirectory.defaultPath, token: token)
    services.append(
      Running { [command] in
        let addresses = try await api.listening()
        guide.show(addresses.map(\.description), on: screen)
        guard let mail else {
          screen.say("Running. Ctrl-C ends it.")
          try await Task.sleep(for: .seconds(86_400 * 365))
          return
        }
        let client = APIClient(ClientSettings(url: "http+unix://\(escaped)", token: token, source: directory.path))
        let driver = SandboxDriver(mail: mail, client: client, mailboxes: command.mailboxes, screen: screen)
        do {
          if command.once {
            await verdict.set(try await driver.check(limit: .seconds(command.timeout)))
          } else {
            try await driver.run()
          }
          await client.close()
        } catch {
          await client.close()
          throw error
        }
      })
    do {
      try await deployment.serve(services, grace: .seconds(settings.number(.workerGrace)))
    } catch is CancellationError {
      // Ctrl-C while the sandbox was set up.
    }
    screen.say("Stopping …")
    if command.once, let failure = await verdict.failure { throw CheckFailed(description: failure) }
  }

  private func failOnFirst(of streams: [AsyncStream<PrivateServerError>]) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for stream in streams {
        group.addTask { for await failure in stream { throw failure } }
      }
      try await group.next()
      group.cancelAll()
    }
  }
}

/// `--once` did not see what it should.
struct CheckFailed: Error, CustomStringConvertible {
  var description: String
}

/// How the check of the sandbox ended. Until it is set, the check was interrupted.
private actor Verdict {
  private(set) var failure: String? = "it was stopped before everything was seen to work"

  func set(_ failure: String?) { self.failure = failure }
}
