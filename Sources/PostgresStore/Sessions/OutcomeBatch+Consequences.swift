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
    return [change, .refreshMayRun(mailboxes)] + endBackoffs(indexes) + endWaits(indexes)
  }

  /// A server that takes a test's message has said a new thing about our pace.
  private func endWaits(_ indexes: [Int]) -> [Statement] {
    let passed = indexes.filter { index in
      outcomes[index].writer.job.kind == .test
        && outcomes[index].directions.contains { $0.direction == .outgoing && $0.status == .success }
    }
    if passed.isEmpty { return [] }
    return [
      Statement(
        """
        DELETE FROM send_pace p USING unnest($1, $2) AS i (run_id, mailbox_id)
        JOIN mailbox_schedule t ON t.mailbox_id = i.mailbox_id AND t.kind = 't' AND t.last_run_id = i.run_id
        WHERE p.mailbox_id = i.mailbox_id
        """,
        [.ints(passed.map { firstRun + Int64($0) }), .ids(passed.map { outcomes[$0].writer.job.mailbox })])
    ]
  }

  /// Who was refused for a fault of the server or the profile while somebody edited the profile waits for nothing: the edit
  /// has let the others go on, and did not see this one.
  func endOldWaits() -> [Statement] {
    let waiting = outcomes.indices.filter { index in
      let outcome = outcomes[index]
      return outcome.profileVersion > 0 && outcome.failures == 0 && outcome.failureCode?.rawValue == outcome.next.reason
    }
    if waiting.isEmpty { return [] }
    return [
      Statement(
        """
        UPDATE mailbox_schedule s SET next_due_at = least(s.next_due_at, now() + random() * interval '1 minute')
        FROM unnest($1, $2, $3, $4) AS i (run_id, mailbox_id, kind, profile_version)
        JOIN mailbox m ON m.id = i.mailbox_id JOIN server_profile p ON p.id = m.profile_id
        WHERE s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
          AND p.version <> i.profile_version
        """,
        [
          .ints(waiting.map { firstRun + Int64($0) }), .ids(waiting.map { outcomes[$0].writer.job.mailbox }),
          .texts(waiting.map { outcomes[$0].writer.job.kind.rawValue }),
          .ints(waiting.map { outcomes[$0].profileVersion }),
        ])
    ]
  }

  /// A passed test answers what the direction waits for: its next session comes at once, and counts as the first.
  private func endBackoffs(_ indexes: [Int]) -> [Statement] {
    let passed = indexes.filter { outcomes[$0].writer.job.kind == .test }.flatMap { index in
      outcomes[index].directions.filter { $0.status == .success }.map { (index: index, direction: $0.direction) }
    }
    if passed.isEmpty { return [] }
    let kinds: [JobKind] = passed.map { $0.direction == .incoming ? .poll : .send }
    let statement = Statement(
      """
      UPDATE mailbox_schedule s SET next_due_at = clock_timestamp() + interval '500 milliseconds', reason = 'tested',
        failures = 0, failure_code = NULL
      FROM unnest($1, $2, $3) AS i (run_id, mailbox_id, kind)
      JOIN mailbox_schedule t ON t.mailbox_id = i.mailbox_id AND t.kind = 't' AND t.last_run_id = i.run_id
      WHERE s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.enabled AND s.failure_code IS NOT NULL
        AND s.next_due_at > clock_timestamp() + interval '500 milliseconds'
      """,
      [
        .ints(passed.map { firstRun + Int64($0.index) }),
        .ids(passed.map { outcomes[$0.index].writer.job.mailbox }), .texts(kinds.map(\.rawValue)),
      ])
    return [statement]
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
