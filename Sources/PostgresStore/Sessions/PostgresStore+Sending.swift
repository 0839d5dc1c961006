import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// What waits to be sent. Messages that an ended session of this lane left in the middle become `uncertain` first.
  public func outlook(pace: SendPace, writer: SessionGuard) async throws -> OutgoingOutlook {
    let failure = Failure(.smtpUncertain, context: "the session that sent it ended before it wrote the answer")
    let mailbox = PostgresValue.id(writer.job.mailbox)
    let statements = [
      Statement(
        """
        UPDATE outgoing_email SET state = 'uncertain', failure_code = $3, failure = $4::jsonb, updated_at = now()
        WHERE mailbox_id = $1 AND state = 'sending'
          AND (lane = $5 AND fence <> $2 OR fence >> 32 < $2::bigint >> 32)
        RETURNING id
        """,
        [
          mailbox, .int(writer.fence.value), .text(failure.code.rawValue), .text(try PostgresValue.jsonText(failure)),
          .int(Int64(writer.job.lane)),
        ]),
      Statement(
        """
        UPDATE outgoing_recipient r SET state = 'uncertain' FROM outgoing_email e
        WHERE e.mailbox_id = $1 AND e.state = 'uncertain' AND r.email_id = e.id AND r.state = 'pending'
        """, [mailbox]),
      Statement(
        """
        SELECT count(*) FROM (SELECT FROM outgoing_email
          WHERE mailbox_id = $1 AND state = 'pending-send' AND next_try_at <= now() LIMIT $2) AS due
        """, [mailbox, .int(Int64(OutgoingOutlook.mostCounted))]),
      Statement(
        "SELECT DISTINCT lane FROM outgoing_email WHERE mailbox_id = $1 AND state = 'sending' ORDER BY lane",
        [mailbox]),
      try Self.nextStatement(pace, writer),
      Statement(
        "SELECT connections FROM send_pace WHERE mailbox_id = $1 AND connections_until > now()", [mailbox]),
    ]
    return try await guarded(writer, first: statements) { db, results in
      try db.commit()
      var row = results[2][0]
      return OutgoingOutlook(
        due: Int(try row.int()), lanesAtWork: try results[3].map { Int(try $0.int()) },
        uncertain: try results[0].map { try $0.id() }, wait: try Self.wait(results[4]),
        connections: try results[5].map { Int(try $0.int()) }.first)
    }
  }

  /// Takes on the first message that is due; committed as `sending` with the session's fence when it returns.
  public func claimMessage(pace: SendPace, writer: SessionGuard) async throws -> MessageClaim {
    if pace != .unlimited { return try await claimMessage(within: pace, writer: writer) }
    let claim = Statement(
      """
      UPDATE outgoing_email SET state = 'sending', fence = $2, lane = $3, attempts = attempts + 1, updated_at = now()
      WHERE id = (SELECT id FROM outgoing_email
        WHERE mailbox_id = $1 AND state = 'pending-send' AND next_try_at <= now()
        ORDER BY priority, next_try_at, id LIMIT 1 FOR UPDATE)
        AND NOT EXISTS (SELECT FROM send_pace WHERE mailbox_id = $1 AND waits_until > now())
      RETURNING \(Self.claimedColumns)
      """, [.id(writer.job.mailbox), .int(writer.fence.value), .int(Int64(writer.job.lane))])
    return try await guarded(writer, first: [claim]) { db, results in
      try Self.claimed(results[0], atMost: nil, db, writer)
    }
  }

  /// The octets of a message's content from a place on; `nil` behind its end. A content never changes, so no guard is
  /// asked.
  public func piece(of content: StoredMessageContent, at place: ContentPlace) async throws -> ContentPiece? {
    try await pool.transaction(.worker) { db in
      try Self.piece(db.commit([Self.pieceStatement(content.id, content.organizationID, at: place)])[0], at: place)
    }
  }

  /// Chunks are stored as they are (EXTERNAL), so PostgreSQL reads only the part that is asked for.
  static func pieceStatement(
    _ content: Int64, _ organization: OrganizationID, at place: ContentPlace
  ) -> Statement {
    Statement(
      """
      SELECT substring(octets FROM $4::bigint::int + 1 FOR $5::bigint::int), octet_length(octets) FROM content_chunk
      WHERE content_id = $1 AND organization_id = $2 AND position = $3
      """,
      [
        .int(content), .id(organization), .int(place.chunk), .int(place.offset), .int(ContentPiece.maximumOctets),
      ])
  }

  static func piece(_ rows: ResultSet, at place: ContentPlace) throws -> ContentPiece? {
    try rows.map { row in
      let octets = try row.bytes()
      let end = place.offset + Int64(octets.count)
      let chunkOctets = try row.int()
      let isChunkRead = octets.isEmpty || end >= chunkOctets
      return ContentPiece(
        octets: octets,
        next: isChunkRead
          ? ContentPlace(chunk: place.chunk + 1, offset: 0) : ContentPlace(chunk: place.chunk, offset: end))
    }.first
  }

  /// Remembers a message that a session sends from its mailbox to itself, and forgets those of a month ago.
  public func noteOwnMessage(_ messageID: String, writer: SessionGuard) async throws {
    let mailbox = PostgresValue.id(writer.job.mailbox)
    let statements = [
      Statement(
        """
        INSERT INTO own_message (mailbox_id, message_id, organization_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
        """, [mailbox, .text(messageID), .id(writer.organizationID)]),
      Statement(
        "DELETE FROM own_message WHERE mailbox_id = $1 AND created_at < now() - interval '30 days'", [mailbox]),
    ]
    try await guarded(writer, first: statements) { db, _ in _ = try db.commit() }
  }

  /// Writes what became of an attempt. Throws ``FencedError`` when the message is not this session's any more.
  public func finish(_ message: OutgoingEmailID, _ result: AttemptResult, writer: SessionGuard) async throws {
    let failure = try result.failure.map { try PostgresValue.jsonText($0) }
    let change = Statement(
      """
      UPDATE outgoing_email SET state = $3, failure_code = $4, failure = $5::jsonb,
        next_try_at = coalesce($6, next_try_at), updated_at = now(),
        sent_at = CASE WHEN $3 IN ('sent', 'partly-sent') THEN now() ELSE sent_at END
      WHERE id = $1 AND state = 'sending' AND fence = $2 AND organization_id = $7 RETURNING id
      """,
      [
        .id(message), .int(writer.fence.value), .text(result.state.rawValue), .text(result.failure?.code.rawValue),
        .text(failure), .time(result.nextTryAt), .id(writer.organizationID),
      ])
    let recipients = Statement(
      """
      UPDATE outgoing_recipient r SET state = i.state, failure_code = i.code, failure = i.failure::jsonb
      FROM unnest($2, $3, $4, $5) AS i (address, state, code, failure)
      WHERE r.email_id = $1 AND r.address = i.address AND r.state = 'pending'
      """,
      [
        .id(message), .texts(result.recipients.map(\.address)), .texts(result.recipients.map(\.state.rawValue)),
        .texts(result.recipients.map(\.failure?.code.rawValue)),
        .texts(try result.recipients.map { try $0.failure.map { try PostgresValue.jsonText($0) } }),
      ])
    do {
      try await pool.transaction(.worker) { db in
        let results = try db.pipeline([change, recipients])
        guard results[0].count == 1 else { throw FencedError(writer: writer) }
        try db.commit()
      }
    } catch let error as FencedError {
      outcomes.countFenced()
      throw error
    }
  }
}
