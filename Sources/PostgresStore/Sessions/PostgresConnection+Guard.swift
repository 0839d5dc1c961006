import PostriderCore

extension SessionGuard {
  /// Locks the session's hot row when its generation and fence still hold; no row otherwise.
  var lockStatement: Statement {
    Statement(
      """
      SELECT 1 FROM mailbox_schedule WHERE mailbox_id = $1 AND kind = $2 AND organization_id = $3 AND generation = $4
        AND CASE $6::int WHEN 0 THEN last_fence ELSE coalesce(lane_fences[$6::int], 0) END < $5 FOR NO KEY UPDATE
      """,
      [
        .id(job.mailbox), .text(job.kind.rawValue), .id(organizationID), .int(generation), .int(fence.value),
        .int(Int64(job.lane)),
      ])
  }
}

extension PostgresStore {
  /// Runs a session's write: the guard is checked first, in the same round trip as `first`; throws ``FencedError``
  /// when it does not hold. `finish` gets the results of `first` and ends with a commit.
  func guarded<T: Sendable>(
    _ writer: SessionGuard, first: [Statement],
    finish: @Sendable (isolated PostgresConnection, [ResultSet]) throws -> T
  ) async throws -> T {
    do {
      return try await pool.transaction(.worker) { db in
        let results: [ResultSet]
        do {
          results = try db.pipeline([writer.lockStatement] + first)
        } catch let error as PostgresError where error.isAboutMissingRow {
          // The mailbox was deleted meanwhile.
          throw FencedError(writer: writer)
        }
        // The first statements ran without the lock's consent; the rollback undoes them.
        guard results[0].count == 1 else { throw FencedError(writer: writer) }
        return try finish(db, Array(results.dropFirst()))
      }
    } catch let error as FencedError {
      outcomes.countFenced()
      throw error
    }
  }
}
