import PostriderCore
import RedisQueue

extension Doctor {
  /// Above this a queue that waits for its answers is slow, in seconds.
  static let slowRedis = 0.005

  /// What is wrong with the servers of the queue.
  func redis() -> [Finding] {
    guard settings.text(.redisURL) != nil else { return [.skipped(.redis, "Redis is not configured")] }
    let servers = findings.redis
    if servers.isEmpty { return [.skipped(.redis, "the configuration of Redis is wrong")] }
    return servers.flatMap(Self.findings)
  }

  /// What one server's facts mean.
  static func findings(_ server: RedisServerFacts) -> [Finding] {
    var findings = server.problems.map { Finding.error(.redis, "\(server.place): \($0)", remedy($0)) }
    if findings.isEmpty {
      findings.append(.ok(.redis, "\(server.place): eviction policy, role and rights are as the queue needs them"))
    }
    if server.maximumMemory > 0 {
      let share = Double(server.usedMemory) / Double(server.maximumMemory)
      let text =
        "\(server.place): \(Words.size(server.usedMemory)) of \(Words.size(server.maximumMemory)) are in use "
        + "(\(Words.percent(share)))"
      findings.append(
        share < 0.8
          ? .ok(.redis, text)
          : .warning(.redis, text, "Raise `maxmemory`: a full server refuses jobs, and mailboxes are polled late."))
    }
    if let median = median(server.roundTrips) {
      let text = "\(server.place): a round trip takes \(milliseconds(median)) (median of \(server.roundTrips.count))"
      findings.append(
        median <= slowRedis
          ? .ok(.redis, text)
          : .warning(.redis, text, "Run Redis near the workers, and look at its load (`redis-cli --latency`)."))
    }
    return findings
  }

  private static func remedy(_ error: JobQueueError) -> String {
    switch error {
    case .misconfigured: "Do what the sentence says; Postrider does not work with the server before."
    default:
      "Check that the server runs and that \(Setting.redisURL.environmentName) names it, with its port, password and TLS, "
        + "from where this process runs."
    }
  }

  /// The middle one of sorted numbers.
  static func median(_ sorted: [Double]) -> Double? { sorted.isEmpty ? nil : sorted[sorted.count / 2] }

  /// `0.21 ms`.
  static func milliseconds(_ seconds: Double) -> String {
    let hundredths = Int((seconds * 100_000).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest) ms"
  }

  // MARK: Clock

  /// Beyond this a clock is wrong, in seconds; below, it may be the measurement.
  static let wrongClock = 2.0
  /// Beyond this nothing goes as planned.
  static let uselessClock = 60.0

  /// How far this machine's clock and the servers' are apart.
  static func clocks(_ known: Known) -> [Finding] {
    var offsets: [(name: String, seconds: Double)] = []
    if let database = known.database { offsets.append(("PostgreSQL's", database.clockOffset)) }
    for server in known.redis {
      if let offset = server.clockOffset { offsets.append(("that of Redis at \(server.place)", offset)) }
    }
    return clocks(offsets)
  }

  /// What offsets in seconds, a server's clock minus ours, mean.
  static func clocks(_ offsets: [(name: String, seconds: Double)]) -> [Finding] {
    if offsets.isEmpty { return [.skipped(.clock, "no server's clock could be read")] }
    return offsets.map { name, offset in
      let distance = Words.duration(abs(offset))
      if abs(offset) < wrongClock {
        return .ok(.clock, "this machine's clock and \(name) agree (\(distance) apart)")
      }
      let text = "this machine's clock is \(distance) \(offset > 0 ? "behind" : "ahead of") \(name)"
      let remedy =
        "Let all machines keep their clocks by NTP (chrony, systemd-timesyncd): a worker's clock decides when a mailbox "
        + "is polled next and whether a certificate or token is valid."
      return abs(offset) < uselessClock ? .warning(.clock, text, remedy) : .error(.clock, text, remedy)
    }
  }
}
