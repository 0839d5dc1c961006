import MailProtocols
import PostriderCore

/// Unique ids that a server gives more than one message, side by side or one after the other.
///
/// Servers that make them of the content give the same one to two copies of a message, which are one message then
/// (RFC 1939 section 7). Broken ones give it to different messages: those are told apart by their content, so that none of
/// them is lost.
struct RepeatedIDs {
  /// The hash of the message that stands under each such id itself; empty until it came.
  private var first: [String: [UInt8]] = [:]
  /// Ids made for others, which the ledger holds.
  private var others: Set<String> = []
  /// How often each id was given out.
  private var counts: [String: Int] = [:]
  /// How many without content were told apart.
  private var refused: [String: Int] = [:]

  /// - Parameter held: What the ledger holds of ids that it knows, where that does not say enough.
  init(_ entries: [POP3Entry], _ held: [String: [LedgerEntry]] = [:]) {
    var seen: Set<String> = []
    for entry in entries where !seen.insert(entry.uidl.text).inserted { first[entry.uidl.text] = [] }
    for (uidl, rows) in held {
      let row = rows.first { $0.uidl == uidl }
      // No message is like one that is not stored: it has no hash.
      first[uidl] = row.map { $0.contentHash ?? [0] } ?? []
      others.formUnion(rows.map(\.uidl))
    }
  }

  /// Under which id a message stands in the ledger. One that a server could not give, as it holds a space, for another
  /// message of an id that is not like the first. `copy` is one more for a copy of it, so that all that is listed can
  /// be found settled.
  mutating func key(of entry: POP3Entry, _ hash: [UInt8]) -> (uidl: String, copy: String?) {
    let uidl = entry.uidl.text
    guard let known = first[uidl] else { return (uidl, nil) }
    let digits = hash.prefix(8).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    let other = "\(uidl) \(digits)"
    let isFirst = known.isEmpty ? !others.contains(other) : known == hash
    if isFirst { first[uidl] = hash }
    let key = isFirst ? uidl : other
    let count = counts[key, default: 0] + 1
    counts[key] = count
    return (key, count > 1 ? "\(other) \(count)" : nil)
  }

  /// Under which id one stands whose content the server does not give: that it is settled must be told from the others.
  mutating func key(ofRefused entry: POP3Entry) -> String {
    let uidl = entry.uidl.text
    guard let known = first[uidl] else { return uidl }
    if known.isEmpty {
      // No message is like it.
      first[uidl] = [0]
      return uidl
    }
    refused[uidl, default: 0] += 1
    return "\(uidl) - \(refused[uidl, default: 0])"
  }
}
