import NIOCore
import PostriderCore

/// Which messages are there: UIDL.
///
/// Neither STAT nor LIST is asked: their sizes are advisory, some servers give wrong ones, and nothing here depends on
/// them. Entries are handed out as they come, so that a mailbox of a million messages costs no more memory than a page.
extension POP3Dialogue {
  struct Listing {
    /// Entries handed out at once, at most.
    static let pageEntries = 1_000
    /// About what an entry costs while it waits for its consumer.
    static let entryOctets = 128

    var inBody = false
    var isOver = false
    var count = 0
    private var last = 0

    /// Reads the complete lines that have come, at most a page of them.
    mutating func page(_ input: inout LineBuffer, maximum: Int) throws(Failure) -> [POP3Entry] {
      var entries: [POP3Entry] = []
      while entries.count < Self.pageEntries,
        let line = try input.nextLine(limit: POP3Limits.listLineOctets, POP3ListLine.init)
      {
        switch line {
        case .end:
          isOver = true
          return entries
        case .malformed(let line):
          throw Failure(.protocolSyntax, serverWords: line, context: "a UIDL line")
        case .unique(let number, let uidl):
          if count == maximum {
            throw Failure(.protocolLimit, context: "more than \(maximum) entries in a listing")
          }
          // A server that repeats a number could make us fetch or delete the wrong message.
          if number <= last {
            throw Failure(.protocolSyntax, context: "a listing whose numbers do not count up (\(last), \(number))")
          }
          last = number
          count += 1
          entries.append(POP3Entry(number: number, uidl: uidl))
        }
      }
      return entries
    }
  }

  mutating func readListing(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .listing(var listing) = state else { return .wait(.answer, step: step) }
    if listing.isOver {
      step += 1
      return done(.done(words: "\(listing.count) messages"))
    }
    if !listing.inBody {
      switch try plainStatus(&input) {
      case nil: return .wait(.answer, step: step)
      case .failure(let error): return refused(error, at: .unique)
      case .success: listing.inBody = true
      }
    }
    let entries = try listing.page(&input, maximum: maximumEntries)
    state = .listing(listing)
    if !entries.isEmpty { return .emit(.entries(entries), octets: entries.count * Listing.entryOctets) }
    return listing.isOver ? next(&input) : .wait(.body, step: step)
  }
}
