import MailMessage
import PostriderCore

/// Reads what a message holds. Throws for one that cannot be read.
public typealias MessageParser = @Sendable (Content, MessageLimits) throws -> ParsedMessage

extension MessageReader {
  /// Reads a message from wherever its octets are.
  @Sendable public static func parse(content: Content, limits: MessageLimits) throws(MessageError) -> ParsedMessage {
    switch content {
    case .bytes(let bytes): try parse(bytes, limits: limits)
    case .file(let path, _): try parse(file: path, limits: limits)
    }
  }
}
