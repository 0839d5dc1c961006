#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// An IPv4 or IPv6 address. IPv4-mapped IPv6 addresses are kept as the IPv4 address that they reach.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
  /// 4 or 16 octets, network order.
  public let octets: [UInt8]

  /// Takes 4 or 16 octets; `nil` for any other count. `::ffff:a.b.c.d` becomes `a.b.c.d`.
  public init?(octets: [UInt8]) {
    switch octets.count {
    case 4: self.octets = octets
    case 16:
      let mapped = octets[..<10].allSatisfy { $0 == 0 } && octets[10] == 0xFF && octets[11] == 0xFF
      self.octets = mapped ? Array(octets[12...]) : octets
    default: return nil
    }
  }

  /// Reads the strict text form (RFC 4291 section 2.2, dotted quad); `nil` for other spellings such as `2130706433`.
  public init?(_ text: some StringProtocol) {
    var four = in_addr()
    var six = in6_addr()
    let text = String(text)
    if inet_pton(AF_INET, text, &four) == 1 {
      self.init(octets: withUnsafeBytes(of: &four) { Array($0) })
    } else if inet_pton(AF_INET6, text, &six) == 1 {
      self.init(octets: withUnsafeBytes(of: &six) { Array($0) })
    } else {
      return nil
    }
  }

  /// Whether it is IPv6.
  public var isIPv6: Bool { octets.count == 16 }

  /// The canonical text form.
  public var description: String {
    var buffer = [CChar](repeating: 0, count: 64)
    let family = isIPv6 ? AF_INET6 : AF_INET
    guard inet_ntop(family, octets, &buffer, socklen_t(buffer.count)) != nil else { return "?" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// A range of addresses in CIDR form.
public struct AddressRange: Hashable, Sendable, CustomStringConvertible {
  /// Its first address.
  public let address: IPAddress
  /// How many leading bits are fixed: 0…32 or 0…128.
  public let prefixLength: Int

  /// Reads `192.0.2.0/24`, `fd00::/8` or a single address; `nil` for anything else.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let address = IPAddress(parts[0]) else { return nil }
    let bits = address.octets.count * 8
    if parts.count == 2 {
      guard (1...3).contains(parts[1].utf8.count), parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
        let length = Int(parts[1]), length <= bits
      else { return nil }
      prefixLength = length
    } else {
      prefixLength = bits
    }
    self.address = address
  }

  /// Whether an address lies in it.
  public func contains(_ other: IPAddress) -> Bool {
    guard other.octets.count == address.octets.count else { return false }
    var left = prefixLength
    for (a, b) in zip(address.octets, other.octets) where left > 0 {
      let mask: UInt8 = left >= 8 ? 0xFF : ~(0xFF >> UInt8(left))
      if a & mask != b & mask { return false }
      left -= 8
    }
    return true
  }

  /// As `192.0.2.0/24`.
  public var description: String { "\(address)/\(prefixLength)" }
}
