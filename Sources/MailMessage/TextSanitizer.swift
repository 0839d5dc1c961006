/// Makes decoded texts fit to store and to show.
enum TextSanitizer {
  /// One line of at most `maximum` Unicode scalars: line breaks and tabs become spaces, other control characters and
  /// the invisible ones that turn the writing direction are dropped, blanks at both ends too.
  static func line(_ text: String, maximum: Int) -> String {
    var result = String.UnicodeScalarView()
    var count = 0
    var pendingSpaces = 0
    for scalar in text.unicodeScalars {
      switch scalar.value {
      case 0x09, 0x0A, 0x0D, 0x20, 0x2028, 0x2029:
        // Blanks count once something follows them; none at the start.
        if count > 0 { pendingSpaces += 1 }
        continue
      case 0..<0x20, 0x7F..<0xA0, 0x200E...0x200F, 0x202A...0x202E, 0x2066...0x2069: continue
      default: break
      }
      if count + pendingSpaces >= maximum { break }
      for _ in 0..<pendingSpaces { result.append(" ") }
      result.append(scalar)
      count += pendingSpaces + 1
      pendingSpaces = 0
    }
    return String(result)
  }

  /// A word without blanks and control characters, such as a Message-ID, of at most `maximum` scalars.
  static func word(_ text: String, maximum: Int) -> String {
    var result = String.UnicodeScalarView()
    for scalar in line(text, maximum: maximum).unicodeScalars where scalar != " " { result.append(scalar) }
    return String(result)
  }

  /// A body: valid UTF-8 (broken octets become U+FFFD), no NUL, LF line ends, at most `maximum` octets.
  static func body(_ bytes: some Collection<UInt8>, maximum: Int) -> String {
    // Written in place: appending octet by octet is most of what a text costs.
    let room = min(bytes.count, maximum)
    let cleaned = [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
      var afterReturn = false
      for byte in bytes where byte != 0 {
        if byte == 0x0A && afterReturn {
          afterReturn = false
          continue
        }
        afterReturn = byte == 0x0D
        if count == room { break }
        buffer[count] = byte == 0x0D ? 0x0A : byte
        count += 1
      }
    }
    var text = String(decoding: cleaned, as: UTF8.self)
    // A cut inside a character leaves one replacement character, and each replacement makes the text longer.
    while text.utf8.count > maximum, !text.isEmpty { text.unicodeScalars.removeLast() }
    return text
  }

  /// A file name without folders: what follows the last slash or backslash, at most 255 scalars; `nil` when empty.
  static func fileName(_ text: String) -> String? {
    let line = line(text, maximum: 4_096)
    let base = line.split(whereSeparator: { $0 == "/" || $0 == "\\" }).last.map(String.init) ?? ""
    let name = Self.line(base, maximum: 255)
    return name.isEmpty || name == "." || name == ".." ? nil : name
  }
}
