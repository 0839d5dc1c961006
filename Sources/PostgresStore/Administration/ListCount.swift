import PostriderCore

/// How many rows a list has, found at a cost that does not grow with it: counted as far as a person would, estimated by
/// PostgreSQL's statistics beyond (D166).
struct ListCount: Sendable {
  /// So many rows are counted.
  static let bound: Int64 = 10_000

  /// `FROM … WHERE …`, of which each row counts.
  let source: String
  let parameters: [PostgresValue]
  /// The same without what only leads to an index.
  let estimated: String

  init(_ source: String, _ parameters: [PostgresValue], estimated: String? = nil) {
    self.source = source
    self.parameters = parameters
    self.estimated = estimated ?? source
  }

  /// Counts up to one more than the bound.
  var statement: Statement {
    Statement("SELECT count(*) FROM (SELECT \(source) LIMIT \(Self.bound + 1)) AS counted", parameters)
  }

  /// The total from the statement's result; asks for an estimate where it was not counted to the end.
  func total(_ counted: ResultSet, _ db: isolated PostgresConnection) throws -> (rows: Int, isEstimate: Bool) {
    var row = counted[0]
    let rows = try row.int()
    if rows <= Self.bound { return (Int(rows), false) }
    // The plan's first line says how many rows PostgreSQL expects: `Append  (cost=0.00..1.00 rows=900000 width=0)`.
    let plan = try db.query("EXPLAIN SELECT \(estimated)", parameters).map { try $0.text() }.first ?? ""
    let digits = plan.firstRange(of: "rows=").map { plan[$0.upperBound...].prefix { $0.isNumber } }
    return (Int(max(rows, digits.flatMap { Int64($0) } ?? 0)), true)
  }
}

extension Page {
  /// A page from rows read with one more than the limit, of a list that may be too long to be counted.
  init(
    rows: [Item], limit: Int64, total: (rows: Int, isEstimate: Bool), cursor: (Item) throws -> String
  ) rethrows {
    try self.init(rows: rows, limit: limit, total: Int64(total.rows), cursor: cursor)
    totalIsEstimate = total.isEstimate ? true : nil
  }
}
