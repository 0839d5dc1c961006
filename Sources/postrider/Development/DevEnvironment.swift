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

  func run() async throws {
    let directory = try await DataDirectory.open(command.directory)
    defer { directory.close() }
    let marker = "\(directory.path)/\(Self.marker)"
    try Data("made by postrider dev\n".utf8).write(to: URL(fileURLWithPath: marker))
    try LogFile.bootstrap(path: directory.logPath("postrider"))
    let logger = Logger(label: "postrider.dev")
    let screen = Screen()
    screen.say("Postrider \(Version.text), for development – not for production")
    screen.say("  data    \(directory.path)")

    var postgresOptions = PrivatePostgres.Options()
    postgresOptions.restart = .standard
    var redisOptions = PrivateRedis.Options()
    redisOptions.restart = .standard
    let postgres = try await PrivatePostgres.start(in: directory, options: postgresOptions, logger: logger)
    screen.done("PostgreSQL", postgres.socketDirectory)
    let redis = try await PrivateRedis.start(in: directory, options: redisOptions, logger: logger)
    screen.done("Redis", redis.socketPath)
    var mail: MailSandbox?
    if command.sandbox {
      let started = try await MailSandbox.start(in: directory, logger: logger)
      mail = started
      screen.done("Dovecot, Postfix", "POP3S port \(started.pop3sPort), submission port \(started.submissionPort ?? 0)")
    }
    do {
      try await serve(directory, postgres, redis, mail, screen, logger)
      await stop(postgres, redis, mail, directory)
    } catch {
      await stop(postgres, redis, mail, directory)
      throw error
    }
  }

  /// Mail servers, then Redis, then PostgreSQL: each after what uses it.
  private func stop(
    _ postgres: PrivatePostgres, _ redis: PrivateRedis, _ mail: MailSandbox?, _ directory: DataDirectory
  ) async {
    for name in [ClusterFile.cluster, ClusterFile.cli] {
      // Left-over files only lead to a socket that nobody answers on.
      try? FileManager.default.removeItem(atPath: "\(directory.path)/\(name)")
    }
    await mail?.stop()
    await redis.stop()
    await postgres.stop()
  }

  private func serve(
    _ directory: DataDirectory, _ postgres: PrivatePostgres, _ redis: PrivateRedis, _ mail: MailSandbox?,
    _ screen: Screen, _ logger: Logger
  ) async throws {
    _ = try await postgres.ensureDatabase("postrider")
    let databaseURL = postgres.url(database: "postrider")
    let keys = "\(directory.path)/keys"
    if !FileManager.default.fileExists(atPath: keys) {
      guard
        FileManager.default.createFile(
          atPath: keys, contents: Data(KeyRing.generate().text.revealed.utf8), attributes: [.posixPermissions: 0o600])
      else { throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: keys]) }
    }
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
    var services: [any Service] = [
      Running { try await failOnFirst(of: [postgres.failures, redis.failures]) },
      Running { try await store.run() }, Running { try await queue.run() }, api,
      deployment.scheduler(store: store, queue: queue), try deployment.worker(store: store, queue: queue),
    ]
    let guide = Guide(directory: directory.path, isDefault: command.data == nil, token: token)
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
    if command.once {
      guard let failure = await verdict.failure else { return screen.say("Everything worked.") }
      throw CheckFailed(description: failure)
    }
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
