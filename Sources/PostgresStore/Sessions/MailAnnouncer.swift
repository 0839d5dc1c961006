import FoundationEssentials
import Logging
import PostriderCore
import Synchronization

/// Says on the channel `postrider_email` that messages were stored, after their commit.
///
/// The payload is JSON: `{"emailIDs":[101,102],"mailboxID":12,"organizationID":1}`, at most 300 numbers in one. It is a
/// hint for those who listen: what was announced while they were not connected, or when a process died right after a
/// commit, is not repeated; webhooks are, and `GET /api/v1/emails` has everything.
///
/// Not in the transaction that stores: PostgreSQL lets only one transaction that notifies commit at a time, and all sessions
/// would wait for each other's disk. What comes while one announcement is written goes with the next.
final class MailAnnouncer: Sendable {
  static let channel = "postrider_email"
  private static let maximumIDs = 300
  /// Announcements kept at most while PostgreSQL is away.
  private static let capacity = 10_000

  private struct Payload: Encodable {
    var organizationID: OrganizationID
    var mailboxID: MailboxID
    var emailIDs: [Int64]
  }

  private struct State {
    var payloads: [String] = []
    var isWriting = false
  }

  private let pool: ConnectionPool
  private let logger: Logger
  private let state = Mutex(State())
  /// Given when this process stored mail.
  let mail = WakeSignal()

  init(pool: ConnectionPool, logger: Logger) {
    self.pool = pool
    self.logger = logger
  }

  /// Announces stored messages; returns at once.
  func stored(_ emails: [Int64], mailbox: MailboxID, organization: OrganizationID) {
    if emails.isEmpty { return }
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    let payloads = stride(from: 0, to: emails.count, by: Self.maximumIDs).compactMap { start in
      let part = Array(emails[start..<min(start + Self.maximumIDs, emails.count)])
      // Three numbers and a list of them can always be encoded.
      return (try? encoder.encode(Payload(organizationID: organization, mailboxID: mailbox, emailIDs: part)))
        .map { String(decoding: $0, as: UTF8.self) }
    }
    let begins = state.withLock { state in
      if state.payloads.count < Self.capacity { state.payloads += payloads }
      defer { state.isWriting = true }
      return !state.isWriting
    }
    mail.signal()
    // A task of its own: it outlives the session that stored the mail, and ends when all is said.
    if begins { Task { await write() } }
  }

  private func write() async {
    while true {
      let payloads = state.withLock { state in
        defer { state.payloads = [] }
        if state.payloads.isEmpty { state.isWriting = false }
        return state.payloads
      }
      if payloads.isEmpty { return }
      do {
        try await pool.transaction(.worker) { db in
          _ = try db.commit([
            // A hint need not wait for the disk.
            Statement("SELECT set_config('synchronous_commit', 'off', true)"),
            Statement("SELECT pg_notify($1, p) FROM unnest($2) AS p", [.text(Self.channel), .texts(payloads)]),
          ])
        }
      } catch {
        logger.debug("New mail could not be announced", metadata: ["error": "\(error)"])
      }
    }
  }
}
