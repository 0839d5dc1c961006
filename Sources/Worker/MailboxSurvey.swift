import MailProtocols
import PostriderCore

/// What a server lists of a mailbox, read page by page: of what is new as much as one session takes is kept, of everything
/// else only how many there are.
struct MailboxSurvey: Sendable {
  /// How many messages are listed.
  private(set) var listed = 0
  /// How many of them the ledger does not hold, or holds as worth another attempt.
  private(set) var unknown = 0
  /// The unknown ones that this session takes, in the order in which they are fetched.
  private(set) var new: [POP3Entry] = []
  /// A few of the unknown ones from everywhere in the list, in the server's order.
  private(set) var sample: [POP3Entry] = []
  /// Numbers of those that were stored before; only where stored messages are removed.
  private(set) var stored: [Int] = []
  /// Those asked for that are listed.
  private(set) var found: Set<String> = []
  /// The unique ids of everything listed; only where they were asked for.
  private(set) var ids: ListedIDs?

  private let limit: Int
  private let newestFirst: Bool
  private let sampleSize: Int
  private let wanted: Set<String>
  private var generator = SystemRandomNumberGenerator()

  /// - Parameters:
  ///   - limit: Messages that one session takes, 1 and up.
  ///   - newestFirst: Whether it takes the last of the list, which are the newest, instead of the first.
  ///   - sampleSize: The size of the sample.
  ///   - wanted: Unique ids of which it matters whether they are listed.
  ///   - keepsIDs: Whether all unique ids are remembered.
  init(limit: Int, newestFirst: Bool = false, sampleSize: Int = 7, wanted: Set<String> = [], keepsIDs: Bool = false) {
    self.limit = limit
    self.newestFirst = newestFirst
    self.sampleSize = sampleSize
    self.wanted = wanted
    if keepsIDs { ids = ListedIDs() }
  }

  /// How many are known.
  var known: Int { listed - unknown }
  /// Whether one session does not take all that is new.
  var hasMore: Bool { unknown > new.count }

  /// Takes a page of the list with what the ledger says of it.
  mutating func add(_ page: [POP3Entry], unknown: Set<String>, stored: Set<String>) {
    listed += page.count
    ids?.add(page)
    for entry in page {
      let uidl = entry.uidl.text
      if wanted.contains(uidl) { found.insert(uidl) }
      if stored.contains(uidl) { self.stored.append(entry.number) }
      if unknown.contains(uidl) { addUnknown(entry) }
    }
  }

  /// The list is at its end.
  mutating func finish() {
    if newestFirst { new = new.suffix(limit).reversed() }
    sample.sort { $0.number < $1.number }
    ids?.finish()
  }

  private mutating func addUnknown(_ entry: POP3Entry) {
    unknown += 1
    if newestFirst {
      // Dropped many at a time: one by one each would move all others.
      if new.count == limit * 2 { new.removeFirst(limit) }
      new.append(entry)
    } else if new.count < limit {
      new.append(entry)
    }
    // Each of n entries stays with the same chance: the k-th replaces one of the sample with the chance size/k.
    if sample.count < sampleSize {
      sample.append(entry)
    } else {
      let place = Int.random(in: 0..<unknown, using: &generator)
      if place < sampleSize { sample[place] = entry }
    }
  }
}

/// The unique ids of a listing, to ask later whether one was in it: eight octets for each, whatever its length.
///
/// Two of a million ids are mixed up with a chance of one in 18 billion; the hash's key is this process's own, so that no
/// server can choose ids that are.
struct ListedIDs: Sendable {
  private var hashes: [Int] = []

  mutating func add(_ page: [POP3Entry]) {
    for entry in page { hashes.append(entry.uidl.text.hashValue) }
  }

  mutating func finish() { hashes.sort() }

  func contains(_ uidl: String) -> Bool {
    let wanted = uidl.hashValue
    var (low, high) = (0, hashes.count)
    while low < high {
      let middle = low + (high - low) / 2
      if hashes[middle] < wanted { low = middle + 1 } else { high = middle }
    }
    return low < hashes.count && hashes[low] == wanted
  }
}
