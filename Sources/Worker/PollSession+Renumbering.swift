import MailMessage
import MailProtocols
import PostriderCore

/// Servers that give their mail new unique ids: after a move to another machine, or a repair of their index.
extension PollSession {
  /// Fewer unknown messages are no wholesale change.
  private static let fewestRenumbered = 3
  /// Halts the import when most of what is listed is unknown by its unique id, but stored by its Message-ID: it would be
  /// imported a second time. Throws `pop3.uidl-reset`; a person has to choose.
  ///
  /// Nearly every poll ends at the first line: only one whose mail is mostly new asks further.
  func haltIfRenumbered(_ survey: MailboxSurvey, _ session: POP3Session) async throws {
    guard survey.unknown >= Self.fewestRenumbered, survey.unknown > survey.known, session.capabilities.top else {
      return
    }
    let settings = task.settings
    guard try await context.store.hasStored(mailbox: settings.mailboxID, organization: settings.organizationID)
    else { return }
    let ids = try await messageIDs(of: survey.sample, session).map(\.id)
    guard ids.count >= Self.fewestRenumbered else { return }
    let candidates = try await stored(like: .messageIDs(ids))
    guard !candidates.isEmpty else { return }
    // The list is asked for once more: it was not kept for a question that hardly ever comes up.
    var listed = ListedIDs()
    try await session.list { listed.add($0) }
    listed.finish()
    let stored = Set(candidates.filter { !listed.contains($0.uidl) }.map(\.messageID))
    let recognized = ids.count { stored.contains($0) }
    guard recognized * 2 > ids.count else { return }
    try await context.store.noteRenumbering(writer: task.writer)
    throw Failure(
      .pop3UIDLReset,
      context:
        "\(survey.unknown) of \(survey.listed) messages have unknown unique ids, and \(recognized) of \(ids.count)"
        + " that were looked at are stored already")
  }

  /// Takes what is stored under another unique id as known and returns the rest.
  func withoutStored(
    _ new: [POP3Entry], _ survey: MailboxSurvey, _ session: POP3Session
  ) async throws -> [POP3Entry] {
    guard session.capabilities.top else { return new }
    let named = try await messageIDs(of: new, session)
    // Two copies of one message are two: each stored one stands for one that is listed.
    var stored = Dictionary(
      grouping: try await stored(like: .messageIDs(named.map(\.id)), notIn: survey), by: { $0.messageID ?? "" })
    var renumbered: [String: String] = [:]
    for (entry, id) in named {
      if let old = stored[id]?.popLast() { renumbered[old.uidl] = entry.uidl.text }
    }
    try await context.store.renumber(renumbered, writer: task.writer)
    progress.note { $0.known += renumbered.count }
    let known = Set(renumbered.values)
    return new.filter { !known.contains($0.uidl.text) }
  }

  /// Whether a fetched message without a Message-ID is stored under another unique id; then it is known from now on.
  func isStored(_ message: ReceivedMessage, _ survey: MailboxSurvey) async throws -> Bool {
    guard task.assignment.reimport == .missing, message.envelope.messageID == nil else { return false }
    let found = try await stored(like: .contentHash(message.contentHash), notIn: survey)
    guard let old = found.first else { return false }
    try await context.store.renumber([old.uidl: message.uidl], writer: task.writer)
    progress.note { $0.known += 1 }
    return true
  }

  private func stored(like keys: MessageKeys) async throws -> [StoredUnderID] {
    try await context.store.stored(
      like: keys, mailbox: task.settings.mailboxID, organization: task.settings.organizationID)
  }

  /// Those that are stored under unique ids which the server does not list.
  private func stored(like keys: MessageKeys, notIn survey: MailboxSurvey) async throws -> [StoredUnderID] {
    try await stored(like: keys).filter { survey.ids?.contains($0.uidl) != true }
  }

  /// The Message-IDs of messages that have one.
  private func messageIDs(
    of entries: [POP3Entry], _ session: POP3Session
  ) async throws -> [(entry: POP3Entry, id: String)] {
    var ids: [(entry: POP3Entry, id: String)] = []
    for entry in entries {
      // A header that is refused or cannot be read says nothing.
      guard let header = try await header(of: entry, session),
        let id = (try? MessageReader.parse(header))?.envelope.messageID
      else { continue }
      ids.append((entry, id))
    }
    return ids
  }
}
