import FoundationEssentials
import PostriderCore

/// What has to be known of a mailbox before it is deleted.
private struct DeletionFacts: Sendable {
  var id: MailboxID
  var address: String
  var stored: Int
  var unsent: Int
  var sendsAlerts: Bool
  /// For the audit: after the deletion nothing else knows.
  var record: String

  init(_ row: inout Row) throws {
    id = try row.id()
    address = try row.text()
    stored = Int(try row.int())
    unsent = Int(try row.int())
    sendsAlerts = try row.bool()
    record = try row.text()
  }

  static let statement = """
    SELECT m.id, m.address, coalesce(c.email_count, 0),
      (SELECT count(*) FROM outgoing_email e WHERE e.mailbox_id = m.id AND e.state IN ('pending-send', 'sending')),
      EXISTS (SELECT FROM alert_mail s WHERE s.mailbox_id = m.id AND s.is_on),
      jsonb_build_object('address', m.address, 'profileID', m.profile_id, 'userID', m.user_id, 'queueID', m.queue_id,
        'emails', coalesce(c.email_count, 0))
    FROM mailbox m LEFT JOIN mailbox_counter c ON c.mailbox_id = m.id
    WHERE m.id = ANY ($1) AND m.organization_id = $2 ORDER BY m.id
    """

  func answer(discardsUnsentMail: Bool) -> MailboxDeletion {
    var answer = MailboxDeletion(id: id, ok: true, address: address, storedEmails: stored, unsentEmails: unsent)
    if sendsAlerts {
      (answer.ok, answer.code) = (false, "sends-alerts")
      answer.message = "the organization's alerts are mailed from it: let another one do that, or turn alert mail off"
    } else if unsent > 0 && !discardsUnsentMail {
      (answer.ok, answer.code) = (false, "unsent-mail")
      let messages = unsent == 1 ? "1 message waits" : "\(unsent) messages wait"
      answer.message = "\(messages) to be sent and never will be; send `confirmsUnsentMail` to delete it nevertheless"
    }
    return answer
  }
}

extension PostgresStore {
  /// Deletes mailboxes; one answer per row, in the order asked.
  ///
  /// The mailbox, its schedule, its alerts and its grants are gone with this transaction: a session that is under way
  /// finds no row to lock and writes nothing any more, and the address is free. Its mail, ledger and runs are deleted by
  /// the leading scheduler, step by step, and its jobs withdrawn. Refused per row with `not-found`, `unsent-mail` or
  /// `sends-alerts`.
  public func deleteMailboxes(
    _ request: MailboxDeletionRequest, by principal: Principal
  ) async throws -> [MailboxDeletion] {
    try await pool.transaction(.api(principal)) { db in
      let plan = try Self.deletion(
        of: request.ids, discardsUnsentMail: request.confirmsUnsentMail == true, by: principal, db)
      try db.commit(request.dryRun == true ? [] : plan.statements)
      return request.ids.map {
        plan.answers[$0] ?? MailboxDeletion(id: $0, ok: false, code: "not-found", message: "there is no such mailbox")
      }
    }
  }

  /// Locks mailboxes, and finds out which of them may be deleted and by which statements. Without an answer: not found.
  static func deletion(
    of ids: [MailboxID], discardsUnsentMail: Bool, by principal: Principal, _ db: isolated PostgresConnection
  ) throws -> (answers: [MailboxID: MailboxDeletion], statements: [Statement]) {
    let organization = principal.organizationID
    let found = try db.pipeline([
      // A submit locks the mailbox too, so nothing new waits to be sent afterwards.
      Statement(
        "SELECT 1 FROM mailbox WHERE id = ANY ($1) AND organization_id = $2 ORDER BY id FOR UPDATE",
        [.ids(ids), .id(organization)]),
      Statement(DeletionFacts.statement, [.ids(ids), .id(organization)]),
    ])[1].map { try DeletionFacts(&$0) }
    let answers = found.map { ($0, $0.answer(discardsUnsentMail: discardsUnsentMail)) }
    let gone = answers.filter(\.1.ok).map(\.0)
    return (
      Dictionary(uniqueKeysWithValues: answers.map { ($0.0.id, $0.1) }),
      gone.isEmpty ? [] : delete(gone, by: principal)
    )
  }

  private static func delete(_ gone: [DeletionFacts], by principal: Principal) -> [Statement] {
    let mailboxes = PostgresValue.ids(gone.map(\.id))
    let entries = gone.map { AuditEntry("mailbox.delete", "mailbox", $0.id.value, before: $0.record) }
    return [
      Statement(
        """
        INSERT INTO deleted_mailbox (mailbox_id, organization_id, profile_ids)
        SELECT m.id, m.organization_id, array_remove(
          ARRAY(SELECT v.moved_from FROM mailbox_move v WHERE v.mailbox_id = m.id) || m.profile_id, NULL)
        FROM mailbox m WHERE m.id = ANY ($1)
        """, [mailboxes]),
      // Otherwise who gets alerts would be forgotten with the mailbox.
      Statement("UPDATE alert_mail SET mailbox_id = NULL WHERE mailbox_id = ANY ($1)", [mailboxes]),
      Statement(
        """
        DELETE FROM send_usage u USING mailbox m
        WHERE m.id = ANY ($1) AND u.profile_id = m.profile_id AND u.mailbox_id = m.id
        """, [mailboxes]),
      Statement(
        "SELECT 1 FROM mailbox_schedule WHERE mailbox_id = ANY ($1) ORDER BY mailbox_id, kind FOR UPDATE", [mailboxes]),
      Statement("DELETE FROM mailbox WHERE id = ANY ($1)", [mailboxes]),
      .audit(entries, by: principal),
      SchedulePayload.moves,
    ]
  }
}
