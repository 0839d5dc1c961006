import FoundationEssentials
import PostriderCore

/// What keeps two programs from answering each other for ever (RFC 3834).
extension PostgresStore {
  /// Why a message must not leave by itself; `nil` when it may. The mailbox's row is locked: two submits do not both find
  /// the last place free.
  static func loop(
    _ message: OutgoingSubmission, _ db: isolated PostgresConnection, _ principal: Principal
  ) throws -> Failure? {
    guard let correspondent = message.correspondent else { return nil }
    let mailbox = PostgresValue.id(message.mailboxID)
    let results = try db.pipeline([
      Statement(
        """
        SELECT count(*) FROM (SELECT FROM outgoing_email WHERE mailbox_id = $1 AND correspondent = $2
          AND created_at > now() - interval '1 hour' AND state NOT IN ('draft', 'canceled') LIMIT 10000) AS lately
        """, [mailbox, .text(correspondent)]),
      Statement(
        """
        SELECT (m.send_quota->>'answersPerHour')::int, (p.send_quota->>'answersPerHour')::int
        FROM mailbox m LEFT JOIN server_profile p ON p.id = m.profile_id
        WHERE m.id = $1 AND m.organization_id = $2
        """, [mailbox, .id(principal.organizationID)]),
      Statement(
        """
        SELECT message_class FROM email
        WHERE mailbox_id = $1 AND message_id = $2 AND message_class <> 'ordinary' LIMIT 1
        """, [mailbox, .text(message.inReplyTo)]),
    ])
    // What was written by a program may be answered by a person, and told of by a program that nobody asked.
    let answered = try results[2].map { try $0.word() as MessageClass }.first
    if message.autoSubmitted == .replied, let answered {
      return Failure(
        .sendAutomaticAnswer,
        context: answered == .bounce ? "it answers a delivery report" : "it answers an automatic message")
    }
    var count = results[0][0]
    let sent = try count.int()
    let caps = try results[1].map { (try $0.intOrNil(), try $0.intOrNil()) }.first
    let cap = caps?.0 ?? caps?.1 ?? Int64(SendQuota.standardAnswersPerHour)
    if sent < cap { return nil }
    return Failure(.sendLoop, context: "\(sent) answers to \(correspondent) within an hour")
  }

  /// The mailbox's wall says it; repeats count.
  static func loopAlert(_ failure: Failure, _ mailbox: MailboxID, _ principal: Principal) throws -> Statement {
    let draft = AlertDraft(level: .warning, failure: failure, direction: .outgoing)
    return Statement(
      """
      INSERT INTO alert AS a (organization_id, mailbox_id, code, direction, level, text, remedy, parameters)
      VALUES ($1, $2, $3, 'outgoing', $4, $5, $6, $7::jsonb)
      ON CONFLICT (mailbox_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL
      DO UPDATE SET count = a.count + 1, last_seen = now(), text = EXCLUDED.text, parameters = EXCLUDED.parameters
      """,
      [
        .id(principal.organizationID), .id(mailbox), .text(draft.code), .text(draft.level.rawValue), .text(draft.text),
        .text(draft.remedy), .text(try PostgresValue.jsonText(draft.parameters)),
      ])
  }
}
