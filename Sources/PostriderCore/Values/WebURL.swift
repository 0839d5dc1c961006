/// An address of a web service that Postrider itself calls: a token endpoint, a webhook.
///
/// Stricter than RFC 3986, so that no two parsers can read it differently: ASCII without blanks, no user name, no
/// fragment, no backslash, the host a plain name or a literal address. What a name leads to is checked when it is called.
public struct WebURL: Hashable, Sendable, CustomStringConvertible {
  /// The longest text.
  public static let maximumLength = 2_000

  /// Whether it is `https`.
  public let isSecure: Bool
  /// Host name in lower case, or a literal address without brackets.
  public let host: String
  /// 1…65,535; 443 or 80 when the text has none.
  public let port: Int
  /// Path and query, beginning with `/`.
  public let target: String

  /// Reads an absolute URL; `nil` for anything else.
  public init?(_ text: String) {
    guard text.utf8.count <= Self.maximumLength, text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }),
      !text.contains("\\"), !text.contains("#"), let colon = text.firstRange(of: "://")
    else { return nil }
    switch text[..<colon.lowerBound].lowercased() {
    case "https": isSecure = true
    case "http": isSecure = false
    default: return nil
    }
    let rest = text[colon.upperBound...]
    let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
    guard let place = Self.place(rest[..<end]) else { return nil }
    host = place.host
    port = place.port ?? (isSecure ? 443 : 80)
    let path = rest[end...]
    target = path.hasPrefix("/") ? String(path) : "/" + path
  }

  private static func place(_ authority: Substring) -> (host: String, port: Int?)? {
    var host = authority
    var port: Substring?
    if authority.hasPrefix("[") {
      guard let close = authority.firstIndex(of: "]") else { return nil }
      host = authority[authority.index(after: authority.startIndex)..<close]
      let after = authority[authority.index(after: close)...]
      guard after.isEmpty || after.hasPrefix(":") else { return nil }
      port = after.isEmpty ? nil : after.dropFirst()
      guard host.contains(":"), HostRules.isHost(host) else { return nil }
    } else {
      if let colon = authority.firstIndex(of: ":") {
        host = authority[..<colon]
        port = authority[authority.index(after: colon)...]
      }
      guard HostRules.isHostName(host) else { return nil }
    }
    guard let port else { return (host.lowercased(), nil) }
    guard (1...5).contains(port.utf8.count), port.allSatisfy({ $0.isASCII && $0.isNumber }), let number = Int(port),
      (1...65_535).contains(number)
    else { return nil }
    return (host.lowercased(), number)
  }

  /// The whole address, the port left out where it is the scheme's.
  public var description: String {
    let name = host.contains(":") ? "[\(host)]" : host
    let place = port == (isSecure ? 443 : 80) ? name : "\(name):\(port)"
    return "\(isSecure ? "https" : "http")://\(place)\(target)"
  }

  /// The same with more parameters in the query, percent-encoded (RFC 3986 section 2.1).
  public func adding(_ query: [(String, String)]) -> String {
    let more = Self.form(query)
    return description + (target.contains("?") ? (target.hasSuffix("?") ? "" : "&") : "?") + more
  }

  /// Parameters as `application/x-www-form-urlencoded`, which a query takes too.
  public static func form(_ fields: [(String, String)]) -> String {
    fields.map { "\(encoded($0.0))=\(encoded($0.1))" }.joined(separator: "&")
  }

  private static func encoded(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
        UInt8(ascii: "~"):
        bytes.append(byte)
      default: bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Whether the host names this machine; only such an address may go without TLS, for servers that run beside it.
  public var isLoopback: Bool {
    host == "localhost" || host == "::1"
      || host.hasPrefix("127.") && host.split(separator: ".").count == 4 && host.allSatisfy { $0.isNumber || $0 == "." }
  }

  /// Reads a field of a request; notes what is wrong with it.
  public static func read(_ text: String, at pointer: String, _ problems: inout FieldProblems) -> WebURL? {
    guard let url = WebURL(text) else {
      problems.add(
        pointer, "not-a-url", "must be a URL such as https://login.example.com/token, without user name and fragment")
      return nil
    }
    if !url.isSecure && !url.isLoopback {
      problems.add(pointer, "not-secure", "must begin with https://")
      return nil
    }
    return url
  }
}
