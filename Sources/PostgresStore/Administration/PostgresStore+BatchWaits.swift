import PostriderCore

/// Steps over rows that wait for workers.
extension PostgresStore {
  /// Looks which of the rows that wait for workers are done, so many after the ones looked at before.
  func sweep(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws {
    let window = try waitingWindow(batch, after: batch.swept, limit: LockedBatch.sweptRows, db)
    let states = try settle(batch, through: window.end, db)
    let isTurnOver = window.count < LockedBatch.sweptRows
    let isOver = batch.waiting == Int64(states.count)
    try db.commit([
      Statement(
        """
        UPDATE batch SET done = done + $2, failed = failed + $3, waiting = waiting - $2 - $3, swept_position = $4,
          version = version + CASE WHEN $2 + $3 > 0 THEN 1 ELSE 0 END,
          next_look_at = clock_timestamp() + $5 * interval '1 millisecond',
          state = CASE WHEN $6 THEN 'finished' ELSE state END, finished_at = CASE WHEN $6 THEN clock_timestamp() END
        WHERE id = $1
        """,
        [
          .id(batch.id), .int(Int64(states.count { $0 == .done })), .int(Int64(states.count { $0 == .failed })),
          .int(isTurnOver ? 0 : window.end), .int(isTurnOver ? 500 : 100), .bool(isOver),
        ])
    ])
  }

  private func waitingWindow(
    _ batch: LockedBatch, after position: Int64, limit: Int64, _ db: isolated PostgresConnection
  ) throws -> (end: Int64, count: Int64) {
    var row = try db.query(
      """
      SELECT coalesce(max(w.position), 0), count(*) FROM (SELECT position FROM batch_row
        WHERE batch_id = $1 AND state = 'waiting' AND position > $2 ORDER BY position LIMIT $3) w
      """, [.id(batch.id), .int(position), .int(limit)])[0]
    return (try row.int(), try row.int())
  }

  /// Writes what became of rows whose request was answered; returns the new states.
  private func settle(
    _ batch: LockedBatch, through end: Int64, _ db: isolated PostgresConnection
  ) throws -> [BatchRowState] {
    try db.query(
      """
      UPDATE batch_row r SET state = CASE WHEN f.code IS NULL THEN 'done' ELSE 'failed' END, code = f.code
      FROM (
        SELECT w.position,
          CASE
            WHEN s.mailbox_id IS NULL THEN 'not-found'
            WHEN s.served < w.target AND a.mailbox_id IS NOT NULL THEN 'set-aside'
            WHEN s.served < w.target THEN 'not-done'
            WHEN s.kind = 't' THEN coalesce(
              CASE WHEN m.incoming_method <> 'none' AND m.incoming_status = 'failure'
                THEN coalesce(m.incoming_failure_code, 'failed') END,
              CASE WHEN m.outgoing_method <> 'none' AND m.outgoing_status = 'failure'
                THEN coalesce(m.outgoing_failure_code, 'failed') END,
              s.failure_code,
              CASE WHEN m.incoming_method <> 'none' AND m.incoming_status = 'not-run'
                OR m.outgoing_method <> 'none' AND m.outgoing_status = 'not-run' THEN 'not-tested' END)
            ELSE s.failure_code
          END AS code
        FROM batch_row w
        LEFT JOIN mailbox_schedule s ON s.mailbox_id = w.mailbox_id AND s.kind = $4
        LEFT JOIN mailbox m ON m.id = w.mailbox_id
        LEFT JOIN set_aside_job a ON a.mailbox_id = w.mailbox_id AND a.kind = $4
        WHERE w.batch_id = $1 AND w.state = 'waiting' AND w.position > $2 AND w.position <= $3
          AND (s.mailbox_id IS NULL OR s.served >= w.target OR a.mailbox_id IS NOT NULL OR $5)
      ) f
      WHERE r.batch_id = $1 AND r.position = f.position RETURNING r.state
      """,
      [
        .id(batch.id), .int(batch.swept), .int(end), .text(batch.verb.job?.rawValue), .bool(batch.isOld),
      ]
    ).map { try $0.word() }
  }

  /// Takes requests back that nobody but this batch made and no worker has answered. A poll goes on: its row is that of
  /// the regular ones.
  func takeBack(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws {
    let window = try waitingWindow(batch, after: 0, limit: LockedBatch.maximumStepRows, db)
    let settled = try settle(batch, through: window.end, db)
    let own = """
      w.batch_id = $1 AND w.state = 'waiting' AND w.position <= $2 AND s.mailbox_id = w.mailbox_id AND s.kind = 't'
      AND s.requested = w.target AND s.served = w.target - 1
      """
    let values: [PostgresValue] = [.id(batch.id), .int(window.end)]
    let withdrawal =
      batch.verb.job == .test
      ? [
        Statement(
          "SELECT 1 FROM mailbox_schedule s, batch_row w WHERE \(own) ORDER BY s.mailbox_id FOR NO KEY UPDATE OF s",
          values),
        Statement(
          """
          UPDATE mailbox_schedule s SET served = s.requested, next_due_at = NULL, reason = 'canceled'
          FROM batch_row w WHERE \(own)
          """, values),
      ] : []
    let isOver = window.count < LockedBatch.maximumStepRows
    try db.commit(
      withdrawal + [
        Statement(
          "UPDATE batch_row SET state = 'canceled' WHERE batch_id = $1 AND state = 'waiting' AND position <= $2", values
        ),
        Statement(
          """
          UPDATE batch SET done = done + $2, failed = failed + $3, waiting = waiting - $4, version = version + 1,
            next_look_at = clock_timestamp(), state = CASE WHEN $5 THEN 'canceled' ELSE state END,
            finished_at = CASE WHEN $5 THEN clock_timestamp() END
          WHERE id = $1
          """,
          [
            .id(batch.id), .int(Int64(settled.count { $0 == .done })), .int(Int64(settled.count { $0 == .failed })),
            .int(window.count), .bool(isOver),
          ]),
      ])
  }
}
