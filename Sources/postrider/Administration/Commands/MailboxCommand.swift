import ArgumentParser
import PostriderCore

/// `postrider mailbox …`
struct MailboxCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mailbox", abstract: "Mailboxes: the accounts that are polled and sent from.",
    subcommands: [
      MailboxCreate.self, MailboxImport.self, MailboxList.self, MailboxShow.self, MailboxEdit.self, MailboxMove.self,
      MailboxApprove.self, MailboxReject.self, MailboxActivate.self, MailboxDeactivate.self, MailboxPause.self,
      MailboxResume.self, MailboxDelete.self, MailboxApplyDefaults.self,
      MailboxTest.self, MailboxPoll.self, MailboxReimport.self, MailboxQuota.self, MailboxConnect.self,
      MailboxConnectionShow.self, MailboxDisconnect.self,
    ])
}

/// `postrider mailbox list`
struct MailboxList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List mailboxes by address.",
    discussion: """
      Example: postrider mailbox list --view failing
      What changed last: postrider mailbox list --sort=-updated --limit 20
      """)

  @Option(
    help: ArgumentHelp(
      "Only these: active, inactive, not-tested, failing, pending-approval or mine.", discussion: "Default: all.",
      valueName: "view"))
  var view: MailboxFilter.View?

  @Option(help: ArgumentHelp("Only those of this profile, by id or name.", valueName: "profile"))
  var profile: String?

  @Option(help: ArgumentHelp("Only the one with exactly this address.", valueName: "address"))
  var address: String?

  @Option(
    help: ArgumentHelp(
      "By address or by the last change of settings or state: address, -address, updated or -updated; with - the other"
        + " way round. By change only without the options above.", valueName: "order"))
  var sort = MailboxSort.address

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var profileID: ProfileID?
    if let profile { profileID = try await Selection.profile(profile, session.api).id }
    let page: Page<Mailbox> = try await Selection.list(
      "/mailboxes",
      [
        ("view", view?.rawValue), ("address", address), ("profile", profileID?.description),
        ("sort", sort == .address ? nil : sort.rawValue),
      ],
      limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .flexible("ADDRESS"), .flexible("PROFILE"), .text("APPROVAL"), .flexible("INCOMING"),
      .flexible("OUTGOING"), .text("NEXT POLL"), .number("EMAILS"))
    for mailbox in page.items {
      table.add(
        "\(mailbox.id)", mailbox.address, mailbox.profileName ?? "-", mailbox.approval.rawValue,
        Words.brief(mailbox.incoming), Words.brief(mailbox.outgoing), Words.time(mailbox.incoming.nextRunAt),
        "\(mailbox.emailCount)")
    }
    try session.print(table, page, "mailbox", plural: "mailboxes")
  }
}

/// `postrider mailbox show`
struct MailboxShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show mailboxes: both directions, what runs next and why not.",
    discussion: """
      With --json one mailbox is an object, several are an array.
      Example: postrider mailbox show support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try session.show(try await Selection.mailboxes(mailboxes, session.api)) { Self.details($0).rendered() }
  }

  static func details(_ mailbox: Mailbox) -> Details {
    var details = Details()
    details.add("id", "\(mailbox.id)")
    details.add("address", mailbox.address)
    details.add("owner", "\(mailbox.owner.name) (\(mailbox.owner.kind.rawValue) \(mailbox.owner.id))")
    details.add("profile", mailbox.profileID.map { "\(mailbox.profileName ?? "") (\($0))" } ?? "none")
    details.add("active", mailbox.isActive ? "yes" : "no")
    details.add("paused", mailbox.pausedAt.flatMap { Words.timeAndDistance($0) }.map { "since \($0)" })
    details.add("approval", mailbox.approval.rawValue)
    details.add("user name", mailbox.userName ?? "the address")
    details.add(
      "password", !mailbox.passwordSet ? "none" : mailbox.allowsCredentials ? "set" : "set, but not to be used")
    details.add("process email from", mailbox.processEmailFrom.map { Words.time($0) })
    details.add("may send", mailbox.sendQuota.map { Words.quota($0) })
    if mailbox.deleteAfterProcessing { details.add("after processing", "deleted from the server") }
    details.add("messages stored", "\(mailbox.emailCount)")
    details.add("last test", mailbox.lastTestRunID.map { "run \($0)" })
    details.add("last poll", mailbox.lastPollRunID.map { "run \($0)" })
    let outstanding = (mailbox.testsRequested - mailbox.testsServed, mailbox.pollsRequested - mailbox.pollsServed)
    if outstanding.0 > 0 { details.add("waiting", "a test was requested and is not done yet") }
    if outstanding.1 > 0 { details.add("waiting", "a poll was requested and is not done yet") }
    direction("incoming", mailbox.incoming, &details)
    direction("outgoing", mailbox.outgoing, &details)
    details.heading("")
    details.add("act", Words.act(mailbox.act))
    return details
  }

  /// `7 min, because of limit`; `nil` when it is as asked for.
  private static func effectiveInterval(_ state: DirectionState) -> String? {
    guard let seconds = state.effectiveIntervalSeconds,
      seconds != state.intervalSeconds || state.effectiveIntervalReason != nil
    else { return nil }
    let words = Words.duration(Double(seconds))
    return state.effectiveIntervalReason.map { "\(words), because of \($0)" } ?? words
  }

  private static func direction(_ name: String, _ state: DirectionState, _ details: inout Details) {
    details.heading("")
    details.heading(name)
    details.add("  method", state.method.rawValue)
    guard state.method != .none else { return }
    details.add("  status", state.status.rawValue)
    details.add("  enabled", state.enabled ? "yes" : "no")
    details.add("  not running", state.notRunningReason)
    details.add("  interval", state.intervalSeconds.map { Words.duration(Double($0)) })
    details.add("  really", effectiveInterval(state))
    details.add("  last run", Words.timeAndDistance(state.lastRunAt))
    details.add("  next run", Words.timeAndDistance(state.nextRunAt))
    details.add("  why then", Words.reason(state))
    guard let code = state.failureCode else { return }
    let explanation = Words.explanation(code)
    details.add("  last error", explanation.map { "\(code): \($0.summary)" } ?? code)
    details.add("  since", Words.timeAndDistance(state.failedAt))
    details.add("  what to do", explanation?.remedy)
  }
}
