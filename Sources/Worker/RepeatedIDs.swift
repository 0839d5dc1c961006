import MailProtocols
import PostriderCore

/// Unique ids that stand more than once in what a session fetches.
///
/// Servers that make them of the content give the same one to two copies of a message, which are one message then
/// (RFC 1939 section 7). Broken ones give it to different messages: those are told apart by their content, so that none of
/// them is lost.
struct RepeatedIDs {
  /// The hash of the first message of each id that is repeated; empty until it came.
  private var first: [String: [UInt8]] = [:]

  init(_ entries: [POP3Entry]) {
    var seen: Set<String> = []
    for entry in entries where !seen.insert(entry.uidl.text).inserted { first[entry.uidl.text] = [] }
  }

  /// Under which id a message stands in the ledger. One that a server could not give, as it holds a space, for the second
  /// message of an id that is not like the first.
  mutating func key(of entry: POP3Entry, _ hash: [UInt8]) -> String {
    let uidl = entry.uidl.text
    guard let known = first[uidl] else { return uidl }
    if known.isEmpty { first[uidl] = hash }
    if known.isEmpty || known == hash { return uidl }
    return uidl + " " + hash.prefix(8).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
  }
}
