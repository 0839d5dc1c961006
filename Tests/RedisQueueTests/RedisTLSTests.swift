import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import RedisQueue

/// A Redis that speaks TLS, with the certificates around it.
@Suite("Redis over TLS", .gated, .timeLimit(.minutes(3)))
struct RedisTLSTests {
  private struct Site {
    var redis: PrivateRedis
    var authority: TestAuthority
    var other: TestAuthority
    var data: DataDirectory

    /// What a client's connection ends with: `nil` when the queue works.
    func trouble(
      _ tls: RedisTLSSettings, scheme: String = "rediss", host: String = "127.0.0.1", port: Int? = nil
    ) async throws -> JobQueueError? {
      let configuration = try RedisQueueConfiguration(
        url: "\(scheme)://\(host):\(port ?? redis.tlsPort ?? 0)", tls: tls, callTimeout: .seconds(15))
      var trouble: JobQueueError?
      try await withRedisQueue(configuration) { queue in
        do {
          try await queue.open(epoch: 1, delay: .zero)
          try await queue.update(profiles: [profile()])
          try await queue.enqueue([job(1)])
          let leases = try await queue.claim(limit: 1, worker: "w").leases
          #expect(leases.count == 1)
          try await queue.complete(leases)
          _ = try await eventually("the subscription over TLS") {
            redis.ask("PUBSUB NUMSUB pr:{0}:wake") == "*2" ? true : nil
          }
        } catch let error as JobQueueError {
          trouble = error
          // The first attempt and this call may have taken the same time to fail.
          if error.description.contains("not connected") {
            trouble = try await eventually("the connection's own error") { () -> JobQueueError? in
              do { try await queue.checkHealth() } catch let error as JobQueueError {
                return error.description.contains("not connected") ? nil : error
              }
              return nil
            }
          }
        }
      }
      return trouble
    }
  }

  private func site(
    names: [String] = ["127.0.0.1", "localhost"], validity: TestAuthority.Validity = .current, mutual: Bool = false
  ) async throws -> Site {
    let data = try await TestServers.shared.dedicatedDirectory()
    let authority = try await TestAuthority.open(in: data.path + "/ca", owner: data.user)
    var options = PrivateRedis.Options()
    options.keepsData = false
    options.port = 0
    options.tls = PrivateRedis.TLS(
      authorityPath: authority.certificatePath,
      leaf: try await authority.leaf("server", for: names, validity: validity), requiresClientCertificate: mutual)
    return Site(
      redis: try await PrivateRedis.start(in: data, options: options), authority: authority,
      other: try await TestAuthority.open(in: data.path + "/other", owner: data.user), data: data)
  }

  private func expect(
    _ trouble: JobQueueError?, says words: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    guard case .misconfigured(let reason)? = trouble else {
      Issue.record("got \(String(describing: trouble))", sourceLocation: sourceLocation)
      return
    }
    #expect(reason.contains(words), sourceLocation: sourceLocation)
  }

  @Test("a certificate of a trusted authority for the right name is taken, by address and by name; others are not")
  func verification() async throws {
    let site = try await site()
    let trusted = RedisTLSSettings(caFile: site.authority.certificatePath)
    #expect(try await site.trouble(trusted) == nil)
    #expect(try await site.trouble(trusted, host: "localhost") == nil)
    expect(
      try await site.trouble(RedisTLSSettings(caFile: site.other.certificatePath)),
      says: "does not lead to a trusted authority")
    expect(try await site.trouble(RedisTLSSettings()), says: "does not lead to a trusted authority")
    var named = trusted
    named.serverName = "redis.example.org"
    expect(try await site.trouble(named), says: "certificate is not for redis.example.org")
    named.serverName = "localhost"
    #expect(try await site.trouble(named) == nil)
    await site.redis.stop()
  }

  @Test("a certificate for another name or another time is told as such", arguments: [true, false])
  func wrongCertificate(_ isExpired: Bool) async throws {
    let site = try await site(
      names: isExpired ? ["127.0.0.1"] : ["redis.example.org"], validity: isExpired ? .expired : .current)
    let trusted = RedisTLSSettings(caFile: site.authority.certificatePath)
    expect(try await site.trouble(trusted), says: isExpired ? "has expired" : "certificate is not for 127.0.0.1")
    await site.redis.stop()
  }

  @Test("the client shows its certificate where the server wants one")
  func mutual() async throws {
    let site = try await site(mutual: true)
    var tls = RedisTLSSettings(caFile: site.authority.certificatePath)
    expect(try await site.trouble(tls), says: "requires a client certificate")
    let client = try await site.authority.leaf("client", for: ["worker"])
    (tls.certificateFile, tls.keyFile) = (client.certificatePath, client.keyPath)
    #expect(try await site.trouble(tls) == nil)
    let foreign = try await site.other.leaf("client", for: ["worker"])
    (tls.certificateFile, tls.keyFile) = (foreign.certificatePath, foreign.keyPath)
    expect(try await site.trouble(tls), says: "does not accept our client certificate")
    tls.certificateFile = client.certificatePath
    let reason = await expectMisconfigured("another key") { _ = try await site.trouble(tls) }
    #expect(reason.contains("do not belong together"))
    await site.redis.stop()
  }

  @Test("plain text on a TLS port and TLS on a plain port are told apart from a server that is down")
  func wrongPort() async throws {
    let site = try await site()
    let plain = try await site.trouble(RedisTLSSettings(), scheme: "redis")
    #expect(
      plain?.description.contains("does this port expect TLS (rediss://)?") == true, "\(String(describing: plain))")
    let tls = try await site.trouble(
      RedisTLSSettings(caFile: site.authority.certificatePath), port: site.redis.port)
    #expect(tls?.description.contains("speak") == true, "\(String(describing: tls))")
    await site.redis.stop()
    let down = try await site.trouble(RedisTLSSettings(caFile: site.authority.certificatePath))
    #expect(down?.description.contains("connecting to 127.0.0.1") == true)
  }
}
