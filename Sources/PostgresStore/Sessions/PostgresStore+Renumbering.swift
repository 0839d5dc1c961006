import PostriderCore

extension PostgresStore {
  /// Whether anything of the mailbox is stored.
  public func hasStored(mailbox: MailboxID, organization: OrganizationID) async throws -> Bool {
    try await pool.transaction(.worker) { db in
      var row = try db.commit([
        Statement(
          "SELECT EXISTS (SELECT FROM ledger WHERE mailbox_id = $1 AND organization_id = $2 AND state = 'stored')",
          [.id(mailbox), .id(organization)])
      ])[0][0]
      return try row.bool()
    }
  }

  /// Messages of the mailbox with these keys that are stored, under whatever unique id.
  ///
  /// Reads the mailbox's part of the ledger: there is no index on the keys, which every stored message would have to
  /// write for a question that is asked when a server renumbers.
  public func stored(
    like keys: MessageKeys, mailbox: MailboxID, organization: OrganizationID
  ) async throws -> [StoredUnderID] {
    let (condition, value): (String, PostgresValue) =
      switch keys {
      case .messageIDs(let ids): ("l.message_id = ANY ($3)", .texts(ids))
      case .contentHash(let hash): ("l.content_hash = $3", .bytes(hash))
      }
    return try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT l.uidl, l.message_id FROM ledger l
          WHERE l.mailbox_id = $1 AND l.organization_id = $2 AND l.state = 'stored' AND \(condition)
          ORDER BY l.uidl
          """, [.id(mailbox), .id(organization), value])
      ])[0].map { row in StoredUnderID(uidl: try row.text(), messageID: try row.textOrNil()) }
    }
  }

  /// Gives stored messages the unique ids under which the server lists them now: old to new. One whose new id is taken
  /// by another message keeps the old one.
  public func renumber(_ uidls: [String: String], writer: SessionGuard) async throws {
    if uidls.isEmpty { return }
    let pairs = uidls.sorted { $0.key < $1.key }
    let values: [PostgresValue] = [
      .id(writer.job.mailbox), .texts(pairs.map(\.key)), .texts(pairs.map(\.value)),
    ]
    let statements = [
      // An attempt under the new id may have failed before the choice was made.
      Statement(
        "DELETE FROM ledger WHERE mailbox_id = $1 AND uidl = ANY ($2) AND state = 'failing'", [values[0], values[2]]),
      Statement(
        """
        UPDATE ledger l SET uidl = i.new, seen_at = now() FROM unnest($2, $3) AS i (old, new)
        WHERE l.mailbox_id = $1 AND l.uidl = i.old AND l.state = 'stored'
          AND NOT EXISTS (SELECT FROM ledger t WHERE t.mailbox_id = $1 AND t.uidl = i.new)
        """, values),
    ]
    try await guarded(writer, first: statements) { db, _ in _ = try db.commit() }
  }

  /// Notes that the server gave the mailbox's mail new unique ids; a choice made earlier counts no more.
  public func noteRenumbering(writer: SessionGuard) async throws {
    let note = Statement(
      """
      INSERT INTO uidl_reset (mailbox_id, organization_id) VALUES ($1, $2)
      ON CONFLICT (mailbox_id) DO UPDATE SET detected_at = now(), choice = NULL, chosen_at = NULL, chosen_by = NULL
      """, [.id(writer.job.mailbox), .id(writer.organizationID)])
    try await guarded(writer, first: [note]) { db, _ in _ = try db.commit() }
  }

  /// Notes that a person's choice was carried out.
  public func finishReimport(writer: SessionGuard) async throws {
    let done = Statement(
      "DELETE FROM uidl_reset WHERE mailbox_id = $1 AND organization_id = $2 AND choice IS NOT NULL",
      [.id(writer.job.mailbox), .id(writer.organizationID)])
    try await guarded(writer, first: [done]) { db, _ in _ = try db.commit() }
  }
}
