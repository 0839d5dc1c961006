import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Runs as people see them, read from the table or from some of its rows as `r`.
  static func runColumns(_ source: String = "run") -> String {
    """
    SELECT r.id, r.mailbox_id, m.address, r.kind, r.trigger, r.worker, r.fence, r.due_at, r.started_at, r.finished_at,
      r.result, r.failure_code, r.failure, r.messages_stored, r.octets_stored, r.messages_known, r.messages_failed,
      r.messages_sent
    FROM \(source) r LEFT JOIN mailbox m ON m.id = r.mailbox_id
    """
  }

  static func run(_ row: inout Row) throws -> RunRecord {
    var run = RunRecord(
      id: try row.id(), mailboxID: try row.id(), mailboxAddress: try row.textOrNil(), kind: try row.word(),
      trigger: try row.word(), worker: try row.text(), fence: Fence(try row.int()), dueAt: try row.date(),
      startedAt: try row.date(), finishedAt: try row.date(), result: try row.word())
    let code = try row.textOrNil()
    let failure = try row.textOrNil()
    if let code {
      // A newer release may have written a code that this one does not know; the run is shown all the same.
      run.failure =
        failure.flatMap { try? JSONDecoder().decode(Failure.self, from: Data($0.utf8)) }
        ?? Failure(.internalError, context: "unknown code \(code)")
    }
    run.messagesStored = Int(try row.int())
    run.octetsStored = try row.int()
    run.messagesKnown = Int(try row.int())
    run.messagesFailed = Int(try row.int())
    run.messagesSent = Int(try row.int())
    return run
  }

  /// One run with its steps. Throws ``StoreError/notFound(_:)``.
  public func run(_ id: RunID, for principal: Principal) async throws -> RunRecord {
    try await pool.transaction(.api(principal)) { db in
      let key: [PostgresValue] = [.id(id), .id(principal.organizationID)]
      let results = try db.commit([
        Statement(Self.runColumns() + " WHERE r.id = $1 AND r.organization_id = $2", key),
        Statement(
          """
          SELECT direction, name, tried, result, started_at, milliseconds, server_words, code, remedy FROM run_step
          WHERE run_id = $1 AND organization_id = $2 ORDER BY position
          """, key),
      ])
      guard var run = try results[0].map(Self.run).first else { throw StoreError.notFound("run") }
      run.steps = try results[1].map(Self.step)
      return run
    }
  }

  private static func step(_ row: inout Row) throws -> TraceStep {
    TraceStep(
      direction: try row.word(), name: try row.word(), tried: try row.text(), result: try row.word(),
      startedAt: try row.date(), milliseconds: try row.double(), serverWords: try row.textOrNil(),
      code: try row.textOrNil().flatMap { FailureCode(rawValue: $0) }, remedy: try row.textOrNil())
  }
}
