import PostriderCore

/// Commits the steps of messages on their way out in groups: several sessions send at once, and each of their messages
/// needs three commits.
final class SendWriter: Sendable {
  private let pool: ConnectionPool
  private let outcomes: OutcomeWriter
  /// A claim may bring ``ContentPiece/maximumOctets`` of its message, so a batch must not be large. Two at once: while one
  /// waits for the disk the other is worked on.
  private let group = GroupCommit<SendStep, SendAnswer>(batchLimit: 64, writers: 2) { step in
    // Two lanes of a mailbox would take on the same message.
    if case .claim(let writer) = step { writer.job.mailbox } else { nil }
  }

  init(pool: ConnectionPool, outcomes: OutcomeWriter) {
    self.pool = pool
    self.outcomes = outcomes
  }

  /// Commits a step together with others that wait. Throws ``FencedError`` when it came too late.
  @discardableResult
  func commit(_ step: SendStep, _ writer: SessionGuard) async throws -> ClaimedMessage? {
    let pool = pool
    let answer = try await group.run(step) { steps in
      let batch = SendBatch(steps)
      return try await pool.transaction(.worker) { db in try batch.write(db) }
    }
    switch answer {
    case .done(let message): return message
    case .fenced:
      outcomes.countFenced()
      throw FencedError(writer: writer)
    }
  }
}
