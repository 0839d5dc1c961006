import PostriderCore

/// What a bulk verb has to know of a mailbox before it changes it.
struct MailboxFacts: Sendable {
  var approval: ApprovalState
  var approvalNeeded: Bool
  var isActive: Bool
  var ownerIsActive: Bool
  var profileIsActive: Bool?
  var anyMethod: Bool
  var receives: Bool
  var isPaused: Bool
  var testIsSetAside: Bool
  var incomingReason: String?
  var incomingFailure: String?

  init(_ row: inout Row) throws {
    approval = try row.word()
    approvalNeeded = try row.bool()
    isActive = try row.bool()
    ownerIsActive = try row.bool()
    profileIsActive = try row.boolOrNil()
    anyMethod = try row.bool()
    receives = try row.bool()
    isPaused = try row.bool()
    testIsSetAside = try row.bool()
    incomingReason = try row.textOrNil()
    incomingFailure = try row.textOrNil()
  }

  /// Why a test is refused.
  var testRefusal: (code: String, message: String)? {
    if !isActive { return ("mailbox-inactive", "the mailbox is inactive") }
    if !ownerIsActive {
      return ("owner-inactive", "the user or shared queue that the mailbox belongs to is inactive; activate it first")
    }
    guard let profileIsActive else { return ("no-profile", "the mailbox has no server profile") }
    if !profileIsActive { return ("profile-inactive", "the mailbox's server profile is inactive") }
    if isPaused { return ("paused", "the mailbox, its server profile or everything is paused; resume it first") }
    if approvalNeeded && approval != .approved {
      return ("not-approved", "the mailbox has to be approved before it may process mail")
    }
    if !anyMethod { return ("nothing-to-test", "neither direction of the mailbox is synchronized") }
    if testIsSetAside {
      return ("set-aside", "the mailbox's test was taken back from several workers and is set aside; release it first")
    }
    return nil
  }

  /// Why there is nothing to take over from another organization.
  var takeOverRefusal: (code: String, message: String)? {
    receives
      ? nil
      : (
        "nothing-to-take-over",
        "only the incoming direction belongs to one organization, and this mailbox does not receive; test it without "
          + "`takeOver`, or choose an incoming method first"
      )
  }
}

/// What a bulk verb makes of mailboxes: who is refused, who is so already, and the statements that do it for the others.
struct BulkPlan: Sendable {
  /// Why a mailbox is refused.
  typealias Refusal = (code: String, message: String)

  var refusals: [MailboxID: Refusal] = [:]
  var unchanged: Set<MailboxID> = []
  var statements: [Statement] = []
}

extension BulkPlan {
  /// Approves or rejects.
  static func approval(
    _ state: ApprovalState, _ facts: [MailboxID: MailboxFacts], by principal: Principal
  ) -> BulkPlan {
    let changed = facts.filter { $0.value.approval != state }.sorted { $0.key < $1.key }
    var plan = BulkPlan()
    plan.unchanged = Set(facts.keys).subtracting(changed.map(\.key))
    if changed.isEmpty { return plan }
    let mailboxes = PostgresValue.ids(changed.map(\.key))
    let verb = state == .approved ? "mailbox.approve" : "mailbox.reject"
    let entries = changed.map { id, facts in
      AuditEntry(
        verb, "mailbox", id.value, before: #"{"approval":"\#(facts.approval.rawValue)"}"#,
        after: #"{"approval":"\#(state.rawValue)"}"#)
    }
    plan.statements = [
      Statement(
        "UPDATE mailbox SET approval = $2, version = version + 1, updated_at = now() WHERE id = ANY ($1)",
        [mailboxes, .text(state.rawValue)]),
      .refreshMayRun(mailboxes),
      .audit(entries, by: principal),
    ]
    return plan
  }

  /// Requests tests.
  static func test(
    _ facts: [MailboxID: MailboxFacts], takingOver: Bool = false, _ jobClass: JobClass, by principal: Principal
  ) -> BulkPlan {
    let refused = facts.compactMapValues { $0.testRefusal ?? (takingOver ? $0.takeOverRefusal : nil) }
    var plan = request(
      .test, facts, refused: refused, jobClass, by: principal, detail: takingOver ? #"{"takeOver":true}"# : nil)
    let accepted = facts.keys.filter { refused[$0] == nil }.sorted()
    if takingOver && !accepted.isEmpty {
      plan.statements.append(PostgresStore.tickTakeOver(of: accepted, by: principal))
    }
    return plan
  }

  /// Requests polls.
  static func poll(
    _ facts: [MailboxID: MailboxFacts], _ jobClass: JobClass, by principal: Principal
  ) -> BulkPlan {
    let refused = facts.compactMapValues { facts -> Refusal? in
      facts.incomingReason.map { reason in
        let failure = reason == "disabled" ? facts.incomingFailure.map { " by \($0)" } : nil
        return ("not-running", "the incoming direction is not running: \(reason)\(failure ?? "")")
      }
    }
    return request(.poll, facts, refused: refused, jobClass, by: principal)
  }

  /// Counts a request on the hot rows of those that are not refused, makes them due and wakes the scheduler.
  private static func request(
    _ kind: JobKind, _ facts: [MailboxID: MailboxFacts], refused: [MailboxID: Refusal], _ jobClass: JobClass,
    by principal: Principal, detail: String? = nil
  ) -> BulkPlan {
    var plan = BulkPlan(refusals: refused)
    let accepted = facts.keys.filter { refused[$0] == nil }.sorted()
    if accepted.isEmpty { return plan }
    let entries = accepted.map { AuditEntry("mailbox.\(kind.word)", "mailbox", $0.value, after: detail) }
    plan.statements =
      [PostgresStore.lockRows(kind, of: accepted)] + PostgresStore.requestStatements(kind, of: accepted, jobClass) + [
        .audit(entries, by: principal)
      ]
    return plan
  }
}

extension PostgresStore {
  /// Up to so many mailboxes a person waits for; more are a batch.
  static let interactiveLimit = 20

  /// Approves or rejects; one answer per row, in the order asked. Rows already in that state answer ok.
  public func setApproval(
    _ state: ApprovalState, of ids: [MailboxID], by principal: Principal
  ) async throws -> [BulkResult] {
    guard state == .approved || state == .rejected else {
      throw StoreError.invalid([FieldProblem("/state", "not-allowed", "must be approved or rejected")])
    }
    return try await forEach(ids, principal) { .approval(state, $0, by: principal) }
  }

  /// Requests test & enable; interactive for at most 20 mailboxes.
  ///
  /// Refused per row with `mailbox-inactive`, `owner-inactive`, `no-profile`, `profile-inactive`, `paused`, `not-approved`,
  /// `nothing-to-test`, `set-aside` or `not-found`, and with `nothing-to-take-over` where an address is to be taken over and
  /// the mailbox does not receive.
  public func requestTest(
    of ids: [MailboxID], takingOver: Bool, by principal: Principal
  ) async throws -> [BulkResult] {
    let urgent = ids.count <= Self.interactiveLimit
    return try await forEach(ids, principal) {
      .test($0, takingOver: takingOver, urgent ? .interactive : .batchTest, by: principal)
    }
  }

  /// Requests a poll now; refused with `not-running` for a mailbox whose incoming direction is not running.
  public func requestPoll(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    let urgent = ids.count <= Self.interactiveLimit
    return try await forEach(ids, principal) { .poll($0, urgent ? .interactive : .poll, by: principal) }
  }

  /// Locks hot rows in order.
  static func lockRows(_ kind: JobKind, of mailboxes: [MailboxID]) -> Statement {
    Statement(
      "SELECT 1 FROM mailbox_schedule WHERE mailbox_id = ANY ($1) AND kind = $2 ORDER BY mailbox_id FOR NO KEY UPDATE",
      [.ids(mailboxes), .text(kind.rawValue)])
  }

  /// Counts a request on locked hot rows, makes them due and wakes the scheduler.
  static func requestStatements(_ kind: JobKind, of mailboxes: [MailboxID], _ jobClass: JobClass) -> [Statement] {
    [
      Statement(
        """
        UPDATE mailbox_schedule SET requested = requested + 1, next_due_at = least(next_due_at, now()),
          reason = 'request', job_class = CASE WHEN requested > served THEN least(job_class, $3) ELSE $3 END
        WHERE mailbox_id = ANY ($1) AND kind = $2
        """, [.ids(mailboxes), .text(kind.rawValue), .int(Int64(jobClass.rawValue))]),
      Statement("SELECT announce_jobs($1)", [.texts(mailboxes.map { JobID(mailbox: $0, kind: kind).description })]),
    ]
  }

  /// Locks mailboxes in order and reads what a bulk verb has to know of them.
  static func facts(
    of ids: [MailboxID], in organization: OrganizationID, _ db: isolated PostgresConnection
  ) throws -> [MailboxID: MailboxFacts] {
    let rows = try db.query(
      """
      SELECT m.id, m.approval, \(MailboxQuery.approvalNeeded), m.is_active, \(MailboxQuery.ownerActive), p.is_active,
        m.incoming_method = 'server-side-sync' OR m.outgoing_method = 'server-side-sync',
        m.incoming_method = 'server-side-sync',
        \(MailboxQuery.paused), \(MailboxQuery.setAside("t")),
        \(MailboxQuery.reason("incoming")), m.incoming_failure_code
      FROM mailbox m JOIN organization o ON o.id = m.organization_id
      LEFT JOIN server_profile p ON p.id = m.profile_id
      WHERE m.id = ANY ($1) AND m.organization_id = $2 ORDER BY m.id FOR NO KEY UPDATE OF m
      """, [.ids(ids), .id(organization)]
    ).map { row in (try row.id() as MailboxID, try MailboxFacts(&row)) }
    return Dictionary(uniqueKeysWithValues: rows)
  }

  /// Carries out a plan for mailboxes and turns it into answers in the order asked.
  private func forEach(
    _ ids: [MailboxID], _ principal: Principal, _ plan: @Sendable ([MailboxID: MailboxFacts]) -> BulkPlan
  ) async throws -> [BulkResult] {
    try await pool.transaction(.api(principal)) { db in
      let facts = try Self.facts(of: ids, in: principal.organizationID, db)
      let plan = plan(facts)
      try db.commit(plan.statements)
      return ids.map { id in
        guard facts[id] != nil else {
          return BulkResult(id: id, ok: false, code: "not-found", message: "there is no such mailbox")
        }
        let refusal = plan.refusals[id]
        return BulkResult(id: id, ok: refusal == nil, code: refusal?.code, message: refusal?.message)
      }
    }
  }
}
