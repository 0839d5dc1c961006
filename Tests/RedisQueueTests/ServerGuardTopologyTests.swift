import PostriderCore
import PrivateServers
import Testing

@testable import RedisQueue

@Suite("ServerGuard on other topologies", .gated, .serialized, .timeLimit(.minutes(3)))
struct ServerGuardTopologyTests {
  /// Opens, probes, closes and tells a breaker, and uses up a budget, for many hosts through two clients.
  private func life(_ one: RedisJobQueue, _ two: RedisJobQueue) async throws {
    let (first, second) = (RedisServerGuard(queue: one), RedisServerGuard(queue: two))
    let servers = (1...12).map { MailServer(host: "mail\($0).example.org", port: 995) }
    for server in servers {
      for mailbox in Int64(1)...5 {
        try await first.report(.failed(.tcpRefused, words: "no"), of: visit(mailbox, at: server), probe: nil)
      }
      #expect(try await second.admit(visit(9, at: server)).waiting?.code == .tcpRefused)
    }
    #expect(try await second.openBreakers(limit: 100).count == 12)
    for server in servers {
      let visit = visit(9, at: server, interactive: true)
      guard case .probe(let probe) = try await second.admit(visit) else {
        Issue.record("no probe of \(server)")
        continue
      }
      #expect(try await second.extend(probe, at: server))
      #expect(try await second.report(.works, of: visit, probe: probe) == .recovered(wasOpen: true))
      #expect(try await first.recovery(of: server) == [lane(1)])
      #expect(try await !first.recovered([lane(1)], of: server))
      #expect(try await first.openBreaker(of: server) == nil)
      let place = LoginPlace(host: server.host, egress: "default")
      let budget = LoginBudget(limit: 1)
      guard
        case .go(let permit) = try await first.login(
          visitor(proven: false), at: place, budget: budget, deadline: .seconds(9))
      else {
        Issue.record("no login at \(server)")
        continue
      }
      try await second.settle(permit, .refused)
      guard
        case .wait = try await second.login(visitor(proven: false), at: place, budget: budget, deadline: .seconds(9))
      else {
        Issue.record("two logins at \(server)")
        continue
      }
    }
  }

  @Test("in a Cluster hosts spread over the shards' nodes, and every client finds the same breakers")
  func cluster() async throws {
    let cluster = try await startCluster()
    let configuration = try RedisQueueConfiguration(
      url: "redis-cluster://127.0.0.1:\(cluster.nodes[1].port ?? 0)", shards: 4, callTimeout: .seconds(15))
    try await withRedisQueue(configuration) { one in
      try await withRedisQueue(configuration) { two in try await life(one, two) }
    }
    for node in cluster.nodes { await node.stop() }
  }

  @Test("the documented rights are enough")
  func leastRights() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    try await withRawConnection(to: server) {
      try await $0.command(["ACL", "SETUSER", "post", "on", ">s3cret"] + RedisRights.rule(prefix: "pr"))
    }
    let configuration = try RedisQueueConfiguration(
      url: "unix://\(server.directory)/s",
      credentials: RedisQueueConfiguration.Credentials(user: "post", password: Secret("s3cret")), shards: 2,
      callTimeout: .seconds(15))
    try await withRedisQueue(configuration) { one in
      try await withRedisQueue(configuration) { two in try await life(one, two) }
    }
  }
}
