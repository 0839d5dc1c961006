#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Standard output and standard error, written without buffering, and what is known of the screen.
enum Terminal {
  /// Whether people look at standard output.
  static var isInteractive: Bool { isatty(STDOUT_FILENO) == 1 }
  /// Whether people look at standard error.
  static var showsProgress: Bool { isatty(STDERR_FILENO) == 1 }
  /// Whether a person can be asked.
  static var canAsk: Bool { isatty(STDIN_FILENO) == 1 && showsProgress }

  /// Columns of the terminal on standard output, 20 and up; `nil` when it is none.
  static var width: Int? {
    guard isInteractive else { return nil }
    var size = winsize()
    guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return max(20, Int(size.ws_col))
  }

  /// Rows of the terminal on standard output, 4 and up; `nil` when it is none.
  static var height: Int? {
    guard isInteractive else { return nil }
    var size = winsize()
    guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_row > 0 else { return 24 }
    return max(4, Int(size.ws_row))
  }

  /// Shows a text from the top of the terminal on, over what was there: nothing flickers, and the last one stays.
  static func redraw(_ text: String, isFirst: Bool) throws {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).prefix((height ?? 24) - 1)
    let screen = lines.map { "\($0)\u{1B}[K\r\n" }.joined()
    try write(Array("\(isFirst ? "\u{1B}[2J" : "")\u{1B}[H\(screen)\u{1B}[J".utf8), to: STDOUT_FILENO)
  }

  /// Prints a text and a line end on standard output. Throws ``ClientError/outputClosed`` when nobody reads it.
  static func print(_ text: String) throws { try write(Array("\(text)\n".utf8), to: STDOUT_FILENO) }

  /// Prints a text and a line end on standard error.
  static func warn(_ text: String) { tell("\(text)\n") }

  /// Writes a text as it is on standard error.
  static func tell(_ text: String) {
    // Nobody is left to be told when this fails.
    try? write(Array(text.utf8), to: STDERR_FILENO)
  }

  /// Writes octets on standard output.
  static func write(_ bytes: [UInt8]) throws { try write(bytes, to: STDOUT_FILENO) }

  private static func write(_ bytes: [UInt8], to descriptor: Int32) throws {
    var offset = 0
    while offset < bytes.count {
      let count = bytes[offset...].withUnsafeBytes { systemWrite(descriptor, $0.baseAddress, $0.count) }
      if count >= 0 {
        offset += count
      } else if errno == EPIPE {
        throw ClientError.outputClosed
      } else if errno != EINTR {
        throw ClientError.failed("the output cannot be written: \(words(errno: errno))")
      }
    }
  }

  /// The system's words for an error number.
  static func words(errno code: Int32) -> String { String(cString: strerror(code)) }

  /// Takes the harm out of text that came from elsewhere: control characters (a terminal would obey them) and those
  /// that turn the writing direction are shown as `\u{…}`.
  static func safe(_ text: String, keepsNewlines: Bool = false) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar.value {
      case 0x0A where keepsNewlines, 0x09 where keepsNewlines:
        result.unicodeScalars.append(scalar)
      case 0..<0x20, 0x7F..<0xA0, 0x200E...0x200F, 0x202A...0x202E, 0x2066...0x2069:
        result += "\\u{" + String(scalar.value, radix: 16) + "}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// Asks for a secret on the terminal without showing what is typed. `nil` for an empty answer.
  ///
  /// Throws ``ClientError/interrupted`` on Ctrl-C; the terminal is as before in every case.
  static func askSecret(_ question: String) throws -> String? {
    tell(question)
    var before = termios()
    guard tcgetattr(STDIN_FILENO, &before) == 0 else { return nil }
    var quiet = before
    quiet.c_lflag &= ~tcflag_t(ECHO | ICANON | ISIG)
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet)
    defer {
      tcsetattr(STDIN_FILENO, TCSAFLUSH, &before)
      tell("\n")
    }
    var bytes: [UInt8] = []
    while bytes.count < 4_096 {
      var byte: UInt8 = 0
      let count = read(STDIN_FILENO, &byte, 1)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { break }
      switch byte {
      case 0x03: throw ClientError.interrupted
      case 0x04, 0x0A, 0x0D: return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
      case 0x08, 0x7F:
        // One character back, however many octets it has.
        while let last = bytes.popLast(), last & 0xC0 == 0x80 {}
      case 0x15: bytes = []
      default: bytes.append(byte)
      }
    }
    return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
  }

  /// Asks a person yes or no; anything but yes is no.
  static func confirm(_ question: String) -> Bool {
    tell("\(question) [y/N] ")
    return ["y", "yes"].contains(readLine()?.lowercased())
  }

  /// Everything on standard input, at most `maximum` octets. Throws ``ClientError``.
  static func readInput(maximum: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4_096)
    while bytes.count <= maximum {
      let count = read(STDIN_FILENO, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      if count < 0 {
        throw ClientError.failed("standard input cannot be read: \(words(errno: errno))")
      }
      if count == 0 { return bytes }
      bytes += buffer[..<count]
    }
    throw ClientError.failed("standard input holds more than \(maximum) octets")
  }
}

/// The C function under another name, which `Terminal.write` hides.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}
