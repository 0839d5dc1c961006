import ArgumentParser
import PostriderCore

/// `postrider email outgoing …`
struct EmailOutgoing: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "outgoing", abstract: "Messages on their way out.",
    subcommands: [EmailOutgoingList.self, EmailOutgoingShow.self, EmailOutgoingCancel.self, EmailOutgoingRetry.self])
}

/// `postrider email outgoing list`
struct EmailOutgoingList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List outgoing messages, newest first.",
    discussion: "Example: postrider email outgoing list --state uncertain")

  @Option(help: ArgumentHelp("Only those of this mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var mailbox: String?
  @Option(help: ArgumentHelp("Only those in this state.", valueName: "state"))
  var state: OutgoingState?
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var id: MailboxID?
    if let mailbox { id = try await Selection.mailbox(mailbox, session.api).id }
    let page: Page<OutgoingEmail> = try await Selection.list(
      "/outgoing-emails", [("mailbox", id?.description), ("state", state?.rawValue)], limit: list.limit,
      cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .text("SUBMITTED"), .text("STATE"), .text("PRIORITY"), .flexible("FROM"), .flexible("SUBJECT"),
      .number("TRIES"), .text("FAILURE"))
    for email in page.items {
      table.add(
        "\(email.id)", Words.time(email.createdAt), Self.state(email), email.priority.rawValue, email.sender,
        email.subject, "\(email.attempts)", email.failure?.code.rawValue ?? "")
    }
    try session.print(table, page, "outgoing message")
  }

  /// The state, and for how many recipients it came back.
  static func state(_ email: OutgoingEmail) -> String {
    email.state.rawValue + (email.bounced.map { ", \($0) bounced" } ?? "")
  }
}

/// `postrider email outgoing show`
struct EmailOutgoingShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show outgoing messages with what became of each recipient.",
    discussion: "Example: postrider email outgoing show 4711")

  @Argument(help: "Ids of outgoing messages.") var emails: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [OutgoingEmail] = []
    for id in emails {
      found.append(
        try await Selection.orNotFound("there is no outgoing message \(id)") {
          try await session.api.get("/outgoing-emails/\(id)")
        })
    }
    try session.show(found) { Self.text($0) }
  }

  static func text(_ email: OutgoingEmail) -> String {
    var details = Details()
    details.add("id", "\(email.id)")
    details.add("from", email.sender)
    details.add("subject", email.subject)
    details.add("state", EmailOutgoingList.state(email))
    details.add("priority", email.priority.rawValue)
    details.add("submitted", Words.timeAndDistance(email.createdAt))
    details.add("next try", email.nextTryAt.map { Words.time($0) })
    details.add("sent", email.sentAt.map { Words.time($0) })
    details.add("tries", "\(email.attempts)")
    details.add("failure", email.failure?.description)
    details.add("remedy", email.failure?.remedy)
    details.add("message id", email.messageID)
    details.add("size", Words.size(email.sizeOctets))
    for recipient in email.recipients {
      let reason = recipient.failure.map { ", \($0)" } ?? ""
      let report = recipient.report.map { ", \(Self.text($0))" } ?? ""
      details.add("recipient", "\(recipient.address): \(recipient.state.rawValue)\(reason)\(report)")
    }
    return details.rendered()
  }

  /// `bounced 5.1.1 (550 no such user), message 12`
  private static func text(_ report: DeliveryReport) -> String {
    let words = [report.isBounce ? "bounced" : report.action.rawValue, report.status].compactMap { $0 }
    let diagnostic = report.diagnostic.map { " (\($0))" } ?? ""
    return words.joined(separator: " ") + diagnostic + (report.emailID.map { ", says message \($0)" } ?? "")
  }
}

/// `postrider email outgoing cancel`
struct EmailOutgoingCancel: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "Take back a draft or a message that waits.",
    discussion: "Example: postrider email outgoing cancel 4711")

  @Argument(help: "The id of an outgoing message.") var email: Int64
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let email: OutgoingEmail = try await Selection.orNotFound("there is no outgoing message \(email)") {
      try await session.api.post("/outgoing-emails/\(self.email)/cancel", [String: String]())
    }
    try session.show([email]) { "Message \($0.id) is \($0.state.rawValue)." }
  }
}

/// `postrider email outgoing retry`
struct EmailOutgoingRetry: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "retry", abstract: "Send a draft, or try a failed message again.",
    discussion: """
      Recipients that were accepted do not get it again. An uncertain message may have arrived: look first, then say \
      --resend-uncertain.
      Example: postrider email outgoing retry 4711
      """)

  @Argument(help: "The id of an outgoing message.") var email: Int64
  @Flag(help: "Send it again although it may have arrived, with the same Message-ID.") var resendUncertain = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let email: OutgoingEmail = try await Selection.orNotFound("there is no outgoing message \(email)") {
      try await session.api.post("/outgoing-emails/\(self.email)/retry", ["resendUncertain": resendUncertain])
    }
    try session.show([email]) { "Message \($0.id) is \($0.state.rawValue)." }
  }
}
