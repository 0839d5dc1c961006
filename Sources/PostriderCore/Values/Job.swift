/// What a job does with its mailbox.
///
/// The raw value is the one letter used in job ids, in Redis and in the schedule table.
public enum JobKind: String, Hashable, Sendable, Codable, CaseIterable {
  /// Receive new mail over POP3.
  case poll = "p"
  /// Send pending mail over SMTP.
  case send = "s"
  /// Test and enable both directions.
  case test = "t"

  /// The word people see: `poll`, `send` or `test`.
  public var word: String {
    switch self {
    case .poll: "poll"
    case .send: "send"
    case .test: "test"
    }
  }

  /// The kind of a letter's octet.
  init?(letter: UInt8) {
    switch letter {
    case UInt8(ascii: "p"): self = .poll
    case UInt8(ascii: "s"): self = .send
    case UInt8(ascii: "t"): self = .test
    default: return nil
    }
  }

  /// Decodes the word.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let word = try container.decode(String.self)
    guard let kind = Self.allCases.first(where: { $0.word == word }) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "must be poll, send or test")
    }
    self = kind
  }

  /// Encodes the word.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(word)
  }
}

/// How urgent a job is. Lower numbers go first; every class keeps a guaranteed share.
public enum JobClass: Int, Hashable, Comparable, Sendable, Codable, CaseIterable {
  /// A person waits for it: a test or a sync-now of at most 20 mailboxes.
  case interactive = 0
  /// Mail to be sent.
  case send = 1
  /// A regular poll.
  case poll = 2
  /// A test that belongs to a big batch.
  case batchTest = 3

  /// Orders by urgency, most urgent first.
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

  /// The label used in statistics and metrics.
  public var label: String {
    switch self {
    case .interactive: "interactive"
    case .send: "send"
    case .poll: "poll"
    case .batchTest: "batch-test"
    }
  }
}

/// The identity of a job and at once its de-duplication key: mailbox, kind and (for sends) lane.
///
/// There is at most one job of an id anywhere in the queue. Written `<mailbox><kind letter>[lane]`: `4711p`, `4711s1`.
/// A job carries no payload; workers read what they need from PostgreSQL.
public struct JobID: Hashable, Sendable, CustomStringConvertible {
  /// The mailbox the job works on.
  public let mailbox: MailboxID
  /// What the job does.
  public let kind: JobKind
  /// Which of several parallel sends this is; 0 for every other kind.
  public let lane: Int

  /// At most so many sessions of a mailbox send side by side, whatever its limit: so many ids a send job may have.
  public static let maximumLanes = 10

  /// Every id that a job of this kind may have: those of all lanes of a send.
  public static func all(of mailbox: MailboxID, _ kind: JobKind) -> [JobID] {
    (0..<(kind == .send ? maximumLanes : 1)).map { JobID(mailbox: mailbox, kind: kind, lane: $0) }
  }

  /// Names a job.
  public init(mailbox: MailboxID, kind: JobKind, lane: Int = 0) {
    self.mailbox = mailbox
    self.kind = kind
    self.lane = lane
  }

  /// Parses the written form; `nil` when it is not one.
  public init?(_ text: String) {
    // By octets: asking each Character whether it is a number takes longer than everything else of a claim's reply.
    let octets = text.utf8
    guard let letter = octets.firstIndex(where: { !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      let mailbox = MailboxID(text[..<letter]), let kind = JobKind(letter: octets[letter])
    else { return nil }
    let rest = text[octets.index(after: letter)...]
    if rest.isEmpty {
      self.init(mailbox: mailbox, kind: kind)
    } else if kind == .send, let lane = Int(rest), lane > 0 {
      self.init(mailbox: mailbox, kind: kind, lane: lane)
    } else {
      return nil
    }
  }

  /// The written form.
  public var description: String { "\(mailbox)\(kind.rawValue)\(lane == 0 ? "" : String(lane))" }
}

/// A job as the scheduler hands it to the queue.
public struct Job: Hashable, Sendable {
  /// Its identity and de-duplication key.
  public let id: JobID
  /// The profile whose turn, limit and host it belongs to.
  public let profile: ProfileID
  /// Its urgency.
  public let jobClass: JobClass
  /// When it became due, in milliseconds since 1970 on the database's clock; orders jobs of one profile and class.
  public let dueMilliseconds: Int64

  /// Describes a due job.
  public init(id: JobID, profile: ProfileID, jobClass: JobClass, dueMilliseconds: Int64) {
    self.id = id
    self.profile = profile
    self.jobClass = jobClass
    self.dueMilliseconds = dueMilliseconds
  }
}

/// A number that only grows with every lease given: epoch · 2³² + a counter of the shard.
///
/// Every write of a session carries its fence; the store takes it only when no newer session has written. A worker that
/// lost its lease without noticing therefore changes nothing.
public struct Fence: Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
  /// The number itself.
  public let value: Int64

  /// Wraps a number from the queue.
  public init(_ value: Int64) { self.value = value }

  /// The epoch of the queue in which the lease was given.
  public var epoch: Int64 { value >> 32 }

  /// Orders by age, oldest first.
  public static func < (a: Self, b: Self) -> Bool { a.value < b.value }

  /// The decimal number.
  public var description: String { String(value) }
}

/// A worker's time-limited right to run one job.
public struct Lease: Hashable, Sendable {
  /// The job.
  public let job: JobID
  /// The profile under which the queue counts it.
  public let profile: ProfileID
  /// The class it was taken from.
  public let jobClass: JobClass
  /// Guards every write of the session.
  public let fence: Fence
  /// How often this job was already taken back from a dead worker; 0 normally.
  public let reclaims: Int
  /// When the job became due, milliseconds since 1970; start − due is the dispatch delay.
  public let dueMilliseconds: Int64
  /// The last moment, on this process's monotonic clock, at which the lease can be trusted; counted from before the
  /// claim was sent. Sockets are closed before it. ``JobQueue/renew(_:)`` moves it.
  public let trustedUntil: ContinuousClock.Instant

  /// Describes a lease given by the queue.
  public init(
    job: JobID, profile: ProfileID, jobClass: JobClass, fence: Fence, reclaims: Int = 0, dueMilliseconds: Int64,
    trustedUntil: ContinuousClock.Instant
  ) {
    self.job = job
    self.profile = profile
    self.jobClass = jobClass
    self.fence = fence
    self.reclaims = reclaims
    self.dueMilliseconds = dueMilliseconds
    self.trustedUntil = trustedUntil
  }
}
