import FoundationEssentials
import PostriderCore

/// A batch whose row is locked by the step that works on it.
struct LockedBatch: Sendable {
  var id: BatchID
  var verb: BatchVerb
  var state: BatchState
  var dryRun: Bool
  var principal: Principal
  /// Rows from here on were not carried out, up to ``last``.
  var next: Int64
  var last: Int64
  var swept: Int64
  var waiting: Int64
  var stepRows: Int64
  /// Whether it waits for workers longer than they may take.
  var isOld: Bool

  /// The most rows in one transaction: what it locks is free again after some tens of milliseconds.
  static let maximumStepRows: Int64 = 500
  /// Rows that wait for workers, looked at in one step.
  static let sweptRows: Int64 = 5_000

  static func lock(_ id: BatchID) -> Statement {
    Statement(
      """
      SELECT id, verb, state, dry_run, principal, next_position, last_position, swept_position, waiting, step_rows,
        coalesce(started_at, created_at) < now() - interval '1 day'
      FROM batch WHERE id = $1 AND state IN ('running', 'canceling') AND next_look_at <= clock_timestamp()
      FOR NO KEY UPDATE SKIP LOCKED
      """, [.id(id)])
  }

  init(_ row: inout Row) throws {
    id = try row.id()
    verb = try row.word()
    state = try row.word()
    dryRun = try row.bool()
    principal = try row.json()
    next = try row.int()
    last = try row.int()
    swept = try row.int()
    waiting = try row.int()
    stepRows = try row.int()
    isOld = try row.bool()
  }

  /// Where the rows of the coming step end.
  var end: Int64 { min(next + min(stepRows, verb.stepRows), last + 1) }
}

/// What became of rows in one step.
struct RowChanges: Sendable {
  private(set) var positions: [Int64] = []
  private(set) var states: [BatchRowState] = []
  private var codes: [String?] = []
  private var messages: [String?] = []
  private var mailboxes: [Int64?] = []
  private var addresses: [String?] = []

  mutating func add(
    _ position: Int64, _ state: BatchRowState, code: String? = nil, message: String? = nil, mailbox: MailboxID? = nil,
    address: String? = nil
  ) {
    positions.append(position)
    states.append(state)
    codes.append(code)
    messages.append(message)
    mailboxes.append(mailbox?.value)
    addresses.append(address)
  }

  func count(_ state: BatchRowState) -> Int64 { Int64(states.count { $0 == state }) }

  /// Writes them; rows that wait for a job remember its request, which was counted before.
  func statement(_ batch: BatchID, _ job: JobKind?) -> Statement {
    // Each row finds its place in the arrays. Joined to them, a table without statistics is compared row with row.
    Statement(
      """
      UPDATE batch_row r SET (state, code, message, mailbox_id, address, target) = (
        SELECT ($3::text[])[n], ($4::text[])[n], ($5::text[])[n], coalesce(r.mailbox_id, ($6::bigint[])[n]),
          coalesce(($8::text[])[n], r.address),
          CASE ($3::text[])[n] WHEN 'waiting' THEN (SELECT s.requested FROM mailbox_schedule s
            WHERE s.mailbox_id = r.mailbox_id AND s.kind = $7) END
        FROM (SELECT array_position($2::bigint[], r.position::bigint) AS n OFFSET 0) AS place)
      WHERE r.batch_id = $1 AND r.position = ANY ($2::bigint[])
      """,
      [
        .id(batch), .ints(positions), .texts(states.map(\.rawValue)), .texts(codes), .texts(messages),
        .ints(mailboxes), .text(job?.rawValue), .texts(addresses),
      ])
  }
}

extension PostgresStore {
  /// Takes the batch that waits longest and does its next step. See ``BatchQueue/advanceBatch()``.
  public func advanceBatch() async throws -> BatchStep {
    let next = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT id, organization_id FROM batch
          WHERE state IN ('running', 'canceling') AND next_look_at <= clock_timestamp() AND verb = ANY ($1)
          ORDER BY next_look_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
          """,
          // A newer release may have verbs that this one leaves to it.
          [.texts(BatchVerb.allCases.map(\.rawValue))])
      ])[0].map { (try $0.id() as BatchID, try $0.id() as OrganizationID) }.first
    }
    guard let (id, organization) = next else { return .idle }
    do {
      try await pool.transaction(.api(organization, owner: nil)) { [self] db in
        // Another process may have been quicker; then there is nothing to do here.
        guard let batch = try db.query(LockedBatch.lock(id)).map({ try LockedBatch(&$0) }).first else { return }
        do {
          try step(batch, db)
        } catch let error as PostgresError {
          throw error.delegationConflict ?? error
        }
      }
    } catch let error as StoreError where !error.passes {
      try await noteFailure(of: id, organization, error)
    }
    return .worked
  }

  private func step(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws {
    switch batch.state {
    case .canceling: try takeBack(batch, db)
    case _ where batch.next <= batch.last:
      let (changes, statements) = try rowsStep(batch, db)
      try db.commit(
        (batch.dryRun ? [] : statements)
          + (changes.positions.isEmpty ? [] : [changes.statement(batch.id, batch.verb.job)])
          + (batch.verb == .importMailboxes ? [Self.forgetDrafts(batch)] : []) + [Self.counted(batch, changes)])
    default: try sweep(batch, db)
    }
  }

  /// The table of verbs: what the next rows become, and the statements that do it.
  private func rowsStep(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws -> (RowChanges, [Statement]) {
    let principal = batch.principal
    switch batch.verb {
    case .approve: return try mailboxStep(batch, db) { .approval(.approved, $0, by: principal) }
    case .reject: return try mailboxStep(batch, db) { .approval(.rejected, $0, by: principal) }
    case .test: return try mailboxStep(batch, db) { .test($0, .batchTest, by: principal) }
    case .poll: return try mailboxStep(batch, db) { .poll($0, .poll, by: principal) }
    case .applyDefaults, .writeDefaults: return try defaultsStep(batch, db)
    case .delete, .deleteWithUnsentMail: return try deletionStep(batch, db)
    case .importMailboxes: return try importStep(batch, db)
    }
  }

  /// The rows of the coming step, by number.
  func pendingRows(
    _ batch: LockedBatch, _ db: isolated PostgresConnection
  ) throws -> [(position: Int64, id: MailboxID)] {
    try db.query(
      """
      SELECT position, mailbox_id FROM batch_row
      WHERE batch_id = $1 AND position >= $2 AND position < $3 AND state = 'pending' ORDER BY position
      """, [.id(batch.id), .int(batch.next), .int(batch.end)]
    ).map { (try $0.int(), try $0.id()) }
  }

  private func mailboxStep(
    _ batch: LockedBatch, _ db: isolated PostgresConnection, _ plan: ([MailboxID: MailboxFacts]) -> BulkPlan
  ) throws -> (RowChanges, [Statement]) {
    let rows = try pendingRows(batch, db)
    let facts = try Self.facts(of: rows.map(\.id), in: batch.principal.organizationID, db)
    let plan = plan(facts)
    let accepted: BatchRowState = batch.verb.job == nil || batch.dryRun ? .done : .waiting
    var changes = RowChanges()
    for (position, id) in rows {
      if facts[id] == nil {
        changes.add(position, .failed, code: "not-found")
      } else if let refusal = plan.refusals[id] {
        changes.add(position, .failed, code: refusal.code, message: refusal.message)
      } else {
        changes.add(position, plan.unchanged.contains(id) ? .unchanged : accepted)
      }
    }
    return (changes, plan.statements)
  }

  /// Counts a step's rows. What only waits for workers is looked at again after a moment.
  private static func counted(_ batch: LockedBatch, _ changes: RowChanges) -> Statement {
    let waiting = batch.waiting + changes.count(.waiting)
    let isLast = batch.end > batch.last
    let isOver = isLast && waiting == 0
    return Statement(
      """
      UPDATE batch SET next_position = $2, done = done + $3, unchanged = unchanged + $4, failed = failed + $5,
        waiting = $6, step_rows = least(step_rows * 2, $7), started_at = coalesce(started_at, now()),
        version = version + 1, next_look_at = clock_timestamp() + $8 * interval '1 millisecond',
        state = CASE WHEN $9 THEN 'finished' ELSE state END, finished_at = CASE WHEN $9 THEN clock_timestamp() END
      WHERE id = $1
      """,
      [
        .id(batch.id), .int(batch.end), .int(changes.count(.done) + changes.count(.unchanged)),
        .int(changes.count(.unchanged)), .int(changes.count(.failed)), .int(waiting),
        .int(LockedBatch.maximumStepRows), .int(isLast && !isOver ? 200 : 0), .bool(isOver),
      ])
  }

  /// After a step that cannot succeed: tries fewer rows, and gives a row up that fails alone. A step over rows that wait
  /// for workers is tried again later.
  private func noteFailure(of id: BatchID, _ organization: OrganizationID, _ error: StoreError) async throws {
    logger.error("A step of a batch failed", metadata: ["batch.id": "\(id)", "error": "\(error)"])
    try await pool.transaction(.api(organization, owner: nil)) { db in
      guard let batch = try db.query(LockedBatch.lock(id)).map({ try LockedBatch(&$0) }).first else { return }
      // Another process may have the key; so may this one, when it was started again.
      var mayPass = false
      if case .missingKey = error { mayPass = true }
      guard batch.state == .running, batch.next <= batch.last, !mayPass else {
        try db.commit([
          Statement("UPDATE batch SET next_look_at = now() + interval '10 seconds' WHERE id = $1", [.id(id)])
        ])
        return
      }
      if batch.stepRows > 1 {
        try db.commit([
          Statement("UPDATE batch SET step_rows = greatest(step_rows / 10, 1) WHERE id = $1", [.id(id)])
        ])
        return
      }
      var changes = RowChanges()
      changes.add(batch.next, .failed, code: error.rowCode, message: error.description)
      try db.commit([
        changes.statement(id, nil), Self.forgetDrafts(batch), Self.counted(batch, changes),
      ])
    }
  }

  /// Deletes old batches, files that never came to their end, and answers kept for repeated requests.
  public func tidyBatches() async throws {
    let days = Int64(configuration.historyDays)
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          """
          WITH old AS (
            SELECT id FROM batch WHERE finished_at < now() - $1 * interval '1 day'
              OR state = 'receiving' AND created_at < now() - interval '1 hour'
            ORDER BY id LIMIT 20 FOR NO KEY UPDATE SKIP LOCKED
          ), drafts AS (DELETE FROM mailbox_import_row i USING old WHERE i.batch_id = old.id),
          deleted AS (DELETE FROM batch_row r USING old WHERE r.batch_id = old.id)
          DELETE FROM batch b USING old WHERE b.id = old.id
          """, [.int(days)]),
        Statement("DELETE FROM idempotency_key WHERE created_at < now() - interval '1 day'"),
      ])
    }
  }

  /// Returns when this process has made a batch, or after the time.
  public func waitForBatch(atMost duration: Duration) async { await batchMade.wait(timeout: duration) }
}

extension StoreError {
  /// Whether the same step may succeed later.
  fileprivate var passes: Bool {
    switch self {
    case .unavailable, .schema, .stale: true
    case .notFound, .conflict, .invalid, .statement, .missingKey: false
    }
  }

  fileprivate var rowCode: String {
    if case .conflict(let code, _) = self { return code }
    return "internal"
  }
}

extension PostgresConnection {
  /// Runs one statement.
  func query(_ statement: Statement) throws -> ResultSet { try query(statement.sql, statement.parameters) }
}
