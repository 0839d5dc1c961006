import FoundationEssentials
import PostriderCore

/// Quotas: the count is kept in PostgreSQL, in the transaction that hands a message out.
extension PostgresStore {
  /// What is read of a message that was taken on.
  static let claimedColumns = """
    id, sender, attempts, tried_since, content_id, size_octets, encoding, message_id, dsn
    """

  private static func values(_ pace: SendPace, _ writer: SessionGuard) throws -> [PostgresValue] {
    func json(_ quota: SendQuota) throws -> PostgresValue {
      .text(quota == .none ? nil : try PostgresValue.jsonText(quota))
    }
    return [.id(writer.job.mailbox), try json(pace.mailbox), try json(pace.profile)]
  }

  /// The message that would leave next, or when it may; counts nothing.
  static func nextStatement(_ pace: SendPace, _ writer: SessionGuard) throws -> Statement {
    Statement(
      """
      SELECT n.opens_at, n.why FROM mailbox m,
        next_outgoing(m.id, m.profile_id, $2::jsonb, $3::jsonb) n WHERE m.id = $1
      """, try values(pace, writer))
  }

  /// Reads when and why.
  static func wait(_ rows: ResultSet) throws -> SendWait? {
    try rows.map { row in
      let until = try row.dateOrNil()
      let why = try row.textOrNil() ?? "quota"
      return until.map { SendWait(until: $0, reason: why) }
    }.first ?? nil
  }

  /// The claim of a mailbox with a quota: the message is found and counted under the lock on the mailbox's row that every
  /// lane asks for first.
  func claimMessage(within pace: SendPace, writer: SessionGuard) async throws -> MessageClaim {
    let take = Statement(
      """
      SELECT t.opens_at, t.why, t.email_id, t.recipients FROM mailbox m,
        take_outgoing(m.organization_id, m.id, m.profile_id, $2::jsonb, $3::jsonb) t WHERE m.id = $1
      """, try Self.values(pace, writer))
    return try await guarded(writer, first: [take]) { db, results in
      if let wait = try Self.wait(results[0]) {
        try db.commit()
        return .wait(wait)
      }
      let taken: (Int64, Int64?)? =
        try results[0].map { row in
          _ = try row.dateOrNil()
          _ = try row.textOrNil()
          let id = try row.intOrNil()
          let most = try row.intOrNil()
          return id.map { ($0, most) }
        }.first ?? nil
      guard let (id, most) = taken else {
        try db.commit()
        return .nothing
      }
      let claimed = try db.query(
        """
        UPDATE outgoing_email SET state = 'sending', fence = $2, unsent_fence = $2, lane = $3,
          attempts = attempts + 1, tried_since = coalesce(tried_since, now()), tried_recipients = $4, updated_at = now()
        WHERE id = $1 AND state = 'pending-send' RETURNING \(Self.claimedColumns)
        """, [.int(id), .int(writer.fence.value), .int(Int64(writer.job.lane)), .int(most)])
      return try Self.claimed(claimed, atMost: most.map(Int.init), db, writer)
    }
  }

  /// Reads the message of a claim, and commits.
  static func claimed(
    _ rows: ResultSet, atMost most: Int?, _ db: isolated PostgresConnection, _ writer: SessionGuard
  ) throws -> MessageClaim {
    let rows = try rows.map { row in
      (
        try row.id() as OutgoingEmailID, try row.text(), Int(try row.int()), try row.date(), try row.int(),
        try row.int(), try row.word() as MessageEncoding, try row.text(), try row.jsonOrNil() as DSNRequest?
      )
    }
    guard let (id, sender, attempt, since, content, size, encoding, messageID, dsn) = rows.first else {
      try db.commit()
      return .nothing
    }
    let found = try db.commit([
      Statement("SELECT address, state FROM outgoing_recipient WHERE email_id = $1 ORDER BY position", [.id(id)]),
      pieceStatement(content, writer.organizationID, at: .start),
    ])
    let recipients = try found[0].map { (try $0.text(), try $0.word() as RecipientState) }
    let pending = recipients.filter { $0.1 == .pending }.map(\.0)
    let first = try piece(found[1], at: .start) ?? ContentPiece(octets: [], next: .start)
    let tried = most.map { Array(pending.prefix(max(1, $0))) } ?? pending
    return .message(
      ClaimedMessage(
        id: id, sender: sender, recipients: tried, others: Array(pending.dropFirst(tried.count)),
        messageID: messageID, notification: dsn,
        accepted: recipients.count { $0.1 == .accepted }, failed: recipients.count { $0.1 == .failed },
        attempt: attempt, waitsSince: since,
        content: StoredMessageContent(
          id: content, organizationID: writer.organizationID, sizeOctets: size, encoding: encoding, first: first)))
  }

  /// Remembers what a server's answer changes about how the mailbox sends. A shorter wait does not end a longer one, nor
  /// a larger number of connections a smaller one.
  public func adapt(_ adaptation: SendAdaptation, writer: SessionGuard) async throws {
    let key: [PostgresValue] = [.id(writer.job.mailbox), .id(writer.organizationID)]
    let statement: Statement
    switch adaptation {
    case .wait(let wait):
      statement = Statement(
        """
        INSERT INTO send_pace AS p (mailbox_id, organization_id, waits_until, reason) VALUES ($1, $2, $3, $4)
        ON CONFLICT (mailbox_id) DO UPDATE SET waits_until = EXCLUDED.waits_until, reason = EXCLUDED.reason
        WHERE p.waits_until IS NULL OR p.waits_until < EXCLUDED.waits_until
        """, key + [.time(wait.until), .text(wait.reason)])
    case .connections(let most, let until):
      statement = Statement(
        """
        INSERT INTO send_pace AS p (mailbox_id, organization_id, connections, connections_until) VALUES ($1, $2, $3, $4)
        ON CONFLICT (mailbox_id) DO UPDATE SET
          connections = CASE WHEN p.connections_until > now() THEN least(p.connections, EXCLUDED.connections)
            ELSE EXCLUDED.connections END,
          connections_until = EXCLUDED.connections_until
        """, key + [.int(Int64(max(1, most))), .time(until)])
    }
    try await guarded(writer, first: [statement]) { db, _ in _ = try db.commit() }
  }
}
