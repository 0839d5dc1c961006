import HTTPTypes
import NIOCore
import PostriderCore

/// Whose word about the client counts: proxies of the own network, by their addresses.
///
/// Each proxy of a chain appends the address it was connected from to `X-Forwarded-For`. So the list is read from its
/// end: what a trusted proxy wrote is believed, and whatever stands further left was written by somebody who is not
/// trusted. `Forwarded` (RFC 7239) is not read: a proxy that does not write it passes a client's own on.
struct TrustedProxies: Hashable, Sendable {
  let ranges: [AddressRange]

  init(_ ranges: [AddressRange]) { self.ranges = ranges }

  func contains(_ address: IPAddress) -> Bool { ranges.contains { $0.contains(address) } }

  /// The client behind a connection; `nil` for one that has no address, as a Unix socket.
  ///
  /// The rightmost address that is no trusted proxy's. Where all are, the leftmost; where a word is no address, the
  /// proxy that wrote it.
  func client(_ peer: SocketAddress?, _ headers: HTTPFields) -> IPAddress? {
    guard var client = peer?.ipAddress.flatMap({ IPAddress($0) }) else { return nil }
    var words = headers[values: .forwardedFor].flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }
    while contains(client), let word = words.popLast(), let next = Self.address(word) { client = next }
    return client
  }

  /// Whether a trusted proxy says that it was asked over TLS. The last word is the one that it wrote itself.
  func saysSecure(_ peer: SocketAddress?, _ headers: HTTPFields) -> Bool {
    guard let proxy = peer?.ipAddress.flatMap({ IPAddress($0) }), contains(proxy) else { return false }
    let words = headers[values: .forwardedProtocol].flatMap { $0.split(separator: ",") }
    return words.last.map { $0.trimmingSpaces().lowercased() == "https" } ?? false
  }

  /// Reads `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` and `[2001:db8::1]:4711`.
  private static func address(_ word: Substring) -> IPAddress? {
    let text = word.trimmingSpaces()
    if text.hasPrefix("[") { return IPAddress(text.dropFirst().prefix { $0 != "]" }) }
    if let address = IPAddress(text) { return address }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    return parts.count == 2 ? IPAddress(parts[0]) : nil
  }
}

extension IPAddress {
  /// Whose attempts to sign in are counted together: an IPv4 address, of IPv6 the network (/64), because that is what
  /// one client has.
  var signInGroup: String {
    isIPv6 ? "\(IPAddress(octets: octets[..<8] + [UInt8](repeating: 0, count: 8)) ?? self)/64" : description
  }
}
