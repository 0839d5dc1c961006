import FoundationEssentials

/// What administration needs of PostgreSQL for people: users, shared queues, tokens, passwords, sessions, and the audit of
/// what they did. As ``AdminStore``, every call works in the principal's organization alone, writes its audit row in the
/// same transaction, and throws ``StoreError``.
public protocol PeopleStore: Sendable {
  /// Enters a person. Throws ``StoreError/conflict(code:message:)`` `address-taken`.
  func createUser(_ draft: UserDraft, by principal: Principal) async throws -> User
  /// One person.
  func user(_ id: UserID, for principal: Principal) async throws -> User
  /// People, by address.
  func users(_ filter: PeopleFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<User>
  /// Changes a person. Mailboxes of one who becomes inactive stand still. Throws `stale`, `address-taken`, and
  /// `last-administrator` or `yourself` for what would leave nobody to administer.
  func updateUser(_ id: UserID, _ change: UserChange, by principal: Principal) async throws -> User
  /// Deletes a person with their tokens, sessions and memberships. Throws ``StoreError/conflict(code:message:)`` `in-use`,
  /// naming what they still own: mailboxes, shared queues, server profiles.
  func deleteUser(_ id: UserID, by principal: Principal) async throws

  /// Enters a shared queue. Throws `address-taken`, and `invalid` for an owner or member who is not there.
  func createSharedQueue(_ draft: SharedQueueDraft, by principal: Principal) async throws -> SharedQueue
  /// One shared queue.
  func sharedQueue(_ id: SharedQueueID, for principal: Principal) async throws -> SharedQueue
  /// Shared queues, by address.
  func sharedQueues(
    _ filter: PeopleFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<SharedQueue>
  /// Changes a shared queue. Mailboxes of one that becomes inactive stand still. Throws as creating does, and `stale`.
  func updateSharedQueue(
    _ id: SharedQueueID, _ change: SharedQueueChange, by principal: Principal
  ) async throws -> SharedQueue
  /// Deletes a shared queue. Throws ``StoreError/conflict(code:message:)`` `in-use`, naming the mailboxes it still has.
  func deleteSharedQueue(_ id: SharedQueueID, by principal: Principal) async throws

  /// Makes a token of a role that the caller has checked, which is shown this once. Throws `invalid` for a person who is
  /// not there or inactive, and for an end that is not later than now.
  func createToken(
    _ draft: TokenDraft, role: Role, of user: UserID, by principal: Principal
  ) async throws -> (token: APIToken, secret: Secret)
  /// Tokens and sessions, newest first.
  func tokens(_ filter: TokenFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<APIToken>
  /// Revokes a token or session, of one person alone where one is named; doing it twice changes nothing.
  func revokeToken(_ id: TokenID, of user: UserID?, by principal: Principal) async throws -> APIToken

  /// What people did, newest first.
  func auditRecords(
    _ filter: AuditFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<AuditRecord>
  /// Notes a request that was refused for want of a right.
  func recordRefusal(_ refusal: RefusedRequest, of principal: Principal) async throws

  /// Stores a password's hash, or takes the password away; ends the person's other sessions and their lock.
  func setPassword(_ hash: Secret?, of id: UserID, keeping session: Secret?, by principal: Principal) async throws
  /// Begins to check the password of the principal themselves; counted as ``beginSignIn(organization:address:)`` does.
  func beginPasswordCheck(by principal: Principal) async throws -> SignInTicket?
  /// Begins to sign somebody in, and counts a wrong password in advance, so that guesses at the same time cannot outrun
  /// the lock. `nil` for an unknown organization or address, an inactive or locked person, one without a password.
  func beginSignIn(organization: String, address: String) async throws -> SignInTicket?
  /// Notes in the audit that the password was wrong.
  func failSignIn(_ ticket: SignInTicket) async throws
  /// Begins a session and takes back the wrong password that was counted; `nil` when the password was changed meanwhile.
  ///
  /// - Parameter rehashed: replaces the stored hash where given: the same password under the present parameters.
  func completeSignIn(
    _ ticket: SignInTicket, life: SessionLife, rehashed: Secret?
  ) async throws -> StartedSession?
  /// Ends the session of a bearer token. Throws ``StoreError/conflict(code:message:)`` `not-a-session` for a token that a
  /// person made.
  func endSession(_ token: Secret, by principal: Principal) async throws
}
