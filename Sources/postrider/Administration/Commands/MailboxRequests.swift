import ArgumentParser
import PostriderCore

/// Options of commands that ask workers for something and wait.
struct WaitOptions: ParsableArguments {
  @OptionGroup var bulk: BulkOptions

  @Option(
    help: ArgumentHelp(
      "Seconds to wait, 1 to 86400.",
      discussion: """
        What is not done by then goes on by itself. Default: 120, and as long as it takes with --view, --profile or \
        --all. Example: --timeout 600
        """,
      valueName: "seconds"))
  var timeout: Int?

  func validate() throws {
    if let timeout, !(1...86_400).contains(timeout) { throw ValidationError("--timeout must be from 1 to 86400.") }
  }

  /// Makes the requests, waits unless told otherwise, prints, and ends with exit code 1 when something failed.
  func ask(
    _ kind: RequestWaiter.Kind, takesOver: Bool = false, _ session: Session,
    _ report: @escaping (RequestWaiter.Outcome, inout Progress) throws -> Void
  ) async throws {
    if bulk.isFilter || bulk.dryRun || bulk.mailboxes.count > BulkRequest.maximumIDs {
      return try await bulk.carryOut(kind == .test ? .test : .poll, timeout: timeout.map(Double.init), session)
    }
    let chosen = try await Selection.mailboxes(bulk.mailboxes, session.api)
    try await Self.ask(
      kind, chosen, takesOver: takesOver, doesNotWait: bulk.doesNotWait, timeout: timeout ?? 120, session, report)
  }

  /// The same for mailboxes that are known already.
  static func ask(
    _ kind: RequestWaiter.Kind, _ chosen: [Mailbox], takesOver: Bool = false, doesNotWait: Bool, timeout: Int,
    _ session: Session,
    _ report: @escaping (RequestWaiter.Outcome, inout Progress) throws -> Void
  ) async throws {
    if doesNotWait {
      let answer = BulkAnswer(results: try await RequestWaiter.request(kind, chosen, takesOver: takesOver, session.api))
      return try session.report(answer, chosen, done: "\(kind.rawValue) requested")
    }
    let waiter = RequestWaiter(kind: kind, session: session, timeout: Double(timeout), takesOver: takesOver) {
      outcome, progress in
      if session.isJSON {
        try progress.finish(nil, isFailure: outcome.state != .passed)
      } else {
        try report(outcome, &progress)
      }
    }
    let answer = try await waiter.run(chosen)
    if session.isJSON { try session.printJSON(answer) }
    if answer.results.contains(where: { $0.state != .passed }) { throw ExitCode(1) }
  }
}

/// `postrider mailbox test`
struct MailboxTest: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Test both directions of mailboxes and enable what passes.",
    discussion: """
      Waits for the workers, prints each result as it comes and the steps of what failed. When nothing starts for 10 \
      seconds it says why – no worker is running, all are busy, a limit, a pause, a breaker – and again when the reason \
      changes, and goes on waiting. With --view, --profile or --all it is a batch, behind everything else that workers do. \
      Exit code 1 when a tested direction failed or was not done in time.
      All of a profile: postrider mailbox test --profile "Example mail"
      Example: postrider mailbox test support@example.com
      Example: postrider mailbox test support@example.com --take-over
      """)

  @OptionGroup var wait: WaitOptions
  @Flag(
    help: ArgumentHelp(
      "Sync from this organization only.",
      discussion: """
        Where another organization of this installation receives the address's mail, the test fails with \
        ownership.other-organization. With this it takes the address over as soon as it has logged in: the other \
        organization stops receiving, and both get an alert. Named mailboxes only.
        """))
  var takeOver = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    let bulk = wait.bulk
    guard takeOver, bulk.isFilter || bulk.dryRun || bulk.mailboxes.count > BulkRequest.maximumIDs else { return }
    throw ValidationError(
      "--take-over goes with up to \(BulkRequest.maximumIDs) named mailboxes, not with --view, --profile, --all or "
        + "--dry-run.")
  }

  func execute(_ session: Session) async throws {
    try await wait.ask(.test, takesOver: takeOver, session) { outcome, progress in
      try progress.finish(Self.line(outcome), isFailure: outcome.state != .passed)
      guard outcome.state == .failed, let run = outcome.run else { return }
      progress.clear()
      try session.print(RunView.steps(run.steps))
      for remedy in RunView.remedies(run) { try session.print(remedy) }
      try session.print("")
    }
  }

  /// One line for one mailbox.
  static func line(_ outcome: RequestWaiter.Outcome) -> String {
    let mailbox = outcome.mailbox
    var text = "\(Terminal.safe(mailbox.address)): \(outcome.state.rawValue)"
    if let message = outcome.message { return "\(text): \(Terminal.safe(message))" }
    let directions = [("incoming", mailbox.incoming), ("outgoing", mailbox.outgoing)]
      .filter { $0.1.method != .none }
      .map { "\($0.0) \($0.1.status == .success ? "works" : $0.1.failureCode ?? $0.1.status.rawValue)" }
    text += " (\(Terminal.safe(directions.joined(separator: ", "))))"
    if let run = outcome.run {
      text +=
        " in \(Words.duration(run.finishedAt.timeIntervalSince(run.startedAt))), run \(run.id?.description ?? "?")"
    }
    return text
  }
}

/// `postrider mailbox poll`
struct MailboxPoll: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "poll", abstract: "Receive new mail now; also called sync.",
    discussion: """
      Waits for the workers and prints what was stored; when nothing starts for 10 seconds it says why. Exit code 1 when a poll failed, was refused or was not done \
      in time. A mailbox that is not running is refused: test it first. With --view, --profile or --all it is a batch.
      Example: postrider mailbox poll support@example.com
      Example: postrider mailbox sync support@example.com
      """, aliases: ["sync"])

  @OptionGroup var wait: WaitOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await wait.ask(.poll, session) { outcome, progress in
      try progress.finish(Self.line(outcome), isFailure: outcome.state != .passed)
      guard outcome.state == .failed, let run = outcome.run else { return }
      progress.clear()
      for remedy in RunView.remedies(run) { try session.print(remedy) }
    }
  }

  /// One line for one mailbox.
  static func line(_ outcome: RequestWaiter.Outcome) -> String {
    let text = "\(Terminal.safe(outcome.mailbox.address)): "
    if let message = outcome.message { return "\(text)\(outcome.state.rawValue): \(Terminal.safe(message))" }
    guard let run = outcome.run else { return text + (outcome.state == .passed ? "done" : "failed") }
    return "\(text)\(RunView.result(run)), run \(run.id?.description ?? "?")"
  }
}
