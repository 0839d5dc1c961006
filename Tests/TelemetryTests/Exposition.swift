/// A strict reader of Prometheus' text format 0.0.4: anything that a picky scraper could refuse is an error.
struct Exposition {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  struct Sample: Hashable {
    let name: String
    let labels: [String: String]
    let value: Double
  }

  struct Family {
    let name: String
    let help: String
    let type: String
    var samples: [Sample] = []
  }

  private(set) var families: [Family] = []

  subscript(name: String) -> Family? { families.first { $0.name == name } }

  /// The value of one series.
  func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
    families.flatMap(\.samples).first { $0.name == name && $0.labels == labels }?.value
  }

  init(_ text: String) throws {
    guard text.isEmpty || text.hasSuffix("\n") else { throw Failure(description: "no newline at the end") }
    var help: (name: String, text: String)?
    for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
      if line.hasPrefix("# HELP ") {
        let parts = line.dropFirst(7).split(separator: " ", maxSplits: 1)
        guard parts.count == 2, help == nil else { throw Failure(description: "bad HELP: \(line)") }
        help = (String(parts[0]), String(parts[1]))
      } else if line.hasPrefix("# TYPE ") {
        let parts = line.dropFirst(7).split(separator: " ")
        guard parts.count == 2, let pending = help, pending.name == parts[0],
          ["counter", "gauge", "histogram"].contains(parts[1])
        else { throw Failure(description: "bad TYPE: \(line)") }
        guard self[pending.name] == nil else { throw Failure(description: "\(pending.name) comes twice") }
        families.append(Family(name: pending.name, help: pending.text, type: String(parts[1])))
        help = nil
      } else {
        guard help == nil, !families.isEmpty else { throw Failure(description: "sample without TYPE: \(line)") }
        families[families.count - 1].samples.append(try Self.sample(String(line)))
      }
    }
    for family in families { try Self.check(family) }
    guard families.map(\.name) == families.map(\.name).sorted() else { throw Failure(description: "not sorted") }
  }

  private static func sample(_ line: String) throws -> Sample {
    var rest = Substring(line)
    func fail(_ why: String) -> Failure { Failure(description: "\(why): \(line)") }
    let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == ":") }
    guard let first = name.first, !first.isNumber else { throw fail("bad name") }
    rest = rest.dropFirst(name.count)
    var labels: [String: String] = [:]
    if rest.first == "{" {
      rest = rest.dropFirst()
      repeat {
        let key = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        guard let first = key.first, !first.isNumber, rest.dropFirst(key.count).hasPrefix("=\"") else {
          throw fail("bad label")
        }
        rest = rest.dropFirst(key.count + 2)
        var value = ""
        while let character = rest.popFirst(), character != "\"" {
          if character == "\\" {
            switch rest.popFirst() {
            case "\\": value += "\\"
            case "\"": value += "\""
            case "n": value += "\n"
            default: throw fail("bad escape")
            }
          } else {
            value.append(character)
          }
        }
        guard labels.updateValue(value, forKey: String(key)) == nil else { throw fail("label twice") }
      } while rest.popFirst() == "," && rest.first != "}"
      guard line.contains("}") else { throw fail("labels not closed") }
    }
    guard rest.first == " " else { throw fail("no space before the value") }
    let number = rest.dropFirst()
    let words = ["+Inf": Double.infinity, "-Inf": -Double.infinity, "NaN": Double.nan]
    guard let value = words[String(number)] ?? Double(number) else { throw fail("bad value") }
    return Sample(name: String(name), labels: labels, value: value)
  }

  private static func check(_ family: Family) throws {
    func fail(_ why: String) -> Failure { Failure(description: "\(family.name): \(why)") }
    guard !family.samples.isEmpty else { throw fail("no samples") }
    guard Set(family.samples.map { "\($0.name)\($0.labels.sorted { $0.key < $1.key })" }).count == family.samples.count
    else { throw fail("a series comes twice") }
    if family.type == "counter" {
      guard family.name.hasSuffix("_total") else { throw fail("a counter without _total") }
    } else if family.name.hasSuffix("_total") {
      throw fail("_total on a \(family.type)")
    }
    guard family.type == "histogram" else {
      guard family.samples.allSatisfy({ $0.name == family.name }) else { throw fail("a foreign sample") }
      guard Set(family.samples.map { Set($0.labels.keys) }).count == 1 else { throw fail("different label keys") }
      return
    }
    for (labels, samples) in Dictionary(grouping: family.samples, by: { $0.labels.filter { $0.key != "le" } }) {
      let buckets = samples.filter { $0.name == family.name + "_bucket" }
      let bounds = buckets.compactMap { $0.labels["le"] == "+Inf" ? .infinity : Double($0.labels["le"] ?? "") }
      guard bounds.count == buckets.count, bounds == bounds.sorted(), bounds.last == .infinity else {
        throw fail("bad buckets of \(labels)")
      }
      guard buckets.map(\.value) == buckets.map(\.value).sorted() else { throw fail("buckets are not added up") }
      let count = samples.first { $0.name == family.name + "_count" }?.value
      guard count != nil, count == buckets.last?.value, samples.contains(where: { $0.name == family.name + "_sum" })
      else { throw fail("no count or sum") }
      guard samples.count == buckets.count + 2 else { throw fail("a foreign sample") }
    }
  }
}
