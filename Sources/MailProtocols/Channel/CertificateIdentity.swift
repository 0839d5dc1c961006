import PostriderCore

/// Whether a certificate is for the server that was asked for (RFC 7817 section 3, RFC 9525 section 6).
///
/// Asked in addition to the TLS library. swift-nio-ssl 2.37 takes a certificate for the *connected address* as proof of
/// any host name (an address certificate and a forged DNS answer would do), falls back to the common name, and lets a
/// wildcard stand inside a label. None of that is good enough to send a password.
struct CertificateIdentity: Hashable {
  /// The dNSName entries.
  var dnsNames: [String]
  /// The iPAddress entries.
  var addresses: [IPAddress]

  /// Whether one of the entries stands for a host name, or for a literal address.
  func isFor(_ serverName: String) -> Bool {
    if let address = IPAddress(serverName) { return addresses.contains(address) }
    let wanted = Self.labels(serverName)
    guard !wanted.isEmpty else { return false }
    return dnsNames.contains { Self.matches(Self.labels($0), wanted) }
  }

  /// The wildcard is a whole label, the left-most, stands for exactly one label, and two more labels follow it.
  private static func matches(_ presented: [String], _ wanted: [String]) -> Bool {
    guard presented.count == wanted.count, !presented.isEmpty else { return false }
    if presented == wanted { return true }
    return presented[0] == "*" && presented.count >= 3 && presented.dropFirst() == wanted.dropFirst()
  }

  /// Lower-case labels; empty when the text is no ASCII name. One trailing dot does not count.
  private static func labels(_ name: String) -> [String] {
    guard name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return [] }
    let name = name.hasSuffix(".") ? name.dropLast() : name[...]
    let labels = name.lowercased().split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    return labels.contains("") ? [] : labels
  }
}
