import FoundationEssentials
import PostriderCore

/// What a bulk verb has to know of a message in quarantine.
private struct QuarantineFacts: Sendable {
  var id: QuarantineID
  var mailbox: MailboxID
  var uidl: String
  var content: Int64?
  var failureCode: String?
  /// Why the mailbox does not poll.
  var notRunning: String?

  init(_ row: inout Row) throws {
    id = try row.id()
    mailbox = try row.id()
    uidl = try row.text()
    content = try row.intOrNil()
    failureCode = try row.textOrNil()
    notRunning = try row.textOrNil()
  }

  /// Who it was, for the audit: after a discard nothing else knows.
  func entry(_ action: String) throws -> AuditEntry {
    AuditEntry(
      action, "quarantined-message", id.value,
      before: try PostgresValue.jsonText(
        ["mailboxID": mailbox.description, "uidl": uidl, "failureCode": failureCode ?? ""]))
  }
}

extension PostgresStore {
  private static let quarantineColumns = """
    SELECT q.id, q.mailbox_id, m.address, q.uidl, q.failure, q.attempts, c.size_octets, q.created_at,
      q.reprocess_requested_at
    FROM quarantine q JOIN mailbox m ON m.id = q.mailbox_id LEFT JOIN content c ON c.id = q.content_id
    """

  private static func quarantined(_ row: inout Row) throws -> QuarantinedMessage {
    let id: QuarantineID = try row.id()
    let mailbox: MailboxID = try row.id()
    let address = try row.textOrNil()
    let uidl = try row.text()
    let failure = try row.text()
    return QuarantinedMessage(
      id: id, mailboxID: mailbox, mailboxAddress: address, uidl: uidl,
      // A newer release may have written a code that this one does not know; the message is shown all the same.
      failure: (try? JSONDecoder().decode(Failure.self, from: Data(failure.utf8)))
        ?? Failure(.internalError, context: "written by another release"),
      attempts: Int(try row.int()), sizeOctets: try row.intOrNil(), quarantinedAt: try row.date(),
      reprocessRequestedAt: try row.dateOrNil())
  }

  /// Messages in quarantine, newest first.
  public func quarantine(
    _ filter: QuarantineFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<QuarantinedMessage> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "quarantine")
    let condition =
      " WHERE q.organization_id = $1"
      + (filter.mailboxID == nil ? " AND $2::bigint IS NULL" : " AND q.mailbox_id = $2")
      + " AND ($3::text IS NULL OR q.failure->>'code' = $3)"
    let values: [PostgresValue] = [
      .id(principal.organizationID), .id(filter.mailboxID), .text(filter.reason?.rawValue),
    ]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.quarantineColumns + condition + " AND ($4::bigint IS NULL OR q.id < $4) ORDER BY q.id DESC LIMIT $5",
          values + [.int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM quarantine q" + condition, values),
      ])
      let rows = try results[0].map(Self.quarantined)
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor<Int64>(list: "quarantine", key: 0, id: last.id.value).text()
      }
    }
  }

  /// One message in quarantine. Throws ``StoreError/notFound(_:)``.
  public func quarantinedMessage(_ id: QuarantineID, for principal: Principal) async throws -> QuarantinedMessage {
    let rows = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          Self.quarantineColumns + " WHERE q.id = $1 AND q.organization_id = $2",
          [.id(id), .id(principal.organizationID)])
      ])[0].map(Self.quarantined)
    }
    guard let message = rows.first else { throw StoreError.notFound("message in quarantine") }
    return message
  }

  /// The octets that are kept of a message in quarantine, in chunks of at most 1 MiB; each is read when the one before
  /// was taken. Throws ``StoreError/notFound(_:)``, or `not-kept` when the server never handed the message out.
  public func rawQuarantined(
    _ id: QuarantineID, for principal: Principal
  ) async throws -> AsyncThrowingStream<[UInt8], any Error> {
    let organization = principal.organizationID
    let rows = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          "SELECT content_id FROM quarantine WHERE id = $1 AND organization_id = $2", [.id(id), .id(organization)])
      ])[0].map { try $0.intOrNil() }
    }
    guard let content = rows.first else { throw StoreError.notFound("message in quarantine") }
    guard let content else {
      throw StoreError.conflict(
        code: "not-kept", message: "nothing is kept of this message: the server did not hand it out")
    }
    return octets(of: content, organization, .api(principal))
  }

  /// Asks for another attempt at messages in quarantine and for a poll of their mailboxes; one answer per row, in the
  /// order asked. They stay in quarantine until a worker has stored them. Asking twice is asking once.
  ///
  /// Refused per row with `not-found`, or with `not-running` where the incoming direction is not running: nothing would
  /// happen. With `dryRun` nothing is written.
  public func reprocess(
    _ ids: [QuarantineID], dryRun: Bool, by principal: Principal
  ) async throws -> [QuarantineResult] {
    try await forEach(ids, dryRun: dryRun, principal, refusal: \.notRunningRefusal) { messages in
      let mailboxes = Self.mailboxes(messages)
      return [
        Statement(
          "UPDATE quarantine SET reprocess_requested_at = coalesce(reprocess_requested_at, now()) WHERE id = ANY ($1)",
          [.ids(messages.map(\.id))]),
        // Begun anew: what the server hands out gets three attempts again.
        Self.changeLedger(messages, from: "quarantined", to: "failing"),
      ] + Self.requestStatements(.poll, of: mailboxes, mailboxes.count <= Self.interactiveLimit ? .interactive : .poll)
        + [.audit(try messages.map { try $0.entry("quarantine.reprocess") }, by: principal)]
    }
  }

  /// Deletes messages from quarantine with the octets kept of them; one answer per row, in the order asked. Their
  /// ledger rows stay, so they are not fetched again; they stay on the server.
  ///
  /// Refused per row with `not-found`. With `dryRun` nothing is written.
  public func discard(
    _ ids: [QuarantineID], dryRun: Bool, by principal: Principal
  ) async throws -> [QuarantineResult] {
    try await forEach(ids, dryRun: dryRun, principal, refusal: { _ in nil }) { messages in
      [
        Statement("DELETE FROM quarantine WHERE id = ANY ($1)", [.ids(messages.map(\.id))]),
        Self.changeLedger(messages, from: "failing", to: "quarantined"),
      ] + Self.afterLeaving(Self.mailboxes(messages), contents: messages.compactMap(\.content))
        + [.audit(try messages.map { try $0.entry("quarantine.discard") }, by: principal)]
    }
  }

  private static func mailboxes(_ messages: [QuarantineFacts]) -> [MailboxID] {
    Array(Set(messages.map(\.mailbox))).sorted()
  }

  private static func changeLedger(_ messages: [QuarantineFacts], from: String, to: String) -> Statement {
    Statement(
      """
      UPDATE ledger l SET state = $3, attempts = 0, seen_at = now() FROM unnest($1, $2) AS i (mailbox_id, uidl)
      WHERE l.mailbox_id = i.mailbox_id AND l.uidl = i.uidl AND l.state = $4
      """,
      [.ids(messages.map(\.mailbox)), .texts(messages.map(\.uidl)), .text(to), .text(from)])
  }

  /// Locks what the messages belong to, asks for each whether it is refused, and changes the others.
  ///
  /// The polls' hot rows are locked before anything else of the messages: a session that writes of one of them holds its
  /// row, so neither meets the other half done.
  private func forEach(
    _ ids: [QuarantineID], dryRun: Bool, _ principal: Principal,
    refusal: @Sendable (QuarantineFacts) -> (code: String, message: String)?,
    _ changes: @Sendable ([QuarantineFacts]) throws -> [Statement]
  ) async throws -> [QuarantineResult] {
    if ids.isEmpty { return [] }
    let key: [PostgresValue] = [.ids(ids), .id(principal.organizationID)]
    return try await pool.transaction(.api(principal)) { db in
      let mailboxes = try db.query(
        "SELECT DISTINCT mailbox_id FROM quarantine WHERE id = ANY ($1) AND organization_id = $2 ORDER BY mailbox_id",
        key
      ).map { try $0.id() as MailboxID }
      let rows = try db.pipeline([
        Statement("SELECT 1 FROM mailbox WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", [.ids(mailboxes)]),
        Self.lockRows(.poll, of: mailboxes),
        Statement(
          """
          SELECT q.id, q.mailbox_id, q.uidl, q.content_id, q.failure->>'code', \(MailboxQuery.reason("incoming"))
          FROM quarantine q JOIN mailbox m ON m.id = q.mailbox_id JOIN organization o ON o.id = m.organization_id
          LEFT JOIN server_profile p ON p.id = m.profile_id
          WHERE q.id = ANY ($1) AND q.organization_id = $2 ORDER BY q.id FOR UPDATE OF q
          """, key),
      ])[2].map { try QuarantineFacts(&$0) }
      let accepted = rows.filter { refusal($0) == nil }
      try db.commit(accepted.isEmpty || dryRun ? [] : try changes(accepted))
      let found = Dictionary(uniqueKeysWithValues: rows.map { ($0.id, $0) })
      return ids.map { id in
        guard let facts = found[id] else {
          return QuarantineResult(
            id: id, ok: false, code: "not-found", message: "there is no such message in quarantine")
        }
        let refusal = refusal(facts)
        return QuarantineResult(id: id, ok: refusal == nil, code: refusal?.code, message: refusal?.message)
      }
    }
  }
}

extension QuarantineFacts {
  fileprivate var notRunningRefusal: (code: String, message: String)? {
    notRunning.map { ("not-running", "the incoming direction of mailbox \(mailbox) is not running: \($0)") }
  }
}
