import ArgumentParser
import PostriderCore

/// The mailboxes of a bulk verb: named ones, or all that a filter meets.
struct BulkOptions: ParsableArguments {
  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String] = []

  @Option(
    help: ArgumentHelp(
      "All of a view: active, inactive, not-tested, failing or pending-approval.", valueName: "view"))
  var view: MailboxFilter.View?

  @Option(
    help: ArgumentHelp("All of a server profile, by id or name; with --view those in both.", valueName: "profile"))
  var profile: String?

  @Flag(help: "All mailboxes of the organization.") var all = false

  @Flag(help: "Only say what would be done.") var dryRun = false

  @Flag(help: "Do not ask before many mailboxes are changed.") var yes = false

  @Flag(
    name: .customLong("no-wait"),
    help: "Only ask for it; it is done without this command. See postrider batch.")
  var doesNotWait = false

  /// More mailboxes than this are not changed by a filter without a question.
  static let unasked = 100

  func validate() throws {
    let given = [!mailboxes.isEmpty, view != nil || profile != nil, all].filter { $0 }.count
    if given != 1 {
      throw ValidationError("Name mailboxes, or give --view, --profile, both of these, or --all.")
    }
  }

  /// Whether a filter stands for the mailboxes.
  var isFilter: Bool { mailboxes.isEmpty }

  /// Carries out a verb as a batch, asking first where that is due, and reports.
  ///
  /// - Parameter unasked: so many mailboxes of a filter are not asked about.
  func carryOut(
    _ verb: BatchVerb, timeout: Double? = nil, unasked: Int = Self.unasked, _ session: Session
  ) async throws {
    var draft = BatchDraft(verb: verb, dryRun: dryRun ? true : nil)
    if isFilter {
      var profileID: ProfileID?
      if let profile { profileID = try await Selection.profile(profile, session.api).id }
      draft.filter = BatchFilter(view: view, profileID: profileID)
      if !dryRun && !yes { try await ask(verb, profileID, unasked: unasked, session) }
    } else {
      draft.ids = try await Selection.mailboxes(mailboxes, session.api).map(\.id)
    }
    let batch: Batch = try await session.api.post("/batches", draft)
    if doesNotWait { return try session.announce(batch) }
    try await BatchWatcher(session: session, timeout: timeout).report(batch.id)
  }

  private func ask(
    _ verb: BatchVerb, _ profileID: ProfileID?, unasked: Int, _ session: Session
  ) async throws {
    let page: Page<Mailbox> = try await session.api.get(
      "/mailboxes", [("view", view?.rawValue), ("profile", profileID?.description), ("limit", "1")])
    if page.total <= unasked { return }
    let words = BatchWatcher.intention(verb, page.total)
    guard Terminal.canAsk else {
      throw ClientError.usage("this would \(words): say --yes, or look first with --dry-run")
    }
    guard Terminal.confirm("\(words.prefix(1).uppercased())\(words.dropFirst())?") else {
      throw ClientError.failed("nothing was done")
    }
  }
}

extension Session {
  /// Says that a batch goes on by itself.
  func announce(_ batch: Batch) throws {
    if isJSON { return try printJSON(batch) }
    try print(
      "Batch \(batch.id): \(batch.verb.rawValue) \(BatchWatcher.count(batch.total)). "
        + "Follow it with: postrider batch watch \(batch.id)")
  }
}
