import FoundationEssentials
import PostriderCore

/// A whole message that somebody wrote, made fit for sending.
public struct RawMessage: Sendable {
  /// The octets as they will leave, each line ended by CRLF.
  public var content: Content
  /// Its Message-ID, without angle brackets.
  public var messageID: String
  /// The subject, decoded.
  public var subject: String
  /// Everybody named in `To:`, `Cc:` and `Bcc:`.
  public var recipients: [String]
  /// What it needs of a server.
  public var encoding: MessageEncoding
  /// The message that it answers, without angle brackets.
  public var inReplyTo: String?
  /// What it says of itself (RFC 3834 section 5); `nil` for a person's message.
  public var autoSubmitted: AutoSubmitted?
}

/// Why a message was not taken.
public enum RawMessageError: Error, Hashable, Sendable {
  /// It is no message that could be sent; pointers are `header:From`, `line:12`, or empty for the whole.
  case invalid([FieldProblem])
  /// It has more octets than allowed.
  case tooLarge(maximum: Int64)
  /// It cannot be kept: the reason in words.
  case notKept(reason: String)
}

/// Takes in a message that somebody wrote (RFC 5322), piece by piece, and makes it fit for sending.
///
/// Line ends become CRLF, whatever they were, so that nothing in it can end the message early on any server. `Bcc:` and
/// `Return-Path:` are left out; `Date:` and `Message-ID:` are added where they are missing; everything else stays as it
/// is. Memory is bounded: small messages are kept in memory, others in a private file that belongs to whoever takes
/// ``finish()``'s result.
public struct RawMessageIntake {
  /// The header fields together.
  static let maximumHeaderOctets = 262_144
  /// A line without its end (RFC 5322 section 2.1.1).
  static let maximumLineOctets = 998
  private static let flushOctets = 65_536

  private let sender: String
  private let now: Date
  private let maximumOctets: Int64
  private var spool: OctetSpool
  private var output: [UInt8] = []
  private var header: RawHeader?
  private var received: Int64 = 0
  private var lineNumber = 1
  private var lineOctets = 0
  private var isAfterReturn = false
  private var hasEightBitBody = false

  /// - Parameters:
  ///   - sender: The mailbox's address, whose domain a missing Message-ID gets.
  ///   - now: For a missing date.
  ///   - maximumOctets: More are refused.
  ///   - directory: Where large messages wait.
  ///   - memoryOctets: Larger messages go to a file.
  public init(
    sender: String, now: Date = Date(), maximumOctets: Int64, directory: String, memoryOctets: Int = 262_144
  ) {
    self.sender = sender
    self.now = now
    self.maximumOctets = maximumOctets
    spool = OctetSpool(directory: directory, memoryOctets: memoryOctets)
  }

  /// Takes the next octets.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) throws(RawMessageError) {
    received += Int64(bytes.count)
    if received > maximumOctets { throw .tooLarge(maximum: maximumOctets) }
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      if byte == 0x0A && isAfterReturn {
        // The second half of a CRLF.
        isAfterReturn = false
        index += 1
      } else if byte == 0x0A || byte == 0x0D {
        isAfterReturn = byte == 0x0D
        index += 1
        try endLine()
      } else {
        isAfterReturn = false
        index = try takeText(bytes, from: index)
      }
    }
  }

  /// The whole message, once everything was taken.
  public mutating func finish() throws(RawMessageError) -> RawMessage {
    if lineOctets > 0 { try endLine() }
    if header == nil { try endHeader() }
    guard let header else { throw Self.refused("", "empty", "the message is empty") }
    try spool.append(output)
    output = []
    let content = try spool.finish()
    return RawMessage(
      content: content, messageID: header.messageID, subject: header.subject, recipients: header.recipients,
      encoding: header.isUTF8 ? .utf8 : hasEightBitBody ? .eightBit : .sevenBit, inReplyTo: header.inReplyTo,
      autoSubmitted: header.autoSubmitted)
  }

  /// Forgets everything, also the file.
  public mutating func remove() { spool.remove() }

  /// Takes what stands before the next line end; returns where that is.
  private mutating func takeText(_ bytes: UnsafeRawBufferPointer, from start: Int) throws(RawMessageError) -> Int {
    var end = start
    var all: UInt8 = 0
    while end < bytes.count, bytes[end] != 0x0A, bytes[end] != 0x0D {
      if bytes[end] == 0 { throw refusedLine("control-character", "holds NUL, which no message may hold") }
      all |= bytes[end]
      end += 1
    }
    lineOctets += end - start
    if lineOctets > Self.maximumLineOctets {
      throw refusedLine(
        "line-too-long",
        "has more than \(Self.maximumLineOctets) octets; encode the part as quoted-printable or base64, fold a header")
    }
    if header != nil && all >= 0x80 { hasEightBitBody = true }
    output.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
    if header == nil, output.count > Self.maximumHeaderOctets { throw Self.headerTooLong }
    return end
  }

  private mutating func endLine() throws(RawMessageError) {
    if header == nil, lineOctets == 0 {
      try endHeader()
    } else {
      output.append(0x0D)
      output.append(0x0A)
      if header != nil, output.count >= Self.flushOctets {
        try spool.append(output)
        output.removeAll(keepingCapacity: true)
      }
    }
    lineNumber += 1
    lineOctets = 0
  }

  /// Everything before the first empty line is here: it is checked and completed before the body comes.
  private mutating func endHeader() throws(RawMessageError) {
    let found = try RawHeader(output, sender: sender, now: now)
    output = found.octets
    output.append(0x0D)
    output.append(0x0A)
    header = found
  }

  private func refusedLine(_ code: String, _ message: String) -> RawMessageError {
    Self.refused("line:\(lineNumber)", code, message)
  }

  private static var headerTooLong: RawMessageError {
    refused("", "header-too-long", "the header has more than \(maximumHeaderOctets) octets before the first empty line")
  }

  static func refused(_ pointer: String, _ code: String, _ message: String) -> RawMessageError {
    .invalid([FieldProblem(pointer, code, message)])
  }
}
