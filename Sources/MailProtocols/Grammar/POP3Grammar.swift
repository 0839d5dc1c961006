import PostriderCore

/// The bounds on what a POP3 server may send.
enum POP3Limits {
  /// RFC 1939 says 512 octets for a status line, CRLF included. Some servers put long banners or policy texts there
  /// (Exchange, provider notices), so twice as much is read; it is shown cut to 512 characters anyway.
  static let statusLineOctets = 1_024
  /// A line of a listing: number, space, unique id of 70, and room for servers that add words.
  static let listLineOctets = 512
  /// Lines of a UIDL answer.
  static let listEntries = 1_000_000
  /// Lines of a CAPA answer.
  static let capabilityLines = 1_000
  /// A SASL challenge line (RFC 4954 section 4 sets this for SMTP; POP3 servers send the same tokens).
  static let challengeLineOctets = 12_288
  /// A command line, CRLF included (RFC 2449 section 4).
  static let commandLineOctets = 255
}

/// A status line (RFC 1939 section 3, RFC 2449 section 3, RFC 5034 section 4).
///
///     status-line = ( "+OK" / "-ERR" ) [ SP [ "[" resp-code "]" SP ] text ] CRLF
///     challenge   = "+" SP [ base64 ] CRLF
enum POP3StatusLine: Hashable {
  case ok(String)
  case error(POP3Error)
  case challenge(String)

  /// Parses a line without its CRLF; throws `protocol.syntax`.
  init(_ line: String) throws(Failure) {
    let utf8 = line.utf8
    if utf8.starts(with: "+OK".utf8), let text = Self.text(of: line, after: 3) {
      self = .ok(text)
    } else if utf8.starts(with: "-ERR".utf8), let text = Self.text(of: line, after: 4) {
      self = .error(POP3Error(text))
    } else if line == "+" || line.hasPrefix("+ ") {
      self = .challenge(String(line.dropFirst(2)))
    } else {
      throw Failure(.protocolSyntax, serverWords: line, context: "a POP3 answer that is neither +OK nor -ERR")
    }
  }

  private static func text(of line: String, after count: Int) -> String? {
    let rest = line.utf8.dropFirst(count)
    guard let next = rest.first else { return "" }
    guard next == UInt8(ascii: " ") || next == UInt8(ascii: "\t") else { return nil }
    return String(Substring(rest.dropFirst()))
  }
}

/// The words of a `-ERR` line.
///
///     resp-code = resp-level *( "/" resp-level )      ; RFC 2449 section 8
struct POP3Error: Error, Hashable {
  /// The response code in upper case, without brackets; `nil` when there is none.
  var code: String?
  /// Everything behind `-ERR`, the code included.
  var text: String

  init(_ text: String) {
    self.text = text
    guard text.hasPrefix("["), let end = text.firstIndex(of: "]") else { return }
    let code = text[text.index(after: text.startIndex)..<end]
    if (1...64).contains(code.count) { self.code = code.uppercased() }
  }
}

/// A line of a listing, read from its octets: a poll of a big mailbox does little else.
enum POP3ListLine: Hashable {
  /// `number SP unique-id`, whatever words follow (unique-id listing, RFC 1939 section 7).
  case unique(number: Int, UniqueID)
  /// The single dot after the last entry.
  case end
  /// Anything else, as it is shown.
  case malformed(String)

  /// Parses a line without its CRLF.
  init(_ line: UnsafeRawBufferPointer) {
    let (space, dot) = (UInt8(ascii: " "), UInt8(ascii: "."))
    if line.count == 1, line[0] == dot {
      self = .end
      return
    }
    var rest = line[...]
    /// Servers put more than one space between the parts, and some one before.
    func word() -> Slice<UnsafeRawBufferPointer> {
      rest = rest.drop { $0 == space }
      let word = rest.prefix { $0 != space }
      rest = rest.dropFirst(word.count)
      return word
    }
    guard let number = Self.number(word()), let uidl = UniqueID(octets: UnsafeRawBufferPointer(rebasing: word())) else {
      self = .malformed(String(decoding: line, as: UTF8.self))
      return
    }
    self = .unique(number: number, uidl)
  }

  private static func number(_ digits: Slice<UnsafeRawBufferPointer>) -> Int? {
    var number = 0
    for octet in digits {
      guard (0x30...0x39).contains(octet) else { return nil }
      let (tens, isTooBig) = number.multipliedReportingOverflow(by: 10)
      let (sum, isOver) = tens.addingReportingOverflow(Int(octet - 0x30))
      if isTooBig || isOver { return nil }
      number = sum
    }
    return number >= 1 ? number : nil
  }
}
