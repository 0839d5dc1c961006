/// A message's unique-id from a `UIDL` listing (RFC 1939 section 7).
///
/// 1 to 70 characters, each 0x21...0x7E. Stable between polls of one mailbox, so the new mail is today's list minus the
/// ledger. Two identical copies of a message may have the same one.
public struct UniqueID: Hashable, Sendable, CustomStringConvertible {
  /// The id as the server wrote it.
  public let text: String

  /// Takes an id; `nil` when it is not of the grammar.
  public init?(_ text: some StringProtocol) {
    guard Self.isOfGrammar(text.utf8) else { return nil }
    self.text = String(text)
  }

  /// Takes an id from the octets that came.
  init?(octets: UnsafeRawBufferPointer) {
    guard Self.isOfGrammar(octets) else { return nil }
    text = String(decoding: octets, as: UTF8.self)
  }

  private static func isOfGrammar(_ octets: some Collection<UInt8>) -> Bool {
    (1...70).contains(octets.count) && octets.allSatisfy { (0x21...0x7E).contains($0) }
  }

  /// The id as the server wrote it.
  public var description: String { text }
}
