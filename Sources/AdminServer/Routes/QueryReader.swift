import FoundationEssentials
import PostriderCore

/// Reads the parameters of a query and gathers what is wrong with them.
struct QueryReader {
  private let values: [String: String]
  var problems = FieldProblems()

  init(_ values: [String: String]) { self.values = values }

  /// `limit` (1…500) and `cursor`.
  mutating func page() -> PageRequest {
    PageRequest(limit: integer("limit", in: 1...500) ?? 50, cursor: text("cursor", maximum: 512))
  }

  mutating func integer(_ name: String, in range: ClosedRange<Int>) -> Int? {
    guard let text = values[name] else { return nil }
    guard let number = Int(text) else {
      problems.add("?\(name)", "wrong-type", "must be a whole number")
      return nil
    }
    problems.check(number, at: "?\(name)", in: range)
    return number
  }

  mutating func identifier<Entity>(_ name: String) -> Identifier<Entity>? {
    guard let text = values[name] else { return nil }
    guard let id = Identifier<Entity>(text) else {
      problems.add("?\(name)", "not-an-id", "must be a positive whole number")
      return nil
    }
    return id
  }

  mutating func boolean(_ name: String) -> Bool? {
    switch values[name] {
    case nil: return nil
    case "true": return true
    case "false": return false
    default:
      problems.add("?\(name)", "wrong-type", "must be true or false")
      return nil
    }
  }

  mutating func date(_ name: String) -> Date? {
    guard let text = values[name] else { return nil }
    if let date = APICoding.date(text) { return date }
    problems.add("?\(name)", "not-a-date", "must be a date and time such as 2026-03-01T08:00:00Z")
    return nil
  }

  mutating func text(_ name: String, maximum: Int) -> String? {
    guard let text = values[name] else { return nil }
    problems.check(text, at: "?\(name)", maximum: maximum, minimum: 1)
    return text
  }

  mutating func choice<Value: CaseIterable>(_ name: String, by word: (Value) -> String) -> Value? {
    guard let text = values[name] else { return nil }
    if let value = Value.allCases.first(where: { word($0) == text }) { return value }
    problems.add(
      "?\(name)", "not-a-choice", "must be one of \(Value.allCases.map(word).joined(separator: ", "))")
    return nil
  }

  mutating func choice<Value: CaseIterable & RawRepresentable>(_ name: String) -> Value?
  where Value.RawValue == String {
    choice(name) { $0.rawValue }
  }
}

extension QueryReader {
  /// Takes a query apart, refusing names that are not in `known`, names given twice and bad percent-encoding.
  ///
  /// `+` is a plus, not a space: addresses such as `sales+eu@example.com` are the usual values here.
  static func parse(_ query: String?, known: [String]) throws -> [String: String] {
    var values: [String: String] = [:]
    var problems = FieldProblems()
    for pair in (query ?? "").split(separator: "&").prefix(100) {
      let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard let name = decoded(parts[0]), let value = decoded(parts.count > 1 ? parts[1] : "") else {
        problems.add("?", "malformed", "must be percent-encoded UTF-8")
        continue
      }
      if !known.contains(name) {
        let list = known.isEmpty ? "none" : known.joined(separator: ", ")
        problems.add(
          "?\(Failure.presentable(String(name.prefix(100))))", "unknown", "is not a parameter here; there are \(list)")
      } else if values.updateValue(value, forKey: name) != nil {
        problems.add("?\(name)", "duplicate", "is given twice")
      }
    }
    if !problems.problems.isEmpty { throw Problem.invalid(problems.problems) }
    return values
  }

  private static func decoded(_ text: Substring) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, rest.prefix(2).allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
        let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      else { return nil }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }
}
