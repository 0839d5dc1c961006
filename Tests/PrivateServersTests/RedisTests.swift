import PostriderTesting
import Testing

@testable import PrivateServers

@Suite("Private Redis")
struct RedisTests {
  @Test("with data kept, a restart and a kill keep them; without, the server comes back empty")
  func keepsData() async throws {
    let redis = try await TestServers.shared.dedicatedRedis(keepsData: true)
    #expect(redis.url == "unix://" + redis.socketPath)
    #expect(redis.ask("SET key 7") == "+OK")
    try await redis.restart()
    #expect(redis.ask("EXISTS key") == ":1")
    // SIGTERM writes everything; SIGKILL keeps what is in the file already.
    await redis.kill9()
    #expect(Probe.ask("PING\r\n", at: redis.socketPath) == nil)
    try await redis.start()
    #expect(redis.ask("EXISTS key") == ":1")
    try redis.flushAll()
    #expect(redis.ask("DBSIZE") == ":0")
    #expect(redis.ask("SET key 7") == "+OK")
    try await redis.restart(withData: false)
    #expect(redis.ask("DBSIZE") == ":0")
    await redis.stop()
    #expect(await redis.processID == nil)
  }

  @Test("never evicts, listens on no port")
  func configuration() async throws {
    let redis = try await TestServers.shared.redis()
    let output = try await Command.run(
      "/usr/bin/redis-cli", ["-s", redis.socketPath, "CONFIG", "GET", "maxmemory-policy"])
    #expect(output.contains("noeviction"))
    let port = try await Command.run("/usr/bin/redis-cli", ["-s", redis.socketPath, "CONFIG", "GET", "port"])
    #expect(port.split(separator: "\n") == ["port", "0"])
  }

  @Test("killed from outside it is started again under the policy, and given up after three deaths")
  func policy() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    var options = PrivateRedis.Options()
    // The window of `standard` may be over before the third death on a slow machine.
    options.restart = .backoff(deaths: 3, within: .seconds(600))
    let redis = try await PrivateRedis.start(in: data, options: options)
    for death in 1...3 {
      let pid = try #require(await redis.processID)
      _ = try await Command.run("/bin/kill", ["-9", String(pid)])
      if death < 3 {
        #expect(
          await eventually {
            guard let next = await redis.processID else { return false }
            return next != pid && Probe.ask("PING\r\n", at: redis.socketPath) == "+PONG"
          })
      }
    }
    var failures = redis.failures.makeAsyncIterator()
    let failure = await failures.next()
    guard case .died("redis", let reason, let log) = failure else {
      Issue.record("unexpected: \(String(describing: failure))")
      return
    }
    #expect(reason.contains("3 times"))
    #expect(!log.isEmpty)
    await redis.stop()
  }
}

/// Polls a condition for up to two minutes.
func eventually(_ condition: () async throws -> Bool) async rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(120)
  while ContinuousClock.now < deadline {
    if try await condition() { return true }
    // A cancelled test ends by its deadline.
    try? await Task.sleep(for: .milliseconds(10))
  }
  return false
}
