import FoundationEssentials
import PostriderCore

/// A message on its way into the tables, with the numbers of its rows.
private struct NumberedMessage: Sendable {
  var message: ReceivedMessage
  var email: Int64
  var raw: Int64
  /// One per attachment; `nil` where the content was dropped.
  var attachments: [Int64?]
}

extension PostgresStore {
  /// Those of the listed unique ids that the ledger of the mailbox does not hold, or holds as worth another attempt.
  public func unknown(
    uidls: [String], mailbox: MailboxID, organization: OrganizationID
  ) async throws -> Set<String> {
    if uidls.isEmpty { return [] }
    let rows = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT i.uidl FROM unnest($1) AS i (uidl)
          WHERE NOT EXISTS (SELECT FROM ledger l WHERE l.mailbox_id = $2 AND l.uidl = i.uidl AND l.organization_id = $3
            AND l.state <> 'failing')
          """, [.texts(uidls), .id(mailbox), .id(organization)])
      ])[0].map { try $0.text() }
    }
    return Set(rows)
  }

  /// Those of the listed unique ids whose messages are stored, so that they may be removed from the server.
  public func stored(
    uidls: [String], mailbox: MailboxID, organization: OrganizationID
  ) async throws -> Set<String> {
    if uidls.isEmpty { return [] }
    let rows = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          "SELECT uidl FROM ledger WHERE mailbox_id = $2 AND uidl = ANY ($1) AND organization_id = $3 AND state = 'stored'",
          [.texts(uidls), .id(mailbox), .id(organization)])
      ])[0].map { try $0.text() }
    }
    return Set(rows)
  }

  /// Stores messages and their ledger rows in one transaction of two round trips; returns one result per message, in
  /// order. Contents are read chunk by chunk while they are sent.
  ///
  /// Throws ``FencedError`` when a newer session or a change of profile came before; then nothing is stored.
  public func store(_ messages: [ReceivedMessage], writer: SessionGuard) async throws -> [StoredMessage] {
    if messages.isEmpty { return [] }
    var seen: Set<String> = []
    let distinct = messages.filter { seen.insert($0.uidl).inserted }
    let contents = distinct.reduce(0) { $0 + 1 + $1.attachments.count { $0.content != nil } }
    let first = [
      Self.ledgerStatement(distinct, writer),
      .kept("SELECT nextval('email_id_seq') FROM generate_series(1, $1)", [.int(Int64(distinct.count))]),
      .kept("SELECT nextval('content_id_seq') FROM generate_series(1, $1)", [.int(Int64(contents))]),
      Self.ownStatement(distinct, writer),
    ]
    let (stored, own) = try await guarded(writer, first: first) { db, results in
      let ownIDs = Set(try results[3].map { try $0.text() })
      let isOwn = { (message: ReceivedMessage) in message.envelope.messageID.map(ownIDs.contains) ?? false }
      let own = Set(distinct.filter(isOwn).map(\.uidl))
      let new = Set(try results[0].map { try $0.text() }).subtracting(own)
      var emails = try results[1].map { try $0.int() }[...]
      var numbers = try results[2].map { try $0.int() }[...]
      let numbered = distinct.filter { new.contains($0.uidl) }.map { message in
        NumberedMessage(
          message: message, email: emails.removeFirst(), raw: numbers.removeFirst(),
          attachments: message.attachments.map { $0.content == nil ? nil : numbers.removeFirst() })
      }
      try db.commit { send in
        try Self.insert(numbered, writer, send)
        if !own.isEmpty { try send(Self.ownLedgerStatement(own, writer)) }
      }
      return (Dictionary(uniqueKeysWithValues: numbered.map { ($0.message.uidl, EmailID($0.email)) }), own)
    }
    announcer.stored(
      stored.values.map(\.value).sorted(), mailbox: writer.job.mailbox, organization: writer.organizationID)
    var left = stored
    return messages.map { message in
      if own.contains(message.uidl) { return .own }
      // A unique id listed twice is stored once.
      return left.removeValue(forKey: message.uidl).map { .stored($0) } ?? .duplicate
    }
  }

  /// Claims the unique ids; returns those that are new or whose earlier attempts failed.
  private static func ledgerStatement(_ messages: [ReceivedMessage], _ writer: SessionGuard) -> Statement {
    .kept(
      """
      INSERT INTO ledger AS l (mailbox_id, organization_id, state, uidl, content_hash, message_id)
      SELECT $1, $2, 'stored', i.uidl, i.content_hash, i.message_id
      FROM unnest($3, $4, $5) AS i (uidl, content_hash, message_id)
      ON CONFLICT (mailbox_id, uidl) DO UPDATE SET state = 'stored', content_hash = EXCLUDED.content_hash,
        message_id = EXCLUDED.message_id, failure_code = NULL, seen_at = now()
      WHERE l.state = 'failing'
      RETURNING uidl
      """,
      [
        .id(writer.job.mailbox), .id(writer.organizationID), .texts(messages.map(\.uidl)),
        .bytesArray(messages.map(\.contentHash)), .texts(messages.map(\.envelope.messageID)),
      ])
  }

  private static func insert(
    _ messages: [NumberedMessage], _ writer: SessionGuard, _ send: (Statement) throws -> Void
  ) throws {
    if messages.isEmpty { return }
    try send(contentStatement(messages.flatMap(\.contents), writer.organizationID))
    try send(try emailStatement(messages, writer))
    let attachments = messages.flatMap(\.listedAttachments)
    if !attachments.isEmpty { try send(attachmentStatement(attachments, writer.organizationID)) }
    try send(
      Statement(
        """
        UPDATE ledger l SET email_id = i.email_id FROM unnest($2, $3) AS i (uidl, email_id)
        WHERE l.mailbox_id = $1 AND l.uidl = i.uidl
        """, [.id(writer.job.mailbox), .texts(messages.map(\.message.uidl)), .ints(messages.map(\.email))]))
    try send(announcements(messages.map(\.email), writer.organizationID))
    if messages.contains(where: { $0.message.notification != nil }) {
      try send(reportStatement(messages.map { ($0.email, $0.message.notification) }, writer))
    }
    try send(
      .kept(
        "UPDATE mailbox_counter SET email_count = email_count + $2 WHERE mailbox_id = $1",
        [.id(writer.job.mailbox), .int(Int64(messages.count))]))
    try withoutActuallyEscaping(send) { send in
      var batch = ChunkBatch(organization: writer.organizationID, send: send)
      for (id, content) in messages.flatMap(\.contents) { try batch.add(content, id: id) }
      try batch.flush()
    }
  }

  static func contentStatement(_ contents: [(id: Int64, content: Content)], _ organization: OrganizationID) -> Statement
  {
    .kept(
      """
      INSERT INTO content (id, organization_id, size_octets)
      SELECT i.id, $1, i.size_octets FROM unnest($2, $3) AS i (id, size_octets)
      """, [.id(organization), .ints(contents.map(\.id)), .ints(contents.map(\.content.sizeOctets))])
  }

  private static func emailStatement(_ messages: [NumberedMessage], _ writer: SessionGuard) throws -> Statement {
    func addresses(_ field: (MessageEnvelope) -> [EmailAddress]) throws -> PostgresValue {
      .texts(
        try messages.map { message in
          let list = field(message.message.envelope)
          return list.isEmpty ? "[]" : try PostgresValue.jsonText(list)
        })
    }
    let envelopes = messages.map(\.message.envelope)
    return .kept(
      """
      INSERT INTO email (organization_id, mailbox_id, id, raw_content_id, uidl, message_id, subject, sender, recipients,
        copies, reply_to, in_reply_to, reference_ids, sent_at, received_at, message_class, text_body, html_body,
        size_octets, attachment_count, report_of_id)
      SELECT $1, $2, i.id, i.raw, i.uidl, i.message_id, i.subject, i.sender::jsonb, i.recipients::jsonb,
        i.copies::jsonb, i.reply_to::jsonb, i.in_reply_to, i.reference_ids::jsonb, i.sent_at, i.received_at,
        i.message_class, i.text_body, i.html_body, i.size_octets, i.attachment_count,
        CASE WHEN i.report_of IS NOT NULL THEN (SELECT max(o.id) FROM outgoing_email o
          WHERE o.mailbox_id = $2 AND o.message_id = i.report_of AND o.state <> 'draft') END
      FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
        AS i (id, raw, uidl, message_id, subject, sender, recipients, copies, reply_to, in_reply_to, reference_ids,
          sent_at, received_at, message_class, text_body, html_body, size_octets, attachment_count, report_of)
      """,
      [
        .id(writer.organizationID), .id(writer.job.mailbox), .ints(messages.map(\.email)), .ints(messages.map(\.raw)),
        .texts(messages.map(\.message.uidl)), .texts(envelopes.map(\.messageID)), .texts(envelopes.map(\.subject)),
        try addresses(\.from), try addresses(\.to), try addresses(\.cc), try addresses(\.replyTo),
        .texts(envelopes.map(\.inReplyTo)),
        .texts(try envelopes.map { $0.references.isEmpty ? "[]" : try PostgresValue.jsonText($0.references) }),
        .times(envelopes.map(\.date)), .times(envelopes.map(\.receivedDate)),
        .texts(messages.map(\.message.messageClass.rawValue)), .texts(messages.map(\.message.text)),
        .texts(messages.map(\.message.html)), .ints(messages.map(\.message.raw.sizeOctets)),
        .ints(messages.map { Int64($0.message.attachments.count) }),
        .texts(messages.map { $0.message.notification?.messageID }),
      ])
  }

  private static func attachmentStatement(_ rows: [ListedAttachment], _ organization: OrganizationID) -> Statement {
    .kept(
      """
      INSERT INTO attachment (organization_id, email_id, position, file_name, content_type, size_octets, dropped,
        content_id)
      SELECT $1, i.email_id, i.position, i.file_name, i.content_type, i.size_octets, i.dropped, i.content_id
      FROM unnest($2, $3, $4, $5, $6, $7, $8)
        AS i (email_id, position, file_name, content_type, size_octets, dropped, content_id)
      """,
      [
        .id(organization), .ints(rows.map(\.email)), .ints(rows.map(\.position)), .texts(rows.map(\.record.fileName)),
        .texts(rows.map(\.record.contentType)), .ints(rows.map(\.record.sizeOctets)),
        .bools(rows.map(\.record.dropped)),
        .ints(rows.map(\.content)),
      ])
  }
}

private struct ListedAttachment {
  var email: Int64
  var position: Int64
  var record: AttachmentRecord
  var content: Int64?
}

extension NumberedMessage {
  /// The raw octets and the kept attachments with their numbers.
  fileprivate var contents: [(id: Int64, content: Content)] {
    [(raw, message.raw)]
      + zip(attachments, message.attachments).compactMap { number, attachment in
        guard let number, let content = attachment.content else { return nil }
        return (number, content)
      }
  }

  fileprivate var listedAttachments: [ListedAttachment] {
    zip(attachments, message.attachments).enumerated().map { position, pair in
      ListedAttachment(email: email, position: Int64(position), record: pair.1.record, content: pair.0)
    }
  }
}
