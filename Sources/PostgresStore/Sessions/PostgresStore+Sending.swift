import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// What waits to be sent. Messages that an ended session of this lane left in the middle are decided first: those whose
  /// end may have left become `uncertain`, the others wait again.
  public func outlook(pace: SendPace, writer: SessionGuard) async throws -> OutgoingOutlook {
    let failure = Failure(.smtpUncertain, context: "the session that sent it ended before it wrote the answer")
    let unsent = Failure(
      .runAborted, scope: .message, context: "the session that had taken it on ended before its end could leave")
    let mailbox = PostgresValue.id(writer.job.mailbox)
    let alert = AlertDraft(level: .error, failure: failure, direction: .outgoing)
    let statements = [
      // The alert is raised where the state is written: the session may end without an outcome of its own.
      Statement(
        """
        WITH decided AS (UPDATE outgoing_email SET updated_at = now(),
          state = CASE WHEN unsent_fence = fence THEN 'pending-send' ELSE 'uncertain' END,
          failure_code = CASE WHEN unsent_fence = fence THEN $6 ELSE $3 END,
          failure = CASE WHEN unsent_fence = fence THEN $7 ELSE $4 END::jsonb,
          next_try_at = CASE WHEN unsent_fence = fence THEN now() ELSE next_try_at END
        WHERE mailbox_id = $1 AND state = 'sending'
          AND (lane = $5 AND fence <> $2 OR fence >> 32 < $2::bigint >> 32)
        RETURNING id, state, tried_recipients
        ), marked AS (
          UPDATE outgoing_recipient r SET state = 'uncertain' FROM decided d
          CROSS JOIN LATERAL (
            SELECT p.position FROM outgoing_recipient p WHERE p.email_id = d.id AND p.state = 'pending'
            ORDER BY p.position LIMIT d.tried_recipients
          ) AS tried
          WHERE d.state = 'uncertain' AND r.email_id = d.id AND r.position = tried.position
        ), raised AS (
          INSERT INTO alert AS a (organization_id, mailbox_id, code, direction, level, text, remedy, parameters, count)
          SELECT $8, $1, $3, 'outgoing', $9, $10, $11, $12::jsonb, count(*) FROM decided d WHERE d.state = 'uncertain'
          HAVING count(*) > 0
          ON CONFLICT (mailbox_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL
          DO UPDATE SET count = a.count + EXCLUDED.count, last_seen = now(), text = EXCLUDED.text,
            parameters = EXCLUDED.parameters
        )
        SELECT id, state FROM decided
        """,
        [
          mailbox, .int(writer.fence.value), .text(failure.code.rawValue), .text(try PostgresValue.jsonText(failure)),
          .int(Int64(writer.job.lane)), .text(unsent.code.rawValue), .text(try PostgresValue.jsonText(unsent)),
          .id(writer.organizationID), .text(alert.level.rawValue), .text(alert.text), .text(alert.remedy),
          .text(try PostgresValue.jsonText(alert.parameters)),
        ]),
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
      var row = results[1][0]
      return OutgoingOutlook(
        due: Int(try row.int()), lanesAtWork: try results[2].map { Int(try $0.int()) },
        uncertain: try results[0].map { (try $0.id(), try $0.word() as OutgoingState) }
          .filter { $0.1 == .uncertain }.map(\.0),
        wait: try Self.wait(results[3]), connections: try results[4].map { Int(try $0.int()) }.first)
    }
  }

  /// Takes on the first message that is due; committed as `sending` with the session's fence when it returns.
  ///
  /// Without a quota it is written together with what other sessions do; with one it is counted under a lock.
  public func claimMessage(pace: SendPace, writer: SessionGuard) async throws -> MessageClaim {
    try Task.checkCancellation()
    if pace != .unlimited { return try await claimMessage(within: pace, writer: writer) }
    return try await sending.commit(.claim(writer), writer).map { .message($0) } ?? .nothing
  }

  /// Notes that the end of a message is about to leave; committed when it returns. Throws ``FencedError`` when the message
  /// is not this session's any more: then nothing of it may leave.
  public func beginHandover(of message: OutgoingEmailID, writer: SessionGuard) async throws {
    try Task.checkCancellation()
    try await sending.commit(.handover(message, writer), writer)
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

  /// The beginning of each content, with its place in the list.
  static func firstPieces(of contents: [StoredMessageContent]) -> Statement {
    .kept(
      """
      SELECT i.place, substring(c.octets FROM 1 FOR $4::bigint::int), octet_length(c.octets)
      FROM unnest($1, $2, $3) AS i (place, content_id, organization_id)
      JOIN content_chunk c ON c.content_id = i.content_id AND c.organization_id = i.organization_id AND c.position = 0
      """,
      [
        .ints(contents.indices.map { Int64($0) }), .ints(contents.map(\.id)), .ids(contents.map(\.organizationID)),
        .int(ContentPiece.maximumOctets),
      ])
  }

  static func piece(_ rows: ResultSet, at place: ContentPlace) throws -> ContentPiece? {
    try rows.map { row in try piece(&row, at: place) }.first
  }

  /// Reads a piece and how long its chunk is.
  static func piece(_ row: inout Row, at place: ContentPlace) throws -> ContentPiece {
    let octets = try row.bytes()
    let end = place.offset + Int64(octets.count)
    let chunkOctets = try row.int()
    let isChunkRead = octets.isEmpty || end >= chunkOctets
    return ContentPiece(
      octets: octets,
      next: isChunkRead
        ? ContentPlace(chunk: place.chunk + 1, offset: 0) : ContentPlace(chunk: place.chunk, offset: end))
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
    try await sending.commit(.finish(message, result, writer), writer)
  }
}
