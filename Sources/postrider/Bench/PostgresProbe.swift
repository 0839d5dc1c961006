import CLibPQ
import Foundation

/// A plain, blocking connection beside the store's: fills tables, reads counters, measures a bare batch.
///
/// Use it in one task; a call lasts as long as PostgreSQL takes.
final class PostgresProbe {
  private let connection: OpaquePointer

  /// Connects by a libpq URI.
  init(url: String) throws {
    guard let made = PQconnectdb(url) else { throw BenchFailure(description: "out of memory") }
    connection = made
    guard PQstatus(made) == CONNECTION_OK else { throw failure() }
    PQsetNoticeProcessor(made, { _, _ in }, nil)
  }

  deinit { PQfinish(connection) }

  private func failure() -> BenchFailure {
    BenchFailure(description: "PostgreSQL: \(String(cString: PQerrorMessage(connection)))")
  }

  /// Runs SQL text; several statements are allowed. Gives the last result's rows.
  @discardableResult
  func run(_ sql: String) throws -> [[String]] {
    guard let result = PQexec(connection, sql) else { throw failure() }
    defer { PQclear(result) }
    guard [PGRES_COMMAND_OK, PGRES_TUPLES_OK].contains(PQresultStatus(result)) else { throw failure() }
    return (0..<PQntuples(result)).map { row in
      (0..<PQnfields(result)).map { String(cString: PQgetvalue(result, row, $0)) }
    }
  }

  /// The first column of the first row as a number.
  func number(_ sql: String) throws -> Double { Double(try run(sql).first?.first ?? "") ?? 0 }

  /// COPY … FROM STDIN in text format; `lines` makes rows, each ended by a newline, until it returns an empty text.
  func copy(_ sql: String, lines: () -> String) throws {
    guard let begun = PQexec(connection, sql) else { throw failure() }
    defer { PQclear(begun) }
    guard PQresultStatus(begun) == PGRES_COPY_IN else { throw failure() }
    while case let text = lines(), !text.isEmpty {
      guard PQputCopyData(connection, text, Int32(text.utf8.count)) == 1 else { throw failure() }
    }
    guard PQputCopyEnd(connection, nil) == 1 else { throw failure() }
    while let result = PQgetResult(connection) {
      defer { PQclear(result) }
      guard PQresultStatus(result) == PGRES_COMMAND_OK else { throw failure() }
    }
  }

  /// Rows a second of a bare batch: an `unnest` of 1,000 rows in one statement and transaction, on one connection, into a
  /// narrow table with a key; and an update of an indexed column of as many.
  func batchRowsPerSecond(seconds: Double) throws -> (inserted: Double, updated: Double) {
    try run(
      """
      CREATE TABLE bench_batch (id bigint PRIMARY KEY, due timestamptz NOT NULL, number bigint NOT NULL);
      CREATE INDEX bench_batch_due ON bench_batch (due);
      PREPARE bench_insert AS INSERT INTO bench_batch
        SELECT id, now(), 0 FROM unnest($1::bigint[]) AS i (id);
      PREPARE bench_update AS UPDATE bench_batch b SET due = clock_timestamp(), number = b.number + 1
        FROM unnest($1::bigint[]) AS i (id) WHERE b.id = i.id;
      """)
    defer { _ = try? run("DROP TABLE bench_batch; DEALLOCATE bench_insert; DEALLOCATE bench_update") }
    var rows = 0
    func rate(_ statement: String, _ first: (Int) -> Int) throws -> Double {
      let start = ContinuousClock.now
      var count = 0
      while case let elapsed = (ContinuousClock.now - start).inSeconds, elapsed < seconds || count == 0 {
        let from = first(count)
        let ids = (from..<from + 1_000).map { String($0) }.joined(separator: ",")
        try run("EXECUTE \(statement) ('{\(ids)}')")
        count += 1_000
      }
      return Double(count) / (ContinuousClock.now - start).inSeconds
    }
    let inserted = try rate("bench_insert") { count in
      rows = count + 1_000
      return count
    }
    let updated = try rate("bench_update") { count in count % rows }
    return (inserted, updated)
  }
}
