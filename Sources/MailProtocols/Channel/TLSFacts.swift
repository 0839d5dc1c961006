import FoundationEssentials
import PostriderCore

/// What a TLS handshake showed, also one that failed: for people who look for the reason.
///
/// The certificate's texts are the server's own: bounded here, and harmless to print.
public struct TLSFacts: Hashable, Sendable, Codable {
  /// A server's certificate.
  public struct Certificate: Hashable, Sendable, Codable {
    /// Whose it is, such as `CN=mail.example.com, O=Example`; may be empty.
    public var subject: String
    /// Who signed it.
    public var issuer: String
    /// The host names and addresses that it is for, at most ten.
    public var names: [String]
    /// From when on it is valid.
    public var notBefore: Date
    /// Until when it is valid.
    public var notAfter: Date

    /// Describes a certificate; texts are cut and made harmless.
    public init(subject: String, issuer: String, names: [String], notBefore: Date, notAfter: Date) {
      self.subject = Self.bounded(subject)
      self.issuer = Self.bounded(issuer)
      self.names = names.prefix(10).map(Self.bounded)
      self.notBefore = notBefore
      self.notAfter = notAfter
    }

    private static func bounded(_ text: String) -> String {
      let text = Failure.presentable(text)
      return text.count > 100 ? text.prefix(99) + "…" : text
    }
  }

  /// The protocol's version that the server chose: `TLS 1.3`; `nil` when it chose none.
  public var version: String?
  /// The cipher suite that it chose, by its name in IANA's registry, or its number where that is rare.
  public var cipher: String?
  /// The certificate that it showed; `nil` when the handshake did not come so far.
  public var certificate: Certificate?

  /// Describes a handshake.
  public init(version: String? = nil, cipher: String? = nil, certificate: Certificate? = nil) {
    self.version = version
    self.cipher = cipher
    self.certificate = certificate
  }

  /// All of it in one line for people; empty when nothing was seen.
  public var summary: String {
    var parts = [version, cipher].compactMap { $0 }
    if let certificate {
      let names = certificate.names
      let shown = names.prefix(3).joined(separator: ", ") + (names.count > 3 ? ", …" : "")
      parts.append(
        "certificate of \(certificate.subject.isEmpty ? "nobody" : certificate.subject)"
          + " for \(names.isEmpty ? "no name" : shown)")
      parts.append(certificate.subject == certificate.issuer ? "signed by itself" : "issued by \(certificate.issuer)")
      parts.append("valid \(Self.day(certificate.notBefore)) to \(Self.day(certificate.notAfter))")
    }
    return parts.joined(separator: ", ")
  }

  /// `2026-01-31`, in UTC.
  static func day(_ date: Date) -> String { date.formatted(Date.ISO8601FormatStyle().year().month().day()) }
}

extension TLSFacts {
  /// From the server's first message.
  init(_ hello: ServerHello?) {
    self.init(
      version: hello.map { Self.name(version: $0.version) }, cipher: hello.map { Self.name(cipher: $0.cipherSuite) })
  }

  static func name(version: UInt16) -> String {
    switch version {
    case 0x0300: "SSL 3.0"
    case 0x0301...0x0304: "TLS 1.\(version - 0x0301)"
    default: "TLS version " + hexadecimal(version)
    }
  }

  /// The suites that clients offer today (RFC 8446 section B.4, RFC 5289, RFC 7905, RFC 5246, RFC 8422).
  static func name(cipher: UInt16) -> String {
    switch cipher {
    case 0x1301: "TLS_AES_128_GCM_SHA256"
    case 0x1302: "TLS_AES_256_GCM_SHA384"
    case 0x1303: "TLS_CHACHA20_POLY1305_SHA256"
    case 0xC02B: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    case 0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    case 0xC02F: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    case 0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
    case 0xCCA8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
    case 0xCCA9: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    case 0xC009: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
    case 0xC00A: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
    case 0xC013: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
    case 0xC014: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
    case 0x009C: "TLS_RSA_WITH_AES_128_GCM_SHA256"
    case 0x009D: "TLS_RSA_WITH_AES_256_GCM_SHA384"
    case 0x002F: "TLS_RSA_WITH_AES_128_CBC_SHA"
    case 0x0035: "TLS_RSA_WITH_AES_256_CBC_SHA"
    default: "cipher suite " + hexadecimal(cipher)
    }
  }

  private static func hexadecimal(_ number: UInt16) -> String {
    let digits = String(number, radix: 16, uppercase: true)
    return "0x" + String(repeating: "0", count: 4 - digits.count) + digits
  }
}
