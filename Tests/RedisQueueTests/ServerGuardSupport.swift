import PostriderCore
import PostriderTesting
import Testing

@testable import RedisQueue

/// The guards the contract holds for.
enum GuardKind: String, CaseIterable, CustomTestStringConvertible {
  case memory, redis

  var testDescription: String { rawValue }

  /// Runs `body` with an empty guard and something that lets time pass for it.
  func withGuard(
    _ rules: BreakerRules = BreakerRules(), shards: Int = 1, _ body: (GuardUnderTest) async throws -> Void
  ) async throws {
    switch self {
    case .memory:
      let memory = MemoryServerGuard(rules: rules, frozenAt: 1_700_000_000_000)
      try await body(
        GuardUnderTest(
          serverGuard: memory, advance: { memory.advance(by: .milliseconds($0)) }, empty: { memory.empty() }))
    case .redis:
      let prefix = "g\(UInt32.random(in: 0...UInt32.max))"
      try await withRedisQueue(prefix: prefix) { queue in
        let redis = RedisServerGuard(queue: queue, rules: rules)
        try await body(
          GuardUnderTest(
            serverGuard: redis, advance: { try await queue.age(prefix, by: $0) },
            empty: {
              let keys = try await queue.guardKeys(prefix)
              if !keys.isEmpty {
                _ = try await queue.shards[0].session().connection.command(["DEL"] + keys)
              }
            }))
        for key in try await queue.guardKeys(prefix) {
          let left = try await queue.shards[0].session().connection.command(["PTTL", key]).integer ?? 0
          let isIndex = Self.isIndex(key, prefix)
          #expect(left > 0 || left == -2 || isIndex, "\(key) would stay for ever")
        }
      }
    }
  }
}

extension GuardKind {
  /// Whether a key lists the open ones of a shard, and so stays.
  private static func isIndex(_ key: String, _ prefix: String) -> Bool {
    ["breakers", "halts"].contains { key.hasPrefix("\(prefix):\($0):") }
  }
}

struct GuardUnderTest {
  let serverGuard: any ServerGuard
  /// Lets so many milliseconds pass.
  let advance: (Int64) async throws -> Void
  /// Empties it as FLUSHALL does.
  let empty: () async throws -> Void

  /// Reports a failure for each mailbox.
  @discardableResult
  func fail(
    _ mailboxes: [Int64], at server: MailServer = mail, profile: Int64 = 1, _ code: FailureCode = .tcpRefused,
    probe: ProbeToken? = nil
  ) async throws -> BreakerChange? {
    var last: BreakerChange?
    for mailbox in mailboxes {
      last = try await serverGuard.report(
        .failed(code, words: "no"), of: visit(mailbox, at: server, profile: profile), probe: probe)
    }
    return last
  }

  func admit(
    _ mailbox: Int64 = 9, at server: MailServer = mail, profile: Int64 = 1, interactive: Bool = false
  ) async throws -> Admission {
    try await serverGuard.admit(visit(mailbox, at: server, profile: profile, interactive: interactive))
  }

  /// The probe's token; records an issue when it is none.
  func probe(
    _ mailbox: Int64 = 9, interactive: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> ProbeToken? {
    let admission = try await admit(mailbox, interactive: interactive)
    if case .probe(let token) = admission { return token }
    Issue.record("no probe but \(admission)", sourceLocation: sourceLocation)
    return nil
  }

  @discardableResult
  func report(
    _ result: VisitResult, _ probe: ProbeToken? = nil, mailbox: Int64 = 9, profile: Int64 = 1
  ) async throws -> BreakerChange {
    try await serverGuard.report(result, of: visit(mailbox, profile: profile), probe: probe)
  }
}

let mail = MailServer(host: "Mail.Example.org", port: 995)

func visit(
  _ mailbox: Int64, at server: MailServer = mail, profile: Int64 = 1, direction: Direction = .incoming,
  interactive: Bool = false
) -> ServerVisit {
  ServerVisit(
    server: server, mailbox: MailboxID(mailbox), lane: lane(profile, direction), isInteractive: interactive)
}

func visitor(_ mailbox: Int64 = 9, proven: Bool = false, profile: Int64 = 1) -> LoginVisitor {
  LoginVisitor(mailbox: MailboxID(mailbox), lane: lane(profile), isProven: proven)
}

func lane(_ profile: Int64, _ direction: Direction = .incoming) -> ServerLane {
  ServerLane(profile: ProfileID(profile), direction: direction)
}

extension Admission {
  var isGo: Bool { if case .go = self { true } else { false } }
  var waiting: OpenBreaker? { if case .wait(let breaker, _) = self { breaker } else { nil } }
  var isFirst: Bool? { if case .wait(_, let first) = self { first } else { nil } }
}

extension BreakerChange {
  var breaker: OpenBreaker? {
    switch self {
    case .opened(let breaker), .open(let breaker, _): breaker
    case .closed, .recovered: nil
    }
  }
  var isOpened: Bool { if case .opened = self { true } else { false } }
}

extension RedisJobQueue {
  /// Every key of breakers and login budgets under a prefix.
  func guardKeys(_ prefix: String) async throws -> [String] {
    let connection = try await shards[0].session().connection
    var keys: [String] = []
    for word in ["breaker", "breakers", "halt", "halts", "login", "refused"] {
      keys += (try await connection.command(["KEYS", "\(prefix):\(word):*"]).array ?? []).compactMap(\.string)
    }
    return keys
  }

  /// Makes everything that breakers and budgets hold so many milliseconds older, in one step: the server's clock cannot be
  /// set, but it makes no difference whether the clock moves on or the past moves back.
  func age(_ prefix: String, by milliseconds: Int64) async throws {
    let script = """
      local times = { since = 1, probe_at = 1, probe_until = 1, told = 1, ['until'] = 1, held = 1 }
      local by = tonumber(ARGV[1])
      for _, key in ipairs(KEYS) do
        if redis.call('TYPE', key).ok == 'zset' then
          for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -by, member) end
        elseif redis.call('TYPE', key).ok == 'hash' then
          local all = redis.call('HGETALL', key)
          for i = 1, #all, 2 do
            if times[all[i]] and tonumber(all[i + 1]) > 0 then
              redis.call('HSET', key, all[i], math.max(1, tonumber(all[i + 1]) - by))
            end
          end
        end
        local left = redis.call('PTTL', key)
        if left >= 0 then
          if left <= by then redis.call('DEL', key) else redis.call('PEXPIRE', key, left - by) end
        end
      end
      """
    let keys = try await guardKeys(prefix)
    if keys.isEmpty { return }
    let connection = try await shards[0].session().connection
    try await connection.command(["EVAL", script, String(keys.count)] + keys + [String(milliseconds)])
  }
}
