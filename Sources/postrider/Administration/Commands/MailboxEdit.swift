import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider mailbox edit`
struct MailboxEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change mailboxes while they work.",
    discussion: """
      What is not named stays. Several are changed in one transaction, without a test; those that are refused stay as \
      they are, and the exit code is 1. Another address, profile, method or login makes that direction of the mailbox stand still \
      until it is tested again; another address waits for approval again as well. A password is never an argument: it \
      comes from --password-stdin, --password-file, POSTRIDER_MAILBOX_PASSWORD or, at a terminal, a question without \
      echo. With --json one mailbox is an object, several are an array.
      Example: postrider mailbox edit support@example.com --deactivate
      Example: postrider mailbox edit support@example.com --new-password
      Example: postrider mailbox edit support@example.com --user-name support-2 --outgoing none
      Example: postrider mailbox edit 17 --address help@example.com
      Example: postrider mailbox edit 17 18 19 --process-email-from 2026-01-31 --dry-run
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup var activation: ActivationOptions

  @Option(
    help: ArgumentHelp(
      "Another e-mail address, unique, at most 254 characters; for one mailbox.",
      discussion: "Its mail has to be approved again.", valueName: "address"))
  var address: String?

  @Option(help: ArgumentHelp("Move them to this profile, by id or name; see `mailbox move`.", valueName: "profile"))
  var profile: String?

  @Option(help: ArgumentHelp("Receiving: none or server-side-sync.", valueName: "method"))
  var incoming: SyncMethod?

  @Option(help: ArgumentHelp("Sending: none or server-side-sync.", valueName: "method"))
  var outgoing: SyncMethod?

  @Option(help: ArgumentHelp("Appointments, contacts and tasks: none or server-side-sync.", valueName: "method"))
  var act: SyncMethod?

  @Option(help: ArgumentHelp("The login name, 1 to 200 characters; for one mailbox.", valueName: "name"))
  var userName: String?

  @Flag(name: .customLong("address-as-user-name"), help: "Log in with the address.") var usesAddress = false

  @Flag(
    name: .customLong("new-password"),
    help: "Give it another password, which is asked for, or take it away with --no-password; for one mailbox.")
  var hasNewPassword = false

  @OptionGroup(title: "New password (also POSTRIDER_MAILBOX_PASSWORD)") var password: PasswordOptions

  @Flag(
    inversion: .prefixedNo,
    help: "Whether the user name and password stored here may be used.")
  var useCredentials: Bool?

  @Option(
    help: ArgumentHelp(
      "Mail received earlier is not imported: a day or a moment, UTC.",
      discussion: "Example: --process-email-from 2026-01-31", valueName: "date"))
  var processEmailFrom: DateArgument?

  @Flag(help: "Import all mail, however old, as far as the profile allows.") var allMail = false

  @Flag(
    inversion: .prefixedNo, help: "Whether messages are removed from the server once they are stored; for queues only.")
  var deleteAfterProcessing: Bool?

  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the mailbox since this version; for one mailbox.",
      discussion: "The version is in `mailbox show --json`.", valueName: "number"))
  var ifVersion: Int64?

  @Flag(help: "Only say what would be done.") var dryRun = false

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    let isForOne = address != nil || userName != nil || hasNewPassword || ifVersion != nil
    if isForOne && mailboxes.count > 1 {
      throw ValidationError("--address, --user-name, --new-password and --if-version are for one mailbox.")
    }
    if isForOne && dryRun {
      throw ValidationError("--dry-run does not go with --address, --user-name, --new-password and --if-version.")
    }
    if userName != nil && usesAddress {
      throw ValidationError("Give either --user-name or --address-as-user-name, not both.")
    }
    if processEmailFrom != nil && allMail {
      throw ValidationError("Give either --process-email-from or --all-mail, not both.")
    }
    if !hasNewPassword && (password.passwordStdin || password.passwordFile != nil || password.noPassword) {
      throw ValidationError("A password is only changed with --new-password.")
    }
    let texts = [address, profile, userName]
    let switches = [activation.isActive, useCredentials, deleteAfterProcessing]
    let methods = [incoming, outgoing, act]
    if texts.allSatisfy({ $0 == nil }) && switches.allSatisfy({ $0 == nil }) && methods.allSatisfy({ $0 == nil })
      && processEmailFrom == nil && !usesAddress && !hasNewPassword && !allMail
    {
      throw ValidationError("Nothing is to be changed: give an option, such as --deactivate or --new-password.")
    }
  }

  func execute(_ session: Session) async throws {
    try await session.change(mailboxes, profile: profile, request(), dryRun: dryRun)
  }

  /// The request but for the profile; reads the password.
  func request() throws -> MailboxChangeRequest {
    var clears: [MailboxChange.Clearable] = []
    if usesAddress { clears.append(.userName) }
    if allMail { clears.append(.processEmailFrom) }
    var secret: Secret?
    if hasNewPassword {
      secret = try password.read(
        variable: "POSTRIDER_MAILBOX_PASSWORD",
        question: "New password of \(Terminal.safe(mailboxes.joined())) (empty for none): ")
      if secret?.revealed.isEmpty ?? true {
        secret = nil
        clears.append(.password)
      }
    }
    return MailboxChangeRequest(
      address: address, isActive: activation.isActive, incomingMethod: incoming, outgoingMethod: outgoing,
      actMethod: act,
      allowsCredentials: useCredentials, userName: userName, password: secret.map { SentSecret($0) },
      processEmailFrom: processEmailFrom?.date, deleteAfterProcessing: deleteAfterProcessing,
      clears: clears.isEmpty ? nil : clears, version: ifVersion)
  }
}

/// `postrider mailbox move`
struct MailboxMove: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "move", abstract: "Move mailboxes to another server profile.",
    discussion: """
      They have to be tested there before they run again. A mailbox never has sessions in both profiles: none begins \
      in the new one before the last one in the old has ended.
      Example: postrider mailbox move support@example.com sales@example.com --profile "New provider"
      Example: postrider mailbox move 17 18 --profile "New provider" --dry-run
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]

  @Option(help: ArgumentHelp("The profile they move to, by id or name.", valueName: "profile"))
  var profile: String

  @Flag(help: "Only say what would be done.") var dryRun = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.change(mailboxes, profile: profile, MailboxChangeRequest(), dryRun: dryRun)
  }
}

extension Session {
  /// Changes mailboxes: one by itself, several in one transaction, in which those that are refused stay as they are.
  func change(
    _ names: [String], profile: String?, _ request: MailboxChangeRequest, dryRun: Bool = false
  ) async throws {
    let chosen = try await Selection.mailboxes(names, api)
    var request = request
    let target: ServerProfile?
    if let profile { target = try await Selection.profile(profile, api) } else { target = nil }
    request.profileID = target?.id
    var edits: [MailboxEditResult] = []
    if let only = chosen.first, chosen.count == 1, !dryRun {
      let after: Mailbox = try await api.patch("/mailboxes/\(only.id)", request)
      edits = [MailboxEditResult(id: only.id, ok: true, before: only, mailbox: after)]
    } else {
      for start in stride(from: 0, to: chosen.count, by: BulkRequest.maximumIDs) {
        let ids = chosen[start..<min(start + BulkRequest.maximumIDs, chosen.count)].map(\.id)
        let part: MailboxEditAnswer = try await api.patch(
          "/mailboxes", MailboxEditBody(ids: ids, change: request, dryRun: dryRun ? true : nil))
        edits += part.results
      }
    }
    try report(edits, chosen, request, target, dryRun: dryRun)
    try EditReport.end(edits)
  }

  private func report(
    _ edits: [MailboxEditResult], _ chosen: [Mailbox], _ request: MailboxChangeRequest, _ target: ServerProfile?,
    dryRun: Bool
  ) throws {
    let changed = edits.compactMap { edit in edit.mailbox.map { (before: edit.before ?? $0, after: $0) } }
    if isJSON {
      if dryRun || changed.count < edits.count { return try printJSON(MailboxEditAnswer(results: edits)) }
      return try show(changed.map(\.after)) { _ in "" }
    }
    if edits.count > 1 || dryRun {
      try print(EditReport.table(edits, chosen))
      if dryRun { return try print("Nothing was changed.") }
    } else {
      for (_, mailbox) in changed {
        let moved = target.map { " is now with \($0.name)" }
        let switched = request.isActive.map { $0 ? " is active" : " is inactive" }
        let what = [moved, switched].compactMap { $0 }.joined(separator: " and")
        try print(Terminal.safe("\(mailbox.address)\(what.isEmpty ? " is changed" : what)."))
      }
    }
    let pending = changed.filter { $0.before.approval != .pending && $0.after.approval == .pending }.map(\.after)
    let untested = changed.filter { change in
      Direction.allCases.contains {
        change.before.state($0).status != .notRun && change.after.state($0).status == .notRun
          && change.after.state($0).method != .none
      }
    }.map(\.after)
    func ids(_ mailboxes: [Mailbox]) -> String { mailboxes.map { "\($0.id)" }.joined(separator: " ") }
    if !pending.isEmpty { try print("\nNext: postrider mailbox approve \(ids(pending))") }
    let toTest = request.profileID == nil ? untested : changed.map(\.after)
    if !toTest.isEmpty { try print("\nNext: postrider mailbox test \(ids(toTest))") }
  }
}
