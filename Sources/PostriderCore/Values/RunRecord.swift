import FoundationEssentials

/// Why a session ran when it did.
public enum RunTrigger: String, Hashable, Sendable, Codable, CaseIterable {
  /// The slot of the schedule.
  case slot
  /// A person asked: sync now, or a test.
  case request
  /// A back-off ended.
  case retry
  /// The first poll after the direction was enabled.
  case enabled
}

/// How a run ended.
public enum RunResult: String, Hashable, Sendable, Codable, CaseIterable {
  /// Everything was done.
  case success
  /// It failed as a whole; the failure says why.
  case failure
  /// Some of it was done: one direction passed, or some messages failed.
  case partial
}

/// One visit of a worker to a mailbox, as kept in history.
public struct RunRecord: Hashable, Sendable, Codable {
  /// Its identity; `nil` before it is stored.
  public var id: RunID?
  /// The mailbox.
  public var mailboxID: MailboxID
  /// That mailbox's address.
  public var mailboxAddress: String?
  /// What the run did: `poll`, `send` or `test`.
  public var kind: JobKind
  /// Why it ran.
  public var trigger: RunTrigger
  /// Which worker ran it.
  public var worker: String
  /// The fence of its lease.
  public var fence: Fence
  /// When it was due.
  public var dueAt: Date
  /// When it began.
  public var startedAt: Date
  /// When it ended.
  public var finishedAt: Date
  /// How it ended.
  public var result: RunResult
  /// Why it failed.
  public var failure: Failure?
  /// New messages stored.
  public var messagesStored: Int
  /// Octets of those messages.
  public var octetsStored: Int64
  /// Messages that were already known.
  public var messagesKnown: Int
  /// Messages that failed.
  public var messagesFailed: Int
  /// Messages sent.
  public var messagesSent: Int
  /// The steps; empty for a successful run without verbose logging, and in listings.
  public var steps: [TraceStep]

  /// Describes a run.
  public init(
    id: RunID? = nil, mailboxID: MailboxID, mailboxAddress: String? = nil, kind: JobKind, trigger: RunTrigger,
    worker: String, fence: Fence, dueAt: Date, startedAt: Date, finishedAt: Date, result: RunResult,
    failure: Failure? = nil, messagesStored: Int = 0, octetsStored: Int64 = 0, messagesKnown: Int = 0,
    messagesFailed: Int = 0, messagesSent: Int = 0, steps: [TraceStep] = []
  ) {
    self.id = id
    self.mailboxID = mailboxID
    self.mailboxAddress = mailboxAddress
    self.kind = kind
    self.trigger = trigger
    self.worker = worker
    self.fence = fence
    self.dueAt = dueAt
    self.startedAt = startedAt
    self.finishedAt = finishedAt
    self.result = result
    self.failure = failure
    self.messagesStored = messagesStored
    self.octetsStored = octetsStored
    self.messagesKnown = messagesKnown
    self.messagesFailed = messagesFailed
    self.messagesSent = messagesSent
    self.steps = steps
  }
}
