/// SQL with its bound parameters. Values never stand in the text.
struct Statement: Sendable {
  /// Literal SQL with `$1`, `$2`, …
  var sql: String
  /// The parameters in order.
  var parameters: [PostgresValue]

  init(_ sql: String, _ parameters: [PostgresValue] = []) {
    self.sql = sql
    self.parameters = parameters
  }
}
