import NIOCore
import PostriderCore

/// What the server sent and no parser has taken yet.
///
/// Both protocols' parsers read from it: whole lines for answers, raw octets for message bodies. It never grows without
/// bound, because every parser takes or refuses what is there before more is read, and what was taken is given back.
struct LineBuffer {
  private var storage: ByteBuffer
  /// Octets from the reader index that are known to hold no LF, so that an incomplete line is not searched twice.
  private var searched = 0

  init() { storage = ByteBuffer() }

  var isEmpty: Bool { storage.readableBytes == 0 }
  var readableOctets: Int { storage.readableBytes }
  /// How many octets of memory it holds.
  var capacity: Int { storage.capacity }
  /// The first octet, if any.
  var first: UInt8? { storage.getInteger(at: storage.readerIndex) }

  /// Adds what came from the network; without a copy when nothing is left over. What was taken before makes room: a
  /// server whose every packet ends within a line leaves something over each time.
  mutating func append(_ bytes: ByteBuffer) {
    if storage.readableBytes == 0 {
      storage = bytes
      searched = 0
    } else {
      var bytes = bytes
      storage.discardReadBytes()
      storage.writeBuffer(&bytes)
    }
  }

  /// Takes one line without its CRLF; `nil` when it is not complete yet.
  ///
  /// Throws `protocol.limit` when the line, CRLF included, is longer than `limit`, even when its end has not come, and
  /// `protocol.syntax` when it ends with a bare LF or holds a NUL: a server that sends those is not followed further.
  /// Octets that are not UTF-8 become U+FFFD: they are shown, never interpreted.
  mutating func nextLine(limit: Int) throws(Failure) -> String? {
    try nextLine(limit: limit) { String(decoding: $0, as: UTF8.self) }
  }

  /// The same for a parser that reads the line's octets in place: listings have a million of them.
  mutating func nextLine<Line>(limit: Int, _ read: (UnsafeRawBufferPointer) -> Line) throws(Failure) -> Line? {
    let found = storage.withUnsafeReadableBytes { bytes -> Int? in
      let rest = UnsafeRawBufferPointer(rebasing: bytes[searched...])
      return rest.firstIndexOfLF().map { $0 + searched }
    }
    guard let end = found else {
      searched = storage.readableBytes
      if searched >= limit { throw Self.tooLong(limit) }
      return nil
    }
    searched = 0
    if end + 1 > limit { throw Self.tooLong(limit) }
    let line: Line? = storage.withUnsafeReadableBytes { bytes in
      guard end > 0, bytes[end - 1] == UInt8(ascii: "\r") else { return nil }
      let text = UnsafeRawBufferPointer(rebasing: bytes[..<(end - 1)])
      return text.firstOffset(of: 0) == nil ? read(text) : nil
    }
    storage.moveReaderIndex(forwardBy: end + 1)
    guard let line else {
      throw Failure(.protocolSyntax, context: "a line that does not end with CRLF, or holds NUL")
    }
    return line
  }

  /// Lets a parser look at the octets and says how many it took.
  mutating func consume<Result>(_ body: (UnsafeRawBufferPointer) -> (taken: Int, Result)) -> Result {
    searched = 0
    let (taken, result) = storage.withUnsafeReadableBytes(body)
    storage.moveReaderIndex(forwardBy: taken)
    return result
  }

  private static func tooLong(_ limit: Int) -> Failure {
    Failure(.protocolLimit, context: "a line longer than \(limit) octets")
  }
}
