import PostriderCore

/// The challenge of an NTLM server (MS-NLMP section 2.2.1.2), built anew from what was checked.
///
/// The library copies a challenge over a structure of its own and follows the offsets inside. So it gets only messages
/// whose one variable part, the target name, lies where it is said to lie.
enum NTLMChallenge {
  private static let signature = Array("NTLMSSP\0".utf8)
  private static let maximumTargetOctets = 256

  /// The message for the library; `nil` when the server's is not a challenge.
  static func checked(_ message: [UInt8]) -> [UInt8]? {
    guard message.count >= 32, message.starts(with: signature), number(message, at: 8, octets: 4) == 2 else {
      return nil
    }
    let length = number(message, at: 12, octets: 2)
    let offset = number(message, at: 16, octets: 4)
    guard length <= maximumTargetOctets, length % 2 == 0,
      length == 0 || offset <= message.count && length <= message.count - offset
    else { return nil }
    let target = length == 0 ? [] : Array(message[offset..<offset + length])
    let start = 48
    var checked = signature + [2, 0, 0, 0]
    let size = [UInt8(length & 0xFF), UInt8(length >> 8)]
    checked += size + size + [UInt8(start), 0, 0, 0]
    checked += message[20..<32]
    checked += [UInt8](repeating: 0, count: start - checked.count)
    return checked + target
  }

  private static func number(_ message: [UInt8], at index: Int, octets: Int) -> Int {
    (0..<octets).reduce(0) { $0 | Int(message[index + $1]) << (8 * $1) }
  }
}
