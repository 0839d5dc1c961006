import NIOCore
import PostriderCore

/// Which messages are there: STAT, UIDL, LIST.
extension POP3Dialogue {
  struct Listing {
    /// Whether UIDL and LIST were written together. Otherwise STAT comes first, which an empty mailbox ends with.
    let pipelined: Bool
    let maximumEntries: Int
    var stage: POP3Stage
    var inBody = false
    var uniques: [(number: Int, uidl: UniqueID)] = []
    var scans: [(number: Int, sizeOctets: Int64)] = []
    /// UIDL was refused, but the answer to LIST is still to be read.
    var failure: Failure?

    init(pipelined: Bool, maximumEntries: Int) {
      self.pipelined = pipelined
      self.maximumEntries = maximumEntries
      stage = pipelined ? .unique : .stat
    }

    /// Joins both listings by number; the sizes are advisory, so a missing one is 0.
    func entries() throws(Failure) -> [POP3Entry] {
      if uniques.count == scans.count, zip(uniques, scans).allSatisfy({ $0.number == $1.number }) {
        return zip(uniques, scans).map { POP3Entry(number: $0.number, uidl: $0.uidl, sizeOctets: $1.sizeOctets) }
      }
      let sizes = Dictionary(scans.map { ($0.number, $0.sizeOctets) }) { first, _ in first }
      return uniques.map { POP3Entry(number: $0.number, uidl: $0.uidl, sizeOctets: sizes[$0.number] ?? 0) }
    }

    /// Numbers count up in each listing; a server that repeats one could make us fetch or delete the wrong message.
    mutating func add(_ line: String) throws(Failure) {
      if (stage == .unique ? uniques.count : scans.count) == maximumEntries {
        throw Failure(.protocolLimit, context: "more than \(maximumEntries) entries in a listing")
      }
      if stage == .unique {
        let entry = try POP3ListLine.unique(line)
        try Self.check(entry.number, after: uniques.last?.number)
        uniques.append(entry)
      } else {
        let entry = try POP3ListLine.scan(line)
        try Self.check(entry.number, after: scans.last?.number)
        scans.append(entry)
      }
    }

    private static func check(_ number: Int, after last: Int?) throws(Failure) {
      if let last, number <= last {
        throw Failure(.protocolSyntax, context: "a listing whose numbers do not count up (\(last), \(number))")
      }
    }
  }

  mutating func readListing(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .listing(var listing) = state else { return .wait(.answer, step: step) }
    // The arrays are moved out of the state while they grow, or each line would copy them.
    state = .idle
    while true {
      if listing.inBody {
        guard let line = try input.nextLine(limit: POP3Limits.listLineOctets) else {
          state = .listing(listing)
          return .wait(.body, step: step)
        }
        if line != "." {
          try listing.add(line)
          continue
        }
        step += 1
        listing.inBody = false
        if let action = try finishedPart(&listing) { return action }
        continue
      }
      switch try plainStatus(&input) {
      case nil:
        state = .listing(listing)
        return .wait(.answer, step: step)
      case .failure(let error):
        let failure = sorted(error, at: listing.stage)
        guard listing.stage == .unique, listing.pipelined else { return .failed(listing.failure ?? failure) }
        listing.failure = failure
        listing.stage = .scan
      case .success(let text):
        if listing.stage != .stat {
          listing.inBody = true
        } else if try POP3ListLine.drop(text).count == 0 {
          return .done(.entries([]))
        } else {
          listing.stage = .unique
          state = .listing(listing)
          return .send(Self.command("UIDL"))
        }
      }
    }
  }

  private mutating func finishedPart(_ listing: inout Listing) throws(Failure) -> Action? {
    if listing.stage == .unique {
      listing.stage = .scan
      if listing.pipelined { return nil }
      state = .listing(listing)
      return .send(Self.command("LIST"))
    }
    if let failure = listing.failure { return .failed(failure) }
    return .done(.entries(try listing.entries()))
  }
}
