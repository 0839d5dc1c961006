import MailProtocols
import PostriderCore

/// Stored messages leave the server, where the mailbox wants that.
extension PollSession {
  /// So many are marked before the time is looked at.
  private static let deletesAtOnce = 256

  /// Messages that are on the server although a session before this one stored what has their unique ids.
  struct Backlog {
    /// Numbers of those that are the stored ones.
    var stored: [Int] = []
    /// Other messages: the server gave the unique ids of removed ones a second time.
    var reused: [POP3Entry] = []
    /// What the ledger holds of these ids.
    var held: [String: [LedgerEntry]] = [:]
    /// Whether there is more than this session looked at.
    var hasMore = false
  }

  /// Those that may be removed from the server, where the mailbox wants that at all.
  func stored(_ uidls: [String]) async throws -> Set<String> {
    guard task.removesStored else { return [] }
    return try await context.store.stored(
      uidls: uidls, mailbox: task.settings.mailboxID, organization: task.settings.organizationID)
  }

  /// Looks whether what was stored before this session is what is listed: where a server gives the unique id of a
  /// removed message again, the new one would be lost. There is hardly ever any, since each session removes what it
  /// stores.
  func backlog(_ survey: MailboxSurvey, _ session: POP3Session) async throws -> Backlog {
    let unseen = Backlog(stored: survey.stored.map(\.number), hasMore: survey.hasMoreStored)
    guard !survey.stored.isEmpty, session.mayTop else { return unseen }
    var backlog = Backlog(hasMore: survey.hasMoreStored)
    let looked = try await look(at: survey.stored, session) { part in
      let held = try await ledger(of: part.map(\.entry.uidl.text))
      for (entry, envelope) in part {
        // A header that is refused says nothing: the message stays.
        guard let envelope, let rows = held[entry.uidl.text] else { continue }
        // Without a Message-ID only the content tells: it is fetched, found equal, and removed after that.
        if let id = envelope.messageID, rows.contains(where: { $0.isStored && $0.messageID == id }) {
          backlog.stored.append(entry.number)
        } else if rows.allSatisfy(\.isStored), backlog.reused.count < task.settings.messagesPerPoll {
          backlog.reused.append(entry)
          backlog.held[entry.uidl.text] = rows
        }
      }
    }
    guard session.mayTop else { return unseen }
    if looked < survey.stored.count { backlog.hasMore = true }
    // They were taken for known ones.
    progress.note { $0.known -= backlog.reused.count }
    return backlog
  }

  /// Marks messages as deleted: those that this session found or made settled and that are stored, and those of the
  /// backlog, as long as there is time. Returns how many. What was skipped or quarantined is nowhere else and stays.
  func remove(
    _ settled: [Int: String], _ backlog: Backlog, _ session: POP3Session, until end: ContinuousClock.Instant
  ) async throws -> Int {
    guard task.removesStored else { return 0 }
    let now = try await stored(Set(settled.values).sorted())
    let numbers = settled.filter { now.contains($0.value) }.keys.sorted() + backlog.stored
    var removed = 0
    var hasMore = backlog.hasMore
    for start in stride(from: 0, to: numbers.count, by: Self.deletesAtOnce) {
      if start > 0, ContinuousClock.now >= end {
        hasMore = true
        break
      }
      let part = Array(numbers[start..<min(start + Self.deletesAtOnce, numbers.count)])
      let refused = try await session.delete(part)
      removed += part.count - refused.count
    }
    // Where nothing could be removed, another session at once could neither.
    if hasMore, removed > 0 { progress.note { $0.moreMail = true } }
    return removed
  }
}
