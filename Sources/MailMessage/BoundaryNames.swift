/// The beginnings of the boundaries that a message's headers name (RFC 2046 section 5.1.1).
///
/// Only their first eight octets are kept, so that a few more lines count than delimit. Whatever is written in an unusual
/// way (comments, encoded words, RFC 2231, escapes, blanks before the equals sign) is not followed: then every line that
/// begins with two hyphens may delimit.
struct BoundaryNames {
  private enum Position {
    case elsewhere
    case before
    case token
    case quoted
  }

  private static let maximumNames = 32

  private var names: [(value: UInt64, mask: UInt64)] = []
  private var isAny = false
  private var position = Position.elsewhere
  private var value: UInt64 = 0
  private var count = 0
  private var last: UInt8 = 0

  /// Whether a line of two hyphens and these octets may delimit parts.
  func mayDelimit(_ linePrefix: UInt64) -> Bool {
    isAny || names.contains { linePrefix & $0.mask == $0.value }
  }

  /// Reads an octet of a header; `word` ends with it.
  mutating func read(_ byte: UInt8, after word: RollingWord) {
    if isAny { return }
    defer { last = byte }
    switch position {
    case .elsewhere:
      if word.endsWith("oundary=") {
        position = .before
      } else if word.isBehind("oundary"), byte != UInt8(ascii: "=") {
        isAny = true
      }
    case .before:
      switch byte {
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): break
      case UInt8(ascii: "\""): begin(.quoted)
      case UInt8(ascii: "("): isAny = true
      default:
        begin(.token)
        add(byte)
      }
    case .token:
      if byte == UInt8(ascii: ";") || byte <= UInt8(ascii: " ") { end() } else { add(byte) }
    case .quoted:
      if byte == UInt8(ascii: "\"") { end() } else { add(byte) }
    }
  }

  /// A line of the header is over; the next one may go on with it.
  mutating func endLine() {
    switch position {
    case .token: end()
    case .quoted: isAny = true
    case .elsewhere, .before: break
    }
  }

  private mutating func begin(_ position: Position) {
    self.position = position
    value = 0
    count = 0
  }

  private mutating func add(_ byte: UInt8) {
    let isEncoded = last == UInt8(ascii: "=") && byte == UInt8(ascii: "?")
    if isEncoded || byte == UInt8(ascii: "\\") || byte == UInt8(ascii: "(") { isAny = true }
    if count < 8 { value |= UInt64(byte) << UInt64(8 * (7 - count)) }
    count += 1
  }

  private mutating func end() {
    position = .elsewhere
    let mask = count == 0 ? 0 : UInt64.max << UInt64(8 * (8 - min(count, 8)))
    if names.contains(where: { $0.value == value && $0.mask == mask }) { return }
    if names.count == Self.maximumNames { isAny = true } else { names.append((value, mask)) }
  }
}
