/// Rows in aligned columns, cut to a width where one is given.
struct Table: Sendable {
  /// One column.
  struct Column: Sendable {
    var title: String
    var isNumber = false
    /// Whether it may be cut when the screen is too narrow; the widest such column is cut first.
    var isFlexible = false

    /// A column of text.
    static func text(_ title: String) -> Column { Column(title: title) }
    /// A column of long text.
    static func flexible(_ title: String) -> Column { Column(title: title, isFlexible: true) }
    /// A column of numbers, aligned to the right.
    static func number(_ title: String) -> Column { Column(title: title, isNumber: true) }
  }

  let columns: [Column]
  private(set) var rows: [[String]] = []
  /// The least width a column is cut to.
  static let minimumWidth = 8

  init(_ columns: [Column]) { self.columns = columns }
  init(_ columns: Column...) { self.columns = columns }

  /// Adds a row; what is missing stays empty. Cells are made harmless for terminals.
  mutating func add(_ cells: String...) { add(cells) }

  /// Adds a row likewise.
  mutating func add(_ cells: [String]) {
    rows.append((0..<columns.count).map { $0 < cells.count ? Terminal.safe(cells[$0]) : "" })
  }

  /// The table without a line end after the last row. Nothing is cut without a width.
  func rendered(width: Int? = nil) -> String {
    var widths = columns.indices.map { index in
      rows.reduce(Self.width(columns[index].title)) { max($0, Self.width($1[index])) }
    }
    if let width { shrink(&widths, to: width) }
    let lines = [columns.map(\.title)] + rows
    return lines.map { cells in
      let padded = cells.indices.map { index in
        let cell = Self.cut(cells[index], to: widths[index])
        let blanks = String(repeating: " ", count: max(0, widths[index] - Self.width(cell)))
        return columns[index].isNumber ? blanks + cell : cell + blanks
      }
      return String(padded.joined(separator: "  ").trimmingSuffix { $0 == " " })
    }.joined(separator: "\n")
  }

  private func shrink(_ widths: inout [Int], to total: Int) {
    func excess() -> Int { widths.reduce(0, +) + 2 * (widths.count - 1) - total }
    // First what may be cut, then anything that is not a number.
    for mayCut in [columns.map(\.isFlexible), columns.map { !$0.isNumber }] {
      while excess() > 0 {
        let candidates = widths.indices.filter { mayCut[$0] && widths[$0] > Self.minimumWidth }
        guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { break }
        widths[widest] -= 1
      }
    }
  }

  /// Columns a text takes on a terminal: two for wide East Asian characters and most emoji.
  static func width(_ text: String) -> Int { text.reduce(0) { $0 + width($1) } }

  private static func width(_ character: Character) -> Int {
    guard let scalar = character.unicodeScalars.first else { return 0 }
    return switch scalar.value {
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xA000...0xA4CF,
      0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F,
      0x1F680...0x1F6FF, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
      2
    default: 1
    }
  }

  /// A text of at most `columns` columns; an ellipsis stands for what was cut.
  static func cut(_ text: String, to columns: Int) -> String {
    guard width(text) > columns else { return text }
    var result = ""
    var used = 0
    for character in text {
      let next = width(character)
      if used + next > columns - 1 { break }
      result.append(character)
      used += next
    }
    return result + "…"
  }
}

extension StringProtocol {
  /// Without the characters at the end that match.
  fileprivate func trimmingSuffix(while matches: (Character) -> Bool) -> SubSequence {
    var end = endIndex
    while end > startIndex, matches(self[index(before: end)]) { end = index(before: end) }
    return self[startIndex..<end]
  }
}

/// Names and values below each other, for one thing.
struct Details: Sendable {
  private var lines: [(name: String, value: String)] = []

  /// Adds a line; left out when there is no value. Values are made harmless for terminals.
  mutating func add(_ name: String, _ value: String?) {
    if let value { lines.append((name, Terminal.safe(value))) }
  }

  /// Adds a heading.
  mutating func heading(_ text: String) { lines.append((text, "")) }

  /// The lines, values aligned.
  func rendered() -> String {
    let width = lines.filter { !$0.value.isEmpty }.map { Table.width($0.name) }.max() ?? 0
    return lines.map { line in
      guard !line.value.isEmpty else { return line.name }
      let blanks = String(repeating: " ", count: width - Table.width(line.name) + 2)
      return "\(line.name)\(blanks)\(line.value)"
    }.joined(separator: "\n")
  }
}
