import PostriderCore
import Testing

@testable import RedisQueue

@Suite("Redis URLs", .gated)
struct RedisURLTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var url: String
    var shown: [String]
    var kind = RedisURL.Kind.server
    var isTLS = false
    var user: String?
    var password: String?
    var database = 0
    var testDescription: String { url }
  }

  @Test(
    "what they say",
    arguments: [
      Case(url: "redis://localhost", shown: ["localhost:6379"]),
      Case(url: "redis://:p%40ss@10.0.0.1:7000/4", shown: ["10.0.0.1:7000"], password: "p@ss", database: 4),
      Case(url: "redis://u:p@[::1]:7000/", shown: ["[::1]:7000"], user: "u", password: "p"),
      Case(url: "redis://[::1]", shown: ["[::1]:6379"]),
      Case(url: "valkey://h", shown: ["h:6379"]),
      Case(
        url: "rediss://u:%C3%A9@redis.example.org/1", shown: ["redis.example.org:6379"], isTLS: true, user: "u",
        password: "é", database: 1),
      Case(url: "unix:///run/redis.sock?db=2", shown: ["/run/redis.sock"], database: 2),
      Case(url: "unix:///run/with%20blank.sock", shown: ["/run/with blank.sock"]),
      Case(url: "unix://u:p@/run/redis.sock", shown: ["/run/redis.sock"], user: "u", password: "p"),
      Case(
        url: "redis-sentinel://a,b:7,[::1]/mymaster/3", shown: ["a:26379", "b:7", "[::1]:26379"],
        kind: .sentinel(master: "mymaster"), database: 3),
      Case(
        url: "rediss-sentinel://u:p@a:1/my%2Fmaster", shown: ["a:1"], kind: .sentinel(master: "my/master"), isTLS: true,
        user: "u", password: "p"),
      Case(url: "redis-cluster://a,b:7000", shown: ["a:6379", "b:7000"], kind: .cluster),
      Case(url: "rediss-cluster://:p@a/", shown: ["a:6379"], kind: .cluster, isTLS: true, password: "p"),
    ])
  func forms(_ form: Case) throws {
    let url = try RedisURL(form.url)
    #expect(url.endpoints.map(\.description) == form.shown)
    #expect(url.kind == form.kind)
    #expect(url.isTLS == form.isTLS)
    #expect(url.user == form.user)
    #expect(url.password?.revealed == form.password)
    #expect(url.database == form.database)
  }

  @Test(
    "wrong ones are told without their secrets",
    arguments: [
      "", "redis://", "http://u:s3cret@host", "redis://u:s3cret@host:99999", "redis://u:s3cret@host/x",
      "redis://u:s3cret@host?tls=1", "unix://u:s3cret@run/redis.sock", "unix:///r?db=-1", "unix://u:s3cret@/",
      "unix://u:s3cret@/" + String(repeating: "x", count: 107), "redis://u:s3%cret@host", "redis://u:s3cret@a,b",
      "redis://u:s3cret@a b", "redis-sentinel://u:s3cret@a,b", "redis-sentinel://u:s3cret@a,,b/m",
      "redis-sentinel://u:s3cret@a/m/x", "redis-cluster://u:s3cret@a/1", "redis-cluster://u:s3cret@[::1",
      "redis://u:s3%cret@host", "redis://u:s3cret@host:port",
    ])
  func wrong(_ url: String) {
    let error = #expect(throws: JobQueueError.self) { try RedisURL(url) }
    #expect(error?.description.contains("s3cret") == false)
    guard case .misconfigured(let reason)? = error else { return }
    #expect(reason.hasPrefix("the Redis URL "))
  }

  @Test("credentials of their own settings are put in, never twice")
  func credentials() throws {
    typealias Credentials = RedisQueueConfiguration.Credentials
    let own = Credentials(user: "u", password: Secret("p"))
    let server = try RedisQueueConfiguration(url: "redis://h", credentials: own).server
    #expect(server.user == "u")
    #expect(server.password?.revealed == "p")
    let user = try RedisQueueConfiguration(url: "redis://u:@h", credentials: Credentials()).server
    #expect(user.password?.revealed == "")
    func reason(_ url: String, _ credentials: Credentials, _ tls: RedisTLSSettings = RedisTLSSettings()) -> String {
      let error = #expect(throws: JobQueueError.self) {
        try RedisQueueConfiguration(url: url, credentials: credentials, tls: tls)
      }
      return error?.description ?? ""
    }
    #expect(reason("redis://:s3cret@h", own).contains("password stands in the Redis URL and in a setting"))
    #expect(reason("redis://u:s3cret@h", Credentials(user: "v")).contains("user stands in"))
    #expect(reason("redis://h", Credentials(user: "u")).contains("user without a password"))
    #expect(reason("redis://h", Credentials(sentinelPassword: Secret("p"))).contains("names none"))
    #expect(reason("redis-sentinel://h/m", Credentials(sentinelUser: "p")).contains("has no password"))
    #expect(reason("redis://h", Credentials(), RedisTLSSettings(caFile: "/ca")).contains("begin it with rediss"))
    #expect(reason("rediss://h", Credentials(), RedisTLSSettings(caFile: "/nonexistent")).contains("/nonexistent"))
    #expect(reason("rediss://h", Credentials(), RedisTLSSettings(keyFile: "/k")).contains("both its file and its key"))
    // Sentinels have credentials of their own; those of the servers are not sent to them.
    let sentinel = try RedisQueueConfiguration(
      url: "redis-sentinel://u:p@h/m", credentials: Credentials(sentinelUser: "s", sentinelPassword: Secret("t")))
    #expect(sentinel.sentinelUser == "s")
    #expect(sentinel.server.user == "u")
  }

  @Test("slots are those of the Cluster specification")
  func slots() {
    #expect(RedisSlot.number(of: "123456789") == 0x31C3)
    #expect(RedisSlot.number(of: "pr:{0}:epoch") == RedisSlot.number(of: "0"))
    #expect(RedisSlot.number(of: "a{}{b}") != RedisSlot.number(of: "b"))
    #expect(RedisSlot.number(of: "foo{bar") == RedisSlot.number(of: "foo{bar"))
    // Four shards fall to three nodes that share the slots evenly.
    #expect(Set((0..<4).map { RedisSlot.number(of: "pr:{\($0)}:") * 3 / RedisSlot.count }) == [0, 1, 2])
  }

  @Test("redirections")
  func redirections() {
    #expect(RedisRedirection("MOVED 3999 127.0.0.1:6381") == .moved(host: "127.0.0.1", port: 6_381))
    #expect(RedisRedirection("ASK 3999 ::1:6381") == .ask(host: "::1", port: 6_381))
    #expect(RedisRedirection("MOVED 3999 :6381") == .moved(host: "", port: 6_381))
    #expect(RedisRedirection("TRYAGAIN Multiple keys request during rehashing of slot") == .tryAgain)
    #expect(RedisRedirection("ERR MOVED") == nil)
    #expect(RedisRedirection("MOVED") == nil)
  }
}
