/// What a mailbox must be like (features M1, M2), and what a change of it leads to (M6, A2).
public enum MailboxRules {
  /// Checks a draft; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func check(_ draft: MailboxDraft) throws(StoreError) {
    var problems = FieldProblems()
    AddressRules.check(draft.address, at: "/address", &problems)
    problems.check(draft.userName ?? "", at: "/userName", maximum: 200)
    problems.check(draft.password?.revealed ?? "", at: "/password", maximum: 200)
    problems.check(draft.owner?.name ?? "", at: "/owner/name", maximum: 200)
    if draft.deleteAfterProcessing == true && draft.owner?.kind != .queue {
      problems.add("/deleteAfterProcessing", "not-allowed", "is only accepted for queues, not for users")
    }
    try problems.throwIfAny()
  }

  /// The mailbox after a change, with everything that follows from it, but for what the store alone knows: names, times
  /// and the version.
  ///
  /// Throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func resolve(
    _ change: MailboxChange, of present: Mailbox, logins: ProfileLogins, on type: ProfileType? = nil
  ) throws(StoreError) -> ResolvedMailboxChange {
    try check(change, present, type)
    let clears = Set(change.clears ?? [])
    var after = present
    after.address = change.address ?? present.address
    after.profileID = change.profileID ?? present.profileID
    after.isActive = change.isActive ?? present.isActive
    after.incoming.method = change.incomingMethod ?? present.incoming.method
    after.outgoing.method = change.outgoingMethod ?? present.outgoing.method
    after.act.method = change.actMethod ?? present.act.method
    after.allowsCredentials = change.allowsCredentials ?? present.allowsCredentials
    after.userName = clears.contains(.userName) ? nil : change.userName ?? present.userName
    after.passwordSet = !clears.contains(.password) && (present.passwordSet || change.password != nil)
    after.processEmailFrom =
      clears.contains(.processEmailFrom) ? nil : change.processEmailFrom ?? present.processEmailFrom
    after.deleteAfterProcessing = change.deleteAfterProcessing ?? present.deleteAfterProcessing
    after.sendQuota = clears.contains(.sendQuota) ? nil : change.sendQuota ?? present.sendQuota
    if after.address != present.address { after.approval = .pending }
    var resolved = ResolvedMailboxChange(mailbox: after, password: change.password)
    resolved.changesPassword = change.password != nil || after.passwordSet != present.passwordSet
    for direction in Direction.allCases where isUntested(direction, present, resolved, logins) {
      resolved.untested.insert(direction)
      resolved.mailbox.forgetTest(direction)
    }
    return resolved
  }

  /// Notes that appointments, contacts and tasks cannot be synchronized on a profile of this type.
  public static func checkACT(_ method: SyncMethod?, on type: ProfileType?, _ problems: inout FieldProblems) {
    guard let type, method == .serverSideSync, !type.carriesACT else { return }
    problems.add(
      "/actMethod", ACTState.unsupportedProfile,
      "must be none: a profile of type \(type.rawValue) carries no appointments, contacts and tasks")
  }

  private static func check(_ change: MailboxChange, _ present: Mailbox, _ type: ProfileType?) throws(StoreError) {
    var problems = FieldProblems()
    checkACT(change.actMethod, on: type, &problems)
    // What is there may come from a time with fewer rules.
    if let address = change.address, address != present.address {
      AddressRules.check(address, at: "/address", &problems)
    }
    problems.check(change.userName ?? "x", at: "/userName", maximum: 200, minimum: 1)
    problems.check(change.password?.revealed ?? "x", at: "/password", maximum: 200, minimum: 1)
    change.sendQuota?.check(at: "/sendQuota", &problems)
    if change.deleteAfterProcessing == true && present.owner.kind != .queue {
      problems.add("/deleteAfterProcessing", "not-allowed", "is only accepted for queues, not for users")
    }
    let clears = Set(change.clears ?? [])
    let given: [(MailboxChange.Clearable, Bool)] = [
      (.userName, change.userName != nil), (.password, change.password != nil),
      (.processEmailFrom, change.processEmailFrom != nil), (.sendQuota, change.sendQuota != nil),
    ]
    for (field, isGiven) in given where isGiven && clears.contains(field) {
      problems.add("/\(field.rawValue)", "contradiction", "is set and named in `clears`")
    }
    try problems.throwIfAny()
  }

  /// Whether a direction's mail is reached in another way than it was tested.
  private static func isUntested(
    _ direction: Direction, _ before: Mailbox, _ change: ResolvedMailboxChange, _ logins: ProfileLogins
  ) -> Bool {
    let after = change.mailbox
    if after.profileID != before.profileID || after.address != before.address { return true }
    if after.state(direction).method != before.state(direction).method { return true }
    // Without a profile nobody knows whose credentials will count.
    guard let source = logins[direction] else { return true }
    let hasOtherName = (after.userName ?? after.address) != (before.userName ?? before.address)
    switch source {
    case .mailbox:
      return hasOtherName || change.changesPassword || after.allowsCredentials != before.allowsCredentials
    // The profile's account asks for the maildrop of this name, and tokens are bound to it. Mail is sent as the account.
    case .profile: return hasOtherName && direction == .incoming
    case .oauth: return hasOtherName
    case .integrated, .anonymous: return false
    }
  }
}

/// Whose credentials each direction of a mailbox's profile uses; empty without a profile.
public typealias ProfileLogins = [Direction: CredentialSource]

/// What follows from a change of a mailbox.
public struct ResolvedMailboxChange: Hashable, Sendable {
  /// The mailbox after it.
  public var mailbox: Mailbox
  /// The new password.
  public var password: Secret?
  /// Whether the stored password is replaced or taken away.
  public var changesPassword = false
  /// The directions that only a new test enables.
  public var untested: Set<Direction> = []

  /// Describes what follows.
  public init(mailbox: Mailbox, password: Secret?) {
    self.mailbox = mailbox
    self.password = password
  }
}

extension Mailbox {
  /// What is known of a direction.
  public func state(_ direction: Direction) -> DirectionState { direction == .incoming ? incoming : outgoing }

  fileprivate mutating func forgetTest(_ direction: Direction) {
    var state = state(direction)
    (state.status, state.enabled, state.failureCode, state.failedAt) = (.notRun, false, nil, nil)
    if direction == .incoming { incoming = state } else { outgoing = state }
  }
}
