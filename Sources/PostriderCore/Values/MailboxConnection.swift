import FoundationEssentials

/// An address at which the owner of a mailbox consents.
public struct ConsentRequest: Hashable, Sendable, Codable {
  /// The mailbox.
  public var mailboxID: MailboxID
  /// Opened by the owner in a browser. Whoever has it can finish this one connection, so it is shown to nobody else.
  public var consentURL: String
  /// Until when.
  public var expiresAt: Date

  /// Describes a request.
  public init(mailboxID: MailboxID, consentURL: String, expiresAt: Date) {
    self.mailboxID = mailboxID
    self.consentURL = consentURL
    self.expiresAt = expiresAt
  }
}

/// What the provider's page sent the browser back with.
public struct ConsentAnswer: Sendable {
  /// Names the request.
  public var state: Secret
  /// What the tokens are fetched with.
  public var code: Secret?
  /// Why there is none (RFC 6749 section 4.1.2.1).
  public var error: String?
  /// The same for people.
  public var errorDescription: String?

  /// Describes an answer.
  public init(state: Secret, code: Secret?, error: String? = nil, errorDescription: String? = nil) {
    self.state = state
    self.code = code
    self.error = error
    self.errorDescription = errorDescription
  }
}

/// How a mailbox is connected to its provider by OAuth: never a token, only what is known of it.
public struct MailboxConnection: Hashable, Sendable, Codable {
  /// Whether sessions can get a token.
  public enum State: String, Hashable, Sendable, Codable, CaseIterable {
    /// The profile has no OAuth application.
    case notConfigured = "not-configured"
    /// Nobody has consented yet.
    case notConnected = "not-connected"
    /// A consent is under way.
    case pending
    /// Tokens are there or can be got.
    case connected
    /// The last attempt to get one failed.
    case failing
  }

  /// The mailbox.
  public var mailboxID: MailboxID
  /// Its address.
  public var address: String
  /// Whether sessions can get a token.
  public var state: State
  /// How tokens come about.
  public var flow: OAuthFlow?
  /// When the owner consented.
  public var grantedAt: Date?
  /// Who began that.
  public var grantedBy: String?
  /// What was granted.
  public var scopes: [String]
  /// What was asked for and not granted.
  public var missingScopes: [String]
  /// Until when the present access token is good.
  public var accessTokenExpiresAt: Date?
  /// When it was got.
  public var refreshedAt: Date?
  /// Why the last attempt failed.
  public var failureCode: String?
  /// What the token server said, redacted.
  public var failureWords: String?
  /// When.
  public var failedAt: Date?
  /// Until when a consent that is under way can be finished.
  public var consentExpiresAt: Date?
  /// What a person should know: the age of a grant that nears its end, rights that are missing.
  public var diagnosis: [String]

  /// Describes a connection.
  public init(mailboxID: MailboxID, address: String, state: State) {
    self.mailboxID = mailboxID
    self.address = address
    self.state = state
    scopes = []
    missingScopes = []
    diagnosis = []
  }
}

/// What became of a connection that was ended.
public struct Disconnection: Hashable, Sendable, Codable {
  /// The mailbox.
  public var mailboxID: MailboxID
  /// Whether there was a grant.
  public var wasConnected: Bool
  /// Whether the provider was told and agreed; `nil` where it has no address for that.
  public var revoked: Bool?
  /// Why the provider was not told.
  public var problem: String?

  /// Describes an end.
  public init(mailboxID: MailboxID, wasConnected: Bool, revoked: Bool? = nil, problem: String? = nil) {
    self.mailboxID = mailboxID
    self.wasConnected = wasConnected
    self.revoked = revoked
    self.problem = problem
  }
}
