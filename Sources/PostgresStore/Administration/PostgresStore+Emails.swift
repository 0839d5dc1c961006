import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static func emailColumns(bodies: Bool) -> String {
    """
    SELECT e.id, e.mailbox_id, m.address, e.uidl, e.message_id, e.subject, e.sender, e.recipients, e.copies, e.reply_to,
      e.in_reply_to, e.reference_ids, e.sent_at, e.received_at, e.message_class, e.size_octets, e.stored_at,
      e.attachment_count, e.report_of_id, \(bodies ? "e.text_body, e.html_body" : "NULL::text, NULL::text")
    FROM email e JOIN mailbox m ON m.id = e.mailbox_id
    """
  }

  private static func email(_ row: inout Row) throws -> EmailRecord {
    let id: EmailID = try row.id()
    let mailbox: MailboxID = try row.id()
    let address = try row.textOrNil()
    let uidl = try row.text()
    let envelope = MessageEnvelope(
      messageID: try row.textOrNil(), subject: try row.text(), from: try row.json(), to: try row.json(),
      cc: try row.json(), replyTo: try row.json(), inReplyTo: try row.textOrNil(), references: try row.json(),
      date: try row.dateOrNil(), receivedDate: try row.dateOrNil())
    var email = EmailRecord(
      id: id, mailboxID: mailbox, mailboxAddress: address, uidl: uidl, envelope: envelope,
      messageClass: try row.word(), sizeOctets: try row.int(), storedAt: try row.date())
    email.attachmentCount = Int(try row.int())
    email.reportOfID = try row.idOrNil()
    email.text = try row.textOrNil()
    email.html = try row.textOrNil()
    return email
  }

  /// Stored messages without bodies, newest first.
  public func emails(
    mailbox: MailboxID?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<EmailRecord> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "emails")
    let condition =
      " WHERE e.organization_id = $1" + (mailbox == nil ? " AND $2::bigint IS NULL" : " AND e.mailbox_id = $2")
    let values: [PostgresValue] = [.id(principal.organizationID), .id(mailbox)]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.emailColumns(bodies: false) + condition
            + " AND ($3::bigint IS NULL OR e.id < $3) ORDER BY e.id DESC LIMIT $4",
          values + [.int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM email e" + condition, values),
      ])
      let rows = try results[0].map(Self.email)
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor<Int64>(list: "emails", key: 0, id: last.id.value).text()
      }
    }
  }

  /// One message with bodies and attachments. Throws ``StoreError/notFound(_:)``.
  public func email(_ id: EmailID, for principal: Principal) async throws -> EmailRecord {
    try await pool.transaction(.api(principal)) { db in
      let key: [PostgresValue] = [.id(id), .id(principal.organizationID)]
      let results = try db.commit([
        Statement(Self.emailColumns(bodies: true) + " WHERE e.id = $1 AND e.organization_id = $2", key),
        Statement(
          """
          SELECT file_name, content_type, size_octets, dropped FROM attachment
          WHERE email_id = $1 AND organization_id = $2 ORDER BY position
          """, key),
      ])
      guard var email = try results[0].map(Self.email).first else { throw StoreError.notFound("message") }
      email.attachments = try results[1].map { row in
        AttachmentRecord(
          fileName: try row.textOrNil(), contentType: try row.text(), sizeOctets: try row.int(),
          dropped: try row.bool())
      }
      return email
    }
  }

  /// The raw octets of a message, in chunks of at most 1 MiB; each is read when the one before was taken.
  /// Throws ``StoreError/notFound(_:)`` at once; the stream throws ``StoreError``.
  public func rawEmail(_ id: EmailID, for principal: Principal) async throws -> AsyncThrowingStream<[UInt8], any Error>
  {
    let organization = principal.organizationID
    let content: Int64? = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          "SELECT raw_content_id FROM email WHERE id = $1 AND organization_id = $2", [.id(id), .id(organization)])
      ])[0].map { try $0.int() }.first
    }
    guard let content else { throw StoreError.notFound("message") }
    return octets(of: content, organization, .api(principal))
  }

  /// The octets of a content, in chunks of at most 1 MiB; each is read when the one before was taken.
  func octets(
    of content: Int64, _ organization: OrganizationID, _ scope: Scope
  ) -> AsyncThrowingStream<[UInt8], any Error> {
    let position = ChunkPosition()
    return AsyncThrowingStream { [pool] in
      let next = position.next()
      return try await pool.transaction(scope) { db in
        try db.commit([
          Statement(
            "SELECT octets FROM content_chunk WHERE content_id = $1 AND position = $2 AND organization_id = $3",
            [.int(content), .int(next), .id(organization)])
        ])[0].map { try $0.bytes() }.first
      }
    }
  }

  /// What is due in the principal's organization.
  public func scheduleStatistics(for principal: Principal) async throws -> ScheduleStatistics {
    try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          SELECT count(*) FILTER (WHERE next_due_at <= now()), min(next_due_at) FILTER (WHERE next_due_at <= now()),
            count(*)
          FROM mailbox_schedule
          WHERE organization_id = $1 AND enabled AND next_due_at IS NOT NULL AND profile_id IS NOT NULL
          """, [.id(principal.organizationID)]),
        Statement("SELECT holder FROM leadership WHERE expires_at > clock_timestamp()"),
      ])
      var row = results[0][0]
      return ScheduleStatistics(
        overdue: Int(try row.int()), oldestDueMilliseconds: try row.microsecondsOrNil().map { $0 / 1_000 },
        scheduled: Int(try row.int()), leader: try results[1].map { try $0.textOrNil() }.first ?? nil)
    }
  }
}
