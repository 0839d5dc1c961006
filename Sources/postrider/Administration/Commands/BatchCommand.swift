import ArgumentParser
import PostriderCore

extension BatchRowState: ExpressibleByArgument {}

extension Identifier where Entity == Batch {
  /// Reads the number; for arguments.
  fileprivate static func argument(_ text: String) throws -> BatchID {
    guard let id = BatchID(text) else { throw ValidationError("\(Terminal.safe(text)) is not the id of a batch.") }
    return id
  }
}

/// `postrider batch …`
struct BatchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "batch", abstract: "Batches: long work over many mailboxes, done step by step by the API's processes.",
    subcommands: [BatchList.self, BatchShow.self, BatchResults.self, BatchWatch.self, BatchCancel.self])
}

/// `postrider batch list`
struct BatchList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List batches, newest first.", discussion: "Example: postrider batch list --limit 10"
  )

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<Batch> = try await Selection.list(
      "/batches", [], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("VERB"), .text("STATE"), .number("TOTAL"), .number("DONE"), .number("FAILED"),
      .number("REMAINING"), .text("CREATED"), .flexible("BY"))
    for batch in page.items {
      table.add(
        "\(batch.id)", batch.verb.rawValue + (batch.dryRun ? " (dry run)" : ""), batch.state.rawValue,
        "\(batch.total)", "\(batch.done)", "\(batch.failed)", "\(batch.remaining)", Words.time(batch.createdAt),
        batch.requestedBy)
    }
    try session.print(table, page, "batch", plural: "batches")
  }
}

/// `postrider batch show`
struct BatchShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show how far a batch is, and its first failures.",
    discussion: "Example: postrider batch show 7")

  @Argument(help: "The batch's id.", transform: BatchID.argument) var batch: BatchID
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let shown: Batch = try await Selection.orNotFound("there is no batch \(batch)") {
      try await session.api.get("/batches/\(batch)")
    }
    if session.isJSON { return try session.printJSON(shown) }
    try session.print(Self.details(shown).rendered())
    let failures = shown.failures ?? []
    if failures.isEmpty { return }
    try session.print("\n" + BatchWatcher.table(failures, shown.verb).rendered(width: Terminal.width))
    if failures.count < shown.failed {
      Terminal.warn(
        "\(failures.count) of \(shown.failed); more with: postrider batch results \(shown.id) --result failed")
    }
  }

  static func details(_ batch: Batch) -> Details {
    var details = Details()
    details.add("Batch", "\(batch.id)")
    details.add("Does", batch.verb.rawValue + (batch.dryRun ? " (dry run)" : ""))
    if let filter = batch.filter {
      let parts = [
        filter.view.map { "view \($0.rawValue)" }, filter.profileID.map { "profile \($0)" },
        filter.ownerKind.map { "owned by a \($0.rawValue)" }, filter.addressText.map { "address with \($0)" },
      ].compactMap { $0 }
      details.add("Mailboxes", parts.isEmpty ? "all" : parts.joined(separator: ", "))
    }
    details.add("State", batch.state.rawValue)
    details.add("Total", "\(batch.total)")
    details.add("Done", "\(batch.done)" + (batch.unchanged > 0 ? ", \(batch.unchanged) of them were so already" : ""))
    details.add("Failed", "\(batch.failed)")
    details.add(
      "Remaining", "\(batch.remaining)" + (batch.waiting > 0 ? ", \(batch.waiting) of them with workers" : ""))
    details.add("Requested", "\(Words.time(batch.createdAt)) by \(batch.requestedBy)")
    if batch.startedAt != nil { details.add("Started", Words.time(batch.startedAt)) }
    if batch.finishedAt != nil { details.add("Finished", Words.time(batch.finishedAt)) }
    return details
  }
}

/// `postrider batch results`
struct BatchResults: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "results", abstract: "List what became of a batch's rows.",
    discussion: "Example: postrider batch results 7 --result failed --json")

  @Argument(help: "The batch's id.", transform: BatchID.argument) var batch: BatchID

  @Option(
    help: ArgumentHelp(
      "Only these: pending, waiting, done, unchanged, failed or canceled.", discussion: "Default: all.",
      valueName: "result"))
  var result: BatchRowState?

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let whole: Batch = try await Selection.orNotFound("there is no batch \(batch)") {
      try await session.api.get("/batches/\(batch)")
    }
    let page: Page<BatchResult> = try await Selection.list(
      "/batches/\(batch)/results", [("result", result?.rawValue)], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    try session.print(BatchWatcher.table(page.items, whole.verb), page, "row")
  }
}

/// `postrider batch watch`
struct BatchWatch: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "watch", abstract: "Follow a batch until it is over.",
    discussion: """
      Ctrl-C ends the watching, not the batch. Exit code 1 when a row failed, the batch was canceled, or --timeout is over.
      Example: postrider batch watch 7
      """)

  @Argument(help: "The batch's id.", transform: BatchID.argument) var batch: BatchID

  @Option(
    help: ArgumentHelp(
      "Seconds to watch, 1 to 86400.", discussion: "Default: as long as it takes.", valueName: "seconds"))
  var timeout: Int?

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if let timeout, !(1...86_400).contains(timeout) { throw ValidationError("--timeout must be from 1 to 86400.") }
  }

  func execute(_ session: Session) async throws {
    try await Selection.orNotFound("there is no batch \(batch)") {
      try await BatchWatcher(session: session, timeout: timeout.map(Double.init)).report(batch)
    }
  }
}

/// `postrider batch cancel`
struct BatchCancel: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "End a batch.",
    discussion: """
      What was done stays done. Tests that no worker has begun are taken back; polls that were asked for go on.
      Example: postrider batch cancel 7
      """)

  @Argument(help: "The batch's id.", transform: BatchID.argument) var batch: BatchID
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let ended: Batch = try await Selection.orNotFound("there is no batch \(batch)") {
      try await session.api.post("/batches/\(batch)/cancel", NoBody())
    }
    if session.isJSON { return try session.printJSON(ended) }
    try session.print(
      "Batch \(ended.id) is \(ended.state.rawValue): \(ended.done) done, \(ended.failed) failed, "
        + "\(ended.remaining) not done.")
  }
}
