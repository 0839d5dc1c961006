/// What users, shared queues, their tokens and passwords must be like (features M0, A4).
public enum PeopleRules {
  /// The most members of a shared queue.
  public static let maximumMembers = 1_000

  /// Checks a person; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func check(_ draft: UserDraft) throws(StoreError) {
    try check(name: draft.name, address: draft.address)
  }

  /// Checks a change of a person; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func check(_ change: UserChange) throws(StoreError) {
    try check(
      name: change.name, address: change.address, changesNothing: change == UserChange(version: change.version))
  }

  /// Checks a shared queue; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func check(_ draft: SharedQueueDraft) throws(StoreError) {
    try check(name: draft.name, address: draft.address, members: draft.memberIDs)
  }

  /// Checks a change of a shared queue; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func check(_ change: SharedQueueChange) throws(StoreError) {
    try check(
      name: change.name, address: change.address, members: change.memberIDs,
      changesNothing: change == SharedQueueChange(version: change.version))
  }

  /// Checks a token's name; throws ``StoreError/invalid(_:)``. That it ends later than now the database's clock decides.
  public static func check(_ draft: TokenDraft) throws(StoreError) {
    var problems = FieldProblems()
    problems.check(draft.name, at: "/name", maximum: 100, minimum: 1)
    try problems.throwIfAny()
  }

  private static func check(
    name: String?, address: String?, members: [UserID]? = nil, changesNothing: Bool = false
  ) throws(StoreError) {
    var problems = FieldProblems()
    if changesNothing { problems.add("", "required", "must change something") }
    if let name { problems.check(name, at: "/name", maximum: 200, minimum: 1) }
    if let address { AddressRules.check(address, at: "/address", &problems) }
    if let members, members.count > maximumMembers {
      problems.add("/memberIDs", "too-long", "must have at most \(maximumMembers) members, has \(members.count)")
    }
    try problems.throwIfAny()
  }
}

/// The rules of passwords of people, and of guessing them.
public enum PasswordRules {
  /// How many characters a password has.
  public static let length = 12...200
  /// So many wrong passwords in a row cost nothing but the answer.
  public static let freeFailures = 5
  /// How long the next one locks, in seconds; each further one twice as long.
  public static let firstLockSeconds = 30
  /// The longest lock, in seconds. Whoever knows an address can keep its owner out for as long: a longer one would hurt
  /// them more than it would hinder guessing.
  public static let maximumLockSeconds = 900
  /// Wrong passwords are forgotten when none came for so long, in seconds.
  public static let forgottenAfterSeconds = 86_400

  /// How long so many wrong passwords in a row lock an account, in seconds; 0 for not at all.
  public static func lockSeconds(failures: Int) -> Int {
    if failures < freeFailures { return 0 }
    return min(maximumLockSeconds, firstLockSeconds << min(failures - freeFailures, 10))
  }

  /// Checks a new password of the person with an address; throws ``StoreError/invalid(_:)``.
  public static func check(_ password: Secret, of address: String, at pointer: String) throws(StoreError) {
    var problems = FieldProblems()
    let text = password.revealed
    if text.count < length.lowerBound {
      problems.add(
        pointer, "too-short", "must have at least \(length.lowerBound) characters; a few words are easy to remember")
    }
    problems.check(text, at: pointer, maximum: length.upperBound)
    if text.lowercased() == address.lowercased() { problems.add(pointer, "not-allowed", "must not be the address") }
    try problems.throwIfAny()
  }
}
