import NIOCore
import PostriderCore

extension Session {
  /// Writes a message's octets as they are to standard output; on a terminal control characters are made visible.
  func printRaw(_ path: String) async throws {
    try await api.stream(path) { buffer in
      if Terminal.isInteractive {
        let text = String(buffer: buffer).replacing("\r\n", with: "\n")
        try Terminal.write(Array(Terminal.safe(text, keepsNewlines: true).utf8))
      } else {
        try Terminal.write(Array(buffer.readableBytesView))
      }
    }
  }

  /// Prints things one after the other, or as JSON: one as an object, several as an array.
  func show<Item: Encodable>(_ items: [Item], _ text: (Item) -> String) throws {
    if isJSON {
      if let only = items.first, items.count == 1 { try printJSON(only) } else { try printJSON(items) }
      return
    }
    try print(items.map(text).joined(separator: "\n\n"))
  }

  /// Reads a list and prints it: one row for each item, or JSON.
  func list<Item: Codable & Sendable>(
    _ path: String, _ query: [(String, String?)], _ list: ListOptions, _ noun: String, plural: String? = nil,
    _ columns: [Table.Column], _ row: (Item) -> [String]
  ) async throws {
    let page: Page<Item> = try await Selection.list(path, query, limit: list.limit, cursor: list.cursor, api)
    if isJSON { return try printJSON(page) }
    var table = Table(columns)
    for item in page.items { table.add(row(item)) }
    try print(table, page, noun, plural: plural)
  }

  /// Prints a page of a list and, below it on standard error, how much there is in all.
  func print<Item>(_ table: Table, _ page: Page<Item>, _ noun: String, plural: String? = nil) throws {
    if page.items.isEmpty {
      Terminal.warn("There are no \(plural ?? noun + "s")\(page.total > 0 ? " on this page" : "").")
      return
    }
    try print(table)
    if page.items.count < page.total {
      let total = page.totalIsEstimate == true ? "about \(page.total)" : "\(page.total)"
      Terminal.warn("\(page.items.count) of \(total); more with --limit.")
    }
  }
}
