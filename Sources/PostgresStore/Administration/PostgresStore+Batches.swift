import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Makes a batch of a checked draft; its mailboxes are those that the filter meets now.
  ///
  /// An id that is none of the organization's fails later, as `not-found`. Throws ``StoreError/invalid(_:)``.
  public func createBatch(_ draft: BatchDraft, by principal: Principal) async throws -> Batch {
    try draft.check()
    let organization = principal.organizationID
    let made = try await pool.transaction(.api(principal)) { db in
      var row = try db.pipeline([
        try Self.insertBatch(
          draft.verb, .running, dryRun: draft.dryRun ?? false, filter: draft.filter, by: principal)
      ])[0][0]
      let id: BatchID = try row.id()
      let count = try db.pipeline([Self.insertRows(of: draft, id, for: principal)])[0].affected
      return try Self.batch(
        try db.commit([
          Statement(
            """
            UPDATE batch SET total = $2, last_position = $2, state = CASE WHEN $2 = 0 THEN 'finished' ELSE state END,
              finished_at = CASE WHEN $2 = 0 THEN now() END
            WHERE id = $1
            """, [.id(id), .int(Int64(count))]),
          .audit([try Self.creation(id, draft, count)], by: principal),
          BatchQuery.one(id, of: organization),
        ])[2])
    }
    batchMade.signal()
    return made
  }

  static func insertBatch(
    _ verb: BatchVerb, _ state: BatchState, dryRun: Bool, filter: BatchFilter?, by principal: Principal
  ) throws -> Statement {
    Statement(
      """
      INSERT INTO batch (organization_id, verb, state, dry_run, filter, principal)
      VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb) RETURNING id
      """,
      [
        .id(principal.organizationID), .text(verb.rawValue), .text(state.rawValue), .bool(dryRun),
        .text(try filter.map { try PostgresValue.jsonText($0) }), .text(try PostgresValue.jsonText(principal)),
      ])
  }

  /// In the order of the mailboxes' numbers, in which they are locked, too.
  private static func insertRows(
    of draft: BatchDraft, _ id: BatchID, for principal: Principal
  ) -> Statement {
    let organization = principal.organizationID
    let insert = "INSERT INTO batch_row (batch_id, position, organization_id, mailbox_id)"
    if let ids = draft.ids {
      return Statement(
        "\(insert) SELECT $1, i.position, $2, i.id FROM unnest($3) WITH ORDINALITY AS i (id, position)",
        [.id(id), .id(organization), .ids(Set(ids).sorted())])
    }
    let condition = (draft.filter ?? BatchFilter()).condition(first: 3, for: principal)
    return Statement(
      """
      \(insert) SELECT $1, row_number() OVER (ORDER BY m.id), $2, m.id FROM mailbox m
      WHERE m.organization_id = $2\(condition.sql)
      """, [.id(id), .id(organization)] + condition.parameters)
  }

  private struct Creation: Encodable {
    var verb: BatchVerb
    var filter: BatchFilter?
    var dryRun: Bool
    var total: Int
  }

  private static func creation(_ id: BatchID, _ draft: BatchDraft, _ count: Int) throws -> AuditEntry {
    let words = Creation(verb: draft.verb, filter: draft.filter, dryRun: draft.dryRun ?? false, total: count)
    return AuditEntry("batch.create", "batch", id.value, after: try PostgresValue.jsonText(words))
  }

  static func batch(_ result: ResultSet) throws -> Batch {
    guard let batch = try result.map(BatchQuery.read).first else { throw StoreError.notFound("batch") }
    return batch
  }

  /// Batches without failures, newest first.
  public func batches(_ page: PageRequest, for principal: Principal) async throws -> Page<Batch> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "batches")
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          \(BatchQuery.columns) WHERE b.organization_id = $1 AND b.id < coalesce($2, 9223372036854775807)
          ORDER BY b.id DESC LIMIT $3
          """, [.id(principal.organizationID), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM batch WHERE organization_id = $1", [.id(principal.organizationID)]),
      ])
      var total = results[1][0]
      return try Page(rows: try results[0].map(BatchQuery.read), limit: limit, total: try total.int()) { last in
        try Cursor(list: "batches", key: last.id.value, id: last.id.value).text()
      }
    }
  }

  /// One batch with its first failures. Throws ``StoreError/notFound(_:)``.
  public func batch(_ id: BatchID, for principal: Principal) async throws -> Batch {
    try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        BatchQuery.one(id, of: principal.organizationID),
        BatchQuery.rows(of: id, principal.organizationID, in: .failed, after: 0, limit: Int64(Batch.listedFailures)),
      ])
      var batch = try Self.batch(results[0])
      batch.failures = try results[1].map(BatchQuery.readRow)
      return batch
    }
  }

  /// What became of its rows, by number; those in one state, or all. Throws ``StoreError/notFound(_:)``.
  public func batchResults(
    of id: BatchID, in state: BatchRowState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<BatchResult> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "batch-results")
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        BatchQuery.one(id, of: principal.organizationID),
        BatchQuery.rows(
          of: id, principal.organizationID, in: state, after: cursor?.id ?? 0, limit: limit + 1),
        BatchQuery.count(of: id, principal.organizationID, in: state),
      ])
      _ = try Self.batch(results[0])
      var total = results[2][0]
      return try Page(rows: try results[1].map(BatchQuery.readRow), limit: limit, total: try total.int()) { last in
        try Cursor(list: "batch-results", key: Int64(last.row), id: Int64(last.row)).text()
      }
    }
  }

  /// Ends a batch. Throws ``StoreError/conflict(code:message:)`` `not-cancelable` when it is over, `notFound`.
  public func cancelBatch(_ id: BatchID, by principal: Principal) async throws -> Batch {
    let organization = principal.organizationID
    let canceled = try await pool.transaction(.api(principal)) { db in
      let changed = try db.pipeline([
        Statement(
          """
          UPDATE batch SET state = CASE WHEN waiting > 0 THEN 'canceling' ELSE 'canceled' END, swept_position = 0,
            finished_at = CASE WHEN waiting = 0 THEN now() END, next_look_at = clock_timestamp(), version = version + 1
          WHERE id = $1 AND organization_id = $2 AND state IN ('receiving', 'running')
          """, [.id(id), .id(organization)])
      ])[0].affected
      let batch = try Self.batch(try db.pipeline([BatchQuery.one(id, of: organization)])[0])
      if changed == 0 {
        // Asked twice: it is on its way.
        if batch.state == .canceling { return batch }
        throw StoreError.conflict(
          code: "not-cancelable", message: "the batch is \(batch.state.rawValue); nothing of it is left to cancel")
      }
      try db.commit([
        Statement("DELETE FROM mailbox_import_row WHERE batch_id = $1", [.id(id)]),
        .audit([AuditEntry("batch.cancel", "batch", id.value)], by: principal),
      ])
      return batch
    }
    batchMade.signal()
    return canceled
  }
}

/// How batches and their rows are read.
enum BatchQuery {
  static let columns = """
    SELECT b.id, b.verb, b.state, b.dry_run, b.filter, b.total, b.done, b.unchanged, b.failed, b.waiting,
      b.principal->>'name', b.created_at, b.started_at, b.finished_at, b.version
    FROM batch b
    """

  static func one(_ id: BatchID, of organization: OrganizationID) -> Statement {
    Statement(columns + " WHERE b.id = $1 AND b.organization_id = $2", [.id(id), .id(organization)])
  }

  static func read(_ row: inout Row) throws -> Batch {
    Batch(
      id: try row.id(), verb: try row.word(), state: try row.word(), dryRun: try row.bool(),
      filter: try row.jsonOrNil(), total: Int(try row.int()), done: Int(try row.int()), unchanged: Int(try row.int()),
      failed: Int(try row.int()), waiting: Int(try row.int()), requestedBy: try row.textOrNil() ?? "",
      createdAt: try row.date(), startedAt: try row.dateOrNil(), finishedAt: try row.dateOrNil(),
      version: try row.int())
  }

  /// Rows that were not carried out are not written when a batch is canceled: that they are canceled is seen here.
  private static func condition(_ state: BatchRowState?) -> String {
    switch state {
    case nil: ""
    case .canceled: " AND (r.state = 'canceled' OR b.state = 'canceled' AND r.state = 'pending')"
    case .pending: " AND r.state = 'pending' AND b.state <> 'canceled'"
    case .waiting, .done, .unchanged, .failed: " AND r.state = '\(state?.rawValue ?? "")'"
    }
  }

  static func rows(
    of id: BatchID, _ organization: OrganizationID, in state: BatchRowState?, after position: Int64, limit: Int64
  ) -> Statement {
    Statement(
      """
      SELECT r.position, r.mailbox_id, coalesce(m.address, r.address),
        CASE WHEN b.state = 'canceled' AND r.state = 'pending' THEN 'canceled' ELSE r.state END, r.code, r.message,
        r.problems
      FROM batch b JOIN batch_row r ON r.batch_id = b.id LEFT JOIN mailbox m ON m.id = r.mailbox_id
      WHERE b.id = $1 AND b.organization_id = $2 AND r.batch_id = $1 AND r.position > $3\(condition(state))
      ORDER BY r.position LIMIT $4
      """, [.id(id), .id(organization), .int(position), .int(limit)])
  }

  static func count(of id: BatchID, _ organization: OrganizationID, in state: BatchRowState?) -> Statement {
    Statement(
      """
      SELECT count(*) FROM batch b JOIN batch_row r ON r.batch_id = b.id
      WHERE b.id = $1 AND b.organization_id = $2 AND r.batch_id = $1\(condition(state))
      """, [.id(id), .id(organization)])
  }

  static func readRow(_ row: inout Row) throws -> BatchResult {
    var result = BatchResult(
      row: Int(try row.int()), mailboxID: try row.idOrNil(), address: try row.textOrNil(), result: try row.word(),
      code: try row.textOrNil(), message: try row.textOrNil(), problems: try row.jsonOrNil())
    if result.message == nil { result.message = result.code.flatMap(words) }
    return result
  }

  /// What a code means that stands without words: those of workers, and those that are found out by looking.
  private static func words(_ code: String) -> String? {
    switch code {
    case "not-found": "there is no such mailbox"
    case "not-done": "no worker has done it within a day"
    case "not-tested": "its settings were changed while it was tested"
    case "set-aside": "the job was taken back from several workers and is set aside; release it first"
    default: FailureCode(rawValue: code)?.summary
    }
  }
}

extension BatchFilter {
  /// The condition on `m` that stands for the filter, with parameters from `$first` on.
  func condition(first: Int, for principal: Principal) -> (sql: String, parameters: [PostgresValue]) {
    var (sql, parameters) = MailboxFilter(view: view, profileID: profileID).condition(first: first, for: principal)
    switch ownerKind {
    case .user: sql += " AND m.user_id IS NOT NULL"
    case .queue: sql += " AND m.queue_id IS NOT NULL"
    case nil: break
    }
    if let addressText {
      sql += " AND strpos(m.address_key, lower($\(first + parameters.count))) > 0"
      parameters.append(.text(addressText))
    }
    return (sql, parameters)
  }
}
