import ArgumentParser
import PostriderCore

/// `postrider mailbox activate`
struct MailboxActivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate", abstract: "Let mailboxes run.",
    discussion: """
      Exit code 1 when one of them was refused.
      Example: postrider mailbox activate support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.bulk("activate", mailboxes, done: "active") }
}

/// `postrider mailbox deactivate`
struct MailboxDeactivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "deactivate", abstract: "Stop mailboxes.",
    discussion: """
      Running sessions end by themselves, no new one begins. An inactive mailbox is not tested either; to stop one for a \
      while only, see `mailbox pause`. Exit code 1 when one of them was refused.
      Example: postrider mailbox deactivate support@example.com sales@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.bulk("deactivate", mailboxes, done: "inactive") }
}

/// `postrider mailbox pause`
struct MailboxPause: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Stop work on mailboxes until it is resumed.",
    discussion: """
      Running sessions end by themselves; no new one begins. Profiles, and everything, are paused with `queue pause`.
      Example: postrider mailbox pause support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await PauseTargets.set("pause", mailboxes: mailboxes, session) }
}

/// `postrider mailbox resume`
struct MailboxResume: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "End pauses of mailboxes.",
    discussion: """
      A mailbox runs only when neither itself nor its profile nor everything is paused; see `queue pauses`.
      Example: postrider mailbox resume support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await PauseTargets.set("resume", mailboxes: mailboxes, session) }
}

/// `postrider mailbox delete`
struct MailboxDelete: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete mailboxes with their stored mail, runs and credentials, for good.",
    discussion: """
      Nothing is deleted on the mail server. A mailbox with mail that waits to be sent is refused unless --discard-unsent \
      is given, and so is the one that alerts are mailed from. The mailbox is gone at once, its mail is deleted in the \
      background. Asks before, unless --yes is given. With --view, --profile or --all it is a batch, done step by step \
      by the API's processes. Exit code 1 when one of them was refused.
      Example: postrider mailbox delete support@example.com --dry-run
      Example: postrider mailbox delete support@example.com 17 --yes
      Example: postrider mailbox delete --view inactive --profile "Old provider" --dry-run
      """)

  @OptionGroup var bulk: BulkOptions
  @Flag(help: "Also those with mail that waits to be sent; it never will be.") var discardUnsent = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let verb = discardUnsent ? BatchVerb.deleteWithUnsentMail : .delete
    if bulk.isFilter { return try await bulk.carryOut(verb, unasked: 0, session) }
    let chosen = try await Selection.mailboxes(bulk.mailboxes, session.api)
    let planned = try await delete(chosen, session, dryRun: true)
    if bulk.dryRun { return try report(planned, session, done: "would be deleted") }
    let count = planned.results.count(where: \.ok)
    if count > 0 && !bulk.yes {
      let mail = planned.results.reduce(0) { $0 + ($1.ok ? $1.storedEmails : 0) }
      let words = "\(Words.mailboxes(count)) with \(Words.count(mail, "stored message"))"
      guard Terminal.canAsk else {
        throw ClientError.usage("\(words) would be deleted for good: say --yes, or look first with --dry-run")
      }
      guard Terminal.confirm("Delete \(words) for good?") else { throw ClientError.failed("nothing was deleted") }
    }
    if count > 0 && bulk.doesNotWait {
      let draft = BatchDraft(verb: verb, ids: chosen.map(\.id))
      return try session.announce(try await session.api.post("/batches", draft))
    }
    try report(count == 0 ? planned : try await delete(chosen, session, dryRun: false), session, done: "deleted")
  }

  private func delete(_ chosen: [Mailbox], _ session: Session, dryRun: Bool) async throws -> MailboxDeletionAnswer {
    var answer = MailboxDeletionAnswer(results: [])
    for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
      let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
      let part: MailboxDeletionAnswer = try await session.api.post(
        "/mailboxes/delete",
        DeletionBody(ids: ids, confirmsUnsentMail: discardUnsent ? true : nil, dryRun: dryRun ? true : nil))
      answer.results += part.results
    }
    return answer
  }

  private func report(_ answer: MailboxDeletionAnswer, _ session: Session, done: String) throws {
    let refused = answer.results.count { !$0.ok }
    if session.isJSON {
      try session.printJSON(answer)
    } else {
      var table = Table(
        .number("ID"), .flexible("ADDRESS"), .number("STORED"), .number("UNSENT"), .text("RESULT"), .flexible("WHY"))
      for row in answer.results {
        table.add(
          "\(row.id)", row.address ?? "", "\(row.storedEmails)", "\(row.unsentEmails)",
          row.ok ? done : row.code ?? "refused", row.message ?? "")
      }
      try session.print(table)
      let words = Words.mailboxes(answer.results.count - refused)
      try session.print("\(words) \(done)\(refused == 0 ? "" : ", \(refused) refused").")
    }
    if refused > 0 { throw ExitCode(1) }
  }
}

/// The body of `POST /mailboxes/delete`.
private struct DeletionBody: Encodable, Sendable {
  var ids: [MailboxID]
  var confirmsUnsentMail: Bool?
  var dryRun: Bool?
}

/// The answer of `POST /mailboxes/delete`.
struct MailboxDeletionAnswer: Codable, Sendable {
  var results: [MailboxDeletion]
}

extension Session {
  /// Carries out a bulk verb that only takes ids, and prints the answers.
  fileprivate func bulk(_ verb: String, _ names: [String], done: String) async throws {
    let chosen = try await Selection.mailboxes(names, api)
    var answer = BulkAnswer(results: [])
    for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
      let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
      let part: BulkAnswer = try await api.post("/mailboxes/\(verb)", BulkRequest(ids: ids))
      answer.results += part.results
    }
    try report(answer, chosen, done: done)
  }
}
