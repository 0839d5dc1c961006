import PostriderCore

/// Addresses that no public mail server has (IANA special-purpose registries, RFC 6890), and ways to write them.
enum SpecialAddresses {
  private struct Row {
    let range: AddressRange
    let kind: String

    init?(_ text: String, _ kind: String) {
      guard let range = AddressRange(text) else { return nil }
      self.range = range
      self.kind = kind
    }
  }

  /// The specific ones come first, so that the reason shown is the plainest.
  private static let rows: [Row] = [
    Row("169.254.169.254", "cloud metadata"), Row("fd00:ec2::254", "cloud metadata"),
    Row("168.63.129.16", "cloud metadata"), Row("100.100.100.200", "cloud metadata"),
    Row("0.0.0.0/8", "unspecified"), Row("10.0.0.0/8", "private"), Row("100.64.0.0/10", "shared (CGNAT)"),
    Row("127.0.0.0/8", "loopback"), Row("169.254.0.0/16", "link-local"), Row("172.16.0.0/12", "private"),
    Row("192.0.0.0/24", "reserved"), Row("192.168.0.0/16", "private"), Row("198.18.0.0/15", "benchmarking"),
    Row("224.0.0.0/4", "multicast"), Row("255.255.255.255", "broadcast"), Row("240.0.0.0/4", "reserved"),
    Row("::", "unspecified"), Row("::1", "loopback"), Row("::/96", "reserved"), Row("64:ff9b:1::/48", "NAT64"),
    Row("100::/64", "discard"), Row("2001::/32", "Teredo"), Row("fc00::/7", "private"),
    Row("fe80::/10", "link-local"), Row("fec0::/10", "private"), Row("ff00::/8", "multicast"),
  ].compactMap { $0 }

  private static let nat64 = AddressRange("64:ff9b::/96")
  private static let sixToFour = AddressRange("2002::/16")

  /// What is special about an address; `nil` for an ordinary public one.
  static func kind(of address: IPAddress) -> String? {
    if let row = rows.first(where: { $0.range.contains(address) }) { return row.kind }
    guard let inner = embedded(in: address) else { return nil }
    return kind(of: inner).map { "\($0) (written as IPv6)" }
  }

  /// The IPv4 address that an IPv6 one is a way to (RFC 6052, RFC 3056). Mapped ones are IPv4 already.
  private static func embedded(in address: IPAddress) -> IPAddress? {
    if nat64?.contains(address) == true { return IPAddress(octets: Array(address.octets[12...])) }
    if sixToFour?.contains(address) == true { return IPAddress(octets: Array(address.octets[2..<6])) }
    return nil
  }
}
