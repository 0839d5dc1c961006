import FoundationEssentials
import PostriderCore
import Synchronization

/// Administration's view of PostgreSQL in memory: two organizations, no persistence, errors on request.
final class FakeAdminStore: AdminStore {
  struct State {
    var profiles: [ServerProfile] = []
    var mailboxes: [Mailbox] = []
    var alerts: [Alert] = []
    var runs: [RunRecord] = []
    var emails: [EmailRecord] = []
    var raw: [EmailID: [[UInt8]]] = [:]
    var passwords: [Secret] = []
    /// Thrown by every call but `principal` when set.
    var failure: (any Error & Sendable)?
    /// Thrown by `principal`.
    var tokenFailure: (any Error & Sendable)?
    /// Thrown after the chunks of a raw message.
    var rawFailure: (any Error & Sendable)?
    var tokens: [String: Principal] = [:]
    var tokenCalls = 0
    var scheduleCalls = 0
    var lastPage: PageRequest?
    var lastMailboxFilter: MailboxFilter?
    var lastAlertFilter: AlertFilter?
    var lastRunFilter: RunFilter?
    var lastIDs: [MailboxID] = []
    var lastApproval: ApprovalState?
    var pauses: [Pause] = []
    var alertMail = AlertMailSettings()
    var emailSettings = EmailSettings(updatedAt: FakeAdminStore.date)
    var setAside: [SetAsideJob] = []
    var activity: [OrganizationID: [ProfileActivity]] = [:]
    var activityCalls = 0
    var repairs: [RepairRequest] = []
    var outgoing: [OutgoingEmail] = []
    var quarantine: [QuarantinedMessage] = []
    var keptRaw: [QuarantineID: [[UInt8]]] = [:]
    var lastQuarantineFilter: QuarantineFilter?
    /// The last message submitted.
    var composed = ""
    var submissions: [OutgoingSubmission] = []
    var people = FakePeople()
    /// Every call that changes something of this issue, in words.
    var writes: [String] = []
  }

  let state: Mutex<State>
  let batches = FakeBatches()
  /// Waited for by `profiles` when set.
  let gate: AsyncStream<Void>?
  /// Told when a call waits at the gate.
  let atGate: AsyncStream<Void>.Continuation?

  static let date = Date(timeIntervalSince1970: 1_772_352_000.125)

  init(gate: AsyncStream<Void>? = nil, atGate: AsyncStream<Void>.Continuation? = nil) {
    var state = State()
    for role in Role.allCases {
      state.tokens[role.rawValue] = Principal(
        organizationID: OrganizationID(1), userID: UserID(Int64(state.tokens.count + 1)), name: role.rawValue,
        role: role)
    }
    state.tokens["foreign"] = Principal(
      organizationID: OrganizationID(2), userID: UserID(9), name: "foreign", role: .administrator)
    self.state = Mutex(state)
    self.gate = gate
    self.atGate = atGate
  }

  func change(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }

  func checked<Value: Sendable>(_ body: (inout State) throws -> Value) throws -> Value {
    try state.withLock { state in
      if let failure = state.failure { throw failure }
      return try body(&state)
    }
  }

  func page<Item: Sendable>(_ items: [Item], _ page: PageRequest) -> Page<Item> {
    let start = page.cursor.flatMap { Int($0) } ?? 0
    let part = Array(items.dropFirst(start).prefix(page.limit))
    let next = start + part.count
    return Page(items: part, nextCursor: next < items.count ? String(next) : nil, total: items.count)
  }

  func sendAllowance(of id: MailboxID, for principal: Principal) async throws -> SendAllowance {
    try checked { state in
      guard let mailbox = state.mailboxes.first(where: { $0.id == id && $0.organizationID == principal.organizationID })
      else { throw StoreError.notFound("mailbox") }
      return SendAllowance(
        mailboxID: id, quota: mailbox.sendQuota ?? .none, source: .mailbox, sharedQuota: .none,
        used: SendUsage(messagesLastDay: 3),
        sharedUsed: SendUsage(), waitsUntil: Self.date, reason: "quota")
    }
  }

  func alertMail(for principal: Principal) async throws -> AlertMailSettings { try checked { $0.alertMail } }

  func updateAlertMail(_ change: AlertMailChange, by principal: Principal) async throws -> AlertMailSettings {
    try checked { state in
      state.alertMail = try change.applied(to: state.alertMail)
      return state.alertMail
    }
  }

  func principal(token: Secret) async throws -> Principal? {
    try state.withLock { state in
      state.tokenCalls += 1
      if let failure = state.tokenFailure { throw failure }
      return state.tokens[token.revealed]
    }
  }

  func createProfile(_ profile: ResolvedProfile, by principal: Principal) async throws -> ServerProfile {
    try checked { state in
      if state.profiles.contains(where: { $0.name == profile.draft.name }) {
        throw StoreError.conflict(code: "name-taken", message: "There is a profile of this name.")
      }
      state.passwords += [profile.incomingPassword, profile.outgoingPassword].compactMap { $0 }
      let made = ServerProfile(
        id: ProfileID(Int64(state.profiles.count + 1)), organizationID: principal.organizationID,
        name: profile.draft.name, type: profile.draft.type, incoming: profile.incoming, outgoing: profile.outgoing,
        processEmailFrom: profile.draft.processEmailFrom, createdAt: Self.date, updatedAt: Self.date)
      state.profiles.append(made)
      return made
    }
  }

  func profile(_ id: ProfileID, for principal: Principal) async throws -> ServerProfile {
    try checked { state in
      guard
        let found = state.profiles.first(where: { $0.id == id && $0.organizationID == principal.organizationID })
      else { throw StoreError.notFound("server profile") }
      return found
    }
  }

  func profiles(_ page: PageRequest, for principal: Principal) async throws -> Page<ServerProfile> {
    if let gate {
      atGate?.yield()
      for await _ in gate { break }
    }
    return try checked { state in
      state.lastPage = page
      return self.page(state.profiles.filter { $0.organizationID == principal.organizationID }, page)
    }
  }

  func createMailbox(_ draft: MailboxDraft, by principal: Principal) async throws -> Mailbox {
    try checked { state in
      if let password = draft.password { state.passwords.append(password) }
      let id = Int64(state.mailboxes.count + 1)
      let made = Mailbox(
        id: MailboxID(id), organizationID: principal.organizationID, address: draft.address,
        owner: MailboxOwner(kind: draft.owner?.kind ?? .user, id: id, name: draft.owner?.name ?? draft.address),
        profileID: draft.profileID, userName: draft.userName, passwordSet: draft.password != nil,
        processEmailFrom: draft.processEmailFrom, incoming: DirectionState(method: .serverSideSync),
        outgoing: DirectionState(method: .serverSideSync),
        createdAt: Self.date, updatedAt: Self.date)
      state.mailboxes.append(made)
      return made
    }
  }

  func mailbox(_ id: MailboxID, for principal: Principal) async throws -> Mailbox {
    try checked { state in
      guard
        let found = state.mailboxes.first(where: { $0.id == id && $0.organizationID == principal.organizationID })
      else { throw StoreError.notFound("mailbox") }
      return found
    }
  }

  func mailboxes(_ filter: MailboxFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Mailbox> {
    try checked { state in
      state.lastMailboxFilter = filter
      state.lastPage = page
      return self.page(state.mailboxes.filter { $0.organizationID == principal.organizationID }, page)
    }
  }

  private func bulk(_ ids: [MailboxID], _ principal: Principal, _ state: inout State) -> [BulkResult] {
    state.lastIDs = ids
    let known = Set(state.mailboxes.filter { $0.organizationID == principal.organizationID }.map(\.id))
    return ids.map {
      known.contains($0)
        ? BulkResult(id: $0, ok: true)
        : BulkResult(id: $0, ok: false, code: "not-found", message: "There is no such mailbox.")
    }
  }

  func setApproval(_ approval: ApprovalState, of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult]
  {
    try checked { state in
      state.lastApproval = approval
      return bulk(ids, principal, &state)
    }
  }

  func requestTest(of ids: [MailboxID], takingOver: Bool, by principal: Principal) async throws -> [BulkResult] {
    try checked { state in
      if takingOver { state.writes.append("take over") }
      return bulk(ids, principal, &state)
    }
  }

  func requestPoll(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    try checked { state in bulk(ids, principal, &state) }
  }

  func reimport(_ choice: ReimportChoice, of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    try checked { state in
      state.writes.append("reimport \(choice.rawValue)")
      return bulk(ids, principal, &state)
    }
  }

  func alerts(_ filter: AlertFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Alert> {
    try checked { state in
      state.lastAlertFilter = filter
      return self.page(state.alerts, page)
    }
  }

  func runs(_ filter: RunFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<RunRecord> {
    try checked { state in
      state.lastRunFilter = filter
      return self.page(state.runs, page)
    }
  }

  func run(_ id: RunID, for principal: Principal) async throws -> RunRecord {
    try checked { state in
      guard let run = state.runs.first(where: { $0.id == id }) else { throw StoreError.notFound("run") }
      return run
    }
  }

  func emails(mailbox: MailboxID?, _ page: PageRequest, for principal: Principal) async throws -> Page<EmailRecord> {
    try checked { state in self.page(state.emails.filter { mailbox == nil || $0.mailboxID == mailbox }, page) }
  }

  func email(_ id: EmailID, for principal: Principal) async throws -> EmailRecord {
    try checked { state in
      guard let email = state.emails.first(where: { $0.id == id }) else { throw StoreError.notFound("message") }
      return email
    }
  }

  func rawEmail(_ id: EmailID, for principal: Principal) async throws -> AsyncThrowingStream<[UInt8], any Error> {
    let (chunks, failure) = try checked { state in (state.raw[id], state.rawFailure) }
    return AsyncThrowingStream { continuation in
      guard let chunks else { return continuation.finish(throwing: StoreError.notFound("message")) }
      for chunk in chunks { continuation.yield(chunk) }
      continuation.finish(throwing: failure)
    }
  }

  func scheduleStatistics(for principal: Principal) async throws -> ScheduleStatistics {
    try checked { state in
      state.scheduleCalls += 1
      return ScheduleStatistics(overdue: 2, oldestDueMilliseconds: 5, scheduled: 9, leader: "s1")
    }
  }

  func checkHealth() async throws { try checked { _ in } }
}
