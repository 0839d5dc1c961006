import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import RedisQueue

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
  var telltale: Telltale { fleet.telltale }
  let accounts: [Account]
  /// The queue as an operator sees it, past all gates.
  let queue: RedisJobQueue
  private let running: Task<Void, any Error>
  private let fleet: Fleet

  init(_ options: ChaosOptions) async throws {
    self.options = options
    let servers = try await ChaosServers.start(leaseSeconds: options.leaseSeconds)
    (postgres, redis, cluster) = (servers.postgres, servers.redis, servers.cluster)
    mail = MailServer(
      census: census, rules: .init(sessionSeconds: options.sessionSeconds), seed: options.seed &+ 1)
    try await cluster.sql(Audit.schema)
    if options.mistake == .fenceIgnored { try await cluster.sql(Audit.blindGuard) }
    accounts = try await Self.makeAccounts(options, cluster, mail, census)
    queue = try servers.makeQueue()
    running = Task { [queue] in try await queue.run() }
    fleet = Fleet(
      servers, sessionsPerWorker: options.sessionsPerWorker, edit: options.mistake?.scriptEdit,
      environment: options.mistake == .completeBeforeCommit ? ["MISTAKE": Mistake.completeBeforeCommit.rawValue] : [:])
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

  @discardableResult
  func start(_ role: ClusterProcess.Role) async throws -> ClusterProcess { try await fleet.start(role) }

  func all(_ role: ClusterProcess.Role) -> [ClusterProcess] { fleet.all(role) }

  @discardableResult
  func replace(_ process: ClusterProcess) async throws -> ClusterProcess { try await fleet.replace(process) }

  func fallen() -> [String] { fleet.fallen() }

  func leader() async throws -> Int32? { try await fleet.leader() }

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
    await fleet.stop()
    await mail.stop()
    await cluster.close()
    _ = await running.result
    await redis.stop()
    await postgres.stop()
  }
}
