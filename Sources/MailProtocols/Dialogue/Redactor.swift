import PostriderCore

/// Takes secrets out of a server's words before anybody sees them.
///
/// Once a password or token was sent, a server may echo it, alone, in its command or in base64, whole or cut off. What was
/// sent is removed wherever it shows, and in answers to a login also everything behind the verb of an echoed command.
struct Redactor: Sendable, CustomStringConvertible {
  static let mark = "«redacted»"
  /// A long secret is known by its beginning, because servers cut lines that they echo.
  private static let knownBeginning = 16

  private var secrets: [String] = []

  init() {}

  /// Notes what must not be shown from now on.
  mutating func hide(_ credentials: Credentials) {
    switch credentials.proof {
    case .password(let password):
      hide(password.revealed)
      hide(SASLBase64.encode(Array(password.revealed.utf8)))
      hide(
        SASLBase64.encode(
          PlainMechanism.message(credentials.userName, password, credentials.authorizationIdentity)))
    case .accessToken(let token):
      hide(token.revealed)
      hide(SASLBase64.encode(Array(token.revealed.utf8)))
    case .workerIdentity: break
    }
  }

  /// Notes one more text, such as a response.
  mutating func hide(_ text: String) {
    if !text.isEmpty, !secrets.contains(text) { secrets.append(text) }
  }

  /// The words without secrets.
  func clean(_ words: String, atLogin: Bool = false) -> String {
    var words = words
    // The longest first: a password may stand inside of a longer secret, whose rest would be left.
    for secret in secrets.sorted(by: { $0.utf8.count > $1.utf8.count }) {
      words = words.replacing(caseInsensitive: secret, with: Self.mark, from: Self.knownBeginning)
    }
    guard atLogin else { return words }
    if let found = words.firstRange(caseInsensitive: "PASS ") { words = String(words[..<found.upperBound]) + Self.mark }
    // `AUTH`, a mechanism, and what goes with it.
    var start = words.startIndex
    while let found = words.firstRange(caseInsensitive: "AUTH ", from: start) {
      start = found.upperBound
      let rest = words[start...]
      if let space = rest.firstIndex(of: " "), SASLNames.isKnown(rest[..<space]) {
        return String(words[...space]) + Self.mark
      }
    }
    return words
  }

  var description: String { "Redactor(\(secrets.count))" }
}

extension String {
  /// The first place of a text, whatever the case of its ASCII letters.
  func firstRange(caseInsensitive text: String, from start: String.Index? = nil) -> Range<String.Index>? {
    firstRange(of: text.utf8.map(Self.folded)[...], from: start ?? startIndex)
  }

  /// Works on octets: a part of a text may end inside of a character.
  private func firstRange(of wanted: ArraySlice<UInt8>, from start: String.Index) -> Range<String.Index>? {
    let utf8 = self.utf8
    guard let first = wanted.first else { return nil }
    var index = start
    while index < utf8.endIndex {
      if Self.folded(utf8[index]) == first {
        let end = self.end(of: wanted, from: index)
        if end.isWhole { return index..<end.index }
      }
      index = utf8.index(after: index)
    }
    return nil
  }

  /// How far the octets go on as wanted.
  private func end(of wanted: ArraySlice<UInt8>, from start: String.Index) -> (index: String.Index, isWhole: Bool) {
    var index = start
    for octet in wanted {
      guard index < utf8.endIndex, Self.folded(utf8[index]) == octet else { return (index, false) }
      index = utf8.index(after: index)
    }
    return (index, true)
  }

  /// Every place of a text replaced, whatever the case of its ASCII letters. Of a text longer than twice `beginning`
  /// octets also places where only so much of its start, or more, stands.
  func replacing(caseInsensitive text: String, with replacement: String, from beginning: Int = .max) -> String {
    let wanted = text.utf8.map(Self.folded)
    let isLong = beginning < wanted.count / 2
    let start = isLong ? wanted[..<beginning] : wanted[...]
    var result = ""
    var rest = startIndex
    while let found = firstRange(of: start, from: rest) {
      result += self[rest..<found.lowerBound]
      result += replacement
      rest = isLong ? end(of: wanted[beginning...], from: found.upperBound).index : found.upperBound
    }
    return rest == startIndex ? self : result + self[rest...]
  }

  private static func folded(_ octet: UInt8) -> UInt8 { (0x41...0x5A).contains(octet) ? octet + 0x20 : octet }
}
