import FoundationEssentials
import PostriderCore

/// One step of a message on its way out.
enum SendStep: Sendable {
  /// Take on the first message that is due.
  case claim(SessionGuard)
  /// Its end is about to leave.
  case handover(OutgoingEmailID, SessionGuard)
  /// What became of it.
  case finish(OutgoingEmailID, AttemptResult, SessionGuard)
}

/// What became of a step.
enum SendAnswer: Sendable {
  /// Committed; a claim that found nothing due has no message.
  case done(ClaimedMessage?)
  /// A newer session or a change of profile came before.
  case fenced
}

/// Steps of many sessions, written in one transaction: claims of different mailboxes, and anything else.
struct SendBatch: Sendable {
  let steps: [SendStep]

  private struct Claim {
    var index: Int
    var writer: SessionGuard
  }

  private struct Handover {
    var index: Int
    var message: OutgoingEmailID
    var writer: SessionGuard
  }

  private struct Finish {
    var index: Int
    var message: OutgoingEmailID
    var result: AttemptResult
    var writer: SessionGuard
  }

  private let claims: [Claim]
  private let handovers: [Handover]
  private let finishes: [Finish]

  init(_ steps: [SendStep]) {
    self.steps = steps
    var (claims, handovers, finishes): ([Claim], [Handover], [Finish]) = ([], [], [])
    for (index, step) in steps.enumerated() {
      switch step {
      case .claim(let writer): claims.append(Claim(index: index, writer: writer))
      case .handover(let message, let writer):
        handovers.append(Handover(index: index, message: message, writer: writer))
      case .finish(let message, let result, let writer):
        finishes.append(Finish(index: index, message: message, result: result, writer: writer))
      }
    }
    (self.claims, self.handovers, self.finishes) = (claims, handovers, finishes)
  }

  /// Writes them; one answer for each, in order.
  func write(_ db: isolated PostgresConnection) throws -> [SendAnswer] {
    var answers = [SendAnswer](repeating: .fenced, count: steps.count)
    var statements = [Self.byKey]
    if !finishes.isEmpty { statements += try finishStatements() }
    if !handovers.isEmpty { statements.append(handoverStatement) }
    // What is finished first makes room: its mailbox may be asking for the next message already.
    if !claims.isEmpty {
      let claims = sortedClaims
      statements += [lockStatement(claims), claimStatement(claims)]
    }
    var results = try (claims.isEmpty ? db.commit(statements) : db.pipeline(statements)).dropFirst()
    if !finishes.isEmpty {
      for index in try results[results.startIndex + 1].map({ Int(try $0.int()) }) { answers[index] = .done(nil) }
      results = results.dropFirst(3)
    }
    if !handovers.isEmpty {
      for index in try results[results.startIndex].map({ Int(try $0.int()) }) { answers[index] = .done(nil) }
      results = results.dropFirst()
    }
    if claims.isEmpty { return answers }
    for index in try results[results.startIndex].map({ Int(try $0.int()) }) { answers[index] = .done(nil) }
    for (index, message) in try read(results[results.startIndex + 1], db) { answers[index] = .done(message) }
    return answers
  }

  /// Every row is looked up by key. A planner that knows a young table as empty reads all of it for each batch, and keeps
  /// that plan while the table grows.
  private static let byKey = Statement.kept(
    """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
    set_config('enable_mergejoin', 'off', true)
    """, [])

  // MARK: Claims

  private func columns(_ writers: [SessionGuard], _ indexes: [Int]) -> [PostgresValue] {
    [
      .ints(indexes.map { Int64($0) }), .ids(writers.map(\.job.mailbox)), .ids(writers.map(\.organizationID)),
      .ints(writers.map(\.generation)), .ints(writers.map(\.fence.value)), .ints(writers.map { Int64($0.job.lane) }),
    ]
  }

  /// The claims in the order of their mailboxes, in which hot rows are locked everywhere.
  private var sortedClaims: [Claim] { claims.sorted { $0.writer.job.mailbox < $1.writer.job.mailbox } }

  /// The hot rows of the sessions whose generation and fence still hold.
  ///
  /// Each is looked up in a subquery of its own, which no plan can turn round: one made while the tables were small would
  /// read every hot row of the cluster for a few claims.
  private func lockStatement(_ claims: [Claim]) -> Statement {
    .kept(
      """
      SELECT i.index FROM unnest($1, $2, $3, $4, $5, $6)
        AS i (index, mailbox_id, organization_id, generation, fence, lane)
      CROSS JOIN LATERAL (
        SELECT FROM mailbox_schedule s
        WHERE s.mailbox_id = i.mailbox_id AND s.kind = 's' AND s.organization_id = i.organization_id
          AND s.generation = i.generation
          AND CASE i.lane WHEN 0 THEN s.last_fence ELSE coalesce(s.lane_fences[i.lane::int], 0) END < i.fence
        LIMIT 1 FOR NO KEY UPDATE
      ) AS held
      """, columns(claims.map(\.writer), claims.map(\.index)))
  }

  private func claimStatement(_ claims: [Claim]) -> Statement {
    .kept(
      """
      UPDATE outgoing_email e SET state = 'sending', fence = c.fence, unsent_fence = c.fence, lane = c.lane,
        attempts = e.attempts + 1, tried_since = coalesce(e.tried_since, now()), tried_recipients = NULL,
        updated_at = now()
      FROM (
        SELECT i.index, i.fence, i.lane, due.id FROM unnest($1, $2, $3, $4, $5, $6)
          AS i (index, mailbox_id, organization_id, generation, fence, lane)
        CROSS JOIN LATERAL (
          SELECT FROM mailbox_schedule s
          WHERE s.mailbox_id = i.mailbox_id AND s.kind = 's' AND s.organization_id = i.organization_id
            AND s.generation = i.generation
            AND CASE i.lane WHEN 0 THEN s.last_fence ELSE coalesce(s.lane_fences[i.lane::int], 0) END < i.fence
          LIMIT 1
        ) AS held
        CROSS JOIN LATERAL (
          SELECT d.id FROM outgoing_email d
          WHERE d.mailbox_id = i.mailbox_id AND d.state = 'pending-send' AND d.next_try_at <= now()
          ORDER BY d.priority, d.next_try_at, d.id LIMIT 1
        ) AS due
        WHERE NOT EXISTS (SELECT FROM send_pace p WHERE p.mailbox_id = i.mailbox_id AND p.waits_until > now())
      ) AS c
      WHERE e.id = c.id AND e.state = 'pending-send'
      RETURNING c.index, e.id, e.sender, e.attempts, e.tried_since, e.content_id, e.size_octets,
        e.encoding, e.message_id, e.dsn
      """, columns(claims.map(\.writer), claims.map(\.index)))
  }

  /// Reads recipients and the beginning of each message that was taken on, and commits.
  private func read(
    _ rows: ResultSet, _ db: isolated PostgresConnection
  ) throws -> [(index: Int, message: ClaimedMessage)] {
    var claimed = try rows.map { row in
      let index = Int(try row.int())
      var message = ClaimedMessage(
        id: try row.id(), sender: try row.text(), recipients: [], accepted: 0, failed: 0,
        attempt: Int(try row.int()), waitsSince: try row.date(),
        content: StoredMessageContent(
          id: try row.int(), organizationID: writer(index).organizationID, sizeOctets: try row.int(),
          encoding: .sevenBit, first: ContentPiece(octets: [], next: .start)))
      message.content.encoding = try row.word()
      message.messageID = try row.text()
      message.notification = try row.jsonOrNil()
      return (index: index, message: message)
    }
    if claimed.isEmpty {
      try db.commit()
      return []
    }
    let found = try db.commit([
      .kept(
        """
        SELECT i.place, r.address, r.state FROM unnest($1, $2) AS i (place, email_id)
        JOIN outgoing_recipient r ON r.email_id = i.email_id ORDER BY i.place, r.position
        """, [.ints(claimed.indices.map { Int64($0) }), .ids(claimed.map(\.message.id))]),
      PostgresStore.firstPieces(of: claimed.map(\.message.content)),
    ])
    for row in 0..<found[0].count {
      var row = found[0][row]
      let place = Int(try row.int())
      let address = try row.text()
      switch try row.word() as RecipientState {
      case .pending: claimed[place].message.recipients.append(address)
      case .accepted: claimed[place].message.accepted += 1
      case .failed: claimed[place].message.failed += 1
      case .canceled, .uncertain: break
      }
    }
    for row in 0..<found[1].count {
      var row = found[1][row]
      let place = Int(try row.int())
      claimed[place].message.content.first = try PostgresStore.piece(&row, at: .start)
    }
    return claimed
  }

  private func writer(_ index: Int) -> SessionGuard {
    switch steps[index] {
    case .claim(let writer), .handover(_, let writer), .finish(_, _, let writer): writer
    }
  }

  // MARK: Handovers and results

  private var handoverStatement: Statement {
    .kept(
      """
      UPDATE outgoing_email e SET unsent_fence = NULL
      FROM unnest($1, $2, $3, $4) AS i (index, id, organization_id, fence)
      WHERE e.id = i.id AND e.organization_id = i.organization_id AND e.state = 'sending' AND e.fence = i.fence
      RETURNING i.index
      """,
      [
        .ints(handovers.map { Int64($0.index) }), .ids(handovers.map(\.message)),
        .ids(handovers.map(\.writer.organizationID)), .ints(handovers.map(\.writer.fence.value)),
      ])
  }

  /// Writes the messages' states – one that is sent in part names why, also when that was in an earlier attempt –, says
  /// whose stand – a result that is sent again after a lost connection does, too – and
  /// writes those messages' recipients.
  private func finishStatements() throws -> [Statement] {
    let key: [PostgresValue] = [
      .ints(finishes.map { Int64($0.index) }), .ids(finishes.map(\.message)),
      .ids(finishes.map(\.writer.organizationID)), .ints(finishes.map(\.writer.fence.value)),
      .texts(finishes.map(\.result.state.rawValue)),
    ]
    let rows = finishes.flatMap { finish in finish.result.recipients.map { (finish, $0) } }
    return [
      .kept(
        """
        UPDATE outgoing_email e SET state = i.state, failure_code = coalesce(i.failure_code, f.failure_code),
          failure = coalesce(i.failure::jsonb, f.failure),
          next_try_at = coalesce(i.next_try_at, e.next_try_at), updated_at = now(), tried_recipients = NULL,
          sent_at = CASE WHEN i.state IN ('sent', 'partly-sent') THEN now() ELSE e.sent_at END
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
          AS i (index, id, organization_id, fence, state, failure_code, failure, next_try_at)
        LEFT JOIN LATERAL (
          SELECT r.failure_code, r.failure FROM outgoing_recipient r
          WHERE i.state = 'partly-sent' AND i.failure_code IS NULL AND r.email_id = i.id AND r.state = 'failed'
          ORDER BY r.position LIMIT 1
        ) AS f ON true
        WHERE e.id = i.id AND e.organization_id = i.organization_id AND e.state = 'sending' AND e.fence = i.fence
        """,
        key + [
          .texts(finishes.map(\.result.failure?.code.rawValue)),
          .texts(try finishes.map { try $0.result.failure.map { try PostgresValue.jsonText($0) } }),
          .times(finishes.map(\.result.nextTryAt)),
        ]),
      .kept(
        """
        SELECT i.index FROM unnest($1, $2, $3, $4, $5) AS i (index, id, organization_id, fence, state)
        JOIN outgoing_email e ON e.id = i.id AND e.organization_id = i.organization_id
        WHERE e.state = i.state AND e.fence = i.fence
        """, key),
      .kept(
        """
        UPDATE outgoing_recipient r SET state = i.state, failure_code = i.code, failure = i.failure::jsonb
        FROM unnest($1, $2, $3, $4, $5, $6, $7)
          AS i (email_id, message_state, fence, address, state, code, failure)
        JOIN outgoing_email e ON e.id = i.email_id AND e.state = i.message_state AND e.fence = i.fence
        WHERE r.email_id = i.email_id AND r.address = i.address AND r.state = 'pending'
        """,
        [
          .ids(rows.map(\.0.message)), .texts(rows.map(\.0.result.state.rawValue)),
          .ints(rows.map(\.0.writer.fence.value)), .texts(rows.map(\.1.address)),
          .texts(rows.map(\.1.state.rawValue)), .texts(rows.map(\.1.failure?.code.rawValue)),
          .texts(try rows.map { try $0.1.failure.map { try PostgresValue.jsonText($0) } }),
        ]),
    ]
  }
}
