/// A right on an object of the schema that a group role has.
///
/// Read from the migrations themselves, so that there is no second list to keep.
struct Grant: Hashable, Sendable, CustomStringConvertible {
  enum Kind: String, Hashable, Sendable {
    case table
    case sequence
    case function
  }

  /// `postrider_api` or `postrider_worker`.
  var role: String
  /// `SELECT`, `USAGE`, …
  var privilege: String
  var kind: Kind
  var object: String
  /// The one column that it is for; `nil` for all of them.
  var column: String?

  var description: String { "\(privilege) on \(object)\(column.map { " (\($0))" } ?? "") for \(role)" }

  /// What the migrations grant and do not take back.
  static let all = Migration.all.reduce(into: [Grant]()) { grants, migration in
    // The statements of our own migrations; none of them holds a semicolon inside a text here.
    for statement in migration.sql.split(separator: ";") {
      let words = statement.split(separator: "\n").filter { !$0.drop(while: \.isWhitespace).hasPrefix("--") }
        .joined(separator: " ").split(separator: " ")
      switch words.first {
      case "GRANT": grants += Grant.read(words.dropFirst(), until: "TO")
      case "REVOKE":
        let revoked = Grant.read(words.dropFirst(), until: "FROM")
        grants.removeAll { revoked.contains($0) }
      default: break
      }
    }
  }

  /// Reads `SELECT, UPDATE (a, b) ON [SEQUENCE | FUNCTION] x, y TO role, role`.
  private static func read(_ words: ArraySlice<Substring>, until end: Substring) -> [Grant] {
    guard let on = words.firstIndex(of: "ON"), let to = words.lastIndex(of: end), on < to else { return [] }
    var objects = words[(on + 1)..<to]
    var kind = Kind.table
    if let first = objects.first, let named = Kind(rawValue: first.lowercased()) {
      kind = named
      objects = objects.dropFirst()
    }
    let names = list(objects)
    let roles = list(words[(to + 1)...])
    return privileges(words[..<on].joined(separator: " ")).flatMap { privilege, column in
      names.flatMap { name in
        roles.map { Grant(role: $0, privilege: privilege, kind: kind, object: name, column: column) }
      }
    }
  }

  private static func list(_ words: ArraySlice<Substring>) -> [String] {
    words.joined(separator: " ").split { $0 == "," || $0 == " " }.map(String.init)
  }

  /// `SELECT, UPDATE (a, b), DELETE` as pairs of privilege and column.
  private static func privileges(_ text: String) -> [(String, String?)] {
    var found: [(String, String?)] = []
    var rest = text[...]
    while let end = rest.firstIndex(where: { $0 == "," || $0 == "(" }) ?? (rest.isEmpty ? nil : rest.endIndex) {
      let privilege = rest[..<end].filter { !$0.isWhitespace }
      let opens = end < rest.endIndex && rest[end] == "("
      rest = rest[end...].dropFirst()
      if opens {
        let close = rest.firstIndex(of: ")") ?? rest.endIndex
        found += rest[..<close].split { $0 == "," || $0 == " " }.map { (privilege, String($0)) }
        rest = rest[close...].dropFirst()
      } else if !privilege.isEmpty {
        found.append((privilege, nil))
      }
    }
    return found
  }
}
