import PostriderCore

/// What a bulk verb has to know of a mailbox before it changes it.
private struct MailboxFacts: Sendable {
  var approval: ApprovalState
  var approvalNeeded: Bool
  var isActive: Bool
  var ownerIsActive: Bool
  var profileIsActive: Bool?
  var anyMethod: Bool
  var isPaused: Bool
  var testIsSetAside: Bool
  var incomingReason: String?

  init(_ row: inout Row) throws {
    approval = try row.word()
    approvalNeeded = try row.bool()
    isActive = try row.bool()
    ownerIsActive = try row.bool()
    profileIsActive = try row.boolOrNil()
    anyMethod = try row.bool()
    isPaused = try row.bool()
    testIsSetAside = try row.bool()
    incomingReason = try row.textOrNil()
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
    return try await forEach(ids, principal) { db, facts in
      let changed = facts.filter { $0.value.approval != state }.sorted { $0.key < $1.key }
      let mailboxes = PostgresValue.ids(changed.map(\.key))
      let verb = state == .approved ? "mailbox.approve" : "mailbox.reject"
      let entries = changed.map { id, facts in
        AuditEntry(
          verb, "mailbox", id.value, before: #"{"approval":"\#(facts.approval.rawValue)"}"#,
          after: #"{"approval":"\#(state.rawValue)"}"#)
      }
      if changed.isEmpty {
        try db.commit()
      } else {
        try db.commit([
          Statement(
            "UPDATE mailbox SET approval = $2, version = version + 1, updated_at = now() WHERE id = ANY ($1)",
            [mailboxes, .text(state.rawValue)]),
          .refreshMayRun(mailboxes),
          .audit(entries, by: principal),
        ])
      }
      return facts.mapValues { _ in nil }
    }
  }

  /// Requests test & enable; interactive for at most 20 mailboxes.
  ///
  /// Refused per row with `mailbox-inactive`, `owner-inactive`, `no-profile`, `profile-inactive`, `paused`, `not-approved`,
  /// `nothing-to-test`, `set-aside` or `not-found`.
  public func requestTest(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    let urgent = ids.count <= Self.interactiveLimit
    return try await forEach(ids, principal) { db, facts in
      let answers = facts.mapValues(\.testRefusal)
      try Self.request(.test, answers, urgent ? .interactive : .batchTest, db, principal)
      return answers
    }
  }

  /// Requests a poll now; refused with `not-running` for a mailbox whose incoming direction is not running.
  public func requestPoll(of ids: [MailboxID], by principal: Principal) async throws -> [BulkResult] {
    let urgent = ids.count <= Self.interactiveLimit
    return try await forEach(ids, principal) { db, facts in
      let answers = facts.mapValues { facts in
        facts.incomingReason.map { (code: "not-running", message: "the incoming direction is not running: \($0)") }
      }
      try Self.request(.poll, answers, urgent ? .interactive : .poll, db, principal)
      return answers
    }
  }

  /// Counts a request on the hot rows of the accepted mailboxes, makes them due and wakes the scheduler.
  private static func request(
    _ kind: JobKind, _ answers: [MailboxID: (code: String, message: String)?], _ jobClass: JobClass,
    _ db: isolated PostgresConnection, _ principal: Principal
  ) throws {
    let accepted = answers.filter { $0.value == nil }.map(\.key).sorted()
    if accepted.isEmpty {
      try db.commit()
      return
    }
    let entries = accepted.map { AuditEntry("mailbox.\(kind.word)", "mailbox", $0.value) }
    try db.commit(
      [lockRows(kind, of: accepted)] + requestStatements(kind, of: accepted, jobClass) + [
        .audit(entries, by: principal)
      ])
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

  /// Locks mailboxes in order, gives what is known of them to a body that changes them and commits, and turns its
  /// refusals into answers in the order asked.
  private func forEach(
    _ ids: [MailboxID], _ principal: Principal,
    _ body:
      @Sendable (isolated PostgresConnection, [MailboxID: MailboxFacts]) throws
      -> [MailboxID: (code: String, message: String)?]
  ) async throws -> [BulkResult] {
    try await pool.transaction(.api(principal)) { db in
      let rows = try db.query(
        """
        SELECT m.id, m.approval, \(MailboxQuery.approvalNeeded), m.is_active, \(MailboxQuery.ownerActive), p.is_active,
          m.incoming_method = 'server-side-sync' OR m.outgoing_method = 'server-side-sync',
          \(MailboxQuery.paused), \(MailboxQuery.setAside("t")),
          \(MailboxQuery.reason("incoming"))
        FROM mailbox m JOIN organization o ON o.id = m.organization_id
        LEFT JOIN server_profile p ON p.id = m.profile_id
        WHERE m.id = ANY ($1) AND m.organization_id = $2 ORDER BY m.id FOR NO KEY UPDATE OF m
        """, [.ids(ids), .id(principal.organizationID)]
      ).map { row in (try row.id() as MailboxID, try MailboxFacts(&row)) }
      let refusals = try body(db, Dictionary(uniqueKeysWithValues: rows))
      return ids.map { id in
        guard let refusal = refusals[id] else {
          return BulkResult(id: id, ok: false, code: "not-found", message: "there is no such mailbox")
        }
        return BulkResult(id: id, ok: refusal == nil, code: refusal?.code, message: refusal?.message)
      }
    }
  }
}
