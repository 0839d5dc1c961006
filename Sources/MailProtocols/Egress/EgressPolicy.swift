import PostriderCore

/// Where mail connections may go. Every connection passes ``check(_:port:host:)``.
///
/// Server locations are user input, and a test reports what it met: without this, a profile would be a port scanner for
/// the cluster's own network. Private, local and special addresses are denied, only mail ports are allowed, and an
/// operator's allow entries come first.
public struct EgressPolicy: Hashable, Sendable {
  /// POP3, POP3S, SMTP, SMTPS, submission.
  public static let defaultPorts: Set<Int> = [110, 995, 25, 465, 587]
  /// The preset `us-government`.
  public static let usGovernmentPorts: Set<Int> = [80, 443, 465, 995]

  /// Ports that may be used.
  public var allowedPorts: Set<Int>
  /// What the operator allows beyond that.
  public var allow: [EgressAllowEntry]

  /// Sets a policy.
  public init(allowedPorts: Set<Int> = EgressPolicy.defaultPorts, allow: [EgressAllowEntry] = []) {
    self.allowedPorts = allowedPorts
    self.allow = allow
  }

  /// Reads the operator's settings.
  ///
  /// `ports` is `default`, `us-government` or numbers separated by commas or spaces; `allow` holds entries separated by
  /// commas or spaces, each `CIDR`, `CIDR:port` or `CIDR:*`. Throws ``EgressPolicyError`` with every wrong word.
  public init(ports: String = "default", allow: String) throws(EgressPolicyError) {
    var problems: [String] = []
    switch ports {
    case "default", "": allowedPorts = Self.defaultPorts
    case "us-government": allowedPorts = Self.usGovernmentPorts
    default:
      allowedPorts = []
      for word in ports.split(whereSeparator: { $0 == "," || $0 == " " }) {
        if let port = Int(word), (1...65_535).contains(port) {
          allowedPorts.insert(port)
        } else {
          problems.append("`\(word)` is not a port from 1 to 65535, nor one of the presets default, us-government")
        }
      }
    }
    self.allow = []
    for word in allow.split(whereSeparator: { $0 == "," || $0 == " " || $0 == "\n" }) {
      do throws(EgressPolicyError) {
        self.allow.append(try EgressAllowEntry(String(word)))
      } catch {
        problems += error.problems
      }
    }
    if !problems.isEmpty { throw EgressPolicyError(problems: problems) }
  }

  /// Whether any address at all could be reached on a port: what can be said before the name is looked up.
  public func mayUse(port: Int) -> Bool {
    allowedPorts.contains(port) || allow.contains { $0.ports == .all || $0.ports == .one(port) }
  }

  /// Throws `egress.denied` unless the address and the port may be used.
  public func check(_ address: IPAddress, port: Int, host: String) throws(Failure) {
    let entries = allow.filter { $0.range.contains(address) }
    if entries.contains(where: { $0.ports == .all || $0.ports == .one(port) }) { return }
    if !allowedPorts.contains(port) {
      throw Failure(.egressDenied, context: "port \(port) of \(host) is not an allowed port")
    }
    if entries.contains(where: { $0.ports == .allowed }) { return }
    if let kind = SpecialAddresses.kind(of: address) {
      throw Failure(.egressDenied, context: "\(host) leads to \(address), a \(kind) address")
    }
  }
}

/// One exception of an ``EgressPolicy``.
public struct EgressAllowEntry: Hashable, Sendable, CustomStringConvertible {
  /// Which ports an entry is for.
  public enum Ports: Hashable, Sendable {
    /// Those of the policy.
    case allowed
    /// One more.
    case one(Int)
    /// Any.
    case all
  }

  /// Which addresses.
  public let range: AddressRange
  /// On which ports.
  public let ports: Ports

  /// Reads `CIDR`, `CIDR:port` or `CIDR:*`; an IPv6 address without a length needs brackets before a port.
  ///
  /// Throws ``EgressPolicyError`` that quotes the entry.
  public init(_ text: String) throws(EgressPolicyError) {
    let (rangeText, portText) = Self.split(text)
    guard let range = AddressRange(rangeText) else {
      throw EgressPolicyError(problems: [
        "`\(text)` is not an allow entry; write CIDR, CIDR:port or CIDR:*, such as 10.1.0.0/16:995"
      ])
    }
    self.range = range
    switch portText {
    case nil: ports = .allowed
    case "*": ports = .all
    case let word?:
      guard let port = Int(word), (1...65_535).contains(port) else {
        throw EgressPolicyError(problems: ["`\(text)`: the port must be a number from 1 to 65535, or *"])
      }
      ports = .one(port)
    }
  }

  private static func split(_ text: String) -> (Substring, Substring?) {
    if text.hasPrefix("["), let close = text.firstIndex(of: "]") {
      let inside = text[text.index(after: text.startIndex)..<close]
      let rest = text[text.index(after: close)...]
      return (inside, rest.isEmpty ? nil : (rest.hasPrefix(":") ? rest.dropFirst() : "?"))
    }
    if let slash = text.firstIndex(of: "/") {
      guard let colon = text[slash...].firstIndex(of: ":") else { return (text[...], nil) }
      return (text[..<colon], text[text.index(after: colon)...])
    }
    let colons = text.count { $0 == ":" }
    guard colons == 1, let colon = text.firstIndex(of: ":") else { return (text[...], nil) }
    return (text[..<colon], text[text.index(after: colon)...])
  }

  /// As it is written.
  public var description: String {
    switch ports {
    case .allowed: "\(range)"
    case .one(let port): "\(range):\(port)"
    case .all: "\(range):*"
    }
  }
}

/// The operator's egress settings cannot be read.
public struct EgressPolicyError: Error, Hashable, Sendable, CustomStringConvertible {
  /// One sentence for each wrong word.
  public let problems: [String]
  /// All of them.
  public var description: String { problems.joined(separator: "; ") }
}
