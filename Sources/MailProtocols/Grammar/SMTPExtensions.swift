/// What an SMTP server says it can do (RFC 5321 section 4.1.1.1).
public struct SMTPExtensions: Hashable, Sendable {
  /// Whether the server took EHLO; a HELO server has no extensions.
  public var isExtended = false
  /// The server's name from the first line.
  public var serverName = ""
  /// Whether SIZE is offered (RFC 1870).
  public var size = false
  /// The fixed maximum size in octets; `nil` when none is given or it is 0.
  public var maximumSizeOctets: Int64?
  /// RFC 2920.
  public var pipelining = false
  /// RFC 6152.
  public var eightBitMIME = false
  /// RFC 6531.
  public var smtpUTF8 = false
  /// RFC 3461.
  public var dsn = false
  /// RFC 3030.
  public var chunking = false
  /// RFC 3207.
  public var startTLS = false
  /// RFC 2034.
  public var enhancedStatusCodes = false
  /// SASL mechanisms, upper case (RFC 4954).
  public var authenticationMechanisms: Set<String> = []

  /// Nothing known.
  public init() {}

  /// Reads the reply to EHLO. Unknown keywords are skipped.
  init(ehlo reply: SMTPReply) {
    isExtended = true
    serverName = reply.lines.first.map { String($0.prefix { $0 != " " }) } ?? ""
    for line in reply.lines.dropFirst() {
      // `AUTH=PLAIN LOGIN` is a spelling from before RFC 2554 that servers still add for old clients.
      let words = line.split { $0 == " " || $0 == "=" }.map { $0.uppercased() }
      guard let keyword = words.first else { continue }
      switch keyword {
      case "SIZE":
        size = true
        maximumSizeOctets = words.dropFirst().first.flatMap { Int64($0) }.flatMap { $0 > 0 ? $0 : nil }
      case "PIPELINING": pipelining = true
      case "8BITMIME": eightBitMIME = true
      case "SMTPUTF8": smtpUTF8 = true
      case "DSN": dsn = true
      case "CHUNKING": chunking = true
      case "STARTTLS": startTLS = true
      case "ENHANCEDSTATUSCODES": enhancedStatusCodes = true
      case "AUTH": authenticationMechanisms.formUnion(words.dropFirst())
      default: break
      }
    }
  }
}
