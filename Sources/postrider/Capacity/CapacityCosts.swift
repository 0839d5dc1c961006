import FoundationEssentials

/// What one unit of work costs, as the benchmarks measure it.
///
/// The defaults were measured on two cores that Redis, PostgreSQL, workers and the load shared; a machine of one's
/// own is measured by `postrider bench`, whose JSON objects replace them.
struct CapacityCosts: Hashable, Sendable, Encodable {
  /// Redis' one thread for a job: enqueued, claimed, completed. µs.
  var redisMicroseconds = 31.0
  /// All of PostgreSQL for a job: check, outcome, run. µs of a core.
  var postgresMicroseconds = 59.0
  /// A worker for a job without its mail session. µs of a core.
  var workerMicroseconds = 59.0
  /// A worker for the mail session itself; nearly all of it is the TLS handshake. µs of a core.
  var sessionMicroseconds = 1_400.0
  /// Redis memory for a job that waits. Octets.
  var redisOctets = 150.0
  /// Starts in the busiest second over the mean.
  var busiestOverMean = 1.3
  /// Disk of PostgreSQL for a run in the history, with its index. Octets.
  var runOctets = 230.0
  /// Where they come from.
  var source = "the defaults of this release"

  /// The keys of benchmarks that replace them.
  private static var keys: [(String, WritableKeyPath<CapacityCosts, Double>)] {
    [
      ("redis_us_per_cycle", \.redisMicroseconds), ("redis_us_per_job", \.redisMicroseconds),
      ("postgres_us_per_job", \.postgresMicroseconds), ("worker_us_per_job", \.workerMicroseconds),
      ("bytes_per_ready_job", \.redisOctets), ("bytes_per_mailbox", \.redisOctets),
      ("busiest_over_mean", \.busiestOverMean),
    ]
  }

  /// Takes what a benchmark's JSON object (`postrider bench … --json`) tells.
  mutating func take(_ path: String) throws {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw ClientError.failed("\(Terminal.safe(path)) cannot be read")
    }
    let found = Self.numbers(data)
    var taken: [String] = []
    for (key, place) in Self.keys {
      guard let value = found[key], value > 0 else { continue }
      self[keyPath: place] = value
      taken.append(key)
    }
    // TLS sessions are given for a thousand.
    if let seconds = found["cpu_s_per_1000_tls"], seconds > 0 {
      sessionMicroseconds = seconds * 1_000
      taken.append("cpu_s_per_1000_tls")
    }
    guard !taken.isEmpty else {
      throw ClientError.failed(
        "\(Terminal.safe(path)) holds no figure of a benchmark; make it with `postrider bench pipeline --json`")
    }
    source = "\(source == CapacityCosts().source ? "" : source + ", ")\(path) (\(taken.joined(separator: ", ")))"
  }

  /// Numbers of an object by name, wherever they stand in it.
  private static func numbers(_ data: Data) -> [String: Double] {
    guard let value = try? JSONDecoder().decode(AnyNumber.self, from: data) else { return [:] }
    var found: [String: Double] = [:]
    value.walk { key, number in if found[key] == nil { found[key] = number } }
    return found
  }

  private indirect enum AnyNumber: Decodable {
    case number(Double)
    case object([String: AnyNumber])
    case other

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let number = try? container.decode(Double.self) {
        self = .number(number)
      } else if let object = try? container.decode([String: AnyNumber].self) {
        self = .object(object)
      } else {
        self = .other
      }
    }

    func walk(_ body: (String, Double) -> Void) {
      guard case .object(let values) = self else { return }
      for (key, value) in values {
        if case .number(let number) = value { body(key, number) }
        value.walk(body)
      }
    }
  }
}
