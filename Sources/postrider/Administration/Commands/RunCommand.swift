import ArgumentParser
import PostriderCore

/// `postrider run …`
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Runs: what workers did, step by step.",
    subcommands: [RunList.self, RunShow.self])
}

/// `postrider run list`
struct RunList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List runs, newest first.",
    discussion: "Example: postrider run list --mailbox support@example.com --result failure")

  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?

  @Option(help: ArgumentHelp("Only these: poll, send or test.", discussion: "Default: all.", valueName: "kind"))
  var kind: JobKind?

  @Option(
    help: ArgumentHelp("Only these: success, failure or partial.", discussion: "Default: all.", valueName: "result"))
  var result: RunResult?

  @Flag(help: "Oldest first.") var oldestFirst = false

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var id: MailboxID?
    if let mailbox { id = try await Selection.mailbox(mailbox, session.api).id }
    let page: Page<RunRecord> = try await Selection.list(
      "/runs",
      [
        ("mailbox", id?.description), ("kind", kind?.word), ("result", result?.rawValue),
        ("order", oldestFirst ? RowOrder.ascending.rawValue : nil),
      ],
      limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("STARTED"), .text("KIND"), .flexible("MAILBOX"), .text("TRIGGER"), .number("TOOK"),
      .flexible("RESULT"))
    for run in page.items {
      table.add(
        run.id?.description ?? "", Words.time(run.startedAt), run.kind.word, run.mailboxAddress ?? "\(run.mailboxID)",
        run.trigger.rawValue, Words.duration(run.finishedAt.timeIntervalSince(run.startedAt)), RunView.result(run))
    }
    try session.print(table, page, "run")
  }
}

/// `postrider run show`
struct RunShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show runs with their steps and what to do about failures.",
    discussion: """
      With --json one run is an object, several are an array.
      Example: postrider run show 4711
      """)

  @Argument(help: "Ids of runs.") var runs: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [RunRecord] = []
    for id in runs {
      found.append(
        try await Selection.orNotFound("there is no run \(id)") { try await session.api.get("/runs/\(id)") })
    }
    if session.isJSON { return try session.show(found) { _ in "" } }
    for (index, run) in found.enumerated() {
      if index > 0 { try session.print("") }
      try session.print(RunView.details(run).rendered())
      if !run.steps.isEmpty {
        try session.print("")
        try session.print(RunView.steps(run.steps))
      }
      for remedy in RunView.remedies(run) { try session.print(remedy) }
    }
  }
}

/// Runs as people read them.
enum RunView {
  /// `3 messages stored (12.3 kB), 4 known`, or what went wrong.
  static func result(_ run: RunRecord) -> String {
    var parts: [String] = []
    if run.result != .success {
      parts.append(run.result.rawValue + (run.failure.map { ": \($0.code.rawValue)" } ?? ""))
    }
    switch run.kind {
    case .poll:
      if run.result != .failure || run.messagesStored > 0 {
        let size = run.messagesStored > 0 ? " (\(Words.size(run.octetsStored)))" : ""
        parts.append("\(Words.count(run.messagesStored, "message")) stored\(size)")
      }
      if run.messagesKnown > 0 { parts.append("\(run.messagesKnown) known") }
    case .send: parts.append("\(Words.count(run.messagesSent, "message")) sent")
    case .test: if run.result == .success { parts.append("success") }
    }
    if run.messagesFailed > 0 { parts.append("\(run.messagesFailed) failed") }
    return parts.joined(separator: ", ")
  }

  static func details(_ run: RunRecord) -> Details {
    var details = Details()
    details.add("run", run.id?.description)
    details.add("mailbox", "\(run.mailboxAddress ?? "") (\(run.mailboxID))")
    details.add("kind", run.kind.word)
    details.add("trigger", run.trigger.rawValue)
    details.add("result", result(run))
    details.add("failure", run.failure?.description)
    details.add("worker", "\(run.worker), fence \(run.fence)")
    details.add("due", Words.time(run.dueAt))
    details.add(
      "started",
      "\(Words.time(run.startedAt)), \(Words.duration(max(0, run.startedAt.timeIntervalSince(run.dueAt)))) after it was due"
    )
    details.add("took", Words.duration(run.finishedAt.timeIntervalSince(run.startedAt)))
    return details
  }

  /// The steps as a table.
  static func steps(_ steps: [TraceStep]) -> Table {
    var table = Table(
      .text("DIRECTION"), .text("STEP"), .flexible("TRIED"), .number("MS"), .text("RESULT"), .text("CODE"),
      .flexible("THE SERVER SAID"))
    for step in steps {
      table.add(
        step.direction.rawValue, step.name.rawValue, step.tried, Words.tenths(step.milliseconds), step.result.rawValue,
        step.code?.rawValue ?? "", step.serverWords ?? "")
    }
    return table
  }

  /// What to do about each failure of a run, one line each.
  static func remedies(_ run: RunRecord) -> [String] {
    var lines: [String] = []
    func add(_ code: FailureCode, _ remedy: String) {
      let line = Terminal.safe("\(code.rawValue): \(code.summary) What to do: \(remedy)")
      if !lines.contains(line) { lines.append(line) }
    }
    for step in run.steps where step.result == .failed {
      if let code = step.code { add(code, step.remedy ?? code.remedy) }
    }
    for step in run.steps where step.result == .warning {
      if let remedy = step.remedy { lines.append(Terminal.safe("\(step.tried). What to do: \(remedy)")) }
    }
    if let failure = run.failure, !run.steps.contains(where: { $0.code == failure.code }) {
      add(failure.code, failure.remedy)
    }
    return lines
  }
}
