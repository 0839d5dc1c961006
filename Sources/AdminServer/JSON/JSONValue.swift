/// A parsed JSON text (RFC 8259), with its keys in order and its numbers as written.
///
/// Exists so that unknown fields, double fields and wrong types are all found and named before anything is decoded.
indirect enum JSONValue: Hashable, Sendable {
  case null
  case boolean(Bool)
  /// As written: `10`, `1e3`.
  case number(String)
  case string(String)
  case array([JSONValue])
  case object([Member])

  /// A field of an object.
  struct Member: Hashable, Sendable {
    let key: String
    let value: JSONValue
  }

  /// What it is, for people.
  var kind: String {
    switch self {
    case .null: "null"
    case .boolean: "a boolean"
    case .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }

  /// Whether a field of this name, at any depth, holds anything but null.
  func holds(_ key: String) -> Bool {
    switch self {
    case .array(let items): items.contains { $0.holds(key) }
    case .object(let members): members.contains { ($0.key == key && $0.value != .null) || $0.value.holds(key) }
    default: false
    }
  }
}

/// Where a JSON text breaks off from the grammar.
struct JSONSyntaxError: Error, Hashable, CustomStringConvertible {
  let line: Int
  let column: Int
  let expected: String

  var description: String { "expected \(expected) at line \(line), column \(column)" }
}
