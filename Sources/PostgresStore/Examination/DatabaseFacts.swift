/// What a PostgreSQL server says of itself and of our connection to it.
public struct DatabaseFacts: Hashable, Sendable {
  /// As people write it: `15.14`.
  public var version: String
  /// The major version: 15.
  public var majorVersion: Int
  /// The role that the URL logs in as.
  public var user: String
  /// Whether it is a superuser.
  public var isSuperuser: Bool
  /// Whether row-level security does not count for it.
  public var bypassesRowSecurity: Bool
  /// Whether nothing can be written: a standby, or a setting.
  public var isReadOnly: Bool
  /// The encoding of the database: `UTF8`.
  public var encoding: String
  /// Values of the settings named in ``settingNames``.
  public var settings: [String: String]
  /// Connections to the server now.
  public var connections: Int
  /// Connections that it takes from ordinary roles at most.
  public var maximumConnections: Int
  /// How long a round trip took, in seconds, the shortest first.
  public var roundTrips: [Double]
  /// The server's clock minus this machine's, in seconds; right to half of the shortest round trip.
  public var clockOffset: Double

  /// The settings that are read.
  static let settingNames = ["fsync", "full_page_writes", "synchronous_commit", "autovacuum"]
}

/// Encrypted values of one column under one key.
public struct SealedGroup: Hashable, Sendable {
  /// Whether they can be read.
  public enum State: Hashable, Sendable {
    /// A sample opened.
    case readable
    /// Their key is not in the ring.
    case missingKey
    /// The key with that id does not open the sample: it is another key, or the value was changed.
    case wrongKey
    /// They were not written by this program.
    case unknown
  }

  /// `mailbox.password`.
  public var place: String
  /// The id of the key that encrypted them.
  public var keyID: String
  /// How many there are.
  public var count: Int
  /// Whether they can be read.
  public var state: State
}
