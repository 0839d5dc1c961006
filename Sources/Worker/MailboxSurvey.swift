import FoundationEssentials
import MailProtocols
import PostriderCore

/// What a server lists of a mailbox, read page by page: of what is new as much as one session takes is kept, of
/// everything else little more than how many there are.
struct MailboxSurvey: Sendable {
  /// So many messages that were stored before, or whose unique ids repeat, are looked at in one session.
  static let backlog = 10_000

  /// How many messages are listed.
  private(set) var listed = 0
  /// How many of them the ledger does not hold, or holds as worth another attempt.
  private(set) var unknown = 0
  /// Those that this session takes, in the order in which they are fetched: at the end those that failed before, since
  /// a session may end with one of them.
  private(set) var new: [POP3Entry] = []
  /// Whether one session does not take all that is unknown.
  private(set) var hasMore = false
  /// A few of the unknown ones from everywhere in the list, in the server's order.
  private(set) var sample: [POP3Entry] = []
  /// Those that were stored before and whose unique id is listed once; only where stored messages are removed.
  private(set) var stored: [POP3Entry] = []
  /// Whether there are more of them.
  private(set) var hasMoreStored = false
  /// The numbers of a few messages that are known, the last of the list.
  private(set) var witnesses: [Int] = []
  /// Those asked for that are listed.
  private(set) var found: Set<String> = []
  /// The unique ids of everything listed.
  private(set) var ids = ListedIDs()
  /// What the ledger holds of the unique ids that are listed more than once.
  private(set) var repeated: [String: [LedgerEntry]] = [:]

  private let limit: Int
  private let newestFirst: Bool
  private let sampleSize: Int
  private let wanted: Set<String>
  private var failing: [(entry: POP3Entry, since: Date)] = []
  private var offered: [POP3Entry] = []
  private var generator = SystemRandomNumberGenerator()

  /// - Parameters:
  ///   - limit: Messages that one session takes, 1 and up.
  ///   - newestFirst: Whether it takes the last of the list, which are the newest, instead of the first.
  ///   - sampleSize: The size of the sample.
  ///   - wanted: Unique ids of which it matters whether they are listed.
  init(limit: Int, newestFirst: Bool = false, sampleSize: Int = 7, wanted: Set<String> = []) {
    self.limit = limit
    self.newestFirst = newestFirst
    self.sampleSize = sampleSize
    self.wanted = wanted
  }

  /// How many are known.
  var known: Int { listed - unknown - offered.count }

  /// Takes a page of the list with what the ledger says of it: which are unknown, when those of them that failed did so
  /// last, and which are stored.
  mutating func add(
    _ page: [POP3Entry], unknown: Set<String>, failing: [String: Date] = [:], stored: Set<String> = []
  ) {
    listed += page.count
    ids.add(page)
    for entry in page {
      let uidl = entry.uidl.text
      if wanted.contains(uidl) { found.insert(uidl) }
      if stored.contains(uidl) { addStored(entry) }
      if !unknown.contains(uidl) {
        witnesses.append(entry.number)
        if witnesses.count > 3 { witnesses.removeFirst() }
      } else if let since = failing[uidl] {
        addFailing(entry, since)
      } else {
        addFresh(entry)
      }
    }
  }

  /// The list is at its end; what is known of repeated ids is still to come.
  mutating func endList() {
    ids.finish()
    // Which of them is the stored one only their content tells.
    stored = stored.filter { !ids.isRepeated($0.uidl.text) }
  }

  /// Takes the messages of one unique id that is listed more than once, with what the ledger holds of it.
  ///
  /// They are offered as long as it holds fewer than are listed: one of them is not stored.
  mutating func add(copies: [POP3Entry], held: [LedgerEntry]) {
    guard let uidl = copies.first?.uidl.text else { return }
    repeated[uidl] = held
    // One that is unknown is among the new ones already.
    guard held.contains(where: { $0.uidl == uidl }), held.count < copies.count else { return }
    offered += copies
  }

  /// Everything is known.
  mutating func finish() {
    if newestFirst { new = new.suffix(limit).reversed() }
    let room = limit - new.count
    // More than there is room for have their turn by chance.
    if offered.count > room { offered.shuffle() }
    offered = offered.prefix(room).sorted { $0.number < $1.number }
    sortFailing()
    let late = failing.prefix(room - offered.count).map(\.entry)
    hasMore = unknown > new.count + late.count
    new += offered + late
    sample.sort { $0.number < $1.number }
  }

  private mutating func addFresh(_ entry: POP3Entry) {
    if newestFirst {
      // Dropped many at a time: one by one each would move all others.
      if new.count == limit * 2 { new.removeFirst(limit) }
      new.append(entry)
    } else if new.count < limit {
      new.append(entry)
    }
    addUnknown(entry)
  }

  private mutating func addFailing(_ entry: POP3Entry, _ since: Date) {
    if failing.count == limit * 2 {
      sortFailing()
      failing.removeLast(limit)
    }
    failing.append((entry, since))
    addUnknown(entry)
  }

  /// The one that was tried last comes last, so that no other waits behind it for ever.
  private mutating func sortFailing() {
    failing.sort { ($0.since, $0.entry.number) < ($1.since, $1.entry.number) }
  }

  private mutating func addUnknown(_ entry: POP3Entry) {
    unknown += 1
    // Each of n entries stays with the same chance: the k-th replaces one of the sample with the chance size/k.
    if sample.count < sampleSize {
      sample.append(entry)
    } else {
      let place = Int.random(in: 0..<unknown, using: &generator)
      if place < sampleSize { sample[place] = entry }
    }
  }

  private mutating func addStored(_ entry: POP3Entry) {
    if stored.count < Self.backlog { stored.append(entry) } else { hasMoreStored = true }
  }
}

/// The unique ids of a listing, to ask later whether one was in it, or more than once: eight octets for each, whatever
/// its length.
///
/// Two of a million ids are mixed up with a chance of one in 37 million; the hash's key is this process's own, so that
/// no server can choose ids that are.
struct ListedIDs: Sendable {
  /// In parts, by their lowest bits: sorting takes half as much memory again, and this way only of one part.
  private var hashes = [[Int]](repeating: [], count: 16)
  private var repeated: Set<Int> = []

  mutating func add(_ page: [POP3Entry]) {
    for entry in page {
      let hash = entry.uidl.text.hashValue
      hashes[hash & 15].append(hash)
    }
  }

  mutating func finish() {
    for part in hashes.indices {
      hashes[part].sort()
      for (hash, next) in zip(hashes[part], hashes[part].dropFirst()) where hash == next { repeated.insert(hash) }
    }
  }

  /// Whether any is listed more than once.
  var areRepeated: Bool { !repeated.isEmpty }

  func isRepeated(_ uidl: String) -> Bool { !repeated.isEmpty && repeated.contains(uidl.hashValue) }

  /// Whether an id of the ledger is listed, or the one that it was made of.
  func contains(_ uidl: String) -> Bool {
    let wanted = LedgerEntry.listed(uidl).hashValue
    let part = hashes[wanted & 15]
    var (low, high) = (0, part.count)
    while low < high {
      let middle = low + (high - low) / 2
      if part[middle] < wanted { low = middle + 1 } else { high = middle }
    }
    return low < part.count && part[low] == wanted
  }
}
