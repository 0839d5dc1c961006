/// Letters of an address that are taken for others, so that one address passes for another one.
///
/// A local part or a label of a domain may be written in any alphabet. What is refused is what nobody types: Latin letters
/// among those of an alphabet that has the same shapes (`pаypal` with a Cyrillic а), letters in a form that exists for the
/// sake of other character sets (`ｐａｙｐａｌ`), marks that stand where one character would do, and characters without a
/// shape. After Unicode Technical Standard 39, sections 5.1 and 5.2, of which this is the part that concerns Latin letters.
enum LookAlikes {
  /// Whether a local part or a label has some.
  static func has(_ text: some StringProtocol) -> Bool {
    if text.utf8.allSatisfy({ $0 < 0x80 }) { return false }
    var alphabets: Set<Alphabet> = []
    var before: Alphabet?
    for scalar in text.unicodeScalars {
      let alphabet = scalar.properties.isAlphabetic ? alphabet(of: scalar) : nil
      // é is one character; e with a mark behind it looks the same and is another address.
      if isMark(scalar), before != nil { return true }
      if scalar.properties.isDefaultIgnorableCodePoint || isForm(scalar) { return true }
      if let alphabet { alphabets.insert(alphabet) }
      before = alphabet
    }
    return alphabets.count > 1
  }

  private enum Alphabet { case latin, greek, cyrillic, armenian, cherokee }

  /// The alphabets whose letters look like those of another one here. Letters of others are nobody's double and may stand
  /// beside Latin ones, as they do in Japanese and Korean.
  private static func alphabet(of scalar: Unicode.Scalar) -> Alphabet? {
    switch scalar.value {
    case 0x41...0x5A, 0x61...0x7A, 0xAA, 0xBA, 0xC0...0x2B8, 0x1D00...0x1D25, 0x1E00...0x1EFF, 0xA722...0xA7FF: .latin
    case 0x370...0x3FF, 0x1F00...0x1FFF: .greek
    case 0x400...0x52F, 0x1C80...0x1C8F, 0x2DE0...0x2DFF, 0xA640...0xA69F: .cyrillic
    case 0x530...0x58F: .armenian
    case 0x13A0...0x13FF, 0xAB70...0xABBF: .cherokee
    default: nil
    }
  }

  /// Combining Diacritical Marks.
  private static func isMark(_ scalar: Unicode.Scalar) -> Bool { (0x300...0x36F).contains(scalar.value) }

  /// Letters that stand for others: letterlike symbols, enclosed ones, ligatures, full and half widths, mathematical ones.
  private static func isForm(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x2100...0x214F, 0x2460...0x24FF, 0xFB00...0xFB06, 0xFF00...0xFFEF, 0x1D400...0x1D7FF, 0x1F100...0x1F1FF: true
    default: false
    }
  }
}
