import PostriderCore

/// What an installation is asked to do.
struct CapacityLoad: Hashable, Sendable, Encodable {
  /// Mailboxes that are polled.
  var mailboxes: Int
  /// Seconds from poll to poll.
  var intervalSeconds: Double
  /// How long a session takes, as `meanSessionSeconds` of the scale hint says.
  var sessionSeconds = ScaleRule.assumedSessionSeconds
  /// New messages of a mailbox in a day.
  var messagesPerDay = 20.0
  /// Messages that a mailbox sends in a day.
  var sentPerDay = 5.0
  /// The mean size of a message. KiB.
  var messageKiB = 75.0
  /// Mailboxes of one profile; `nil`: not looked at.
  var mailboxesPerProfile: Int?
  /// That profile's maximum of concurrent connections.
  var connectionsPerProfile = 10
}

/// How the processes are set up.
struct CapacityShape: Hashable, Sendable, Encodable {
  /// `worker.sessions`.
  var workerSessions: Int
  /// Cores that a worker has.
  var workerCores = 1.0
  var schedulers = 2
  var apis = 2
  /// `database.poolSize`.
  var poolSize: Int
  /// For how many days runs are kept.
  var historyDays: Int
}

/// What that takes, with the way to each number.
struct CapacityPlan: Hashable, Sendable, Encodable {
  /// One number.
  struct Line: Hashable, Sendable, Encodable {
    var key: String
    var what: String
    var value: Double
    var unit: String
    /// The formula with its numbers.
    var how: String
  }

  /// A part of the deployment.
  struct Part: Hashable, Sendable, Encodable {
    var name: String
    var lines: [Line]
  }

  var load: CapacityLoad
  var shape: CapacityShape
  var costs: CapacityCosts
  var parts: [Part]
  /// What cannot work, or only just.
  var warnings: [String]

  /// How full a worker, and a core, should be.
  private static let fill = ScaleRule.utilization

  init(load: CapacityLoad, shape: CapacityShape, costs: CapacityCosts) {
    (self.load, self.shape, self.costs) = (load, shape, costs)
    let sent = Double(load.mailboxes) * load.sentPerDay / 86_400
    let received = Double(load.mailboxes) * load.messagesPerDay / 86_400
    let polls = Double(load.mailboxes) / load.intervalSeconds
    let rate = polls + sent
    let busiest = rate * costs.busiestOverMean
    let sessions = rate * load.sessionSeconds
    let bySlots = (sessions / (Double(shape.workerSessions) * Self.fill)).rounded(.up)
    let worker = (costs.workerMicroseconds + costs.sessionMicroseconds) / 1e6
    let byCores = (busiest * worker / (shape.workerCores * Self.fill)).rounded(.up)
    // One may always be lost.
    let workers = max(bySlots, byCores, 2)
    let pools = (workers + Double(shape.schedulers + shape.apis)) * Double(shape.poolSize)
    let connections = pools + 1
    let redisMiB = Double(load.mailboxes) * costs.redisOctets / 1_048_576
    let redisCore = busiest * costs.redisMicroseconds / 1e6
    let postgresCores = busiest * costs.postgresMicroseconds / 1e6
    let rows = 2 * rate + 5 * received + 2 * sent
    let mailGiB = Double(load.mailboxes) * (load.messagesPerDay + load.sentPerDay) * load.messageKiB / 1_048_576
    let historyGiB = rate * 86_400 * Double(shape.historyDays) * costs.runOctets / 1_073_741_824
    func n(_ value: Double) -> String { Self.text(value) }

    parts = [
      Part(
        name: "Work",
        lines: [
          Line(
            key: "sessions_per_s", what: "Sessions begun", value: rate, unit: "/s",
            how: "\(load.mailboxes) mailboxes ÷ \(n(load.intervalSeconds)) s + \(n(sent)) sends/s"),
          Line(
            key: "busiest_per_s", what: "In the busiest second", value: busiest, unit: "/s",
            how: "\(n(rate)) × \(n(costs.busiestOverMean))"),
          Line(
            key: "sessions_at_once", what: "Sessions at once", value: sessions, unit: "",
            how: "\(n(rate))/s × \(n(load.sessionSeconds)) s"),
        ]),
      Part(
        name: "Workers",
        lines: [
          Line(
            key: "workers_by_sessions", what: "By sessions", value: bySlots, unit: "",
            how: "⌈\(n(sessions)) ÷ (\(shape.workerSessions) × \(n(Self.fill)))⌉"),
          Line(
            key: "workers_by_cores", what: "By processor", value: byCores, unit: "",
            how: "⌈\(n(busiest))/s × \(n(worker * 1_000)) ms ÷ (\(n(shape.workerCores)) cores × \(n(Self.fill)))⌉"),
          Line(
            key: "workers", what: "Workers", value: workers, unit: "", how: "the greater, at least 2: one may be lost"),
        ]),
      Part(
        name: "PostgreSQL",
        lines: [
          Line(
            key: "postgres_connections", what: "Connections", value: connections, unit: "",
            how: "(\(n(workers)) workers + \(shape.schedulers) schedulers + \(shape.apis) APIs) × \(shape.poolSize) + 1"
          ),
          Line(
            key: "postgres_rows_per_s", what: "Rows written", value: rows, unit: "/s",
            how: "2 × \(n(rate)) sessions + 5 × \(n(received)) messages in + 2 × \(n(sent)) out"),
          Line(
            key: "postgres_cores", what: "Processor", value: postgresCores, unit: "cores",
            how: "\(n(busiest))/s × \(n(costs.postgresMicroseconds)) µs, without the bodies of messages"),
          Line(
            key: "mail_gib_per_day", what: "Mail kept", value: mailGiB, unit: "GiB/day",
            how: "\(load.mailboxes) × (\(n(load.messagesPerDay)) + \(n(load.sentPerDay))) × \(n(load.messageKiB)) KiB"),
          Line(
            key: "history_gib", what: "Runs kept", value: historyGiB, unit: "GiB",
            how: "\(n(rate))/s × \(shape.historyDays) days × \(n(costs.runOctets)) octets"),
        ]),
      Part(
        name: "Redis",
        lines: [
          Line(
            key: "redis_mib", what: "Memory, all due at once", value: redisMiB, unit: "MiB",
            how: "\(load.mailboxes) × \(n(costs.redisOctets)) octets; maxmemory at twice that, at least 64 MiB"),
          Line(
            key: "redis_core", what: "Of its one core", value: redisCore * 100, unit: "%",
            how: "\(n(busiest))/s × \(n(costs.redisMicroseconds)) µs"),
        ]),
    ]
    warnings = Self.warnings(
      load, redisCore: redisCore, connections: connections, postgresCores: postgresCores)
  }

  private static func warnings(
    _ load: CapacityLoad, redisCore: Double, connections: Double, postgresCores: Double
  ) -> [String] {
    var warnings: [String] = []
    if let mailboxes = load.mailboxesPerProfile {
      // A profile's limit is the server's, and no worker helps against it.
      let shortest = Double(mailboxes) * load.sessionSeconds / Double(load.connectionsPerProfile)
      if shortest > load.intervalSeconds {
        warnings.append(
          "A profile of \(mailboxes) mailboxes with \(load.connectionsPerProfile) connections can be polled every "
            + "\(text(shortest)) s at most (\(mailboxes) × \(text(load.sessionSeconds)) s ÷ "
            + "\(load.connectionsPerProfile)), not every \(text(load.intervalSeconds)) s. Raise its maximum of concurrent "
            + "connections, or the interval; workers do not help.")
      }
    }
    if redisCore > 0.5 {
      warnings.append(
        "One Redis is busy to \(text(redisCore * 100)) %: use a Redis Cluster with queue.shards at a small multiple of "
          + "\(Int((redisCore / 0.4).rounded(.up))) masters.")
    }
    if connections > 300 {
      warnings.append(
        "\(text(connections)) connections are many for PostgreSQL: put PgBouncer in between, or give a worker more "
          + "sessions (worker.sessions).")
    }
    if postgresCores > 8 {
      warnings.append("PostgreSQL needs \(text(postgresCores)) cores for outcomes alone.")
    }
    return warnings
  }

  /// A number by its key.
  func value(_ key: String) -> Double? { parts.flatMap(\.lines).first { $0.key == key }?.value }

  /// Three digits, whole numbers as they are.
  static func text(_ value: Double) -> String {
    if value >= 100 || value == value.rounded() { return String(Int64(value.rounded())) }
    let scale = value >= 10 ? 10.0 : value >= 1 ? 100.0 : 1_000.0
    var text = "\((value * scale).rounded() / scale)"
    if text.hasSuffix(".0") { text.removeLast(2) }
    return text
  }

  /// For people.
  var table: String {
    var blocks: [String] = []
    for part in parts {
      let lines = part.lines.map { line in
        let value = Self.text(line.value) + (line.unit.isEmpty ? "" : line.unit == "/s" ? "/s" : " \(line.unit)")
        let name = line.what + String(repeating: " ", count: max(1, 26 - line.what.count))
        return "  \(name)\(value)\(String(repeating: " ", count: max(1, 14 - value.count)))= \(line.how)"
      }
      blocks.append(([part.name] + lines).joined(separator: "\n"))
    }
    blocks.append("Costs: \(costs.source).")
    return (blocks + warnings.map { "Warning: \($0)" }).joined(separator: "\n")
  }
}
