import NIOCore

/// Makes a message fit for DATA, piece by piece: line ends normalized to CRLF first, then dots stuffed, then the final
/// `CRLF . CRLF` (RFC 5321 sections 2.3.8 and 4.5.2).
///
/// Normalizing first leaves no bare CR or LF that a server could read as an end of data (CVE-2023-51764 and its kin).
struct MessageEncoder {
  private let message: [UInt8]
  private var index = 0
  private var atLineStart = true
  private(set) var isFinished = false

  init(_ message: [UInt8]) { self.message = message }

  /// The octets of the message with CRLF line ends, without stuffed dots: what SIZE counts (RFC 1870 section 6).
  static func transferSize(of message: [UInt8]) -> Int {
    var encoder = MessageEncoder(message)
    var size = 0
    message.withUnsafeBytes { bytes in
      encoder.forEachLine(bytes, atMost: Int.max) { line, hasEnd in size += line.count + (hasEnd ? 2 : 0) }
    }
    return size + (encoder.atLineStart ? 0 : 2)
  }

  /// The next octets to send, at least `target` of them unless the message ends; `nil` after the end.
  mutating func next(target: Int) -> ByteBuffer? {
    if isFinished { return nil }
    var output = ByteBuffer()
    output.reserveCapacity(min(target, message.count - index) + 1_024)
    let source = message
    source.withUnsafeBytes { bytes in
      forEachLine(bytes, atMost: target) { line, hasEnd in
        if line.startsLine, line.bytes.first == UInt8(ascii: ".") { output.writeInteger(UInt8(ascii: ".")) }
        output.writeBytes(line.bytes)
        if hasEnd { output.writeStaticString("\r\n") }
      }
    }
    if index == message.count {
      output.writeStaticString(atLineStart ? ".\r\n" : "\r\n.\r\n")
      isFinished = true
    }
    return output
  }

  private struct Piece {
    var bytes: UnsafeRawBufferPointer
    var startsLine: Bool
    var count: Int { bytes.count }
  }

  /// Walks over lines, whichever of CRLF, CR and LF ends them, until about `target` octets are passed.
  private mutating func forEachLine(
    _ bytes: UnsafeRawBufferPointer, atMost target: Int, _ body: (Piece, _ hasEnd: Bool) -> Void
  ) {
    var passed = 0
    while index < bytes.count, passed < target {
      let before = index
      let window = min(bytes.count, index + min(target, 65_536))
      let rest = UnsafeRawBufferPointer(rebasing: bytes[index..<window])
      let startsLine = atLineStart
      let lf = rest.firstIndexOfLF()
      let upToLF = lf.map { UnsafeRawBufferPointer(rebasing: rest[..<$0]) } ?? rest
      if let cr = upToLF.firstOffset(of: UInt8(ascii: "\r")) {
        let piece = UnsafeRawBufferPointer(rebasing: rest[..<cr])
        index += cr + 1
        if index < bytes.count, bytes[index] == UInt8(ascii: "\n") { index += 1 }
        atLineStart = true
        body(Piece(bytes: piece, startsLine: startsLine), true)
      } else if let lf {
        index += lf + 1
        atLineStart = true
        body(Piece(bytes: upToLF, startsLine: startsLine), true)
      } else {
        index += rest.count
        atLineStart = false
        body(Piece(bytes: rest, startsLine: startsLine), false)
      }
      passed += index - before
    }
  }
}
