import CLibPQ
import PostriderCore

extension PostgresConnection {
  /// Runs a transaction on the connection's thread: BEGIN and the scope travel with its first statement, COMMIT with
  /// its last when the body ends with ``commit(_:)``, otherwise by itself. A deadlock is tried again, three times.
  func transaction<T: Sendable>(
    _ scope: Scope, _ body: @Sendable (isolated PostgresConnection) throws -> T
  ) throws -> T {
    var attempt = 1
    while true {
      do {
        return try transactionOnce(scope, body)
      } catch let error as PostgresError where error.isRetryable && attempt < 4 {
        attempt += 1
      } catch let error as PostgresError where error.isAboutKeptPlan && keepsPlans {
        // From now on this connection plans each time.
        keepsPlans = false
      }
    }
  }

  private func transactionOnce<T: Sendable>(
    _ scope: Scope, _ body: @Sendable (isolated PostgresConnection) throws -> T
  ) throws -> T {
    opening = [Statement("BEGIN"), scope.statement(timeout: options.statementTimeout)]
    committed = false
    isInTransaction = false
    defer { isInTransaction = false }
    do {
      let value = try body(self)
      if !committed { try commit() }
      return value
    } catch {
      rollback()
      // A server that became read-only is no primary any more: the next use looks for the one that is.
      if let error = error as? PostgresError, error.sqlState == PostgresError.readOnly { close() }
      throw error
    }
  }

  /// Runs the last statements of a transaction and commits in the same round trip.
  @discardableResult
  func commit(_ statements: [Statement] = []) throws -> [ResultSet] {
    try commit { send in for statement in statements { try send(statement) } }
  }

  /// Runs the last statements of a transaction as a closure makes them and commits in the same round trip.
  @discardableResult
  func commit(_ produce: (_ send: (Statement) throws -> Void) throws -> Void) throws -> [ResultSet] {
    let results = try pipeline(ending: [Statement("COMMIT")], produce)
    committed = true
    return results.dropLast()
  }

  private func rollback() {
    opening = []
    guard let handle else { return }
    switch PQtransactionStatus(handle) {
    case PQTRANS_IDLE: break
    case PQTRANS_INTRANS, PQTRANS_INERROR:
      // Nothing is lost when this fails: the connection is given up and the server rolls back by itself.
      do { try pipeline([Statement("ROLLBACK")]) } catch { close() }
    default: close()
    }
  }
}
