import FoundationEssentials

/// How much a provider lets one account send. A limit that is left out is none.
///
/// A minute and a day are the sixty seconds and the twenty-four hours before each message, not those of a calendar.
public struct SendQuota: Hashable, Sendable, Codable {
  /// Messages within a minute, 1…100,000.
  public var messagesPerMinute: Int?
  /// Messages within a day, 1…10,000,000.
  public var messagesPerDay: Int?
  /// Recipients of all messages within a day, 1…10,000,000.
  public var recipientsPerDay: Int?
  /// Recipients of one message as it is handed over, 1…10,000: one with more is handed over in parts.
  public var recipientsPerMessage: Int?
  /// Answers and automatic messages to one address within an hour, 1…10,000; one more is kept as a draft. Left out:
  /// ``standardAnswersPerHour``.
  public var answersPerHour: Int?

  /// More answers to one address within an hour are rather a program's than a person's.
  public static let standardAnswersPerHour = 20

  /// Describes a quota.
  public init(
    messagesPerMinute: Int? = nil, messagesPerDay: Int? = nil, recipientsPerDay: Int? = nil,
    recipientsPerMessage: Int? = nil, answersPerHour: Int? = nil
  ) {
    self.answersPerHour = answersPerHour
    self.messagesPerMinute = messagesPerMinute
    self.messagesPerDay = messagesPerDay
    self.recipientsPerDay = recipientsPerDay
    self.recipientsPerMessage = recipientsPerMessage
  }

  /// No limit at all.
  public static let none = SendQuota()

  /// Notes every limit that is out of range.
  public func check(at pointer: String, _ problems: inout FieldProblems) {
    let limits = [
      ("messagesPerMinute", messagesPerMinute, 1...100_000), ("messagesPerDay", messagesPerDay, 1...10_000_000),
      ("recipientsPerDay", recipientsPerDay, 1...10_000_000),
      ("recipientsPerMessage", recipientsPerMessage, 1...10_000), ("answersPerHour", answersPerHour, 1...10_000),
    ]
    for (name, limit, range) in limits {
      if let limit { problems.check(limit, at: "\(pointer)/\(name)", in: range) }
    }
  }
}

extension ProfileType {
  /// What the provider lets each account send, by its own pages; ``SendQuota/none`` where there is no provider.
  ///
  /// Gmail: 2,000 messages in a rolling day (Workspace) and 100 recipients of a message over SMTP; a personal account has
  /// 500 recipients a day. Microsoft 365: 30 messages a minute, 10,000 recipients a day, 500 recipients of a message.
  public var sendQuota: SendQuota {
    switch self {
    case .gmail: SendQuota(messagesPerDay: 2_000, recipientsPerMessage: 100)
    case .microsoft365:
      SendQuota(messagesPerMinute: 30, recipientsPerDay: 10_000, recipientsPerMessage: 500)
    case .pop3SMTP: .none
    }
  }
}

/// The quotas that count for a session: its mailbox's own, and the one that all mailboxes of the profile share.
public struct SendPace: Hashable, Sendable, Codable {
  /// Of the mailbox.
  public var mailbox: SendQuota
  /// Of all mailboxes of the profile together.
  public var profile: SendQuota

  /// Nothing is limited.
  public static let unlimited = SendPace()

  /// Describes a pace.
  public init(mailbox: SendQuota = .none, profile: SendQuota = .none) {
    self.mailbox = mailbox
    self.profile = profile
  }
}

/// What a quota has let pass, and when the next message may leave.
public struct SendAllowance: Hashable, Sendable, Codable {
  /// Whose.
  public var mailboxID: MailboxID
  /// What holds: the mailbox's own quota, else its profile's, else the provider's.
  public var quota: SendQuota
  /// Where it comes from.
  public var source: Source
  /// What all mailboxes of the profile share.
  public var sharedQuota: SendQuota
  /// What left within the last minute and day.
  public var used: SendUsage
  /// The same of all mailboxes of the profile together, where ``sharedQuota`` has a limit; else zero.
  public var sharedUsed: SendUsage
  /// Nothing is sent before; `nil` when the next message may leave now. A message of low priority may wait longer.
  public var waitsUntil: Date?
  /// Why: `quota`, `profile-quota`, or the code of the server's answer, such as `smtp.quota`.
  public var reason: String?
  /// At most so many connections since the server refused one as too many; `nil` for as many as the profile allows.
  public var connections: Int?

  /// Who set a quota.
  public enum Source: String, Hashable, Sendable, Codable, CaseIterable {
    /// A person, on the mailbox.
    case mailbox
    /// A person, on the profile.
    case profile
    /// Nobody: the provider's figures.
    case provider
  }

  /// Describes an allowance.
  public init(
    mailboxID: MailboxID, quota: SendQuota, source: Source, sharedQuota: SendQuota, used: SendUsage,
    sharedUsed: SendUsage, waitsUntil: Date? = nil, reason: String? = nil, connections: Int? = nil
  ) {
    self.mailboxID = mailboxID
    self.quota = quota
    self.source = source
    self.sharedQuota = sharedQuota
    self.used = used
    self.sharedUsed = sharedUsed
    self.waitsUntil = waitsUntil
    self.reason = reason
    self.connections = connections
  }
}

/// How much has left.
public struct SendUsage: Hashable, Sendable, Codable {
  /// Messages within the last minute.
  public var messagesLastMinute: Int
  /// Messages within the last day.
  public var messagesLastDay: Int
  /// Their recipients.
  public var recipientsLastDay: Int

  /// Describes what has left.
  public init(messagesLastMinute: Int = 0, messagesLastDay: Int = 0, recipientsLastDay: Int = 0) {
    self.messagesLastMinute = messagesLastMinute
    self.messagesLastDay = messagesLastDay
    self.recipientsLastDay = recipientsLastDay
  }
}

/// Why nothing is sent although messages are due.
public struct SendWait: Hashable, Sendable {
  /// Not before.
  public var until: Date
  /// `quota`, `profile-quota`, or the code of the server's answer.
  public var reason: String

  /// Describes a wait.
  public init(until: Date, reason: String) {
    self.until = until
    self.reason = reason
  }
}

/// What a server's answer changes about how a mailbox sends.
public enum SendAdaptation: Hashable, Sendable {
  /// Nothing is sent before this time.
  case wait(SendWait)
  /// At most so many connections, 1…, until this time.
  case connections(Int, until: Date)
}
