import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let outgoingColumns = """
    SELECT id, mailbox_id, state, priority, send_after, CASE WHEN state = 'pending-send' THEN next_try_at END, attempts,
      failure, message_id, idempotency_key, subject, sender, size_octets, created_at, updated_at, sent_at,
      (SELECT nullif(count(*), 0) FROM outgoing_recipient r WHERE r.email_id = outgoing_email.id
        AND r.report_action = 'failed'), dsn
    FROM outgoing_email
    """

  private static func outgoing(_ row: inout Row) throws -> OutgoingEmail {
    OutgoingEmail(
      id: try row.id(), mailboxID: try row.id(), state: try row.word(), priority: OutgoingPriority(rank: try row.int()),
      sendAfter: try row.dateOrNil(), nextTryAt: try row.dateOrNil(), attempts: Int(try row.int()),
      failure: try row.jsonOrNil(), messageID: try row.text(), idempotencyKey: try row.textOrNil(),
      subject: try row.text(), sender: try row.text(), sizeOctets: try row.int(), createdAt: try row.date(),
      updatedAt: try row.date(), sentAt: try row.dateOrNil(), bounced: try row.intOrNil().map { Int($0) },
      notification: try row.jsonOrNil())
  }

  /// Stores a message for sending and wakes the scheduler, or keeps it as a draft.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` with the reason as its code (`not-approved`, `not-tested`, `disabled`,
  /// …) when the mailbox does not send; a pause only makes the message wait. A second submit with the same idempotency
  /// key returns the first message and changes nothing. An answer that looks like one of a loop is kept as a draft, with
  /// its reason and an alert.
  public func submit(_ message: OutgoingSubmission, by principal: Principal) async throws -> OutgoingEmail {
    let organization = principal.organizationID
    let id: OutgoingEmailID = try await pool.transaction(.api(principal)) { db in
      if let key = message.idempotencyKey {
        // Two submits with one key wait for each other: the second finds the first one's row.
        _ = try db.query(
          "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))", [.text(key), .id(organization)])
        let known: [OutgoingEmailID] = try db.query(
          "SELECT id FROM outgoing_email WHERE organization_id = $1 AND idempotency_key = $2",
          [.id(organization), .text(key)]
        ).map { try $0.id() }
        if let first = known.first {
          try db.commit()
          return first
        }
      }
      let sender = try Self.sender(message.mailboxID, mustSend: !message.hold, db, principal)
      let loop = message.hold ? nil : try Self.loop(message, db, principal)
      let numbers = try db.query("SELECT nextval('content_id_seq'), nextval('outgoing_email_id_seq')").map { row in
        (try row.int(), try row.id() as OutgoingEmailID)
      }[0]
      try db.commit { send in
        try send(Self.contentStatement([(numbers.0, message.raw)], organization))
        try withoutActuallyEscaping(send) { send in
          var batch = ChunkBatch(organization: organization, send: send)
          try batch.add(message.raw, id: numbers.0)
          try batch.flush()
        }
        for statement in try Self.insertion(
          message, numbers.1, content: numbers.0, sender: message.sender ?? sender, heldFor: loop, principal)
        {
          try send(statement)
        }
      }
      return numbers.1
    }
    return try await outgoingEmail(id, for: principal)
  }

  /// Locks the mailbox; returns its address. Throws why it does not send.
  static func sender(
    _ mailbox: MailboxID, mustSend: Bool, _ db: isolated PostgresConnection, _ principal: Principal
  ) throws -> String {
    let facts = try db.query(
      """
      SELECT m.address, \(MailboxQuery.reason("outgoing")) FROM mailbox m JOIN organization o ON o.id = m.organization_id
      LEFT JOIN server_profile p ON p.id = m.profile_id
      WHERE m.id = $1 AND m.organization_id = $2 FOR NO KEY UPDATE OF m
      """, [.id(mailbox), .id(principal.organizationID)]
    ).map { (try $0.text(), try $0.textOrNil()) }
    guard let (address, reason) = facts.first else { throw StoreError.notFound("mailbox") }
    if mustSend, let reason, reason != "paused", reason != "set-aside" {
      throw StoreError.conflict(code: reason, message: "the mailbox \(address) does not send: \(reason)")
    }
    return address
  }

  /// A message and its recipients, and the request that a session looks at it, unless it is kept as a draft.
  static func rows(
    of message: OutgoingSubmission, _ id: OutgoingEmailID, content: Int64, sender: String, heldFor loop: Failure? = nil,
    _ organizationID: OrganizationID
  ) throws -> [Statement] {
    let organization = PostgresValue.id(organizationID)
    let isHeld = message.hold || loop != nil
    let state = isHeld ? OutgoingState.draft : .pendingSend
    return [
      Statement(
        """
        INSERT INTO outgoing_email (id, organization_id, mailbox_id, state, priority, send_after, next_try_at,
          message_id, idempotency_key, subject, sender, content_id, size_octets, encoding, dsn, correspondent,
          failure_code, failure)
        VALUES ($1, $2, $3, $4, $5, $6, coalesce($6, now()), $7, $8, $9, $10, $11, $12, $13, $14::jsonb, $15,
          $16, $17::jsonb)
        """,
        [
          .id(id), organization, .id(message.mailboxID), .text(state.rawValue), .int(message.priority.rank),
          .time(message.sendAfter), .text(message.messageID), .text(message.idempotencyKey), .text(message.subject),
          .text(sender), .int(content), .int(message.raw.sizeOctets), .text(message.encoding.rawValue),
          .text(try message.notification.map { try PostgresValue.jsonText($0) }), .text(message.correspondent),
          .text(loop?.code.rawValue), .text(try loop.map { try PostgresValue.jsonText($0) }),
        ]),
      Statement(
        """
        INSERT INTO outgoing_recipient (email_id, organization_id, position, address)
        SELECT $1, $2, i.position - 1, i.address FROM unnest($3) WITH ORDINALITY AS i (address, position)
        """, [.id(id), organization, .texts(message.recipients)]),
    ] + (isHeld ? [] : sendRequest(message.mailboxID))
  }

  private static func insertion(
    _ message: OutgoingSubmission, _ id: OutgoingEmailID, content: Int64, sender: String, heldFor loop: Failure?,
    _ principal: Principal
  ) throws -> [Statement] {
    try rows(of: message, id, content: content, sender: sender, heldFor: loop, principal.organizationID)
      + [.audit([AuditEntry("email.submit", "outgoing-email", id.value)], by: principal)]
      + (try loop.map { [try loopAlert($0, message.mailboxID, principal)] } ?? [])
  }

  /// Counts a request on the mailbox's send row, makes it due and wakes the scheduler.
  static func sendRequest(_ mailbox: MailboxID) -> [Statement] {
    [
      Statement(
        """
        UPDATE mailbox_schedule SET requested = requested + 1, next_due_at = least(next_due_at, now()),
          reason = 'request', job_class = $2
        WHERE mailbox_id = $1 AND kind = 's'
        """, [.id(mailbox), .int(Int64(JobClass.send.rawValue))]),
      Statement("SELECT announce_jobs($1)", [.texts([JobID(mailbox: mailbox, kind: .send).description])]),
    ]
  }

  private static func report(_ row: inout Row) throws -> DeliveryReport? {
    let action = try row.textOrNil().flatMap(DeliveryAction.init)
    let report = DeliveryReport(
      action: action ?? .failed, status: try row.textOrNil(), diagnostic: try row.textOrNil(),
      emailID: try row.intOrNil().map { EmailID($0) }, reportedAt: try row.dateOrNil())
    return action == nil ? nil : report
  }

  /// Outgoing messages without recipients, newest first.
  public func outgoingEmails(
    mailbox: MailboxID?, state: OutgoingState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<OutgoingEmail> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "outgoing-emails")
    let condition = """
       WHERE organization_id = $1 AND ($2::bigint IS NULL OR mailbox_id = $2) AND ($3::text IS NULL OR state = $3)
      """
    let values: [PostgresValue] = [.id(principal.organizationID), .id(mailbox), .text(state?.rawValue)]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.outgoingColumns + condition + " AND ($4::bigint IS NULL OR id < $4) ORDER BY id DESC LIMIT $5",
          values + [.int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM outgoing_email" + condition, values),
      ])
      let rows = try results[0].map(Self.outgoing)
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor<Int64>(list: "outgoing-emails", key: 0, id: last.id.value).text()
      }
    }
  }

  /// One outgoing message with its recipients. Throws ``StoreError/notFound(_:)``.
  public func outgoingEmail(_ id: OutgoingEmailID, for principal: Principal) async throws -> OutgoingEmail {
    let key: [PostgresValue] = [.id(id), .id(principal.organizationID)]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(Self.outgoingColumns + " WHERE id = $1 AND organization_id = $2", key),
        Statement(
          """
          SELECT address, state, failure, report_action, report_status, report_diagnostic, report_email_id, reported_at
          FROM outgoing_recipient WHERE email_id = $1 AND organization_id = $2 ORDER BY position
          """, key),
      ])
      guard var email = try results[0].map(Self.outgoing).first else { throw StoreError.notFound("message") }
      email.recipients = try results[1].map { row in
        OutgoingRecipient(
          address: try row.text(), state: try row.word(), failure: try row.jsonOrNil(), report: try Self.report(&row))
      }
      return email
    }
  }

  /// Takes back a message that no session has begun to send. Throws `not-cancelable` for any other.
  public func cancelOutgoing(_ id: OutgoingEmailID, by principal: Principal) async throws -> OutgoingEmail {
    let key: [PostgresValue] = [.id(id), .id(principal.organizationID)]
    let email = try await outgoingEmail(id, for: principal)
    try await pool.transaction(.api(principal)) { db in
      let changed = try db.query(
        """
        UPDATE outgoing_email SET state = 'canceled', updated_at = now()
        WHERE id = $1 AND organization_id = $2 AND state IN ('draft', 'pending-send') RETURNING id
        """, key)
      guard changed.count == 1 else {
        throw StoreError.conflict(
          code: "not-cancelable", message: "only a draft or a message that waits can be canceled")
      }
      try db.commit([
        Statement(
          """
          UPDATE outgoing_recipient SET state = 'canceled'
          WHERE email_id = $1 AND organization_id = $2 AND state = 'pending'
          """, key),
        .audit(
          [
            AuditEntry(
              "email.cancel", "outgoing-email", id.value, before: #"{"state":"\#(email.state.rawValue)"}"#,
              after: #"{"state":"canceled"}"#)
          ], by: principal),
      ])
    }
    return try await outgoingEmail(id, for: principal)
  }
}
