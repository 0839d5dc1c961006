import CHiredis
import Foundation
import PostriderCore

/// A plain, blocking connection beside the queue's: reads Redis's own counters and sends bare commands.
///
/// Use it in one task; a call lasts as long as Redis takes.
final class RedisProbe {
  private let context: UnsafeMutablePointer<redisContext>

  /// Connects. The URL is one that the queue takes, without TLS.
  init(url: String) throws {
    guard let parts = URLComponents(string: url) else { throw BenchFailure(description: "the Redis URL is none") }
    let made =
      parts.scheme == "unix"
      ? redisConnectUnix(parts.path) : redisConnect(parts.host ?? "127.0.0.1", Int32(parts.port ?? 6_379))
    guard let made else { throw BenchFailure(description: "out of memory") }
    context = made
    guard made.pointee.err == 0 else { throw failure("connecting") }
    if let password = parts.password {
      _ = try command(["AUTH"] + (parts.user.flatMap { $0.isEmpty ? nil : [$0] } ?? []) + [password])
    }
    let database =
      parts.scheme == "unix"
      ? parts.queryItems?.first { $0.name == "db" }?.value ?? "0" : String(parts.path.dropFirst())
    if !database.isEmpty, database != "0" { _ = try command(["SELECT", database]) }
  }

  deinit { redisFree(context) }

  private func failure(_ what: String) -> BenchFailure {
    let words = withUnsafeBytes(of: context.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return BenchFailure(description: "Redis: \(what) failed: \(words)")
  }

  /// Sends one command and gives its reply's text; arrays are empty texts.
  @discardableResult
  func command(_ words: [String]) throws -> String {
    try append(words)
    return try reply()
  }

  /// A reply that is a number.
  func integer(_ words: [String]) throws -> Int { Int(try command(words)) ?? 0 }

  /// Sends many commands at once and waits for all replies.
  func pipeline(_ commands: [[String]]) throws {
    for words in commands { try append(words) }
    for _ in commands { _ = try reply() }
  }

  private func append(_ words: [String]) throws {
    var copies: [UnsafePointer<CChar>?] = words.map { UnsafePointer(strdup($0)) }
    defer { for copy in copies { free(UnsafeMutableRawPointer(mutating: copy)) } }
    guard redisAppendCommandArgv(context, Int32(words.count), &copies, words.map(\.utf8.count)) == REDIS_OK else {
      throw failure(words[0])
    }
  }

  private func reply() throws -> String {
    var raw: UnsafeMutableRawPointer?
    guard redisGetReply(context, &raw) == REDIS_OK, let raw else { throw failure("reading") }
    defer { freeReplyObject(raw) }
    let reply = raw.assumingMemoryBound(to: redisReply.self).pointee
    switch reply.type {
    case REDIS_REPLY_INTEGER: return String(reply.integer)
    case REDIS_REPLY_STRING, REDIS_REPLY_STATUS: return text(reply)
    case REDIS_REPLY_ERROR: throw BenchFailure(description: "Redis: \(text(reply))")
    default: return ""
    }
  }

  private func text(_ reply: redisReply) -> String {
    guard let start = reply.str else { return "" }
    return String(decoding: UnsafeRawBufferPointer(start: start, count: Int(reply.len)), as: UTF8.self)
  }

  // MARK: Redis's own counters

  /// Redis's counters at one moment.
  struct Counters: Sendable {
    /// CPU seconds of the thread that runs commands.
    var cpuSeconds = 0.0
    /// Script calls, which are what the queue sends.
    var scriptCalls = 0
    /// Seconds inside them.
    var scriptSeconds = 0.0
    /// Reads from sockets: one for each call of a client that waits for its answer.
    var reads = 0
    var memoryBytes = 0
    var at = ContinuousClock.now

    static func - (later: Counters, earlier: Counters) -> Counters {
      var difference = later
      difference.cpuSeconds -= earlier.cpuSeconds
      difference.scriptCalls -= earlier.scriptCalls
      difference.scriptSeconds -= earlier.scriptSeconds
      difference.reads -= earlier.reads
      difference.memoryBytes -= earlier.memoryBytes
      return difference
    }

    static func + (a: Counters, b: Counters) -> Counters {
      var sum = a
      sum.cpuSeconds += b.cpuSeconds
      sum.scriptCalls += b.scriptCalls
      sum.scriptSeconds += b.scriptSeconds
      return sum
    }
  }

  /// Reads them; itself a call and a read.
  func counters() throws -> Counters {
    var counters = Counters()
    var fields: [Substring: Substring] = [:]
    for line in try command(["INFO", "everything"]).split(whereSeparator: \.isNewline) {
      guard let colon = line.firstIndex(of: ":") else { continue }
      fields[line[..<colon]] = line[line.index(after: colon)...]
    }
    func number(_ name: Substring) -> Double { fields[name].flatMap { Double($0) } ?? 0 }
    // The main thread alone where it is told (7.0 and later): the others free memory.
    counters.cpuSeconds =
      fields["used_cpu_user_main_thread"] == nil
      ? number("used_cpu_user") + number("used_cpu_sys")
      : number("used_cpu_user_main_thread") + number("used_cpu_sys_main_thread")
    counters.reads = Int(number("total_reads_processed"))
    counters.memoryBytes = Int(number("used_memory"))
    for name in ["evalsha", "eval", "evalsha_ro", "fcall"] {
      // calls=3,usec=120,usec_per_call=40.00,…
      for pair in (fields["cmdstat_\(name)"] ?? "").split(separator: ",") {
        let parts = pair.split(separator: "=")
        guard parts.count == 2 else { continue }
        if parts[0] == "calls" { counters.scriptCalls += Int(parts[1]) ?? 0 }
        if parts[0] == "usec" { counters.scriptSeconds += (Double(parts[1]) ?? 0) / 1_000_000 }
      }
    }
    return counters
  }
}
