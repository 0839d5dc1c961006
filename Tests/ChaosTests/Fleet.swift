import Foundation
import Logging
import NIOCore
import NIOPosix
import PostriderTesting
import PrivateServers
import RedisQueue
import Synchronization

/// The servers of a fault run, and the database on them.
struct ChaosServers: Sendable {
  let postgres: PrivatePostgres
  let redis: PrivateRedis
  let cluster: TestCluster
  let leaseSeconds: Int

  static func start(leaseSeconds: Int) async throws -> ChaosServers {
    let directory = try await TestServers.shared.dedicatedDirectory(named: "chaos")
    var postgresOptions = PrivatePostgres.Options()
    postgresOptions.isDurable = false
    postgresOptions.maximumConnections = 200
    // A killed server must not lose what it has acknowledged; only the machine itself may not crash.
    postgresOptions.settings = ["synchronous_commit": "on", "wal_level": "minimal", "max_wal_senders": "0"]
    let postgres = try await PrivatePostgres.start(in: directory, options: postgresOptions)
    var redisOptions = PrivateRedis.Options()
    redisOptions.keepsData = true
    let redis = try await PrivateRedis.start(in: directory, options: redisOptions)
    let cluster = try await TestCluster.make(.init(lease: .seconds(leaseSeconds), postgres: postgres, redis: redis))
    return ChaosServers(postgres: postgres, redis: redis, cluster: cluster, leaseSeconds: leaseSeconds)
  }

  /// The queue as an operator sees it, past all gates; the caller runs it.
  func makeQueue() throws -> RedisJobQueue {
    RedisJobQueue(
      configuration: try RedisQueueConfiguration(url: redis.url, leaseDuration: .seconds(leaseSeconds)),
      logger: .silent)
  }
}

/// Real workers and schedulers, each with gates of its own to the servers.
final class Fleet: Sendable {
  let telltale = Telltale()
  private let servers: ChaosServers
  private let sessionsPerWorker: Int
  private let edit: ScriptEdit?
  private let environment: [String: String]
  private let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let processes = Mutex<[ClusterProcess]>([])

  /// Describes it; nothing runs yet. `edit` changes scripts on their way into Redis.
  init(
    _ servers: ChaosServers, sessionsPerWorker: Int, edit: ScriptEdit? = nil, environment: [String: String] = [:]
  ) {
    self.servers = servers
    self.sessionsPerWorker = sessionsPerWorker
    self.edit = edit
    self.environment = environment
  }

  /// Starts a process; it is ready some time later.
  @discardableResult
  func start(_ role: ClusterProcess.Role) async throws -> ClusterProcess {
    let watch = ProcessWatch(telltale)
    let loop = loops.next()
    let redisGate = try await Gate.open(
      to: servers.redis.socketPath, on: loop, reader: { [edit] in RedisTraffic(edit: edit) }, watcher: watch.see)
    let postgresGate = try await Gate.open(
      to: servers.postgres.socketDirectory + "/.s.PGSQL.5432", on: loop, reader: { PostgresTraffic() },
      watcher: watch.see)
    let database = servers.cluster.databaseURL.dropFirst("postgresql:///".count).prefix { $0 != "?" }
    let probePort = try LoopbackPort.free()
    let environment = [
      "POSTRIDER_DATABASE_URL":
        "postgresql://postrider@127.0.0.1:\(postgresGate.port)/\(database)?sslmode=disable&gssencmode=disable",
      "POSTRIDER_REDIS_URL": "redis://127.0.0.1:\(redisGate.port)/0",
      "POSTRIDER_KEYS_RING": servers.cluster.keys, "POSTRIDER_QUEUE_LEASE_SECONDS": String(servers.leaseSeconds),
      "POSTRIDER_EGRESS_ALLOW": "127.0.0.0/8:*", "POSTRIDER_MAIL_ALLOW_NON_TLS": "true",
      "POSTRIDER_PROBE_PORT": String(probePort), "POSTRIDER_WORKER_SESSIONS": String(sessionsPerWorker),
    ].merging(environment) { $1 }
    let program = try RunningProgram([role.rawValue], environment: environment)
    watch.isProcess(program.processID)
    let process = ClusterProcess(
      role: role, program: program, redis: redisGate, postgres: postgresGate, watch: watch, probePort: probePort)
    processes.withLock { $0.append(process) }
    return process
  }

  func all(_ role: ClusterProcess.Role) -> [ClusterProcess] {
    processes.withLock { $0.filter { $0.role == role && $0.program.isRunning } }
  }

  /// Buries a process and starts another in its place.
  @discardableResult
  func replace(_ process: ClusterProcess) async throws -> ClusterProcess {
    processes.withLock { $0.removeAll { $0 === process } }
    await process.bury()
    return try await start(process.role)
  }

  /// Processes that ended although nobody killed them: their last words.
  func fallen() -> [String] {
    processes.withLock { all in
      all.filter { !$0.program.isRunning }.map { "\($0.role) \($0.id): \($0.program.errors.suffix(600))" }
    }
  }

  /// The process id of the leading scheduler.
  func leader() async throws -> Int32? {
    let holder = try await servers.cluster.sql("SELECT holder FROM leadership WHERE expires_at > clock_timestamp()")
    return holder.split(separator: "-").dropLast().last.flatMap { Int32($0) }
  }

  /// Ends every process.
  func stop() async {
    for process in processes.withLock({ $0 }) { await process.bury() }
    try? await loops.shutdownGracefully()  // Its thread ends with the process at the latest.
  }
}
