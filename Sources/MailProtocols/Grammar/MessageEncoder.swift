import NIOCore

/// Makes a message fit for DATA, piece by piece: line ends normalized to CRLF first, then dots stuffed, then the final
/// `CRLF . CRLF` (RFC 5321 sections 2.3.8 and 4.5.2); or for BDAT, where only the first of these is done.
///
/// Normalizing first leaves no bare CR or LF that a server could read as an end of data (CVE-2023-51764 and its kin).
/// The message comes in pieces cut anywhere; only what came and has not left is held.
struct MessageEncoder {
  /// How the server finds the end.
  enum Framing {
    /// Dots are stuffed and a lone one ends the message (DATA).
    case dots
    /// By its length (BDAT, RFC 3030): nothing is added but the last line's end.
    case chunks
  }

  private let framing: Framing
  /// What came and has not left, the first piece from ``index`` on.
  private var pieces: [[UInt8]] = []
  private var index = 0
  private(set) var heldOctets = 0
  private var atLineStart = true
  /// Whether a CR was the last octet: an LF that follows belongs to it.
  private var isAfterReturn = false
  private(set) var isWhole = false
  private(set) var isFinished = false

  init(_ framing: Framing = .dots) { self.framing = framing }

  init(_ message: [UInt8], _ framing: Framing = .dots) {
    self.framing = framing
    append(message)
    end()
  }

  /// Takes the next octets of the message.
  mutating func append(_ octets: [UInt8]) {
    if octets.isEmpty { return }
    pieces.append(octets)
    heldOctets += octets.count
  }

  /// One that begins the message anew: first what this one has handed out, then what it holds and what will come.
  ///
  /// - Parameter handedOut: All of it, in chunks; the end that was added to the last line is a line's end like others.
  func again(_ handedOut: [UInt8], _ framing: Framing) -> MessageEncoder {
    var encoder = MessageEncoder(framing)
    // The LF that may still come belongs to the CR before.
    encoder.append(isAfterReturn && handedOut.last == UInt8(ascii: "\n") ? Array(handedOut.dropLast()) : handedOut)
    for (number, piece) in pieces.enumerated() {
      encoder.append(number == 0 && index > 0 ? Array(piece[index...]) : piece)
    }
    encoder.isWhole = isWhole
    return encoder
  }

  /// Nothing more will come: the final dot may follow.
  mutating func end() { isWhole = true }

  /// The octets of the message with CRLF line ends, without stuffed dots: what SIZE counts (RFC 1870 section 6).
  static func transferSize(of message: [UInt8]) -> Int {
    var encoder = MessageEncoder(message)
    var size = 0
    encoder.forEachLine(atMost: Int.max) { text, _, hasEnd in size += text.count + (hasEnd ? 2 : 0) }
    return size + (encoder.atLineStart ? 0 : 2)
  }

  /// The next octets to send, at least `target` of them unless less is held; `nil` after the end, and while nothing is
  /// held.
  mutating func next(target: Int) -> ByteBuffer? {
    if isFinished || heldOctets == 0 && !isWhole { return nil }
    var output = ByteBuffer()
    let framing = framing
    output.reserveCapacity(min(target, heldOctets) + 1_024)
    forEachLine(atMost: target) { text, startsLine, hasEnd in
      if framing == .dots, startsLine, text.first == UInt8(ascii: ".") { output.writeInteger(UInt8(ascii: ".")) }
      output.writeBytes(text)
      if hasEnd { output.writeStaticString("\r\n") }
    }
    if isWhole && heldOctets == 0 {
      if !atLineStart { output.writeStaticString("\r\n") }
      if framing == .dots { output.writeStaticString(".\r\n") }
      isFinished = true
    }
    return output
  }

  /// Walks over lines, whichever of CRLF, CR and LF ends them, until about `target` octets are passed.
  private mutating func forEachLine(
    atMost target: Int, _ body: (_ text: UnsafeRawBufferPointer, _ startsLine: Bool, _ hasEnd: Bool) -> Void
  ) {
    var passed = 0
    while let piece = pieces.first, passed < target {
      let before = index
      piece.withUnsafeBytes { bytes in
        while index < bytes.count, passed + index - before < target { takeLine(bytes, target, body) }
      }
      passed += index - before
      heldOctets -= index - before
      if index == piece.count {
        pieces.removeFirst()
        index = 0
      }
    }
  }

  private mutating func takeLine(
    _ bytes: UnsafeRawBufferPointer, _ target: Int,
    _ body: (_ text: UnsafeRawBufferPointer, _ startsLine: Bool, _ hasEnd: Bool) -> Void
  ) {
    if isAfterReturn {
      isAfterReturn = false
      if bytes[index] == UInt8(ascii: "\n") {
        index += 1
        return
      }
    }
    let window = min(bytes.count, index + min(target, 65_536))
    let rest = UnsafeRawBufferPointer(rebasing: bytes[index..<window])
    let upToLF = rest.firstIndexOfLF().map { UnsafeRawBufferPointer(rebasing: rest[..<$0]) } ?? rest
    let end = upToLF.firstOffset(of: UInt8(ascii: "\r")) ?? upToLF.count
    let hasEnd = end < rest.count
    let startsLine = atLineStart
    if hasEnd {
      isAfterReturn = rest[end] == UInt8(ascii: "\r")
      atLineStart = true
    } else {
      atLineStart = false
    }
    index += end + (hasEnd ? 1 : 0)
    body(UnsafeRawBufferPointer(rebasing: rest[..<end]), startsLine, hasEnd)
  }
}
