import FoundationEssentials
import PostriderCore

extension OutcomeBatch {
  /// Writes the directions' states, derives "may run" again and announces what changed.
  func changeDirections(_ indexes: [Int]) -> [Statement] {
    func last(_ index: Int, _ direction: Direction) -> DirectionChange? {
      outcomes[index].directions.last { $0.direction == direction }
    }
    let incoming = indexes.map { last($0, .incoming) }
    let outgoing = indexes.map { last($0, .outgoing) }
    let mailboxes = PostgresValue.ids(indexes.map { outcomes[$0].writer.job.mailbox })
    let change = Statement(
      """
      UPDATE mailbox m SET
        incoming_status = coalesce(i.in_status, m.incoming_status),
        incoming_enabled = coalesce(i.in_enabled, m.incoming_enabled),
        incoming_failure_code = CASE WHEN i.in_status IS NULL THEN m.incoming_failure_code ELSE i.in_code END,
        incoming_failed_at = CASE WHEN i.in_status IS NULL THEN m.incoming_failed_at
          WHEN i.in_code IS NULL THEN NULL ELSE now() END,
        outgoing_status = coalesce(i.out_status, m.outgoing_status),
        outgoing_enabled = coalesce(i.out_enabled, m.outgoing_enabled),
        outgoing_failure_code = CASE WHEN i.out_status IS NULL THEN m.outgoing_failure_code ELSE i.out_code END,
        outgoing_failed_at = CASE WHEN i.out_status IS NULL THEN m.outgoing_failed_at
          WHEN i.out_code IS NULL THEN NULL ELSE now() END
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
        AS i (run_id, mailbox_id, kind, in_status, in_enabled, in_code, out_status, out_enabled, out_code)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      WHERE m.id = i.mailbox_id
      """,
      [
        .ints(indexes.map { firstRun + Int64($0) }), mailboxes,
        .texts(indexes.map { outcomes[$0].writer.job.kind.rawValue }),
        .texts(incoming.map { $0?.status.rawValue }), .bools(incoming.map { $0?.enabled }),
        .texts(incoming.map { $0?.failureCode?.rawValue }), .texts(outgoing.map { $0?.status.rawValue }),
        .bools(outgoing.map { $0?.enabled }), .texts(outgoing.map { $0?.failureCode?.rawValue }),
      ])
    return [change, .refreshMayRun(mailboxes)]
  }

  /// Resolves first, then raises, so that an outcome may do both.
  func alertStatements() throws -> [Statement] {
    var resolved: [(index: Int, code: String?)] = []
    var onMailbox: [(index: Int, draft: AlertDraft)] = []
    var onProfile: [(index: Int, draft: AlertDraft)] = []
    for index in outcomes.indices {
      for change in outcomes[index].alerts {
        switch change {
        case .resolve(codes: nil): resolved.append((index, nil))
        case .resolve(codes: let codes?): resolved += codes.map { (index, $0) }
        case .raise(let draft) where draft.onProfile: onProfile.append((index, draft))
        case .raise(let draft): onMailbox.append((index, draft))
        }
      }
    }
    var statements: [Statement] = []
    if !resolved.isEmpty { statements.append(resolve(resolved)) }
    if !onMailbox.isEmpty { statements.append(try raise(onMailbox, subject: "mailbox_id")) }
    if !onProfile.isEmpty { statements.append(try raise(onProfile, subject: "profile_id")) }
    return statements
  }

  private func writers(_ indexes: [Int]) -> [PostgresValue] {
    [
      .ints(indexes.map { firstRun + Int64($0) }), .ids(indexes.map { outcomes[$0].writer.job.mailbox }),
      .texts(indexes.map { outcomes[$0].writer.job.kind.rawValue }),
    ]
  }

  private func resolve(_ rows: [(index: Int, code: String?)]) -> Statement {
    Statement(
      """
      UPDATE alert a SET resolved_at = now()
      FROM unnest($1, $2, $3, $4) AS i (run_id, mailbox_id, kind, code)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      WHERE a.mailbox_id = i.mailbox_id AND a.resolved_at IS NULL AND a.level IN ('warning', 'error')
        AND (i.code IS NULL OR a.code = i.code)
      """, writers(rows.map(\.index)) + [.texts(rows.map(\.code))])
  }

  /// Raises alerts on one kind of subject; repeats within the batch count together.
  private func raise(_ rows: [(index: Int, draft: AlertDraft)], subject: String) throws -> Statement {
    Statement(
      """
      INSERT INTO alert AS a (organization_id, \(subject), code, level, text, remedy, parameters, run_id, count)
      SELECT DISTINCT ON (i.subject_id, i.code) s.organization_id, i.subject_id, i.code, i.level, i.text, i.remedy,
        i.parameters::jsonb, i.run_id, count(*) OVER (PARTITION BY i.subject_id, i.code)
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
        AS i (run_id, mailbox_id, kind, subject_id, code, level, text, remedy, parameters)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      ORDER BY i.subject_id, i.code, i.run_id DESC
      ON CONFLICT (\(subject), code) WHERE resolved_at IS NULL AND \(subject) IS NOT NULL DO UPDATE SET
        count = a.count + EXCLUDED.count, last_seen = now(), level = EXCLUDED.level, text = EXCLUDED.text,
        remedy = EXCLUDED.remedy, parameters = EXCLUDED.parameters, run_id = EXCLUDED.run_id
      """,
      writers(rows.map(\.index)) + [
        .ints(
          rows.map { row in
            subject == "profile_id" ? outcomes[row.index].profileID.value : outcomes[row.index].writer.job.mailbox.value
          }),
        .texts(rows.map(\.draft.code)), .texts(rows.map(\.draft.level.rawValue)), .texts(rows.map(\.draft.text)),
        .texts(rows.map(\.draft.remedy)), .texts(try rows.map { try PostgresValue.jsonText($0.draft.parameters) }),
      ])
  }
}

extension Statement {
  /// Derives "may run" of mailboxes again and announces the jobs whose answer changed.
  static func refreshMayRun(_ mailboxes: PostgresValue) -> Statement {
    Statement("SELECT announce_jobs(array(SELECT refresh_may_run($1)))", [mailboxes])
  }
}

extension PostgresStore {
  /// Commits an outcome together with others that wait. Returns when it is durable.
  public func commit(_ outcome: SessionOutcome) async throws -> OutcomeResult {
    try await outcomes.commit(outcome)
  }
}
