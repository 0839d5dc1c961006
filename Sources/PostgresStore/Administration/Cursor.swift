import FoundationEssentials
import PostriderCore

/// A position in a list: the sort key of the last row shown. Opaque to clients (base64url of JSON).
struct Cursor<Key: Codable & Sendable>: Codable, Sendable {
  /// Which list it belongs to, so that a cursor of another list is refused instead of misread.
  var list: String
  var key: Key
  var id: Int64

  init(list: String, key: Key, id: Int64) {
    self.list = list
    self.key = key
    self.id = id
  }

  /// Reads a client's cursor; throws ``StoreError/invalid(_:)`` for one that is not of this list.
  init?(_ text: String?, list: String) throws(StoreError) {
    guard let text else { return nil }
    guard let data = Data(base64URL: text), let cursor = try? JSONDecoder().decode(Self.self, from: data),
      cursor.list == list
    else {
      throw .invalid([FieldProblem("/cursor", "malformed", "must be the nextCursor of a page of this list")])
    }
    self = cursor
  }

  /// What a client gets.
  func text() throws -> String { try JSONEncoder().encode(self).base64URLText }
}

extension PageRequest {
  /// The limit within 1…500; throws ``StoreError/invalid(_:)`` for others.
  func checkedLimit() throws(StoreError) -> Int64 {
    var problems = FieldProblems()
    problems.check(limit, at: "/limit", in: 1...500)
    try problems.throwIfAny()
    return Int64(limit)
  }
}

extension Page {
  /// A page from rows read with one more than the limit, which tells whether there is another page.
  init(rows: [Item], limit: Int64, total: Int64, cursor: (Item) throws -> String) rethrows {
    let items = Array(rows.prefix(Int(limit)))
    let next = rows.count > items.count ? try items.last.map(cursor) : nil
    self.init(items: items, nextCursor: next, total: Int(total))
  }
}

extension Data {
  /// Base64 with the alphabet of URLs and without padding (RFC 4648 section 5).
  var base64URLText: String {
    String(
      base64EncodedString().compactMap { (character: Character) -> Character? in
        switch character {
        case "+": "-"
        case "/": "_"
        case "=": nil
        default: character
        }
      })
  }

  /// Reads base64url without padding.
  init?(base64URL text: String) {
    var base64 = String(text.map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 })
    while base64.utf8.count % 4 != 0 { base64 += "=" }
    self.init(base64Encoded: base64)
  }
}
