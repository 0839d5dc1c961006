import Foundation
import Logging
import NIOCore
import NIOPosix
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import RedisQueue
import Synchronization

/// A deployment of real processes and real servers, with everything on the way between them in our hands.
final class Stage: Sendable {
  /// A mailbox and whose mail it shows.
  struct Account: Sendable {
    var id: MailboxID
    var profile: ProfileID
    var address: String
    var drop: String
  }

  let options: ChaosOptions
  let cluster: TestCluster
  let postgres: PrivatePostgres
  let redis: PrivateRedis
  let mail: MailServer
  let census = SessionCensus()
  let telltale = Telltale()
  let accounts: [Account]
  /// The queue as an operator sees it, past all gates.
  let queue: RedisJobQueue
  private let running: Task<Void, any Error>
  private let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let processes = Mutex<[ClusterProcess]>([])

  init(_ options: ChaosOptions) async throws {
    self.options = options
    let directory = try await TestServers.shared.dedicatedDirectory(named: "chaos")
    var postgresOptions = PrivatePostgres.Options()
    postgresOptions.isDurable = false
    postgresOptions.maximumConnections = 200
    // A killed server must not lose what it has acknowledged; only the machine itself may not crash.
    postgresOptions.settings = ["synchronous_commit": "on", "wal_level": "minimal", "max_wal_senders": "0"]
    postgres = try await PrivatePostgres.start(in: directory, options: postgresOptions)
    var redisOptions = PrivateRedis.Options()
    redisOptions.keepsData = true
    redis = try await PrivateRedis.start(in: directory, options: redisOptions)
    cluster = try await TestCluster.make(
      .init(lease: .seconds(options.leaseSeconds), postgres: postgres, redis: redis))
    mail = MailServer(
      census: census, rules: .init(sessionSeconds: options.sessionSeconds), seed: options.seed &+ 1)
    try await cluster.sql(Audit.schema)
    if options.mistake == .fenceIgnored { try await cluster.sql(Audit.blindGuard) }
    accounts = try await Self.makeAccounts(options, cluster, mail, census)
    queue = RedisJobQueue(
      configuration: try RedisQueueConfiguration(url: redis.url, leaseDuration: .seconds(options.leaseSeconds)),
      logger: .silent)
    running = Task { [queue] in try await queue.run() }
  }

  // MARK: Profiles and mailboxes

  private static func makeAccounts(
    _ options: ChaosOptions, _ cluster: TestCluster, _ mail: MailServer, _ census: SessionCensus
  ) async throws -> [Account] {
    var dice = Dice(seed: options.seed &+ 2)
    var accounts: [Account] = []
    func makeDrop(_ name: String) {
      let drop = Maildrop(name: name)
      for _ in 0..<(1 + dice.number(below: 4)) { drop.deliver(using: &dice) }
      mail.add(drop)
    }
    for (number, limit) in options.profileLimits.enumerated() {
      let account = "account\(number)@chaos.test"
      makeDrop(account)
      census.expect(.profile(number), limit: limit)
      let host = "127.0.1.\(number + 1)"
      let port = try await mail.open(.init(profile: number, host: host, account: account, pipelines: number % 2 == 0))
      let profile = try await cluster.profile(
        "Profile \(number)",
        incoming: ServerDraft(
          host: host, port: port, tls: TLSMode.none, credentials: .profile, userName: account,
          // The server gives the same drop for each identity: what is counted is the account.
          password: Secret("secret"), loginAs: "authzid"), connections: limit)
      // More mailboxes than slots, so that there is always work for each slot.
      let addresses = (0..<(4 * limit + 2)).map { "m\($0).profile\(number)@chaos.test" }
      let ids = try await cluster.mailboxes(addresses, on: profile, password: nil)
      accounts += zip(ids, addresses).map { Account(id: $0, profile: profile.id, address: $1, drop: account) }
    }
    for (index, limit) in options.mailboxLimits.enumerated() {
      let number = options.profileLimits.count + index
      let host = "127.0.1.\(number + 1)"
      let port = try await mail.open(.init(profile: number, host: host, account: nil, pipelines: number % 2 == 0))
      let profile = try await cluster.profile(
        "Profile \(number)", incoming: ServerDraft(host: host, port: port, tls: TLSMode.none),
        connections: limit)
      let addresses = (0..<options.mailboxesEach).map { "m\($0).own\(number)@chaos.test" }
      for address in addresses {
        makeDrop(address)
        // Whatever the limit: one POP3 session of a mailbox at a time.
        census.expect(.mailbox(address), limit: 1)
      }
      let ids = try await cluster.mailboxes(
        addresses, on: profile, owner: index % 2 == 0 ? .queue : .user, deletes: index % 2 == 0)
      accounts += zip(ids, addresses).map { Account(id: $0, profile: profile.id, address: $1, drop: $1) }
    }
    for start in stride(from: 0, to: accounts.count, by: 250) {
      try await cluster.enable(accounts[start..<min(start + 250, accounts.count)].map(\.id))
    }
    return accounts
  }

  // MARK: Processes

  /// Starts a process; it is ready some time later.
  @discardableResult
  func start(_ role: ClusterProcess.Role) async throws -> ClusterProcess {
    let watch = ProcessWatch(telltale)
    let loop = loops.next()
    let edit = options.mistake?.scriptEdit
    let redisGate = try await Gate.open(
      to: redis.socketPath, on: loop, reader: { RedisTraffic(edit: edit) }, watcher: watch.see)
    let postgresGate = try await Gate.open(
      to: postgres.socketDirectory + "/.s.PGSQL.5432", on: loop, reader: { PostgresTraffic() }, watcher: watch.see)
    let database = cluster.databaseURL.dropFirst("postgresql:///".count).prefix { $0 != "?" }
    let probePort = try await Self.freePort(loop)
    var environment = [
      "POSTRIDER_DATABASE_URL":
        "postgresql://postrider@127.0.0.1:\(postgresGate.port)/\(database)?sslmode=disable&gssencmode=disable",
      "POSTRIDER_REDIS_URL": "redis://127.0.0.1:\(redisGate.port)/0",
      "POSTRIDER_KEYS_RING": cluster.keys, "POSTRIDER_QUEUE_LEASE_SECONDS": String(options.leaseSeconds),
      "POSTRIDER_EGRESS_ALLOW": "127.0.0.0/8:*", "POSTRIDER_MAIL_ALLOW_NON_TLS": "true",
      "POSTRIDER_PROBE_PORT": String(probePort), "POSTRIDER_WORKER_SESSIONS": String(options.sessionsPerWorker),
    ]
    if options.mistake == .completeBeforeCommit { environment["MISTAKE"] = Mistake.completeBeforeCommit.rawValue }
    let program = try RunningProgram([role.rawValue], environment: environment)
    watch.isProcess(program.processID)
    let process = ClusterProcess(
      role: role, program: program, redis: redisGate, postgres: postgresGate, watch: watch, probePort: probePort)
    processes.withLock { $0.append(process) }
    return process
  }

  private static func freePort(_ loop: any EventLoop) async throws -> Int {
    let channel = try await ServerBootstrap(group: loop).bind(host: "127.0.0.1", port: 0).get()
    let port = channel.localAddress?.port ?? 0
    try await channel.close().get()
    return port
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
    let holder = try await cluster.sql("SELECT holder FROM leadership WHERE expires_at > clock_timestamp()")
    return holder.split(separator: "-").dropLast().last.flatMap { Int32($0) }
  }

  /// Where all polls are, and under whom.
  func locations(of accounts: [Account]? = nil) async throws -> [JobLocation] {
    let jobs = (accounts ?? self.accounts).map {
      Job(id: JobID(mailbox: $0.id, kind: .poll), profile: $0.profile, jobClass: .poll, dueMilliseconds: 0)
    }
    // The first call after a new epoch was opened learns of it by failing.
    return try await eventually("the queue says where its jobs are") {
      do { return try await queue.inspect(jobs) } catch is JobQueueError { return nil }
    }
  }

  func stop() async {
    running.cancel()
    for process in processes.withLock({ $0 }) { await process.bury() }
    await mail.stop()
    await cluster.close()
    _ = await running.result
    await redis.stop()
    await postgres.stop()
    try? await loops.shutdownGracefully()  // Its thread ends with the process at the latest.
  }
}
