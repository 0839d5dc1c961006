import MailMessage
import PostriderCore

/// Writes a message with CRLF line ends from lines.
func message(_ lines: String...) -> [UInt8] { Array((lines.joined(separator: "\r\n") + "\r\n").utf8) }

/// A message whose header is `fields` and whose body is nothing.
func headersOnly(_ fields: String...) -> [UInt8] { Array((fields.joined(separator: "\r\n") + "\r\n\r\n").utf8) }

/// A generator that gives the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state ^ (state >> 29)
  }
}

extension ParsedMessage {
  /// Every text of the message, for checks that hold for all of them.
  var allTexts: [String] {
    let addresses = envelope.from + envelope.to + envelope.cc + envelope.replyTo
    let names = attachments.flatMap { [$0.record.fileName, $0.record.contentType] }
    let optionals = [text, html, envelope.messageID, envelope.inReplyTo] + names + addresses.map(\.name)
    return optionals.compactMap { $0 } + envelope.references + addresses.map(\.address) + [envelope.subject] + problems
  }
}
