import ArgumentParser
import PostriderCore

/// Limits of sending; those not named stay, 0 lifts one.
protocol QuotaArguments {
  var limits: SendQuota { get }
}

extension QuotaArguments {
  /// Whether none is named.
  var isEmpty: Bool { limits == .none }

  /// The limits after the change.
  func applied(to quota: SendQuota) -> SendQuota {
    func merged(_ new: Int?, _ old: Int?) -> Int? { new.map { $0 == 0 ? nil : $0 } ?? old }
    return SendQuota(
      messagesPerMinute: merged(limits.messagesPerMinute, quota.messagesPerMinute),
      messagesPerDay: merged(limits.messagesPerDay, quota.messagesPerDay),
      recipientsPerDay: merged(limits.recipientsPerDay, quota.recipientsPerDay),
      recipientsPerMessage: merged(limits.recipientsPerMessage, quota.recipientsPerMessage),
      answersPerHour: merged(limits.answersPerHour, quota.answersPerHour))
  }
}

/// The limits of one mailbox.
struct QuotaOptions: ParsableArguments, QuotaArguments {
  @Option(help: ArgumentHelp("Messages within any minute; 0 for no limit.", valueName: "count"))
  var messagesPerMinute: Int?
  @Option(help: ArgumentHelp("Messages within any 24 hours; 0 for no limit.", valueName: "count"))
  var messagesPerDay: Int?
  @Option(help: ArgumentHelp("Recipients within any 24 hours; 0 for no limit.", valueName: "count"))
  var recipientsPerDay: Int?
  @Option(
    help: ArgumentHelp(
      "Recipients of one message as it is handed over; 0 for no limit.",
      discussion: "A message with more is handed over in parts.", valueName: "count"))
  var recipientsPerMessage: Int?
  @Option(
    help: ArgumentHelp(
      "Answers and automatic messages to one address within an hour; 0 for the default, 20.",
      discussion: "One more is kept as a draft, with an alert: two programs may be answering each other.",
      valueName: "count"))
  var answersPerHour: Int?

  var limits: SendQuota {
    SendQuota(
      messagesPerMinute: messagesPerMinute, messagesPerDay: messagesPerDay, recipientsPerDay: recipientsPerDay,
      recipientsPerMessage: recipientsPerMessage, answersPerHour: answersPerHour)
  }
}

/// The limits that all mailboxes of a profile share.
struct SharedQuotaOptions: ParsableArguments, QuotaArguments {
  @Option(help: ArgumentHelp("Messages of all within any minute; 0 for no limit.", valueName: "count"))
  var allMessagesPerMinute: Int?
  @Option(help: ArgumentHelp("Messages of all within any 24 hours; 0 for no limit.", valueName: "count"))
  var allMessagesPerDay: Int?
  @Option(help: ArgumentHelp("Recipients of all within any 24 hours; 0 for no limit.", valueName: "count"))
  var allRecipientsPerDay: Int?

  var limits: SendQuota {
    SendQuota(
      messagesPerMinute: allMessagesPerMinute, messagesPerDay: allMessagesPerDay,
      recipientsPerDay: allRecipientsPerDay)
  }
}

/// `postrider mailbox quota`
struct MailboxQuota: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "quota", abstract: "Show what mailboxes may send and have sent, or set it.",
    discussion: """
      A minute and a day are those before each message, not those of a calendar. Messages of low priority leave a tenth \
      of each limit to the others. Without options it shows. What is not named stays; without a quota of its own a \
      mailbox has its profile's (`profile edit`), else its provider's.
      Examples:
        postrider mailbox quota support@example.com
        postrider mailbox quota support@example.com --messages-per-minute 30 --recipients-per-day 10000
        postrider mailbox quota support@example.com --inherit
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup var quota: QuotaOptions
  @Flag(help: "Go back to the profile's quota.") var inherit = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if inherit && !quota.isEmpty { throw ValidationError("Give either --inherit or limits, not both.") }
  }

  func execute(_ session: Session) async throws {
    var answers: [SendAllowance] = []
    for mailbox in try await Selection.mailboxes(mailboxes, session.api) {
      let path = "/mailboxes/\(mailbox.id)"
      var allowance: SendAllowance = try await session.api.get(path + "/quota", [])
      if inherit || !quota.isEmpty {
        let _: Mailbox = try await session.api.patch(
          path,
          MailboxChangeRequest(
            sendQuota: inherit ? nil : quota.applied(to: allowance.quota), clears: inherit ? [.sendQuota] : nil))
        allowance = try await session.api.get(path + "/quota", [])
      }
      answers.append(allowance)
      if !session.isJSON {
        try session.print(Self.details(allowance, of: mailbox.address).rendered() + "\n")
      }
    }
    if session.isJSON { try session.show(answers) { _ in "" } }
  }

  static func details(_ allowance: SendAllowance, of address: String) -> Details {
    var details = Details()
    details.add("mailbox", address)
    let source =
      switch allowance.source {
      case .mailbox: "set on the mailbox"
      case .profile: "set on the profile"
      case .provider: "the provider's figures"
      }
    details.add("may send", "\(Words.quota(allowance.quota)) (\(source))")
    details.add("has sent", used(allowance.used))
    if allowance.sharedQuota != .none {
      details.add("all of the profile may send", Words.quota(allowance.sharedQuota))
      details.add("all of the profile have sent", used(allowance.sharedUsed))
    }
    details.add("connections", allowance.connections.map { "at most \($0) for now: the server refused one more" })
    details.add(
      "waits", Words.timeAndDistance(allowance.waitsUntil).map { "until \($0), because of \(allowance.reason ?? "-")" })
    return details
  }

  private static func used(_ usage: SendUsage) -> String {
    "\(Words.count(usage.messagesLastMinute, "message")) in the last minute, "
      + "\(Words.count(usage.messagesLastDay, "message")) to "
      + "\(Words.count(usage.recipientsLastDay, "recipient")) in the last day"
  }
}
