/// A message's unique-id from a `UIDL` listing (RFC 1939 section 7).
///
/// 1 to 70 characters, each 0x21...0x7E. Stable between polls of one mailbox, so the new mail is today's list minus the
/// ledger. Two identical copies of a message may have the same one.
public struct UniqueID: Hashable, Sendable, CustomStringConvertible {
  /// The id as the server wrote it.
  public let text: String

  /// Takes an id; `nil` when it is not of the grammar.
  public init?(_ text: some StringProtocol) {
    guard (1...70).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else { return nil }
    self.text = String(text)
  }

  /// The id as the server wrote it.
  public var description: String { text }
}
