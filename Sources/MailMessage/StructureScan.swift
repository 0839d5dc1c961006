#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Looks through the raw octets before GMime does, and finds where a message stops being affordable.
///
/// GMime builds an object for each header line and each part while it parses, with no limit of its own. The scan counts
/// the lines that could become one, generously, and answers the offset at which to cut. It reads each octet once and
/// keeps only counters and the beginnings of boundaries. `message/…` and digests make the block after a header a header
/// again, so both are followed.
struct StructureScan {
  private let limits: MessageLimits
  private var offset: Int64 = 0
  private var lineStart: Int64 = 0
  private var lineOctets = 0
  private var prefix: (UInt8, UInt8) = (0, 0)
  /// Octets 3 to 10 of a line that begins with two hyphens, the first of them in the highest place.
  private var linePrefix: UInt64 = 0
  private var boundaries = BoundaryNames()
  private var inHeader = true
  private var blockNamesMessage = false
  private var sawDigest = false
  private var word = RollingWord()
  private var headerLines = 0
  private var headerOctets = 0
  private var delimiterLines = 0

  /// Where to cut, and why; `nil` when the whole message is affordable so far.
  private(set) var cut: (offset: Int64, reason: String)?

  init(limits: MessageLimits) { self.limits = limits }

  /// Looks at the next octets.
  mutating func scan(_ bytes: UnsafeBufferPointer<UInt8>) {
    guard cut == nil, let base = bytes.baseAddress else { return }
    var index = 0
    while index < bytes.count {
      if !inHeader && lineOctets >= 2 && (lineOctets >= 10 || prefix != (0x2D, 0x2D)) {
        // Nothing in the rest of a body line matters.
        guard let found = memchr(base + index, 0x0A, bytes.count - index) else {
          offset += Int64(bytes.count - index)
          return
        }
        let end = base.distance(to: found.assumingMemoryBound(to: UInt8.self))
        offset += Int64(end - index)
        index = end
      }
      let byte = base[index]
      index += 1
      offset += 1
      if byte == 0x0A {
        endLine()
        lineStart = offset
        lineOctets = 0
        linePrefix = 0
      } else if byte != 0x0D || lineOctets > 0 {
        if lineOctets == 0 {
          prefix.0 = byte
        } else if lineOctets == 1 {
          prefix.1 = byte
        } else if lineOctets < 10 {
          linePrefix |= UInt64(byte) << UInt64(8 * (9 - lineOctets))
        }
        lineOctets += 1
        if inHeader { noteHeader(byte) }
      }
      if cut != nil { return }
    }
  }

  private mutating func noteHeader(_ byte: UInt8) {
    headerOctets += 1
    word.append(byte)
    boundaries.read(byte, after: word)
    if byte == UInt8(ascii: "/") && word.endsWith("message") { blockNamesMessage = true }
    if word.endsWith("digest") { sawDigest = true }
    if headerOctets > limits.maximumHeaderOctets {
      cut = (offset, "the headers are longer than \(limits.maximumHeaderOctets) octets; the rest was not read")
    }
  }

  private mutating func endLine() {
    if inHeader { boundaries.endLine() }
    if lineOctets >= 2 && prefix == (0x2D, 0x2D) {
      if boundaries.mayDelimit(linePrefix) { delimiterLines += 1 }
      inHeader = true
      blockNamesMessage = sawDigest
      if delimiterLines > limits.maximumDelimiterLines {
        cut = (
          lineStart,
          "more than \(limits.maximumDelimiterLines) lines look like part delimiters; the rest was not read"
        )
      }
    } else if inHeader && lineOctets == 0 {
      inHeader = blockNamesMessage
      blockNamesMessage = false
    } else if inHeader {
      headerLines += 1
      if headerLines > limits.maximumHeaderLines {
        cut = (lineStart, "more than \(limits.maximumHeaderLines) header lines; the rest was not read")
      }
    }
  }
}

/// The last eight octets, lower case, in one number.
struct RollingWord {
  private(set) var value: UInt64 = 0

  mutating func append(_ byte: UInt8) {
    value = value << 8 | UInt64(byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte)
  }

  /// Whether a word of at most eight letters came just before the last octet, where that fits, or ends with it.
  func endsWith(_ text: StaticString) -> Bool {
    let (wanted, mask) = Self.pattern(text)
    return value & mask == wanted || text.utf8CodeUnitCount < 8 && (value >> 8) & mask == wanted
  }

  /// Whether a word of at most seven letters came just before the last octet.
  func isBehind(_ text: StaticString) -> Bool {
    let (wanted, mask) = Self.pattern(text)
    return (value >> 8) & mask == wanted
  }

  private static func pattern(_ text: StaticString) -> (wanted: UInt64, mask: UInt64) {
    var wanted: UInt64 = 0
    text.withUTF8Buffer { for byte in $0 { wanted = wanted << 8 | UInt64(byte) } }
    return (wanted, UInt64.max >> UInt64(64 - text.utf8CodeUnitCount * 8))
  }
}
