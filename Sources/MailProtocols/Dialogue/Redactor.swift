import FoundationEssentials
import PostriderCore

/// Takes secrets out of a server's words before anybody sees them.
///
/// Once a password was sent, a server may echo it, alone, in its command or in base64. What was sent is removed wherever
/// it shows, and in answers to a login also everything behind the verb of an echoed command.
struct Redactor: Sendable, CustomStringConvertible {
  static let mark = "«redacted»"

  private var secrets: [String] = []

  init() {}

  /// Notes what must not be shown from now on.
  mutating func hide(_ credentials: Credentials) {
    let password = credentials.password.revealed
    let plain = PlainMechanism.message(credentials)
    hide(password)
    hide(Data(password.utf8).base64EncodedString())
    hide(Data(plain).base64EncodedString())
  }

  private mutating func hide(_ text: String) {
    if !text.isEmpty { secrets.append(text) }
  }

  /// The words without secrets.
  func clean(_ words: String, atLogin: Bool = false) -> String {
    var words = words
    for secret in secrets { words = words.replacing(caseInsensitive: secret, with: Self.mark) }
    if atLogin {
      for verb in ["PASS ", "AUTH PLAIN ", "AUTH LOGIN "] {
        guard let found = words.firstRange(caseInsensitive: verb) else { continue }
        words = String(words[..<found.upperBound]) + Self.mark
      }
    }
    return words
  }

  var description: String { "Redactor(\(secrets.count))" }
}

extension String {
  /// The first place of a text, whatever the case of its ASCII letters.
  func firstRange(caseInsensitive text: String) -> Range<String.Index>? {
    firstRange(caseInsensitive: text, from: startIndex)
  }

  private func firstRange(caseInsensitive text: String, from start: String.Index) -> Range<String.Index>? {
    let wanted = text.utf8.map(Self.folded)
    let utf8 = self.utf8
    guard let first = wanted.first else { return nil }
    var index = start
    while index < utf8.endIndex {
      if Self.folded(utf8[index]) == first {
        var end = index
        var matched = 0
        while matched < wanted.count, end < utf8.endIndex, Self.folded(utf8[end]) == wanted[matched] {
          matched += 1
          end = utf8.index(after: end)
        }
        if matched == wanted.count { return index..<end }
      }
      index = utf8.index(after: index)
    }
    return nil
  }

  /// Every place of a text replaced, whatever the case of its ASCII letters.
  func replacing(caseInsensitive text: String, with replacement: String) -> String {
    var result = ""
    var rest = startIndex
    while let found = firstRange(caseInsensitive: text, from: rest) {
      result += self[rest..<found.lowerBound]
      result += replacement
      rest = found.upperBound
    }
    return rest == startIndex ? self : result + self[rest...]
  }

  private static func folded(_ octet: UInt8) -> UInt8 { (0x41...0x5A).contains(octet) ? octet + 0x20 : octet }
}
