import FoundationEssentials
import PostriderCore

/// What the fake keeps of people.
struct FakePeople {
  var users: [User] = []
  var queues: [SharedQueue] = []
  var tokens: [APIToken] = []
  var audit: [AuditRecord] = []
  var refusals: [RefusedRequest] = []
  /// By user.
  var passwords: [UserID: Secret] = [:]
  /// Attempts to sign in that were counted and not taken back.
  var failures = 0
  var refusedSignIns = 0
  var sessions: [Secret: SessionLife] = [:]
  var lastFilter: PeopleFilter?
  var lastTokenFilter: TokenFilter?
  var lastAuditFilter: AuditFilter?
  /// Thrown by `recordRefusal` when set.
  var auditFailure: (any Error & Sendable)?
}

extension FakeAdminStore {
  private func user(_ id: UserID, _ principal: Principal, _ state: State) throws -> Int {
    let found = state.people.users.firstIndex { $0.id == id && $0.organizationID == principal.organizationID }
    guard let found else { throw StoreError.notFound("user") }
    return found
  }

  func createUser(_ draft: UserDraft, by principal: Principal) async throws -> User {
    try checked { state in
      let user = User(
        id: UserID(Int64(state.people.users.count + 1)), organizationID: principal.organizationID,
        name: draft.name ?? draft.address, address: draft.address, role: draft.role ?? .owner, createdAt: Self.date,
        updatedAt: Self.date)
      state.people.users.append(user)
      return user
    }
  }

  func user(_ id: UserID, for principal: Principal) async throws -> User {
    try checked { state in
      var user = state.people.users[try self.user(id, principal, state)]
      user.passwordSet = state.people.passwords[id] != nil
      return user
    }
  }

  func users(_ filter: PeopleFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<User> {
    try checked { state in
      state.people.lastFilter = filter
      return self.page(state.people.users.filter { $0.organizationID == principal.organizationID }, page)
    }
  }

  func updateUser(_ id: UserID, _ change: UserChange, by principal: Principal) async throws -> User {
    try checked { state in
      let index = try self.user(id, principal, state)
      if let version = change.version, version != state.people.users[index].version { throw StoreError.stale }
      if let name = change.name { state.people.users[index].name = name }
      if let isActive = change.isActive { state.people.users[index].isActive = isActive }
      state.people.users[index].version += 1
      return state.people.users[index]
    }
  }

  func deleteUser(_ id: UserID, by principal: Principal) async throws {
    _ = try checked { state in state.people.users.remove(at: try self.user(id, principal, state)) }
  }

  func createSharedQueue(_ draft: SharedQueueDraft, by principal: Principal) async throws -> SharedQueue {
    try checked { state in
      let queue = SharedQueue(
        id: SharedQueueID(Int64(state.people.queues.count + 1)), organizationID: principal.organizationID,
        name: draft.name ?? draft.address, address: draft.address,
        owner: UserReference(id: draft.ownerID ?? principal.userID, name: "x", address: "x@example.com"),
        createdAt: Self.date, updatedAt: Self.date)
      state.people.queues.append(queue)
      return queue
    }
  }

  private func queue(_ id: SharedQueueID, _ principal: Principal, _ state: State) throws -> Int {
    let found = state.people.queues.firstIndex { $0.id == id && $0.organizationID == principal.organizationID }
    guard let found else { throw StoreError.notFound("shared queue") }
    return found
  }

  func sharedQueue(_ id: SharedQueueID, for principal: Principal) async throws -> SharedQueue {
    try checked { state in state.people.queues[try self.queue(id, principal, state)] }
  }

  func sharedQueues(
    _ filter: PeopleFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<SharedQueue> {
    try checked { state in
      state.people.lastFilter = filter
      return self.page(state.people.queues.filter { $0.organizationID == principal.organizationID }, page)
    }
  }

  func updateSharedQueue(
    _ id: SharedQueueID, _ change: SharedQueueChange, by principal: Principal
  ) async throws -> SharedQueue {
    try checked { state in
      let index = try self.queue(id, principal, state)
      if let name = change.name { state.people.queues[index].name = name }
      return state.people.queues[index]
    }
  }

  func deleteSharedQueue(_ id: SharedQueueID, by principal: Principal) async throws {
    _ = try checked { state in state.people.queues.remove(at: try self.queue(id, principal, state)) }
  }

  func createToken(
    _ draft: TokenDraft, role: Role, of user: UserID, by principal: Principal
  ) async throws -> (token: APIToken, secret: Secret) {
    try checked { state in
      let token = APIToken(
        id: TokenID(Int64(state.people.tokens.count + 1)), user: UserReference(id: user, name: "x", address: "x@y.z"),
        kind: .token, name: draft.name, role: role, createdAt: Self.date, expiresAt: draft.expiresAt)
      state.people.tokens.append(token)
      return (token, Secret("made-\(token.id)"))
    }
  }

  func tokens(_ filter: TokenFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<APIToken> {
    try checked { state in
      state.people.lastTokenFilter = filter
      return self.page(state.people.tokens, page)
    }
  }

  func revokeToken(_ id: TokenID, of user: UserID?, by principal: Principal) async throws -> APIToken {
    try checked { state in
      let found = state.people.tokens.firstIndex { $0.id == id && (user == nil || $0.user.id == user) }
      guard let found else { throw StoreError.notFound("token") }
      state.people.tokens[found].revokedAt = Self.date
      return state.people.tokens[found]
    }
  }

  func auditRecords(
    _ filter: AuditFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<AuditRecord> {
    try checked { state in
      state.people.lastAuditFilter = filter
      return self.page(state.people.audit, page)
    }
  }

  func recordRefusal(_ refusal: RefusedRequest, of principal: Principal) async throws {
    try state.withLock { state in
      if let failure = state.people.auditFailure { throw failure }
      state.people.refusals.append(refusal)
    }
  }

  func setPassword(_ hash: Secret?, of id: UserID, keeping session: Secret?, by principal: Principal) async throws {
    try checked { state in
      _ = try self.user(id, principal, state)
      state.people.passwords[id] = hash
    }
  }

  private func ticket(_ user: User, _ state: inout State) -> SignInTicket? {
    guard user.isActive, let hash = state.people.passwords[user.id] else { return nil }
    state.people.failures += 1
    return SignInTicket(
      principal: Principal(
        organizationID: user.organizationID, userID: user.id, name: user.name, role: user.role), hash: hash)
  }

  func beginPasswordCheck(by principal: Principal) async throws -> SignInTicket? {
    try checked { state in ticket(state.people.users[try self.user(principal.userID, principal, state)], &state) }
  }

  func beginSignIn(organization: String, address: String) async throws -> SignInTicket? {
    try checked { state in
      guard organization == "Example", let user = state.people.users.first(where: { $0.address == address })
      else { return nil }
      return ticket(user, &state)
    }
  }

  func failSignIn(_ ticket: SignInTicket) async throws { try checked { $0.people.refusedSignIns += 1 } }

  func completeSignIn(
    _ ticket: SignInTicket, life: SessionLife, rehashed: Secret?
  ) async throws -> StartedSession? {
    try checked { state in
      state.people.failures -= 1
      if let rehashed { state.people.passwords[ticket.principal.userID] = rehashed }
      let token = Secret("session-\(state.people.sessions.count + 1)")
      state.people.sessions[token] = life
      state.tokens[token.revealed] = ticket.principal
      return StartedSession(token: token, principal: ticket.principal, expiresAt: Self.date)
    }
  }

  func endSession(_ token: Secret, by principal: Principal) async throws {
    try checked { state in
      guard state.people.sessions.removeValue(forKey: token) != nil else {
        throw StoreError.conflict(code: "not-a-session", message: "This is no session.")
      }
      state.tokens[token.revealed] = nil
    }
  }
}
