/// The identity of one stored row, typed by what the row is.
///
/// A positive 64-bit integer given out by PostgreSQL and never reused. The phantom type keeps a mailbox's number from
/// being passed where a profile's is wanted. In JSON and on the command line it is the bare number.
public struct Identifier<Entity>: Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
  /// The number itself, 1 and up.
  public let value: Int64

  /// Wraps a number that came from the store or from a request.
  public init(_ value: Int64) { self.value = value }

  /// Reads the decimal form; `nil` for anything that is not a positive 64-bit integer.
  public init?(_ text: some StringProtocol) {
    guard let value = Int64(text), value > 0 else { return nil }
    self.value = value
  }

  /// Decodes the bare number.
  public init(from decoder: any Decoder) throws {
    value = try decoder.singleValueContainer().decode(Int64.self)
  }

  /// Encodes the bare number.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(value)
  }

  /// Orders by number, which is the order of creation.
  public static func < (a: Self, b: Self) -> Bool { a.value < b.value }

  /// The decimal number.
  public var description: String { String(value) }
}

/// Names the tenant in ``OrganizationID``.
public enum Organization {}
/// Names the run in ``RunID``.
public enum Run {}
/// Names the stored message in ``EmailID``.
public enum Email {}

/// One environment (tenant); nothing leaks between two of them.
public typealias OrganizationID = Identifier<Organization>
/// A person who signs in or owns a mailbox.
public typealias UserID = Identifier<User>
/// A shared queue: an address with an owner and members.
public typealias SharedQueueID = Identifier<SharedQueue>
/// A bearer token or a session.
public typealias TokenID = Identifier<APIToken>
/// One row of the audit.
public typealias AuditID = Identifier<AuditRecord>
/// A server profile: how to reach a mail provider.
public typealias ProfileID = Identifier<ServerProfile>
/// A mailbox: one account that is polled and sent from.
public typealias MailboxID = Identifier<Mailbox>
/// One visit of a worker to a mailbox.
public typealias RunID = Identifier<Run>
/// One stored message.
public typealias EmailID = Identifier<Email>
/// One row on an alert wall.
public typealias AlertID = Identifier<Alert>
/// One message on its way out.
public typealias OutgoingEmailID = Identifier<OutgoingEmail>
/// One message in quarantine.
public typealias QuarantineID = Identifier<QuarantinedMessage>
