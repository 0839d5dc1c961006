import ArgumentParser
import FoundationEssentials
import MailMessage
import PostriderCore

extension OutgoingPriority: ExpressibleByArgument {}
extension OutgoingState: ExpressibleByArgument {}
extension AutoSubmitted: ExpressibleByArgument {}
extension DSNCondition: ExpressibleByArgument {}
extension DSNReturn: ExpressibleByArgument {}

/// `postrider email send`
struct EmailSend: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "send", abstract: "Send a message from a mailbox.",
    discussion: """
      The message is composed from text, HTML or both, and files; or --raw takes one that is written already. Refused with \
      the reason when the mailbox is not approved, tested and enabled for outgoing mail; --hold keeps the message as a \
      draft instead.
      Example: postrider email send --from a@example.com --to b@example.org --subject Hi --text "See you at noon"
      Example: postrider email send --from a@example.com --to b@example.org --subject Report --html-file report.html \
      --attach figures.pdf chart.png --send-at 2026-03-02T08:00:00Z
      Example: postrider email send --from a@example.com --to b@example.org --subject "Re: Hi" --text-file - \
      --in-reply-to "<1234@example.org>" --header "X-Ticket: 17"
      Example: postrider email send --from a@example.com --raw message.eml
      """)

  @Option(help: ArgumentHelp("The mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var from: String
  @OptionGroup(title: "Composing") var composed: ComposeOptions
  @Option(
    help: ArgumentHelp(
      "Send this file as it stands (RFC 5322); - for standard input.",
      discussion: """
        Line ends become CRLF, Bcc is removed, a missing Date or Message-ID is added. It goes to everybody in its To, Cc \
        and Bcc, or only to those that --to, --cc and --bcc name. The envelope sender is the mailbox.
        """, valueName: "file"), completion: .file())
  var raw: String?
  @Option(help: "Which messages of the mailbox go first: low, normal or high.") var priority: OutgoingPriority = .normal
  @Option(
    name: [.customLong("send-at"), .customLong("send-after")],
    help: ArgumentHelp("Not before this time (ISO 8601).", valueName: "time"))
  var sendAt: DateArgument?
  @Option(
    help: ArgumentHelp(
      "Your own key: a second send with it answers with the first message and sends nothing.", valueName: "key"))
  var idempotencyKey: String?
  @Option(
    help: ArgumentHelp(
      "When the recipients' servers shall report: failure, delay, success, or never; give it again for more.",
      discussion: """
        Default: what the servers do by themselves, failures. Reports come back into the mailbox and stand with the \
        message. A server that does not offer DSN takes the message without it.
        """, valueName: "when"))
  var notify: [DSNCondition] = []
  @Option(help: ArgumentHelp("What comes back with a report of a failure: full or headers.", valueName: "what"))
  var returnContent: DSNReturn?
  @Flag(help: "Keep it as a draft; postrider email outgoing retry sends it.") var hold = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    guard raw != nil else { return try composed.validateComposing() }
    if composed.composes {
      throw ValidationError("--raw is a whole message: it takes no --subject, --text, --attach or other content.")
    }
  }

  func execute(_ session: Session) async throws {
    let mailbox = try await Selection.mailbox(from, session.api)
    let email: OutgoingEmail
    if let raw {
      email = try await upload(try MessageFile(raw), to: composed.recipients, mailbox, session)
    } else if composed.attach.isEmpty {
      email = try await session.api.post("/outgoing-emails", try draft(mailbox, attachments: nil))
    } else {
      email = try await sendWithFiles(mailbox, session)
    }
    try session.show([email]) { email in
      let reason = email.failure.map { ": \(Terminal.safe($0.description)) \(Terminal.safe($0.remedy))" } ?? "."
      return "Message \(email.id) is \(email.state.rawValue)\(reason)"
    }
  }

  private var notification: DSNRequest? {
    notify.isEmpty && returnContent == nil
      ? nil : DSNRequest(notify: notify.isEmpty ? nil : notify, returns: returnContent)
  }

  private func draft(_ mailbox: Mailbox, attachments: [OutgoingAttachment]?) throws -> OutgoingDraft {
    var draft = try composed.draft(mailbox.id, attachments: attachments)
    draft.priority = priority
    draft.sendAfter = sendAt?.date
    draft.idempotencyKey = idempotencyKey
    draft.hold = hold
    draft.notification = notification
    return draft
  }

  /// Composes the message here, into a file, and sends that: however large the files are, none lies in memory as a whole.
  private func sendWithFiles(_ mailbox: Mailbox, _ session: Session) async throws -> OutgoingEmail {
    let files = try composed.attach.map(Self.attachment)
    let draft = try draft(
      mailbox, attachments: files.map { OutgoingAttachment(fileName: $0.fileName, content: Data()) })
    do {
      try draft.check()
    } catch .invalid(let problems) {
      throw ClientError.usage(
        problems.map { "\(Terminal.safe($0.pointer)): \(Terminal.safe($0.message))" }.joined(separator: "\n"))
    } catch {
      throw ClientError.failed(Terminal.safe(error.description))
    }
    var builder = MessageBuilder(
      draft, from: mailbox.address, messageID: MessageBuilder.newMessageID(for: mailbox.address), date: Date())
    builder.attachments = files
    let path = MessageFiles.newPath(in: FileManager.default.temporaryDirectory.path)
    let size: Int64
    do {
      size = try builder.write(toFile: path)
    } catch {
      throw ClientError.failed(Terminal.safe(error.description))
    }
    defer { MessageFiles.remove(.file(path: path, sizeOctets: size)) }
    return try await upload(try MessageFile(path), to: draft.recipients, mailbox, session)
  }

  private func upload(
    _ file: MessageFile, to recipients: [String], _ mailbox: Mailbox, _ session: Session
  ) async throws -> OutgoingEmail {
    defer { file.close() }
    return try await session.api.upload(
      "/outgoing-emails",
      [
        ("mailbox", mailbox.id.description), ("to", recipients.isEmpty ? nil : recipients.joined(separator: ",")),
        ("priority", priority.rawValue), ("sendAfter", sendAt.map { JSONCoding.text($0.date) }),
        ("idempotencyKey", idempotencyKey), ("hold", hold ? "true" : nil),
        ("notify", notify.isEmpty ? nil : notify.map(\.rawValue).joined(separator: ",")),
        ("returns", returnContent?.rawValue),
      ], file)
  }

  private static func attachment(_ path: String) throws -> MessageAttachment {
    let file = try MessageFile(path)
    defer { file.close() }
    guard let size = file.sizeOctets else {
      throw ClientError.failed("\(Terminal.safe(path)) is no regular file and cannot be attached")
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return MessageAttachment(fileName: name, content: .file(path: path, sizeOctets: size))
  }
}

/// What a message is composed of, and to whom it goes.
struct ComposeOptions: ParsableArguments {
  @Option(help: ArgumentHelp("A recipient; give it again for more.", valueName: "address"))
  var to: [String] = []
  @Option(help: ArgumentHelp("A recipient of a copy; give it again for more.", valueName: "address"))
  var cc: [String] = []
  @Option(help: ArgumentHelp("A recipient that the message does not name.", valueName: "address"))
  var bcc: [String] = []
  @Option(help: ArgumentHelp("Where answers go instead of the mailbox.", valueName: "address"))
  var replyTo: [String] = []
  @Option(help: "The subject.") var subject: String?
  @Option(help: ArgumentHelp("The text itself.", valueName: "words")) var text: String?
  @Option(
    help: ArgumentHelp("The text from a file, UTF-8; - for standard input.", valueName: "file"), completion: .file())
  var textFile: String?
  @Option(
    help: ArgumentHelp("The HTML, UTF-8; alone, or the same as the text.", valueName: "file"), completion: .file())
  var htmlFile: String?
  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Files that go with it; their types are guessed from their names.", valueName: "file"),
    completion: .file())
  var attach: [String] = []
  @Option(help: ArgumentHelp("The Message-ID of the message that this one answers.", valueName: "id"))
  var inReplyTo: String?
  @Option(
    help: ArgumentHelp(
      "A Message-ID of the conversation, oldest first; give it again for more.",
      discussion: "Default: that of --in-reply-to.", valueName: "id"))
  var references: [String] = []
  @Option(help: ArgumentHelp("A field of your own, X-Name: value; give it again for more.", valueName: "field"))
  var header: [String] = []
  @Option(help: "Says that a program wrote it, so that nobody answers automatically: auto-generated or auto-replied.")
  var autoSubmitted: AutoSubmitted?

  /// The API takes no larger text.
  private static let maximumOctets = 900_000

  /// Whether any content is given.
  var composes: Bool {
    subject != nil || text != nil || textFile != nil || htmlFile != nil || !attach.isEmpty || !replyTo.isEmpty
      || inReplyTo != nil
      || !references.isEmpty || !header.isEmpty || autoSubmitted != nil
  }

  /// Every recipient that is named.
  var recipients: [String] { AddressRules.distinct(to + cc + bcc) }

  func validateComposing() throws {
    if to.isEmpty { throw ValidationError("Name a recipient with --to, or give a whole message with --raw.") }
    if subject == nil { throw ValidationError("Give a --subject, or a whole message with --raw.") }
    if text == nil, textFile == nil, htmlFile == nil, attach.isEmpty {
      throw ValidationError("Give --text, --text-file, --html-file or --attach, or a whole message with --raw.")
    }
    if text != nil, textFile != nil { throw ValidationError("Give --text or --text-file, not both.") }
    for field in header where !field.contains(":") {
      throw ValidationError("--header is a field such as \"X-Ticket: 17\".")
    }
  }

  func draft(_ mailbox: MailboxID, attachments: [OutgoingAttachment]?) throws -> OutgoingDraft {
    OutgoingDraft(
      mailboxID: mailbox, to: to, cc: cc, bcc: bcc, replyTo: replyTo.isEmpty ? nil : replyTo, subject: subject ?? "",
      text: try text ?? textFile.map(Self.read), html: try htmlFile.map(Self.read), attachments: attachments,
      inReplyTo: inReplyTo, references: references.isEmpty ? nil : references,
      headers: header.isEmpty ? nil : header.map(Self.field), autoSubmitted: autoSubmitted)
  }

  private static func field(_ text: String) -> OutgoingHeader {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    return OutgoingHeader(
      name: String(parts[0]), value: parts.count > 1 ? String(parts[1].drop { $0 == " " || $0 == "\t" }) : "")
  }

  private static func read(_ file: String) throws -> String {
    let octets: [UInt8]
    if file == "-" {
      octets = try Terminal.readInput(maximum: maximumOctets)
    } else {
      guard let data = try? Data(contentsOf: URL(filePath: file)) else {
        throw ClientError.failed("the file \(Terminal.safe(file)) cannot be read")
      }
      octets = Array(data)
    }
    guard octets.count <= maximumOctets else {
      throw ClientError.failed("a text has at most \(maximumOctets) octets")
    }
    guard let text = String(validating: octets, as: UTF8.self) else {
      throw ClientError.failed("\(Terminal.safe(file)) is not UTF-8")
    }
    return text
  }
}
