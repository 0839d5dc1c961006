import FoundationEssentials

/// A bearer token of the API: one that a person made for a program, or the session of somebody who signed in. The token
/// itself is shown once and never read back.
public struct APIToken: Hashable, Sendable, Codable {
  /// How it came to be.
  public enum Kind: String, Hashable, Sendable, Codable, CaseIterable {
    /// Made by a person; works until it is revoked or expires.
    case token
    /// From signing in; ends by itself.
    case session
  }

  /// Its identity.
  public var id: TokenID
  /// Whose it is.
  public var user: UserReference
  /// How it came to be.
  public var kind: Kind
  /// What it is for.
  public var name: String
  /// What whoever has it may do.
  public var role: Role
  /// When it was made.
  public var createdAt: Date
  /// When it ends by itself; `nil` for never.
  public var expiresAt: Date?
  /// When it was last used, to the minute; `nil` for never, as far as is known.
  public var lastUsedAt: Date?
  /// When it was revoked; `nil` when it was not.
  public var revokedAt: Date?

  /// Describes a stored token.
  public init(
    id: TokenID, user: UserReference, kind: Kind, name: String, role: Role, createdAt: Date, expiresAt: Date? = nil,
    lastUsedAt: Date? = nil, revokedAt: Date? = nil
  ) {
    self.id = id
    self.user = user
    self.kind = kind
    self.name = name
    self.role = role
    self.createdAt = createdAt
    self.expiresAt = expiresAt
    self.lastUsedAt = lastUsedAt
    self.revokedAt = revokedAt
  }
}

/// A token as somebody asks for it.
public struct TokenDraft: Hashable, Sendable, Decodable {
  /// What it is for, 1…100 characters.
  public var name: String
  /// What whoever has it may do; the asking person's role when left out.
  public var role: Role?
  /// Whose it is; the asking person's when left out.
  public var userID: UserID?
  /// When it ends by itself, later than now; never when left out.
  public var expiresAt: Date?

  /// A draft with the required fields.
  public init(name: String, role: Role? = nil, userID: UserID? = nil, expiresAt: Date? = nil) {
    self.name = name
    self.role = role
    self.userID = userID
    self.expiresAt = expiresAt
  }
}

/// Which tokens.
public struct TokenFilter: Hashable, Sendable {
  /// Of this person.
  public var userID: UserID?
  /// Of this kind.
  public var kind: APIToken.Kind?
  /// Whether revoked and expired ones are listed too.
  public var includesEnded: Bool

  /// Describes a filter.
  public init(userID: UserID? = nil, kind: APIToken.Kind? = nil, includesEnded: Bool = false) {
    self.userID = userID
    self.kind = kind
    self.includesEnded = includesEnded
  }
}
