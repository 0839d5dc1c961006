/// What a POP3 server says it can do (RFC 2449 section 6).
public struct POP3Capabilities: Hashable, Sendable {
  /// Whether the server answered CAPA at all; older ones do not know it.
  public var isKnown: Bool
  /// Whether it has TOP.
  public var top = false
  /// Whether it takes USER and PASS.
  public var user = false
  /// SASL mechanisms, upper case.
  public var sasl: Set<String> = []
  /// Whether `-ERR` lines hold response codes.
  public var responseCodes = false
  /// Whether commands may be sent ahead of answers.
  public var pipelining = false
  /// Whether it has UIDL.
  public var uidl = false
  /// Whether it has STLS.
  public var stls = false
  /// Seconds that must pass between logins.
  public var loginDelaySeconds: Int?
  /// Days a message is kept; 0 means it may vanish once retrieved.
  public var expireDays: Int?
  /// Whether the delay or the days kept may be others once somebody is logged in.
  public var variesByUser = false
  /// The server's own name.
  public var implementation: String?

  /// Nothing known.
  public init() { isKnown = false }

  /// Reads the lines of a CAPA answer. Unknown ones are skipped, as the RFC asks.
  init(lines: [String]) {
    isKnown = true
    for line in lines {
      let words = line.split(separator: " ").map { $0.uppercased() }
      guard let tag = words.first else { continue }
      switch tag {
      case "TOP": top = true
      case "USER": user = true
      case "SASL": sasl.formUnion(words.dropFirst())
      case "RESP-CODES": responseCodes = true
      case "PIPELINING": pipelining = true
      case "UIDL": uidl = true
      case "STLS": stls = true
      case "LOGIN-DELAY":
        if words.last == "USER" { variesByUser = true }
        loginDelaySeconds = words.dropFirst().first.flatMap { Int($0) }.map { max(0, $0) }
      case "EXPIRE":
        if words.last == "USER" { variesByUser = true }
        expireDays = words.dropFirst().first.flatMap { Int($0) }.map { max(0, $0) }
      case "IMPLEMENTATION": implementation = String(line.dropFirst(tag.count + 1))
      default: break
      }
    }
  }
}
