/// A value of Rusty Object Notation, as far as the scripts of attacks use it.
indirect enum RustyNotation: Sendable {
  case text(String)
  case word(String)
  case list([RustyNotation])
  /// `(name: value)`, also with a name in front, and `{"key": value}`.
  case fields([String: RustyNotation])
  /// `Name(values)`.
  case call(String, [RustyNotation])

  struct Unreadable: Error { let at: String }

  init(_ text: String) throws {
    var reader = Reader(rest: Substring(text))
    self = try reader.value()
  }

  subscript(name: String) -> RustyNotation? { if case .fields(let fields) = self { fields[name] } else { nil } }
  var string: String? { if case .text(let text) = self { text } else { nil } }
  var isFalse: Bool { if case .word("false") = self { true } else { false } }
  var items: [RustyNotation] { if case .list(let items) = self { items } else { [] } }
  var strings: [String] { items.compactMap(\.string) }

  private struct Reader {
    var rest: Substring

    mutating func skip() {
      while true {
        rest = rest.drop { $0.isWhitespace || $0 == "," }
        guard rest.hasPrefix("//") else { return }
        rest = rest.drop { !$0.isNewline }
      }
    }

    mutating func take(_ mark: Character) -> Bool {
      skip()
      guard rest.first == mark else { return false }
      rest = rest.dropFirst()
      return true
    }

    mutating func value() throws -> RustyNotation {
      skip()
      if take("\"") { return .text(try quoted()) }
      if take("[") {
        var items: [RustyNotation] = []
        while !take("]") { items.append(try value()) }
        return .list(items)
      }
      if take("{") { return .fields(try pairs(until: "}")) }
      let name = word()
      if take("(") {
        // Named fields or plain values?
        var ahead = self
        ahead.skip()
        if !ahead.word().isEmpty && ahead.take(":") || ahead.rest.first == ")" && name.isEmpty {
          return .fields(try pairs(until: ")"))
        }
        var items: [RustyNotation] = []
        while !take(")") { items.append(try value()) }
        return .call(name, items)
      }
      if name.isEmpty { throw Unreadable(at: String(rest.prefix(40))) }
      return .word(name)
    }

    mutating func pairs(until end: Character) throws -> [String: RustyNotation] {
      var fields: [String: RustyNotation] = [:]
      while !take(end) {
        let name = take("\"") ? try quoted() : word()
        guard !name.isEmpty, take(":") else { throw Unreadable(at: String(rest.prefix(40))) }
        fields[name] = try value()
      }
      return fields
    }

    mutating func word() -> String {
      let found = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "-" || $0 == "." }
      rest = rest.dropFirst(found.count)
      return String(found)
    }

    mutating func quoted() throws -> String {
      var text = ""
      while let next = rest.popFirst() {
        switch next {
        case "\"": return text
        case "\\":
          switch rest.popFirst() {
          case "r": text.append("\r")
          case "n": text.append("\n")
          case let other?: text.append(other)
          case nil: break
          }
        default: text.append(next)
        }
      }
      throw Unreadable(at: text)
    }
  }
}
