import FoundationEssentials

/// A column of an imported file. The header may name them in any order and leave out what is not needed.
public enum ImportColumn: String, Hashable, Sendable, CaseIterable {
  /// The e-mail address; the only one that must be there.
  case address
  /// `user` or `queue`; `user` when empty.
  case ownerKind
  /// The display name of an owner that is created.
  case ownerName
  /// A server profile, by name; the organization's default profile when empty.
  case profile
  /// `none` or `server-side-sync`; the organization's default when empty.
  case incomingMethod
  /// As ``incomingMethod``.
  case outgoingMethod
  /// `true` or `false`; `true` when empty.
  case allowsCredentials
  /// The login name; the address when empty.
  case userName
  /// The password; encrypted before it is stored anywhere.
  case password
  /// A day or a moment; mail received earlier is not imported.
  case processEmailFrom
  /// `true` or `false`; for queues only.
  case deleteAfterProcessing
}

/// A mailbox as a row of a file describes it, checked but for what only the store knows.
public struct ImportedMailbox: Hashable, Sendable, Codable {
  /// As ``MailboxDraft/address``.
  public var address: String
  /// `user` when left out.
  public var ownerKind: OwnerKind?
  /// As ``OwnerDraft/name``.
  public var ownerName: String?
  /// The profile's name, in any case.
  public var profile: String?
  /// As ``MailboxDraft/incomingMethod``.
  public var incomingMethod: SyncMethod?
  /// As ``MailboxDraft/outgoingMethod``.
  public var outgoingMethod: SyncMethod?
  /// As ``MailboxDraft/allowsCredentials``.
  public var allowsCredentials: Bool?
  /// As ``MailboxDraft/userName``.
  public var userName: String?
  /// As ``MailboxDraft/processEmailFrom``.
  public var processEmailFrom: Date?
  /// As ``MailboxDraft/deleteAfterProcessing``.
  public var deleteAfterProcessing: Bool?

  /// A mailbox of this address.
  public init(address: String) { self.address = address }

  /// What is wrong with it, by ``MailboxRules``; pointers name columns.
  public func problems(password: Secret?) -> [FieldProblem] {
    let draft = MailboxDraft(
      address: address, owner: OwnerDraft(kind: ownerKind ?? .user, name: ownerName), userName: userName,
      password: password, deleteAfterProcessing: deleteAfterProcessing)
    var problems = FieldProblems()
    do throws(StoreError) {
      try MailboxRules.check(draft)
    } catch {
      if case .invalid(let found) = error { problems.add(found) }
    }
    problems.check(profile ?? "", at: "/profile", maximum: 100)
    return problems.problems.map { problem in
      problem.pointer == "/owner/name" ? FieldProblem("/ownerName", problem.code, problem.message) : problem
    }
  }
}

/// A row of a file on its way into a batch.
public struct ImportRow: Sendable {
  /// Its number in the file, where the header is row 1.
  public var row: Int
  /// The address as it stands in the file, for the report; `nil` when it cannot be told.
  public var address: String?
  /// The mailbox, when nothing is wrong with the row.
  public var mailbox: ImportedMailbox?
  /// Its password.
  public var password: Secret?
  /// What is wrong with it.
  public var problems: [FieldProblem]

  /// Describes a row.
  public init(
    row: Int, address: String? = nil, mailbox: ImportedMailbox? = nil, password: Secret? = nil,
    problems: [FieldProblem] = []
  ) {
    self.row = row
    self.address = address
    self.mailbox = mailbox
    self.password = password
    self.problems = problems
  }
}
