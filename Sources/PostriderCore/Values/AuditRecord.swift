import FoundationEssentials

/// One thing that somebody did, or was refused.
public struct AuditRecord: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: AuditID
  /// When.
  public var at: Date
  /// Who; the person may be deleted since.
  public var userID: UserID?
  /// What they were called then.
  public var userName: String
  /// What: `mailbox.update`, `user.create`, `request.refused`, …
  public var action: String
  /// The kind of what it was done to: `mailbox`, `server-profile`, `user`, …
  public var entity: String
  /// Which one; `nil` for what has no number.
  public var entityID: Int64?
  /// What it was like before. Never holds a secret.
  public var before: JSONDocument?
  /// What it was like afterwards. Never holds a secret.
  public var after: JSONDocument?

  /// Describes a row of the audit.
  public init(
    id: AuditID, at: Date, userID: UserID?, userName: String, action: String, entity: String, entityID: Int64?,
    before: JSONDocument? = nil, after: JSONDocument? = nil
  ) {
    self.id = id
    self.at = at
    self.userID = userID
    self.userName = userName
    self.action = action
    self.entity = entity
    self.entityID = entityID
    self.before = before
    self.after = after
  }
}

/// Which rows of the audit.
public struct AuditFilter: Hashable, Sendable {
  /// Exactly this action, or all of a kind by its part before the point: `mailbox`.
  public var action: String?
  /// Done to this kind of thing.
  public var entity: String?
  /// Done to the one of this number.
  public var entityID: Int64?
  /// Done by this person.
  public var userID: UserID?
  /// Not before this moment.
  public var from: Date?
  /// Before this moment.
  public var to: Date?

  /// Describes a filter.
  public init(
    action: String? = nil, entity: String? = nil, entityID: Int64? = nil, userID: UserID? = nil, from: Date? = nil,
    to: Date? = nil
  ) {
    self.action = action
    self.entity = entity
    self.entityID = entityID
    self.userID = userID
    self.from = from
    self.to = to
  }
}

/// A request that was refused for want of a right, as the audit keeps it.
public struct RefusedRequest: Hashable, Sendable, Codable {
  /// `GET`, `POST`, …
  public var method: String
  /// The path with names in braces: `/api/v1/mailboxes/{id}`.
  public var route: String
  /// The right that is missing: `mailboxes.write`.
  public var right: String
  /// The role without it.
  public var role: Role

  /// Describes a refusal.
  public init(method: String, route: String, right: String, role: Role) {
    self.method = method
    self.route = route
    self.right = right
    self.role = role
  }
}

/// JSON of any form, as the audit keeps it.
public indirect enum JSONDocument: Hashable, Sendable, Codable {
  /// `null`.
  case null
  /// `true` or `false`.
  case boolean(Bool)
  /// A whole number of 64 bits.
  case integer(Int64)
  /// Another number.
  case number(Double)
  /// A string.
  case string(String)
  /// A list.
  case array([JSONDocument])
  /// An object.
  case object([String: JSONDocument])

  /// Decodes any value.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    // Each form is tried in turn; that it is another one says nothing. The last one tells what is wrong.
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .boolean(value)
    } else if let value = try? container.decode(Int64.self) {
      self = .integer(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else if let value = try? container.decode(String.self) {
      self = .string(value)
    } else if let value = try? container.decode([JSONDocument].self) {
      self = .array(value)
    } else {
      self = .object(try container.decode([String: JSONDocument].self))
    }
  }

  /// Encodes the bare value.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .null: try container.encodeNil()
    case .boolean(let value): try container.encode(value)
    case .integer(let value): try container.encode(value)
    case .number(let value): try container.encode(value)
    case .string(let value): try container.encode(value)
    case .array(let value): try container.encode(value)
    case .object(let value): try container.encode(value)
    }
  }
}
