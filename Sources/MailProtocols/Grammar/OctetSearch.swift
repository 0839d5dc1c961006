#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension UnsafeRawBufferPointer {
  /// The offset of the first occurrence of an octet. `memchr` reads 16 to 32 octets at a time.
  func firstOffset(of octet: UInt8) -> Int? {
    guard let base = baseAddress, count > 0, let found = memchr(base, Int32(octet), count) else { return nil }
    return UnsafeRawPointer(found) - base
  }

  /// The offset of the first LF.
  func firstIndexOfLF() -> Int? { firstOffset(of: UInt8(ascii: "\n")) }
}
