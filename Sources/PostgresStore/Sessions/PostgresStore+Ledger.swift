import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// After so many failed attempts a message is quarantined.
  static let maximumAttempts: Int64 = 3

  /// Octets of messages that sessions of the mailbox stored since a moment.
  public func receivedOctets(
    since: Date, mailbox: MailboxID, organization: OrganizationID
  ) async throws -> Int64 {
    try await pool.transaction(.worker) { db in
      var row = try db.commit([
        Statement(
          """
          SELECT coalesce(sum(octets_stored), 0)::bigint FROM run
          WHERE mailbox_id = $1 AND organization_id = $2 AND started_at > $3
          """, [.id(mailbox), .id(organization), .time(since)])
      ])[0][0]
      return try row.int()
    }
  }

  /// Enters messages into the ledger without storing them.
  public func skip(_ uidls: [String: SkipReason], writer: SessionGuard) async throws {
    if uidls.isEmpty { return }
    // Sorted, so that two writers of one mailbox lock in the same order.
    let entries = uidls.sorted { $0.key < $1.key }
    let statement = Statement(
      """
      INSERT INTO ledger AS l (mailbox_id, organization_id, uidl, state)
      SELECT $1, $2, i.uidl, i.state FROM unnest($3, $4) AS i (uidl, state)
      ON CONFLICT (mailbox_id, uidl) DO UPDATE SET state = EXCLUDED.state, seen_at = now() WHERE l.state = 'failing'
      """,
      [
        .id(writer.job.mailbox), .id(writer.organizationID), .texts(entries.map(\.key)),
        .texts(entries.map(\.value.rawValue)),
      ])
    try await guarded(writer, first: [statement]) { db, _ in _ = try db.commit() }
  }

  /// Those of the listed unique ids that the ledger holds as worth another attempt, with when they were tried last.
  public func failing(
    uidls: [String], mailbox: MailboxID, organization: OrganizationID
  ) async throws -> [String: Date] {
    if uidls.isEmpty { return [:] }
    return try await pool.transaction(.worker) { db in
      let rows = try db.commit([
        Statement(
          """
          SELECT uidl, seen_at FROM ledger
          WHERE mailbox_id = $2 AND uidl = ANY ($1) AND organization_id = $3 AND state = 'failing'
          """, [.texts(uidls), .id(mailbox), .id(organization)])
      ])[0].map { row in (try row.text(), try row.date()) }
      return Dictionary(uniqueKeysWithValues: rows)
    }
  }

  /// What the ledger holds as settled under the listed unique ids, and under those made of them for other messages of
  /// the same id.
  public func ledger(
    of uidls: [String], mailbox: MailboxID, organization: OrganizationID
  ) async throws -> [LedgerEntry] {
    if uidls.isEmpty { return [] }
    return try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          // No character of a unique id comes before "!", so only what follows a space lies between. A subquery for each,
          // with both ends at hand: nothing else becomes a range of the index behind row-level security.
          """
          SELECT l.uidl, l.state = 'stored', l.message_id, l.content_hash
          FROM unnest($3, $4) AS i (uidl, above)
          CROSS JOIN LATERAL (
            SELECT * FROM ledger l WHERE l.mailbox_id = $1 AND l.uidl >= i.uidl AND l.uidl < i.above OFFSET 0
          ) AS l
          WHERE l.organization_id = $2 AND l.state <> 'failing' ORDER BY l.uidl
          """, [.id(mailbox), .id(organization), .texts(uidls), .texts(uidls.map { $0 + "!" })])
      ])[0].map { row in
        LedgerEntry(
          uidl: try row.text(), isStored: try row.bool(), messageID: try row.textOrNil(),
          contentHash: try row.bytesOrNil())
      }
    }
  }

  /// Enters messages as worth another attempt without counting one: nobody knows whether they were at fault.
  public func postpone(_ uidls: [String], _ failure: Failure, writer: SessionGuard) async throws {
    if uidls.isEmpty { return }
    // Sorted, so that two writers of one mailbox lock in the same order.
    let sorted = Set(uidls).sorted()
    let statement = Statement(
      """
      INSERT INTO ledger AS l (mailbox_id, organization_id, uidl, state, failure_code)
      SELECT $1, $2, i.uidl, 'failing', $4 FROM unnest($3) AS i (uidl)
      ON CONFLICT (mailbox_id, uidl) DO UPDATE SET failure_code = EXCLUDED.failure_code, seen_at = now()
      WHERE l.state = 'failing'
      """,
      [.id(writer.job.mailbox), .id(writer.organizationID), .texts(sorted), .text(failure.code.rawValue)])
    try await guarded(writer, first: [statement]) { db, _ in _ = try db.commit() }
  }

  /// Counts a failed attempt at one message; after the third it is quarantined with its raw octets, if any, and
  /// entered into the ledger. Returns whether it was quarantined now.
  ///
  /// - Parameter isLast: whether there may be no other attempt, so that it is quarantined after this one.
  public func messageFailed(
    uidl: String, failure: Failure, raw: Content?, isLast: Bool = false, writer: SessionGuard
  ) async throws -> Bool {
    let allowed = isLast ? 1 : Self.maximumAttempts
    let key: [PostgresValue] = [.id(writer.job.mailbox), .text(uidl)]
    let count = Statement(
      """
      INSERT INTO ledger AS l (mailbox_id, uidl, organization_id, state, attempts, failure_code)
      VALUES ($1, $2, $3, 'failing', 1, $4)
      ON CONFLICT (mailbox_id, uidl) DO UPDATE SET attempts = l.attempts + 1, failure_code = EXCLUDED.failure_code,
        seen_at = now()
      WHERE l.state = 'failing'
      RETURNING attempts
      """, key + [.id(writer.organizationID), .text(failure.code.rawValue)])
    let details = try PostgresValue.jsonText(failure)
    return try await guarded(
      writer, first: [count, Statement("SELECT nextval('content_id_seq')")]
    ) { db, results in
      // No row: it is stored or was quarantined before.
      let attempts = try results[0].map { try $0.int() }.first ?? 0
      guard attempts >= allowed else {
        try db.commit()
        return false
      }
      let content = try results[1].map { try $0.int() }[0]
      try db.commit { send in
        if let raw {
          // Of an earlier time in quarantine: what was fetched now stands in its place.
          try send(
            Statement(
              """
              DELETE FROM content_chunk WHERE content_id = (SELECT content_id FROM quarantine
                WHERE mailbox_id = $1 AND uidl = $2)
              """, key))
          try send(Self.contentStatement([(content, raw)], writer.organizationID))
          try withoutActuallyEscaping(send) { send in
            var batch = ChunkBatch(organization: writer.organizationID, send: send)
            try batch.add(raw, id: content)
            try batch.flush()
          }
        }
        try send(
          Statement(
            """
            INSERT INTO quarantine AS q (mailbox_id, uidl, organization_id, failure, attempts, content_id)
            VALUES ($1, $2, $3, $4::jsonb, $5, $6)
            ON CONFLICT (mailbox_id, uidl) DO UPDATE SET failure = EXCLUDED.failure,
              attempts = q.attempts + EXCLUDED.attempts, content_id = coalesce(EXCLUDED.content_id, q.content_id),
              reprocess_requested_at = NULL
            """,
            key + [
              .id(writer.organizationID), .text(details), .int(attempts), .int(raw == nil ? nil : content),
            ]))
        try send(Statement("UPDATE ledger SET state = 'quarantined' WHERE mailbox_id = $1 AND uidl = $2", key))
        try send(QuarantineAlert.raise(uidl: uidl, failure: failure, attempts: attempts, writer))
      }
      return true
    }
  }
}
