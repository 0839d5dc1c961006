import Foundation

/// A value of the JSON object of a benchmark.
enum BenchValue: Encodable, Sendable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral
{
  case number(Double)
  case integer(Int)
  case text(String)
  case object([String: BenchValue])

  init(stringLiteral value: String) { self = .text(value) }
  init(integerLiteral value: Int) { self = .integer(value) }
  init(floatLiteral value: Double) { self = .number(value) }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .number(let value): try container.encode(value.rounded(toSignificant: 4))
    case .integer(let value): try container.encode(value)
    case .text(let value): try container.encode(value)
    case .object(let values): try container.encode(values)
    }
  }
}

/// What a benchmark found, in the order in which it is shown.
struct BenchReport: Sendable {
  /// A measured number.
  struct Figure: Sendable {
    var key: String
    var value: Double
    var words: String
    var goal: Goal?
  }

  /// What a number must reach.
  enum Goal: Sendable {
    case atLeast(Double)
    case atMost(Double)

    func isMet(by value: Double) -> Bool {
      switch self {
      case .atLeast(let bound): value >= bound
      case .atMost(let bound): value <= bound
      }
    }

    var text: String {
      switch self {
      case .atLeast(let bound): "≥\(BenchReport.text(bound))"
      case .atMost(let bound): "≤\(BenchReport.text(bound))"
      }
    }
  }

  let name: String
  private(set) var figures: [Figure] = []
  /// Describes the load.
  var load: [String: BenchValue] = [:]
  /// What the bare servers reach on this machine in the same run.
  private(set) var machine: [Figure] = []

  init(name: String) { self.name = name }

  mutating func add(_ key: String, _ value: Double, _ words: String, goal: Goal? = nil) {
    figures.append(Figure(key: key, value: value, words: words, goal: goal))
  }

  mutating func addMachine(_ key: String, _ value: Double?, _ words: String) {
    if let value { machine.append(Figure(key: key, value: value, words: words)) }
  }

  /// One line with one object: the figures by their keys, the load, the machine's limits and the keys of missed goals.
  func json() throws -> String {
    var object = Dictionary((figures + machine).map { ($0.key, BenchValue.number($0.value)) }) { $1 }
    object["benchmark"] = .text(name)
    object["version"] = .text(Version.text)
    object["load"] = .object(load)
    object["cores"] = .integer(ProcessInfo.processInfo.activeProcessorCount)
    #if DEBUG
      object["build"] = "debug"
    #else
      object["build"] = "release"
    #endif
    object["missed"] = .text(missed.joined(separator: ","))
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(object), as: UTF8.self)
  }

  /// The keys of figures that miss their goal.
  var missed: [String] { figures.filter { $0.goal?.isMet(by: $0.value) == false }.map(\.key) }

  /// The figures for people.
  func table(width: Int?) -> String {
    var table = Table(.text("Figure"), .number("Value"), .number("Goal"), .text(""), .flexible("Meaning"))
    for figure in figures {
      let verdict = figure.goal.map { $0.isMet(by: figure.value) ? "ok" : "missed" } ?? ""
      table.add(figure.key, Self.text(figure.value), figure.goal?.text ?? "", verdict, figure.words)
    }
    for figure in machine { table.add(figure.key, Self.text(figure.value), "", "machine", figure.words) }
    return table.rendered(width: width)
  }

  /// At most four significant digits, thousands separated.
  static func text(_ value: Double) -> String {
    let rounded = value.rounded(toSignificant: 4)
    guard rounded == rounded.rounded() else { return "\(rounded)" }
    guard abs(rounded) < 1e15 else { return "\(rounded)" }
    var digits = String(Int(rounded.magnitude))
    var groups: [String] = []
    while digits.count > 3 {
      groups.insert(String(digits.suffix(3)), at: 0)
      digits.removeLast(3)
    }
    return (rounded < 0 ? "-" : "") + ([digits] + groups).joined(separator: ",")
  }
}

extension Double {
  fileprivate func rounded(toSignificant digits: Int) -> Double {
    guard self != 0, isFinite else { return isFinite ? self : 0 }
    let exponent = digits - 1 - Int(Foundation.log10(magnitude).rounded(.down))
    // Dividing by a whole power of ten keeps 0.3 from becoming 0.30000000000000004.
    return exponent >= 0
      ? (self * Foundation.pow(10, Double(exponent))).rounded() / Foundation.pow(10, Double(exponent))
      : (self / Foundation.pow(10, Double(-exponent))).rounded() * Foundation.pow(10, Double(-exponent))
  }
}

/// Samples of a duration.
struct Samples: Sendable {
  private var milliseconds: [Double] = []

  mutating func add(_ duration: Duration) {
    milliseconds.append(
      Double(duration.components.seconds) * 1_000 + Double(duration.components.attoseconds) / 1e15)
  }

  var count: Int { milliseconds.count }

  /// The value that `share` of the samples do not exceed; 0 when there are none.
  func percentile(_ share: Double) -> Double {
    let sorted = milliseconds.sorted()
    guard !sorted.isEmpty else { return 0 }
    return sorted[min(sorted.count - 1, Int((Double(sorted.count) * share).rounded(.up)) - 1)]
  }
}

extension Duration {
  /// Seconds, as a number.
  var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
