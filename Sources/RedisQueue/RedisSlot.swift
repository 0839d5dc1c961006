/// The hash slots of a Redis Cluster.
enum RedisSlot {
  /// How many there are.
  static let count = 16_384

  /// The slot of a key: CRC-16 (XMODEM) of what stands between the first braces, or of the whole key.
  static func number(of key: String) -> Int {
    var hashed = Array(key.utf8)[...]
    if let open = hashed.firstIndex(of: UInt8(ascii: "{")),
      let close = hashed[(open + 1)...].firstIndex(of: UInt8(ascii: "}")), close > open + 1
    {
      hashed = hashed[(open + 1)..<close]
    }
    var crc: UInt16 = 0
    for byte in hashed {
      crc ^= UInt16(byte) << 8
      for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc << 1 ^ 0x1021 : crc << 1 }
    }
    return Int(crc) % count
  }
}
