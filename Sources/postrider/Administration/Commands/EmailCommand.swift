import ArgumentParser
import PostriderCore

/// `postrider email …`
struct EmailCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "email", abstract: "Stored messages, and messages on their way out.",
    subcommands: [EmailList.self, EmailShow.self, EmailRaw.self, EmailSend.self, EmailOutgoing.self])
}

/// `postrider email list`
struct EmailList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List stored messages, newest first.",
    discussion: "Example: postrider email list --mailbox support@example.com")

  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var id: MailboxID?
    if let mailbox { id = try await Selection.mailbox(mailbox, session.api).id }
    let page: Page<EmailRecord> = try await Selection.list(
      "/emails", [("mailbox", id?.description)], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("DATE"), .flexible("MAILBOX"), .flexible("FROM"), .flexible("SUBJECT"), .number("SIZE"),
      .number("FILES"), .text("CLASS"))
    for email in page.items {
      table.add(
        "\(email.id)", Words.time(email.envelope.receivedDate ?? email.envelope.date ?? email.storedAt),
        email.mailboxAddress ?? "\(email.mailboxID)", email.envelope.from.first.map { Words.address($0) } ?? "-",
        email.envelope.subject, Words.size(email.sizeOctets), "\(email.attachmentCount)",
        email.messageClass == .ordinary ? "" : email.messageClass.rawValue)
    }
    try session.print(table, page, "message")
  }
}

/// `postrider email show`
struct EmailShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show stored messages with their text and list of attachments.",
    discussion: """
      With --json one message is an object, several are an array. HTML is shown as its source, never interpreted.
      Example: postrider email show 4711
      """)

  @Argument(help: "Ids of messages.") var emails: [Int64]
  @Flag(help: "Show the HTML source instead of the text.") var html = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [EmailRecord] = []
    for id in emails {
      found.append(
        try await Selection.orNotFound("there is no message \(id)") { try await session.api.get("/emails/\(id)") })
    }
    try session.show(found) { Self.text($0, html: html) }
  }

  static func text(_ email: EmailRecord, html: Bool) -> String {
    func all(_ addresses: [EmailAddress]) -> String? {
      addresses.isEmpty ? nil : addresses.map { Words.address($0) }.joined(separator: ", ")
    }
    var details = Details()
    details.add("id", "\(email.id)")
    details.add("mailbox", "\(email.mailboxAddress ?? "") (\(email.mailboxID))")
    details.add("from", all(email.envelope.from))
    details.add("to", all(email.envelope.to))
    details.add("cc", all(email.envelope.cc))
    details.add("reply to", all(email.envelope.replyTo))
    details.add("subject", email.envelope.subject)
    details.add("date", email.envelope.date.map { Words.time($0) })
    details.add("received", email.envelope.receivedDate.map { Words.time($0) })
    details.add("stored", Words.timeAndDistance(email.storedAt))
    details.add("message id", email.envelope.messageID)
    details.add("class", email.messageClass.rawValue)
    details.add("reports on", email.reportOfID.map { "outgoing message \($0)" })
    details.add("size", Words.size(email.sizeOctets))
    for attachment in email.attachments {
      let name = attachment.fileName ?? "(no name)"
      let dropped = attachment.dropped ? ", too large, content not kept" : ""
      details.add("attachment", "\(name), \(attachment.contentType), \(Words.size(attachment.sizeOctets))\(dropped)")
    }
    let body = html ? email.html : email.text
    let missing = html ? "(no HTML)" : email.html == nil ? "(no text)" : "(no text; it has HTML: --html)"
    return details.rendered() + "\n\n" + (body.map { Terminal.safe($0, keepsNewlines: true) } ?? missing)
  }
}

/// `postrider email raw`
struct EmailRaw: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "raw", abstract: "Write a message exactly as it was received to standard output.",
    discussion: """
      On a terminal control characters are made visible instead.
      Example: postrider email raw 4711 > message.eml
      """)

  @Argument(help: "The id of a message.") var email: Int64
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if options.json { throw ValidationError("--json does not apply to a raw message.") }
  }

  func execute(_ session: Session) async throws {
    try await Selection.orNotFound("there is no message \(email)") {
      try await session.printRaw("/emails/\(email)/raw")
    }
  }
}
