import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Alerts, newest first.
  public func alerts(_ filter: AlertFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Alert> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "alerts")
    let condition = AlertCondition(filter, principal)
    let next = condition.parameters.count + 1
    return try await pool.transaction(.api(principal.organizationID)) { db in
      let results = try db.commit([
        Statement(
          Self.alertColumns + condition.sql + """
             AND ($\(next)::timestamptz IS NULL OR (a.last_seen, a.id) < ($\(next), $\(next + 1)))
            ORDER BY a.last_seen DESC, a.id DESC LIMIT $\(next + 2)
            """, condition.parameters + [.microseconds(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM alert a" + condition.sql, condition.parameters),
      ])
      let rows = try results[0].map(Self.listedAlert)
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor(list: "alerts", key: last.lastSeen.microsecondsSince1970, id: last.id.value).text()
      }
    }
  }

  static let alertColumns = """
    SELECT a.id, a.level, a.code, a.text, a.remedy, a.parameters, a.mailbox_id, m.address, a.profile_id, a.run_id,
      a.count, a.first_seen, a.last_seen, a.resolved_at, a.dismissed_by
    FROM alert a LEFT JOIN mailbox m ON m.id = a.mailbox_id
    """

  static func listedAlert(_ row: inout Row) throws -> Alert {
    var alert = try alert(&row)
    alert.dismissedBy = try row.textOrNil()
    return alert
  }

  static func alert(_ row: inout Row) throws -> Alert {
    Alert(
      id: try row.id(), level: try row.word(), code: try row.text(), text: try row.text(),
      remedy: try row.textOrNil(), parameters: try row.json(), mailboxID: try row.idOrNil(),
      mailboxAddress: try row.textOrNil(), profileID: try row.idOrNil(), runID: try row.idOrNil(),
      count: Int(try row.int()), firstSeen: try row.date(), lastSeen: try row.date(), resolvedAt: try row.dateOrNil())
  }
}
