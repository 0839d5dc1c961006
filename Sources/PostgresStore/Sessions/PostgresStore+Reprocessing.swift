import PostriderCore

extension PostgresStore {
  /// The messages of the mailbox that people want out of quarantine, oldest first, at most `limit`. Those that were
  /// stored or skipped since leave the quarantine before, with the octets kept of them.
  ///
  /// Leaving is no part of the transaction that stores a message: after a crash between the two the ledger says that it
  /// is stored, and it leaves here, without being stored twice.
  public func messagesToReprocess(limit: Int, writer: SessionGuard) async throws -> [KeptMessage] {
    let mailbox: [PostgresValue] = [.id(writer.job.mailbox), .id(writer.organizationID)]
    let decided = Statement(
      """
      DELETE FROM quarantine q USING ledger l
      WHERE q.mailbox_id = $1 AND q.organization_id = $2 AND q.reprocess_requested_at IS NOT NULL
        AND l.mailbox_id = q.mailbox_id AND l.uidl = q.uidl AND l.state NOT IN ('failing', 'quarantined')
      RETURNING q.content_id
      """, mailbox)
    let left = Statement(
      """
      SELECT id, uidl, content_id IS NOT NULL FROM quarantine
      WHERE mailbox_id = $1 AND organization_id = $2 AND reprocess_requested_at IS NOT NULL ORDER BY id LIMIT $3
      """, mailbox + [.int(Int64(limit))])
    return try await guarded(writer, first: [decided, left]) { db, results in
      let contents = try results[0].map { try $0.intOrNil() }
      if contents.isEmpty {
        try db.commit()
      } else {
        try db.commit(Self.afterLeaving([writer.job.mailbox], contents: contents.compactMap { $0 }))
      }
      return try results[1].map { row in
        KeptMessage(id: try row.id(), uidl: try row.text(), isKept: try row.bool())
      }
    }
  }

  /// The octets that are kept of a message in quarantine, in chunks of at most 1 MiB; none when it has left.
  public func keptOctets(
    of message: QuarantineID, organization: OrganizationID
  ) async throws -> AsyncThrowingStream<[UInt8], any Error> {
    let content = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          "SELECT content_id FROM quarantine WHERE id = $1 AND organization_id = $2",
          [.id(message), .id(organization)])
      ])[0].map { try $0.intOrNil() }.first ?? nil
    }
    guard let content else { return AsyncThrowingStream { nil } }
    return octets(of: content, organization, .worker)
  }

  /// Gives a message back to the quarantine, with why it failed again. One that was discarded meanwhile stays so.
  public func reprocessingFailed(_ message: QuarantineID, _ failure: Failure, writer: SessionGuard) async throws {
    let update = Statement(
      """
      WITH back AS (
        UPDATE quarantine SET failure = $4::jsonb, attempts = attempts + 1, reprocess_requested_at = NULL
        WHERE id = $1 AND mailbox_id = $2 AND organization_id = $3 AND reprocess_requested_at IS NOT NULL
        RETURNING mailbox_id, uidl
      )
      UPDATE ledger l SET state = 'quarantined', attempts = l.attempts + 1, failure_code = $5, seen_at = now()
      FROM back WHERE l.mailbox_id = back.mailbox_id AND l.uidl = back.uidl AND l.state = 'failing'
      """,
      [
        .id(message), .id(writer.job.mailbox), .id(writer.organizationID), .text(try PostgresValue.jsonText(failure)),
        .text(failure.code.rawValue),
      ])
    try await guarded(writer, first: [update]) { db, _ in _ = try db.commit() }
  }

  /// What follows when messages of these mailboxes have left the quarantine: nothing is kept of them, and the alert goes
  /// with the last one.
  static func afterLeaving(_ mailboxes: [MailboxID], contents: [Int64]) -> [Statement] {
    [
      Statement("DELETE FROM content_chunk WHERE content_id = ANY ($1)", [.ints(contents)]),
      QuarantineAlert.resolve(mailboxes),
    ]
  }
}

/// The alert that says that a mailbox has messages in quarantine. It has no direction, so that no successful poll
/// resolves it: only the last message's leaving does.
enum QuarantineAlert {
  static let code = "message.quarantined"

  static func raise(uidl: String, failure: Failure, attempts: Int64, _ writer: SessionGuard) throws -> Statement {
    let attempts = attempts == 1 ? "one attempt" : "\(attempts) attempts"
    return Statement(
      """
      INSERT INTO alert AS a (organization_id, mailbox_id, code, level, text, remedy, parameters)
      VALUES ($1, $2, $3, 'warning', $4, $5, $6::jsonb)
      ON CONFLICT (mailbox_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL
      DO UPDATE SET count = a.count + 1, last_seen = now(), text = EXCLUDED.text, remedy = EXCLUDED.remedy,
        parameters = EXCLUDED.parameters
      """,
      [
        .id(writer.organizationID), .id(writer.job.mailbox), .text(code),
        .text("A message could not be received in \(attempts) and is in quarantine: \(failure)"),
        .text(
          "Look at it with `postrider quarantine list --mailbox \(writer.job.mailbox)`; then reprocess it, or discard"
            + " it."),
        .text(try PostgresValue.jsonText(["uidl": uidl, "code": failure.code.rawValue])),
      ])
  }

  static func resolve(_ mailboxes: [MailboxID]) -> Statement {
    Statement(
      """
      UPDATE alert a SET resolved_at = now() WHERE a.mailbox_id = ANY ($1) AND a.code = $2 AND a.resolved_at IS NULL
        AND NOT EXISTS (SELECT FROM quarantine q WHERE q.mailbox_id = a.mailbox_id)
      """, [.ids(mailboxes), .text(code)])
  }
}
