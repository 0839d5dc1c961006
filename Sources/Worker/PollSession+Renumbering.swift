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
    guard survey.unknown >= Self.fewestRenumbered, survey.unknown > survey.known, session.mayTop else { return }
    let settings = task.settings
    guard try await context.store.hasStored(mailbox: settings.mailboxID, organization: settings.organizationID)
    else { return }
    var ids: [String] = []
    try await look(at: survey.sample, session) { part in
      ids += part.compactMap { $0.envelope?.messageID }
    }
    guard ids.count >= Self.fewestRenumbered else { return }
    let stored = Set(try await stored(like: .messageIDs(ids), notIn: survey).map(\.messageID))
    let recognized = ids.count { stored.contains($0) }
    guard recognized * 2 > ids.count else { return }
    try await context.store.noteRenumbering(writer: task.writer)
    throw Failure(
      .pop3UIDLReset,
      context:
        "\(survey.unknown) of \(survey.listed) messages have unknown unique ids, and \(recognized) of \(ids.count)"
        + " that were looked at are stored already")
  }

  /// Takes what is stored under another unique id as known and returns the rest. Those that there was no time to look
  /// at are for a later session.
  func withoutStored(
    _ new: [POP3Entry], _ survey: MailboxSurvey, _ session: POP3Session
  ) async throws -> [POP3Entry] {
    guard session.mayTop, !new.isEmpty else { return new }
    var known: Set<String> = []
    let looked = try await look(at: new, session) { part in
      let ids = part.compactMap { $0.envelope?.messageID }
      // Two copies of one message are two: each stored one stands for one that is listed.
      var stored = Dictionary(
        grouping: try await stored(like: .messageIDs(ids), notIn: survey), by: { $0.messageID ?? "" })
      var renumbered: [String: String] = [:]
      for (entry, envelope) in part {
        // A header that is refused or cannot be read says nothing.
        guard let id = envelope?.messageID, let old = stored[id]?.popLast() else { continue }
        renumbered[old.uidl] = entry.uidl.text
      }
      try await context.store.renumber(renumbered, writer: task.writer)
      progress.note { $0.known += renumbered.count }
      known.formUnion(renumbered.values)
    }
    guard session.mayTop else { return new }
    if looked < new.count { progress.note { $0.moreMail = true } }
    return new.prefix(looked).filter { !known.contains($0.uidl.text) }
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

  /// Those that are stored under unique ids which the server does not list.
  private func stored(like keys: MessageKeys, notIn survey: MailboxSurvey) async throws -> [StoredUnderID] {
    let found = try await context.store.stored(
      like: keys, mailbox: task.settings.mailboxID, organization: task.settings.organizationID)
    return found.filter { !survey.ids.contains($0.uidl) }
  }
}
