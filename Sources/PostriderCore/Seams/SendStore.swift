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
  /// Why nothing of it may leave now; `nil` when the first message may.
  public var wait: SendWait?
  /// At most so many connections, because the server refused one more; `nil` for as many as the profile allows.
  public var connections: Int?

  /// Describes what waits.
  public init(
    due: Int, lanesAtWork: [Int] = [], uncertain: [OutgoingEmailID] = [], wait: SendWait? = nil,
    connections: Int? = nil
  ) {
    self.wait = wait
    self.connections = connections
    self.due = due
    self.lanesAtWork = lanesAtWork
    self.uncertain = uncertain
  }
}

/// Where in a stored content the next octets stand.
public struct ContentPlace: Hashable, Sendable {
  /// The chunk, from 0.
  public var chunk: Int64
  /// Octets of it that were read.
  public var offset: Int64

  /// The beginning.
  public static let start = ContentPlace(chunk: 0, offset: 0)

  /// Names a place.
  public init(chunk: Int64, offset: Int64) {
    self.chunk = chunk
    self.offset = offset
  }
}

/// Some octets of a stored content.
public struct ContentPiece: Hashable, Sendable {
  /// At most ``maximumOctets``.
  public var octets: [UInt8]
  /// Where those behind them stand.
  public var next: ContentPlace

  /// So many are read at once, so that a large message lies in memory in small pieces only.
  public static let maximumOctets: Int64 = 262_144

  /// Describes a piece.
  public init(octets: [UInt8], next: ContentPlace) {
    self.octets = octets
    self.next = next
  }
}

/// The octets of a message that a session has taken on.
public struct StoredMessageContent: Hashable, Sendable {
  /// The content's number.
  public var id: Int64
  /// The tenant.
  public var organizationID: OrganizationID
  /// The whole message, its lines ended by CRLF.
  public var sizeOctets: Int64
  /// What it needs of a server.
  public var encoding: MessageEncoding
  /// Its beginning, read together with the message; all of it when it is small.
  public var first: ContentPiece

  /// Describes a content.
  public init(
    id: Int64, organizationID: OrganizationID, sizeOctets: Int64, encoding: MessageEncoding, first: ContentPiece
  ) {
    self.id = id
    self.organizationID = organizationID
    self.sizeOctets = sizeOctets
    self.encoding = encoding
    self.first = first
  }
}

/// A message that a session has taken on: it is committed as `sending` with the session's fence.
public struct ClaimedMessage: Hashable, Sendable {
  /// Its identity.
  public var id: OutgoingEmailID
  /// The envelope sender.
  public var sender: String
  /// The recipients not decided yet that this attempt is for.
  public var recipients: [String]
  /// Further recipients not decided yet, above what a quota lets one attempt have.
  public var others: [String]
  /// Its Message-ID, without angle brackets; names it in delivery reports.
  public var messageID: String
  /// Which delivery reports are asked for.
  public var notification: DSNRequest?
  /// How many recipients earlier attempts delivered to.
  public var accepted: Int
  /// How many recipients they gave up.
  public var failed: Int
  /// This attempt's number, from 1.
  public var attempt: Int
  /// Since when it is being tried; what it waited before its first attempt, for a quota or a pause, does not count.
  public var waitsSince: Date
  /// Where its octets are.
  public var content: StoredMessageContent

  /// Describes a message.
  public init(
    id: OutgoingEmailID, sender: String, recipients: [String], others: [String] = [], messageID: String = "",
    notification: DSNRequest? = nil, accepted: Int, failed: Int, attempt: Int, waitsSince: Date,
    content: StoredMessageContent
  ) {
    self.messageID = messageID
    self.notification = notification
    self.others = others
    self.id = id
    self.sender = sender
    self.recipients = recipients
    self.accepted = accepted
    self.failed = failed
    self.attempt = attempt
    self.waitsSince = waitsSince
    self.content = content
  }
}

/// What a session gets when it asks for the next message.
public enum MessageClaim: Hashable, Sendable {
  /// This one, counted against the quotas.
  case message(ClaimedMessage)
  /// Messages are due, but none may leave before this time.
  case wait(SendWait)
  /// None is due.
  case nothing
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
  /// What waits. Messages that an ended session of this lane, or of an epoch before, left in the middle are decided first:
  /// those whose end may have left become `uncertain`, the others wait again.
  func outlook(pace: SendPace, writer: SessionGuard) async throws -> OutgoingOutlook

  /// Takes on the first message that is due, by priority, next try and age, and counts it, in the same transaction,
  /// against the quotas: whichever lane of whichever worker asks, no more than they allow is handed out.
  ///
  /// One message at a time, so that one of high priority waits for one other at most. Committed when it returns.
  func claimMessage(pace: SendPace, writer: SessionGuard) async throws -> MessageClaim

  /// Remembers what a server's answer changes about how the mailbox sends.
  func adapt(_ adaptation: SendAdaptation, writer: SessionGuard) async throws

  /// Notes that the end of a message is about to leave. From then on, and not before, a session that dies leaves it
  /// `uncertain`. Committed when it returns.
  func beginHandover(of message: OutgoingEmailID, writer: SessionGuard) async throws

  /// The octets of a message's content from a place on; `nil` behind its end.
  func piece(of content: StoredMessageContent, at place: ContentPlace) async throws -> ContentPiece?

  /// Remembers the Message-ID of a message that a session is about to send from its mailbox to itself: received, it is
  /// not imported.
  func noteOwnMessage(_ messageID: String, writer: SessionGuard) async throws

  /// Writes what became of an attempt. Only the session that holds the message can; its lease may be lost by then,
  /// because what a mail server answered is true whoever writes it.
  func finish(_ message: OutgoingEmailID, _ result: AttemptResult, writer: SessionGuard) async throws
}
