import FoundationEssentials

/// An address that several people answer, such as support@: one owner and any number of members.
public struct SharedQueue: Hashable, Sendable, Codable {
  /// Its identity.
  public var id: SharedQueueID
  /// The tenant it belongs to.
  public var organizationID: OrganizationID
  /// The display name, 1…200 characters.
  public var name: String
  /// The e-mail address, unique among the organization's shared queues in any case.
  public var address: String
  /// The mailboxes of an inactive one stand still.
  public var isActive: Bool
  /// Who answers for it; `nil` only for one that a release before owners made and nobody took since.
  public var owner: UserReference?
  /// Who else sees its mailboxes, by address; the owner need not be among them.
  public var members: [UserReference]
  /// Counts every change; the basis of optimistic locking.
  public var version: Int64
  /// When it was created.
  public var createdAt: Date
  /// When it was last changed.
  public var updatedAt: Date

  /// Describes a stored shared queue.
  public init(
    id: SharedQueueID, organizationID: OrganizationID, name: String, address: String, isActive: Bool = true,
    owner: UserReference? = nil, members: [UserReference] = [], version: Int64 = 1, createdAt: Date, updatedAt: Date
  ) {
    self.id = id
    self.organizationID = organizationID
    self.name = name
    self.address = address
    self.isActive = isActive
    self.owner = owner
    self.members = members
    self.version = version
    self.createdAt = createdAt
    self.updatedAt = updatedAt
  }
}

/// A shared queue as somebody enters it.
public struct SharedQueueDraft: Hashable, Sendable, Decodable {
  /// The display name, 1…200 characters; the address when left out.
  public var name: String?
  /// The e-mail address, unique among the organization's shared queues.
  public var address: String
  /// Who answers for it; whoever enters it when left out.
  public var ownerID: UserID?
  /// Who else sees its mailboxes, at most 1,000; nobody when left out.
  public var memberIDs: [UserID]?

  /// A draft with the required fields.
  public init(address: String, name: String? = nil, ownerID: UserID? = nil, memberIDs: [UserID]? = nil) {
    self.address = address
    self.name = name
    self.ownerID = ownerID
    self.memberIDs = memberIDs
  }
}

/// A change of a shared queue; what is left out stays.
public struct SharedQueueChange: Hashable, Sendable, Decodable {
  /// 1…200 characters.
  public var name: String?
  /// Another address, unique among the organization's shared queues. The addresses of its mailboxes stay.
  public var address: String?
  /// Whether its mailboxes run.
  public var isActive: Bool?
  /// Who answers for it from now on.
  public var ownerID: UserID?
  /// All members from now on, at most 1,000.
  public var memberIDs: [UserID]?
  /// Refused as ``StoreError/stale`` when the queue has changed since; `nil` to change it anyway.
  public var version: Int64?

  /// Describes a change.
  public init(
    name: String? = nil, address: String? = nil, isActive: Bool? = nil, ownerID: UserID? = nil,
    memberIDs: [UserID]? = nil, version: Int64? = nil
  ) {
    self.name = name
    self.address = address
    self.isActive = isActive
    self.ownerID = ownerID
    self.memberIDs = memberIDs
    self.version = version
  }
}
