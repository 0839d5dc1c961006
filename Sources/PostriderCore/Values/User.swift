import FoundationEssentials

/// A person who signs in or owns mailboxes, or an address that stands for a program.
public struct User: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: UserID
  /// The tenant it belongs to.
  public var organizationID: OrganizationID
  /// The display name, 1…200 characters.
  public var name: String
  /// The e-mail address, unique among the organization's users in any case.
  public var address: String
  /// What the person may do after signing in. A token has a role of its own.
  public var role: Role
  /// An inactive person's mailboxes stand still, and neither password nor tokens let them in.
  public var isActive: Bool
  /// Whether the person can sign in with a password. The password is never read back.
  public var passwordSet: Bool
  /// Until when wrong passwords keep the person from signing in; `nil` when they do not.
  public var lockedUntil: Date?
  /// When they last signed in with the password.
  public var lastSignInAt: Date?
  /// Counts every change; the basis of optimistic locking.
  public var version: Int64
  /// When it was created.
  public var createdAt: Date
  /// When it was last changed.
  public var updatedAt: Date

  /// Describes a stored person.
  public init(
    id: UserID, organizationID: OrganizationID, name: String, address: String, role: Role = .owner,
    isActive: Bool = true, passwordSet: Bool = false, lockedUntil: Date? = nil, lastSignInAt: Date? = nil,
    version: Int64 = 1, createdAt: Date, updatedAt: Date
  ) {
    self.id = id
    self.organizationID = organizationID
    self.name = name
    self.address = address
    self.role = role
    self.isActive = isActive
    self.passwordSet = passwordSet
    self.lockedUntil = lockedUntil
    self.lastSignInAt = lastSignInAt
    self.version = version
    self.createdAt = createdAt
    self.updatedAt = updatedAt
  }
}

/// A person as others are shown to have them.
public struct UserReference: Hashable, Sendable, Codable {
  /// Who.
  public var id: UserID
  /// The display name.
  public var name: String
  /// The e-mail address.
  public var address: String

  /// Names a person.
  public init(id: UserID, name: String, address: String) {
    self.id = id
    self.name = name
    self.address = address
  }
}

/// A person as somebody enters them.
public struct UserDraft: Hashable, Sendable, Decodable {
  /// The display name, 1…200 characters; the address when left out.
  public var name: String?
  /// The e-mail address, unique among the organization's users.
  public var address: String
  /// What they may do after signing in; `owner` when left out.
  public var role: Role?

  /// A draft with the required fields.
  public init(address: String, name: String? = nil, role: Role? = nil) {
    self.address = address
    self.name = name
    self.role = role
  }
}

/// A change of a person; what is left out stays.
public struct UserChange: Hashable, Sendable, Decodable {
  /// 1…200 characters.
  public var name: String?
  /// Another address, unique among the organization's users. The addresses of their mailboxes stay.
  public var address: String?
  /// Another role. Tokens of other roles are revoked, sessions go on with the new one.
  public var role: Role?
  /// Whether they may sign in and their mailboxes run.
  public var isActive: Bool?
  /// Refused as ``StoreError/stale`` when the person has changed since; `nil` to change it anyway.
  public var version: Int64?

  /// Describes a change.
  public init(
    name: String? = nil, address: String? = nil, role: Role? = nil, isActive: Bool? = nil, version: Int64? = nil
  ) {
    self.name = name
    self.address = address
    self.role = role
    self.isActive = isActive
    self.version = version
  }
}

/// Which people or shared queues.
public struct PeopleFilter: Hashable, Sendable {
  /// Only active or only inactive ones; `nil` for both.
  public var isActive: Bool?
  /// Exactly this address, any case.
  public var address: String?
  /// With these characters in name or address, any case.
  public var text: String?

  /// Describes a filter.
  public init(isActive: Bool? = nil, address: String? = nil, text: String? = nil) {
    self.isActive = isActive
    self.address = address
    self.text = text
  }
}
