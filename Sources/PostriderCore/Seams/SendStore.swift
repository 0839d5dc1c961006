import FoundationEssentials

/// What waits to be sent from a mailbox.
public struct OutgoingOutlook: Hashable, Sendable {
  /// More due messages than this are not counted.
  public static let mostCounted = 500

  /// How many messages are due now, 0…``mostCounted``.
  public var due: Int
  /// The other lanes that have a message under way, or had one when their session died.
  public var lanesAtWork: [Int]
  /// Messages that an earlier session left in the middle: they are `uncertain` from now on.
  public var uncertain: [OutgoingEmailID]

  /// Describes what waits.
  public init(due: Int, lanesAtWork: [Int] = [], uncertain: [OutgoingEmailID] = []) {
    self.due = due
    self.lanesAtWork = lanesAtWork
    self.uncertain = uncertain
  }
}

/// A message that a session has taken on: it is committed as `sending` with the session's fence.
public struct ClaimedMessage: Hashable, Sendable {
  /// Its identity.
  public var id: OutgoingEmailID
  /// The envelope sender.
  public var sender: String
  /// The recipients not decided yet.
  public var recipients: [String]
  /// How many recipients earlier attempts delivered to.
  public var accepted: Int
  /// How many recipients they gave up.
  public var failed: Int
  /// This attempt's number, from 1.
  public var attempt: Int
  /// Since when it could have been sent.
  public var waitsSince: Date
  /// The whole message.
  public var raw: [UInt8]

  /// Describes a message.
  public init(
    id: OutgoingEmailID, sender: String, recipients: [String], accepted: Int, failed: Int, attempt: Int,
    waitsSince: Date, raw: [UInt8]
  ) {
    self.id = id
    self.sender = sender
    self.recipients = recipients
    self.accepted = accepted
    self.failed = failed
    self.attempt = attempt
    self.waitsSince = waitsSince
    self.raw = raw
  }
}

/// What became of one attempt at a message.
public struct AttemptResult: Hashable, Sendable {
  /// The new state: `pending-send` or a final one.
  public var state: OutgoingState
  /// What changed of the recipients that were tried.
  public var recipients: [OutgoingRecipient]
  /// Why it was not sent, or not to all.
  public var failure: Failure?
  /// When it is tried again; only with `pending-send`.
  public var nextTryAt: Date?

  /// Describes a result.
  public init(
    state: OutgoingState, recipients: [OutgoingRecipient] = [], failure: Failure? = nil, nextTryAt: Date? = nil
  ) {
    self.state = state
    self.recipients = recipients
    self.failure = failure
    self.nextTryAt = nextTryAt
  }
}

/// What a sending session needs of PostgreSQL. Calls throw ``StoreError``, and ``FencedError`` when a newer session or a
/// change of profile came before.
public protocol SendStore: Sendable {
  /// What waits. Messages that an ended session of this lane, or of an epoch before, left in the middle become
  /// `uncertain` first.
  func outlook(writer: SessionGuard) async throws -> OutgoingOutlook

  /// Takes on the first message that is due, by priority, next try and age; `nil` when none is.
  ///
  /// One message at a time, so that one of high priority waits for one other at most. Committed when it returns.
  func claimMessage(writer: SessionGuard) async throws -> ClaimedMessage?

  /// Writes what became of an attempt. Only the session that holds the message can; its lease may be lost by then,
  /// because what a mail server answered is true whoever writes it.
  func finish(_ message: OutgoingEmailID, _ result: AttemptResult, writer: SessionGuard) async throws
}
