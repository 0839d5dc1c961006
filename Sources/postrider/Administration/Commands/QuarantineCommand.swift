import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider quarantine …`
struct QuarantineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quarantine", abstract: "Messages that could not be received in three attempts.",
    subcommands: [
      QuarantineList.self, QuarantineShow.self, QuarantineDownload.self, QuarantineReprocess.self,
      QuarantineDiscard.self,
    ])
}

/// Which messages of the quarantine.
struct QuarantineFilterOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?

  @Option(
    help: ArgumentHelp(
      "Only those whose last attempt failed so.",
      discussion: "Examples: message.unparsable, message.store, pop3.retr.", valueName: "code"))
  var reason: String?

  func validate() throws {
    if let reason, FailureCode(rawValue: reason) == nil {
      throw ValidationError("\(Terminal.safe(reason)) is not a failure code; one is message.unparsable.")
    }
  }

  func query(_ api: APIClient) async throws -> [(String, String?)] {
    var id: MailboxID?
    if let mailbox { id = try await Selection.mailbox(mailbox, api).id }
    return [("mailbox", id?.description), ("reason", reason)]
  }
}

/// `postrider quarantine list`
struct QuarantineList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List messages in quarantine, newest first.",
    discussion: "Example: postrider quarantine list --mailbox support@example.com --reason message.store")

  @OptionGroup var filter: QuarantineFilterOptions
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<QuarantinedMessage> = try await Selection.list(
      "/quarantine", try await filter.query(session.api), limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("SINCE"), .flexible("MAILBOX"), .text("REASON"), .number("TRIES"), .text("KEPT"),
      .flexible("UNIQUE ID"), .text("STATE"))
    for message in page.items {
      table.add(
        "\(message.id)", Words.time(message.quarantinedAt), message.mailboxAddress ?? "\(message.mailboxID)",
        message.failure.code.rawValue, "\(message.attempts)", message.sizeOctets.map { Words.size($0) } ?? "nothing",
        message.uidl, message.reprocessRequestedAt == nil ? "" : "to be tried again")
    }
    try session.print(table, page, "message in quarantine", plural: "messages in quarantine")
  }
}

/// `postrider quarantine show`
struct QuarantineShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show why messages are in quarantine and what can be done.",
    discussion: """
      With --json one message is an object, several are an array.
      Example: postrider quarantine show 17
      """)

  @Argument(help: "Ids of messages in quarantine.") var messages: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [QuarantinedMessage] = []
    for id in messages {
      found.append(
        try await Selection.orNotFound("there is no message \(id) in quarantine") {
          try await session.api.get("/quarantine/\(id)")
        })
    }
    try session.show(found) { Self.text($0) }
  }

  static func text(_ message: QuarantinedMessage) -> String {
    var details = Details()
    details.add("id", "\(message.id)")
    details.add("mailbox", "\(message.mailboxAddress ?? "") (\(message.mailboxID))")
    details.add("unique id", message.uidl)
    details.add("since", Words.timeAndDistance(message.quarantinedAt))
    details.add("tries", "\(message.attempts)")
    details.add("reason", message.failure.description)
    details.add("what to do", message.failure.remedy)
    details.add(
      "kept", message.sizeOctets.map { "the whole message, \(Words.size($0))" } ?? "nothing: only the server has it")
    details.add(
      "try again", message.reprocessRequestedAt.flatMap { Words.timeAndDistance($0) }.map { "requested \($0)" })
    return details.rendered()
  }
}

/// `postrider quarantine download`
struct QuarantineDownload: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "download", abstract: "Write a message in quarantine exactly as it was received.",
    discussion: """
      To standard output, where control characters are made visible on a terminal, or to a new file.
      Example: postrider quarantine download 17 --output message.eml
      """)

  /// What --json prints.
  struct Answer: Codable {
    var file: String
    var sizeOctets: Int64
  }

  @Argument(help: "The id of a message in quarantine.") var message: Int64
  @Option(
    help: ArgumentHelp(
      "Write to this file, which must not exist yet.", discussion: "Only its owner may read it.", valueName: "file"),
    completion: .file())
  var output: String?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if options.json && output == nil { throw ValidationError("--json needs --output: a raw message is no JSON.") }
  }

  func execute(_ session: Session) async throws {
    try await Selection.orNotFound("there is no message \(message) in quarantine") {
      guard let output else { return try await session.printRaw("/quarantine/\(message)/raw") }
      var file = try NewFile(output)
      do {
        try await session.api.stream("/quarantine/\(message)/raw") { try file.write(Array($0.readableBytesView)) }
        try file.close()
      } catch {
        file.discard()
        throw error
      }
      if session.isJSON { return try session.printJSON(Answer(file: output, sizeOctets: file.sizeOctets)) }
      try session.print("\(Words.size(file.sizeOctets)) written to \(Terminal.safe(output)).")
    }
  }
}
