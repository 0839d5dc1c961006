import ArgumentParser
import PostriderCore

/// `postrider mailbox apply-defaults`
struct MailboxApplyDefaults: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "apply-defaults", abstract: "Give mailboxes the organization's default email settings.",
    discussion: """
      Shows the values – the default server profile and how mail, appointments, contacts and tasks are synchronized – \
      and writes them. The mailboxes are tested and enabled then, and the command waits for it; with --no-test they stand \
      still where something changed. With --view, --profile or --all it is a batch, done step by step by the API's \
      processes; more than 100 mailboxes are asked about first. Exit code 1 when one was refused or failed its test.
      Example: postrider mailbox apply-defaults support@example.com sales@example.com --dry-run
      Example: postrider mailbox apply-defaults 17 18 --no-test
      Example: postrider mailbox apply-defaults --profile "Old provider" --dry-run
      """)

  @OptionGroup var bulk: BulkOptions
  @Flag(name: .customLong("no-test"), help: "Do not test and enable them.") var leavesUntested = false
  @Option(
    help: ArgumentHelp(
      "Seconds to wait for the tests, 1 to 86400.",
      discussion: """
        What is not done by then goes on by itself. Default: 120, and as long as it takes with --view, --profile or \
        --all.
        """, valueName: "seconds"))
  var timeout: Int?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if let timeout, !(1...86_400).contains(timeout) { throw ValidationError("--timeout must be from 1 to 86400.") }
  }

  func execute(_ session: Session) async throws {
    if bulk.isFilter { return try await batch(session) }
    let chosen = try await Selection.mailboxes(bulk.mailboxes, session.api)
    var answer: AppliedDefaults?
    for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
      let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
      let part: AppliedDefaults = try await session.api.post(
        "/mailboxes/apply-defaults", DefaultsBody(ids: ids, dryRun: bulk.dryRun ? true : nil, test: false))
      answer?.results += part.results
      answer = answer ?? part
    }
    guard let answer else { return }
    let isLast = bulk.dryRun || leavesUntested
    if !session.isJSON {
      try session.print(Self.values(answer.settings).rendered() + "\n")
      try session.print(EditReport.table(answer.results, chosen))
    } else if isLast {
      try session.printJSON(answer)
    }
    if isLast || !answer.results.contains(where: \.ok) { return try EditReport.end(answer.results) }
    let changed = answer.results.compactMap { $0.ok ? $0.mailbox : nil }
    try await WaitOptions.ask(.test, changed, doesNotWait: bulk.doesNotWait, timeout: timeout ?? 120, session) {
      outcome, progress in
      try progress.finish(MailboxTest.line(outcome), isFailure: outcome.state != .passed)
    }
    try EditReport.end(answer.results)
  }

  /// For all that a filter meets.
  private func batch(_ session: Session) async throws {
    let settings: EmailSettings = try await session.api.get("/email-settings")
    guard settings.defaultProfileID != nil else {
      throw ClientError.failed(
        "the organization has no default server profile: choose one with `postrider settings edit --default-profile`")
    }
    if !session.isJSON { try session.print(Self.values(settings).rendered() + "\n") }
    try await bulk.carryOut(
      leavesUntested ? .writeDefaults : .applyDefaults, timeout: timeout.map(Double.init), session)
  }

  /// What is written.
  static func values(_ settings: EmailSettings) -> Details {
    var details = Details()
    details.add("profile", settings.defaultProfileName)
    details.add("incoming", settings.incomingMethod.rawValue)
    details.add("outgoing", settings.outgoingMethod.rawValue)
    details.add("act", Words.act(settings.act))
    return details
  }
}

/// The body of `POST /mailboxes/apply-defaults`.
private struct DefaultsBody: Encodable, Sendable {
  var ids: [MailboxID]
  var dryRun: Bool?
  var test: Bool?
}

/// What became of a change of several mailboxes.
enum EditReport {
  /// One row for each: what changes, or why not.
  static func table(_ edits: [MailboxEditResult], _ mailboxes: [Mailbox]) -> Table {
    let addresses = Dictionary(mailboxes.map { ($0.id, $0.address) }, uniquingKeysWith: { first, _ in first })
    var table = Table(.number("ID"), .flexible("ADDRESS"), .text("RESULT"), .flexible("WHAT"))
    for edit in edits {
      let what = edit.ok ? changes(edit) : [edit.message ?? ""]
      let result = edit.ok ? what.isEmpty ? "unchanged" : "changed" : edit.code ?? "refused"
      table.add("\(edit.id)", addresses[edit.id] ?? "", result, what.joined(separator: ", "))
    }
    return table
  }

  /// Ends with exit code 1 when one was refused.
  static func end(_ edits: [MailboxEditResult]) throws {
    if edits.contains(where: { !$0.ok }) { throw ExitCode(1) }
  }

  private static func changes(_ edit: MailboxEditResult) -> [String] {
    guard let before = edit.before, let after = edit.mailbox else { return [] }
    var words: [String] = []
    func note(_ name: String, _ old: String, _ new: String) {
      if old != new { words.append("\(name): \(old) → \(new)") }
    }
    note("profile", before.profileName ?? "none", after.profileName ?? "none")
    note("active", before.isActive ? "yes" : "no", after.isActive ? "yes" : "no")
    for direction in Direction.allCases {
      note(direction.rawValue, before.state(direction).method.rawValue, after.state(direction).method.rawValue)
    }
    note("act", before.act.method.rawValue, after.act.method.rawValue)
    note("user name", before.userName ?? "the address", after.userName ?? "the address")
    note("credentials", before.allowsCredentials ? "used" : "not used", after.allowsCredentials ? "used" : "not used")
    note("process email from", Words.time(before.processEmailFrom), Words.time(after.processEmailFrom))
    func fate(_ mailbox: Mailbox) -> String { mailbox.deleteAfterProcessing ? "deleted" : "kept" }
    note("after processing", fate(before), fate(after))
    func quota(_ mailbox: Mailbox) -> String { mailbox.sendQuota.map { Words.quota($0) } ?? "the profile's" }
    note("may send", quota(before), quota(after))
    let untested = Direction.allCases.filter {
      before.state($0).status != .notRun && after.state($0).status == .notRun && after.state($0).method != .none
    }
    if !untested.isEmpty { words.append("\(untested.map(\.rawValue).joined(separator: " and ")) to be tested again") }
    return words
  }
}
