import PostriderCore

/// The bounds on what an SMTP server may send and what is sent to it.
enum SMTPLimits {
  /// RFC 5321 section 4.5.3.1.5 says 512 octets, CRLF included; some servers write longer policy texts with URLs.
  static let replyLineOctets = 1_024
  /// A command line that no extension lengthens, CRLF included (RFC 5321 section 4.5.3.1.4).
  static let commandLineOctets = 512
  /// A SASL challenge line (RFC 4954 section 4).
  static let challengeLineOctets = 12_288
  /// Lines of one reply.
  static let replyLines = 100
  /// Recipients whose commands are written ahead of the answers, so that neither side's buffers fill up.
  static let recipientsPerGroup = 100
  /// Octets of one chunk, where a message has as many.
  static let chunkOctets = 65_536
  /// Chunks that are written ahead of their answers.
  static let chunksAhead = 16
}

/// An enhanced status code (RFC 3463): `class "." subject "." detail`.
public struct EnhancedStatusCode: Hashable, Sendable, CustomStringConvertible {
  /// 2, 4 or 5.
  public let classDigit: Int
  /// 0…999.
  public let subject: Int
  /// 0…999.
  public let detail: Int

  /// Names a code.
  public init(_ classDigit: Int, _ subject: Int, _ detail: Int) {
    self.classDigit = classDigit
    self.subject = subject
    self.detail = detail
  }

  /// Reads the code at the start of a reply's text; `nil` when there is none.
  init?(leading text: String) {
    let word = text.prefix { $0 != " " }
    let parts = word.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0].utf8.count == 1, (1...3).contains(parts[1].utf8.count),
      (1...3).contains(parts[2].utf8.count), word.utf8.allSatisfy({ $0 == 0x2E || (0x30...0x39).contains($0) }),
      let classDigit = Int(parts[0]), [2, 4, 5].contains(classDigit), let subject = Int(parts[1]),
      let detail = Int(parts[2])
    else { return nil }
    self.init(classDigit, subject, detail)
  }

  /// As on the wire.
  public var description: String { "\(classDigit).\(subject).\(detail)" }
}

/// A whole reply of an SMTP server (RFC 5321 section 4.2).
public struct SMTPReply: Hashable, Sendable {
  /// 200…599.
  public let code: Int
  /// The text of each line, at most 100.
  public let lines: [String]
  /// The enhanced code at the start of the text, if it is there.
  public let enhanced: EnhancedStatusCode?

  /// Describes a reply.
  public init(code: Int, lines: [String]) {
    self.code = code
    self.lines = lines
    enhanced = lines.first.flatMap { EnhancedStatusCode(leading: $0) }
  }

  /// The first digit of the code: 2 done, 3 go on, 4 not now, 5 no.
  public var severity: Int { code / 100 }
  /// The reply on one line, as shown to people.
  public var words: String { "\(code) " + lines.joined(separator: " ") }
}

/// One line of a reply.
///
///     Reply-line = Reply-code ( "-" / SP ) [ textstring ] CRLF ; the last with SP or nothing
struct SMTPReplyLine: Hashable {
  var code: Int
  var isLast: Bool
  var text: String

  /// Parses a line without its CRLF; throws `protocol.syntax`.
  init(_ line: String) throws(Failure) {
    let head = line.utf8.prefix(3)
    guard head.count == 3, head.allSatisfy({ (0x30...0x39).contains($0) }), let code = Int(String(Substring(head))),
      (200...599).contains(code)
    else { throw Failure(.protocolSyntax, serverWords: line, context: "an SMTP reply without a reply code") }
    self.code = code
    let rest = line.utf8.dropFirst(3)
    switch rest.first {
    case nil: isLast = true
    case UInt8(ascii: " "): isLast = true
    case UInt8(ascii: "-"): isLast = false
    default: throw Failure(.protocolSyntax, serverWords: line, context: "an SMTP reply without a space or hyphen")
    }
    text = String(Substring(rest.dropFirst()))
  }
}

/// Gathers the lines of one reply.
struct SMTPReplyParser {
  private var code: Int?
  private var lines: [String] = []

  /// Takes what is there; `nil` when the reply is not complete yet. Throws `protocol.limit` and `protocol.syntax`.
  mutating func next(_ input: inout LineBuffer, lineLimit: Int) throws(Failure) -> SMTPReply? {
    while let text = try input.nextLine(limit: lineLimit) {
      let line = try SMTPReplyLine(text)
      if let code, code != line.code {
        throw Failure(.protocolSyntax, serverWords: text, context: "an SMTP reply whose lines have different codes")
      }
      if lines.count == SMTPLimits.replyLines {
        throw Failure(.protocolLimit, context: "an SMTP reply of more than \(SMTPLimits.replyLines) lines")
      }
      code = line.code
      lines.append(line.text)
      if line.isLast {
        let reply = SMTPReply(code: line.code, lines: lines)
        code = nil
        lines.removeAll(keepingCapacity: true)
        return reply
      }
    }
    return nil
  }
}
