import FoundationEssentials
import PostriderCore

/// Outcomes of different mailboxes, written in one transaction and one round trip.
///
/// The first statements lock the rows in (mailbox, kind) order and update those whose guard holds; the others find the
/// winners by the number of the run, which the writer has chosen before: a hot row that names it was written here.
struct OutcomeBatch: Sendable {
  let outcomes: [SessionOutcome]
  /// The slot that each poll served; `nil` where it is not known and for everything else.
  let slots: [Date?]
  /// The outcome at index i writes run firstRun + i.
  let firstRun: Int64

  private func run(_ index: Int) -> Int64 { firstRun + Int64(index) }

  /// Writes them; one result per outcome, in order.
  func write(_ db: isolated PostgresConnection) throws -> [OutcomeResult] {
    var statements: [Statement] = []
    let directions = outcomes.indices.filter { !outcomes[$0].directions.isEmpty }
    if !directions.isEmpty { statements.append(lockMailboxes(directions)) }
    statements.append(lock)
    let lockIndex = statements.count - 1
    statements.append(update)
    statements.append(try insertRuns())
    statements += insertSteps()
    if !directions.isEmpty { statements += changeDirections(directions) }
    statements += try alertStatements()
    statements += endOldWaits()
    let results = try db.commit(statements)
    return try outcomeResults(locked: results[lockIndex], updated: results[lockIndex + 1])
  }

  /// Written, fenced, or written earlier: an outcome sent again after a lost connection names the same fence.
  private func outcomeResults(locked: ResultSet, updated: ResultSet) throws -> [OutcomeResult] {
    var results = [OutcomeResult](repeating: .fenced, count: outcomes.count)
    for row in 0..<locked.count {
      var row = locked[row]
      let index = Int(try row.int())
      let fence = try row.int()
      let generation = try row.int()
      let lastRun: RunID? = try row.idOrNil()
      let writer = outcomes[index].writer
      if let lastRun, fence == writer.fence.value, generation == writer.generation {
        results[index] = .written(lastRun)
      }
    }
    for row in 0..<updated.count {
      var row = updated[row]
      let index = Int(try row.int())
      results[index] = .written(RunID(run(index)))
    }
    return results
  }

  private var indexes: PostgresValue { .ints(outcomes.indices.map { Int64($0) }) }
  private var mailboxes: PostgresValue { .ids(outcomes.map(\.writer.job.mailbox)) }
  private var kinds: PostgresValue { .texts(outcomes.map(\.writer.job.kind.rawValue)) }
  private var lanes: PostgresValue { .ints(outcomes.map { Int64($0.writer.job.lane) }) }
  private var runs: PostgresValue { .ints(outcomes.indices.map(run)) }

  /// Mailboxes are locked before hot rows everywhere, so that no two transactions wait for each other.
  private func lockMailboxes(_ indexes: [Int]) -> Statement {
    Statement(
      "SELECT 1 FROM mailbox WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE",
      [.ids(indexes.map { outcomes[$0].writer.job.mailbox })])
  }

  private var lock: Statement {
    .kept(
      """
      SELECT i.index, CASE i.lane WHEN 0 THEN s.last_fence ELSE coalesce(s.lane_fences[i.lane::int], 0) END,
        s.generation, s.last_run_id
      FROM unnest($1, $2, $3, $4) AS i (index, mailbox_id, kind, lane)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind
      ORDER BY s.mailbox_id, s.kind FOR NO KEY UPDATE OF s
      """, [indexes, mailboxes, kinds, lanes])
  }

  /// When a mailbox sends next is read from its messages here and not by the session, because another lane may have put a
  /// message off meanwhile; not before what the outcome says. A message that another lane is sending is looked after in
  /// half a minute, in case that lane dies and the queue with it.
  ///
  /// A row that is due at once is written due half a second ahead: the scheduler's watermark has not passed it when it
  /// becomes visible, and the job's lease is ended by then. Otherwise only the next rescan would find it.
  private var update: Statement {
    .kept(
      """
      UPDATE mailbox_schedule s SET
        last_fence = CASE i.lane WHEN 0 THEN i.fence ELSE s.last_fence END,
        lane_fences = CASE i.lane WHEN 0 THEN s.lane_fences
          ELSE with_lane_fence(s.lane_fences, i.lane::int, i.fence) END,
        served = greatest(s.served, i.served),
        next_due_at = CASE
          WHEN s.requested > i.served THEN clock_timestamp() + interval '500 milliseconds'
          WHEN s.kind = 's' THEN (
            SELECT greatest(least(w.pending, w.sending), i.next_due_at,
              CASE WHEN i.keeps AND s.failure_code IS NOT NULL THEN s.next_due_at END,
              clock_timestamp() + interval '500 milliseconds')
            FROM (SELECT
              (SELECT min(n.at) FROM generate_series(0, 2) AS p (priority) CROSS JOIN LATERAL (
                SELECT e.next_try_at AS at FROM outgoing_email e
                WHERE e.mailbox_id = i.mailbox_id AND e.priority = p.priority AND e.state = 'pending-send'
                ORDER BY e.next_try_at LIMIT 1) AS n) AS pending,
              (SELECT now() + interval '30 seconds' FROM outgoing_email e
                WHERE e.mailbox_id = i.mailbox_id AND e.state = 'sending' LIMIT 1) AS sending) AS w
            WHERE w.pending IS NOT NULL OR w.sending IS NOT NULL)
          WHEN i.next_due_at IS NOT NULL THEN greatest(i.next_due_at, clock_timestamp() + interval '500 milliseconds')
          END,
        reason = CASE WHEN s.requested > i.served THEN 'request'
          WHEN i.reason = 'next-try' AND NOT EXISTS (SELECT FROM outgoing_email e
            WHERE e.mailbox_id = i.mailbox_id AND e.state IN ('pending-send', 'sending')) THEN 'sent'
          ELSE i.reason END,
        job_class = CASE WHEN s.requested > i.served THEN s.job_class
          ELSE CASE s.kind WHEN 's' THEN 1 WHEN 'p' THEN 2 ELSE 3 END END,
        failures = CASE WHEN i.keeps THEN s.failures ELSE i.failures END,
        failure_code = CASE WHEN i.keeps THEN s.failure_code ELSE i.failure_code END,
        last_run_id = i.run_id,
        last_run_at = i.finished_at,
        verbose_runs = greatest(s.verbose_runs - 1, 0),
        slot_at = greatest(s.slot_at, i.slot_at),
        slot_gap_seconds = CASE WHEN i.slot_at > s.slot_at THEN extract(epoch FROM i.slot_at - s.slot_at)::int
          ELSE s.slot_gap_seconds END,
        gap_code = CASE WHEN i.slot_at > s.slot_at THEN s.failure_code ELSE s.gap_code END
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS i (index, mailbox_id,
        kind, lane, generation, fence, organization_id, served, next_due_at, reason, failures, failure_code, run_id,
        finished_at, slot_at, keeps)
      WHERE s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.organization_id = i.organization_id
        AND s.generation = i.generation
        AND CASE i.lane WHEN 0 THEN s.last_fence ELSE coalesce(s.lane_fences[i.lane::int], 0) END < i.fence
      RETURNING i.index
      """,
      [
        indexes, mailboxes, kinds, lanes, .ints(outcomes.map(\.writer.generation)),
        .ints(outcomes.map(\.writer.fence.value)), .ids(outcomes.map(\.writer.organizationID)),
        .ints(outcomes.map(\.served)), .times(outcomes.map(\.next.at)), .texts(outcomes.map(\.next.reason)),
        .ints(outcomes.map { Int64($0.failures) }), .texts(outcomes.map(\.failureCode?.rawValue)), runs,
        .times(outcomes.map(\.run.finishedAt)), .times(slots), .bools(outcomes.map(\.keepsFailure)),
      ])
  }

  private func insertRuns() throws -> Statement {
    let records = outcomes.map(\.run)
    return .kept(
      """
      INSERT INTO run (id, organization_id, mailbox_id, kind, trigger, worker, fence, due_at, started_at, finished_at,
        result, failure_code, failure, messages_stored, octets_stored, messages_known, messages_failed, messages_sent)
      SELECT i.id, s.organization_id, s.mailbox_id, s.kind, i.trigger, i.worker, i.fence, i.due_at, i.started_at,
        i.finished_at, i.result, i.failure_code, i.failure::jsonb, i.messages_stored, i.octets_stored,
        i.messages_known, i.messages_failed, i.messages_sent
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        AS i (id, mailbox_id, kind, trigger, worker, fence, due_at, started_at, finished_at, result, failure_code,
          failure, messages_stored, octets_stored, messages_known, messages_failed, messages_sent)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.id
      """,
      [
        runs, mailboxes, kinds, .texts(records.map(\.trigger.rawValue)), .texts(records.map(\.worker)),
        .ints(outcomes.map(\.writer.fence.value)), .times(records.map(\.dueAt)), .times(records.map(\.startedAt)),
        .times(records.map(\.finishedAt)), .texts(records.map(\.result.rawValue)),
        .texts(records.map(\.failure?.code.rawValue)),
        .texts(try records.map { try $0.failure.map { try PostgresValue.jsonText($0) } }),
        .ints(records.map { Int64($0.messagesStored) }), .ints(records.map(\.octetsStored)),
        .ints(records.map { Int64($0.messagesKnown) }), .ints(records.map { Int64($0.messagesFailed) }),
        .ints(records.map { Int64($0.messagesSent) }),
      ])
  }

  private func insertSteps() -> [Statement] {
    let rows = outcomes.indices.flatMap { index in
      outcomes[index].run.steps.enumerated().map { (index: index, position: $0.offset, step: $0.element) }
    }
    if rows.isEmpty { return [] }
    let statement = Statement(
      """
      INSERT INTO run_step (run_id, organization_id, run_started_at, position, direction, name, tried, result,
        started_at, milliseconds, server_words, code, remedy)
      SELECT i.run_id, s.organization_id, i.run_started_at, i.position, i.direction, i.name, i.tried, i.result,
        i.started_at, i.milliseconds, i.server_words, i.code, i.remedy
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS i (run_id, mailbox_id, kind, run_started_at, position, direction, name, tried, result, started_at,
          milliseconds, server_words, code, remedy)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      """,
      [
        .ints(rows.map { run($0.index) }), .ids(rows.map { outcomes[$0.index].writer.job.mailbox }),
        .texts(rows.map { outcomes[$0.index].writer.job.kind.rawValue }),
        .times(rows.map { outcomes[$0.index].run.startedAt }), .ints(rows.map { Int64($0.position) }),
        .texts(rows.map(\.step.direction.rawValue)), .texts(rows.map(\.step.name.rawValue)),
        .texts(rows.map(\.step.tried)), .texts(rows.map(\.step.result.rawValue)), .times(rows.map(\.step.startedAt)),
        .doubles(rows.map(\.step.milliseconds)), .texts(rows.map(\.step.serverWords)),
        .texts(rows.map(\.step.code?.rawValue)), .texts(rows.map(\.step.remedy)),
      ])
    return [statement]
  }
}
