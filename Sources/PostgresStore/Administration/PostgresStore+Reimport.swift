import PostriderCore

extension PostgresStore {
  /// Lets mailboxes go on whose server gave their mail new unique ids; one answer per row, in the order asked. Their
  /// incoming direction is enabled again, and the next poll carries the choice out.
  ///
  /// Refused per row with `no-choice` where the direction does not stand still for that reason, or `not-found`.
  public func reimport(
    _ choice: ReimportChoice, of ids: [MailboxID], by principal: Principal
  ) async throws -> [BulkResult] {
    try await pool.transaction(.api(principal)) { db in
      let rows = try db.query(
        """
        SELECT m.id, coalesce(m.incoming_failure_code = $3, false)
          AND EXISTS (SELECT FROM uidl_reset r WHERE r.mailbox_id = m.id)
        FROM mailbox m WHERE m.id = ANY ($1) AND m.organization_id = $2 ORDER BY m.id FOR NO KEY UPDATE
        """,
        [.ids(ids), .id(principal.organizationID), .text(FailureCode.pop3UIDLReset.rawValue)]
      ).map { row in (try row.id() as MailboxID, try row.bool()) }
      let waits = Dictionary(uniqueKeysWithValues: rows)
      let accepted = rows.filter(\.1).map(\.0)
      try db.commit(accepted.isEmpty ? [] : Self.goOn(choice, accepted, principal))
      return ids.map { id in
        switch waits[id] {
        case true?: BulkResult(id: id, ok: true)
        case false?:
          BulkResult(
            id: id, ok: false, code: "no-choice",
            message: "the mailbox does not wait for a choice: its server did not renumber it")
        case nil: BulkResult(id: id, ok: false, code: "not-found", message: "there is no such mailbox")
        }
      }
    }
  }

  private static func goOn(_ choice: ReimportChoice, _ ids: [MailboxID], _ principal: Principal) -> [Statement] {
    let mailboxes = PostgresValue.ids(ids)
    return [
      Statement(
        """
        UPDATE mailbox SET incoming_status = 'success', incoming_enabled = true, incoming_failure_code = NULL,
          incoming_failed_at = NULL, version = version + 1, updated_at = now()
        WHERE id = ANY ($1)
        """, [mailboxes]),
      // Locks the hot rows, which a session holds while it writes what the next statement changes.
      .refreshMayRun(mailboxes),
      Statement(
        "UPDATE uidl_reset SET choice = $2, chosen_at = now(), chosen_by = $3 WHERE mailbox_id = ANY ($1)",
        [mailboxes, .text(choice.rawValue), .text(principal.name)]),
      Statement(
        "UPDATE alert SET resolved_at = now() WHERE mailbox_id = ANY ($1) AND code = $2 AND resolved_at IS NULL",
        [mailboxes, .text(FailureCode.pop3UIDLReset.rawValue)]),
      .audit(
        ids.map {
          AuditEntry("mailbox.reimport", "mailbox", $0.value, after: #"{"choice":"\#(choice.rawValue)"}"#)
        }, by: principal),
    ]
  }
}
