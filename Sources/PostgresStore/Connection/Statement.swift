/// SQL with its bound parameters. Values never stand in the text.
struct Statement: Sendable {
  /// Literal SQL with `$1`, `$2`, …
  var sql: String
  /// The parameters in order.
  var parameters: [PostgresValue]
  /// The name under which a connection keeps its plan; `nil` for what is planned each time.
  var planName: String?

  init(_ sql: String, _ parameters: [PostgresValue] = []) {
    self.sql = sql
    self.parameters = parameters
  }

  /// A statement that every session runs: parsed and planned once for each connection.
  ///
  /// Its name comes from its text, so that two clients of a pooler that share a server's connection mean the same.
  static func kept(_ sql: StaticString, _ parameters: [PostgresValue]) -> Statement {
    var statement = Statement(sql.description, parameters)
    // FNV-1a, 64 bits.
    let hash = sql.withUTF8Buffer { text in
      text.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }
    statement.planName = "postrider_" + String(hash, radix: 36)
    return statement
  }
}
