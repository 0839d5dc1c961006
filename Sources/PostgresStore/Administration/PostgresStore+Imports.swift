import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Begins an import whose rows come in parts.
  public func beginImport(dryRun: Bool, by principal: Principal) async throws -> BatchID {
    try await pool.transaction(.api(principal)) { db in
      var row = try db.commit([
        try Self.insertBatch(.importMailboxes, .receiving, dryRun: dryRun, filter: nil, by: principal)
      ])[0][0]
      return try row.id()
    }
  }

  /// Adds rows. Passwords are encrypted here; a dry run keeps none.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `not-receiving` when the import was ended meanwhile.
  public func addImportRows(_ rows: [ImportRow], to id: BatchID, by principal: Principal) async throws {
    if rows.isEmpty { return }
    let organization = principal.organizationID
    try await pool.transaction(.api(principal)) { [self] db in
      let bad = rows.filter { $0.mailbox == nil }
      let results = try db.pipeline([
        Statement(
          """
          UPDATE batch SET total = total + $2, failed = failed + $3, last_position = greatest(last_position, $4)
          WHERE id = $1 AND state = 'receiving' RETURNING dry_run
          """,
          [.id(id), .int(Int64(rows.count)), .int(Int64(bad.count)), .int(Int64(rows.map(\.row).max() ?? 0))]),
        Statement(
          "SELECT nextval('mailbox_import_row_id_seq') FROM generate_series(1, $1)",
          [.int(Int64(rows.count - bad.count))]),
      ])
      guard var batch = results[0].first else {
        throw StoreError.conflict(code: "not-receiving", message: "the import was ended while its file arrived")
      }
      let isDry = try batch.bool()
      let ids = try results[1].map { try $0.int() }
      let good = zip(ids, rows.compactMap { row in row.mailbox.map { (row, $0) } }).map { ($0, $1.0, $1.1) }
      try db.commit([
        Statement(
          """
          INSERT INTO batch_row (batch_id, position, organization_id, address, state, code, problems)
          SELECT $1, i.position, $2, i.address, i.state, i.code, i.problems::jsonb
          FROM unnest($3, $4, $5, $6, $7) AS i (position, address, state, code, problems)
          """,
          [
            .id(id), .id(organization), .ints(rows.map { Int64($0.row) }), .texts(rows.map(\.address)),
            .texts(rows.map { $0.mailbox == nil ? "failed" : "pending" }),
            .texts(rows.map { $0.mailbox == nil ? "invalid" : nil }),
            .texts(try rows.map { $0.problems.isEmpty ? nil : try PostgresValue.jsonText($0.problems) }),
          ]),
        Statement(
          """
          INSERT INTO mailbox_import_row (id, batch_id, position, organization_id, draft, password)
          SELECT i.id, $1, i.position, $2, i.draft::jsonb, i.password
          FROM unnest($3, $4, $5, $6) AS i (id, position, draft, password)
          """,
          [
            .id(id), .id(organization), .ints(good.map(\.0)), .ints(good.map { Int64($0.1.row) }),
            .texts(try good.map { try PostgresValue.jsonText($0.2) }),
            .bytesArray(try good.map { isDry ? nil : try seal($0.1.password, ImportStep.place($0.0)) }),
          ]),
      ])
    }
  }

  private struct Beginning: Encodable {
    var verb = BatchVerb.importMailboxes
    var dryRun: Bool
    var total: Int
  }

  /// All rows are there: the import begins. Throws `not-receiving` when it was ended meanwhile.
  public func finishImport(_ id: BatchID, by principal: Principal) async throws -> Batch {
    let organization = principal.organizationID
    let batch = try await pool.transaction(.api(principal)) { db in
      let results = try db.pipeline([
        Statement(
          """
          UPDATE batch SET state = CASE WHEN failed < total THEN 'running' ELSE 'finished' END,
            finished_at = CASE WHEN failed < total THEN NULL ELSE now() END, next_look_at = now(), version = version + 1
          WHERE id = $1 AND organization_id = $2 AND state = 'receiving'
          """, [.id(id), .id(organization)]),
        BatchQuery.one(id, of: organization),
      ])
      if results[0].affected == 0 {
        throw StoreError.conflict(code: "not-receiving", message: "the import was ended while its file arrived")
      }
      let batch = try Self.batch(results[1])
      let words = Beginning(dryRun: batch.dryRun, total: batch.total)
      try db.commit([
        .audit(
          [AuditEntry("batch.create", "batch", id.value, after: try PostgresValue.jsonText(words))], by: principal)
      ])
      return batch
    }
    batchMade.signal()
    return batch
  }

  /// The rest of the file will not come: forgets what came of it.
  public func abandonImport(_ id: BatchID, by principal: Principal) async throws {
    try await pool.transaction(.api(principal)) { db in
      _ = try db.commit([
        Statement(
          """
          WITH gone AS (DELETE FROM batch WHERE id = $1 AND state = 'receiving' RETURNING id),
          drafts AS (DELETE FROM mailbox_import_row i USING gone WHERE i.batch_id = gone.id)
          DELETE FROM batch_row r USING gone WHERE r.batch_id = gone.id
          """, [.id(id)])
      ])
    }
  }

  /// The drafts of a step's rows, with their passwords, are of no use any more.
  static func forgetDrafts(_ batch: LockedBatch) -> Statement {
    Statement(
      "DELETE FROM mailbox_import_row WHERE batch_id = $1 AND position >= $2 AND position < $3",
      [.id(batch.id), .int(batch.next), .int(batch.end)])
  }

  /// Creates the mailboxes of a step's rows.
  func importStep(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws -> (RowChanges, [Statement]) {
    var step = ImportStep(batch: batch)
    try step.read(db)
    step.decide()
    let statements = try step.statements(db) { [self] sealed, from, to in
      try seal(try unseal(sealed, from), to)
    }
    return (step.changes, statements)
  }
}
