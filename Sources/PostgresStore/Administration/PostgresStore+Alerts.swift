import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Alerts, newest first.
  public func alerts(_ filter: AlertFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Alert> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "alerts")
    let condition = """
       WHERE a.organization_id = $1 AND ($2::bigint IS NULL OR a.mailbox_id = $2) AND ($3::text IS NULL OR a.level = $3)
      AND ($4 OR a.resolved_at IS NULL)
      AND (NOT $5 OR a.mailbox_id = ANY (ARRAY(
          SELECT m.id FROM mailbox m WHERE m.organization_id = $1 AND \(MailboxQuery.isMine("$6"))))
        OR a.profile_id IN (SELECT p.id FROM server_profile p WHERE p.organization_id = $1 AND p.owner_id = $6))
      """
    let values: [PostgresValue] = [
      .id(principal.organizationID), .id(filter.mailboxID), .text(filter.level?.rawValue),
      .bool(filter.includeResolved), .bool(filter.isMine), .id(principal.userID),
    ]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          SELECT a.id, a.level, a.code, a.text, a.remedy, a.parameters, a.mailbox_id, m.address, a.profile_id, a.run_id,
            a.count, a.first_seen, a.last_seen, a.resolved_at
          FROM alert a LEFT JOIN mailbox m ON m.id = a.mailbox_id
          """ + condition + """
             AND ($7::timestamptz IS NULL OR (a.last_seen, a.id) < ($7, $8))
            ORDER BY a.last_seen DESC, a.id DESC LIMIT $9
            """, values + [.microseconds(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM alert a" + condition, values),
      ])
      let rows = try results[0].map(Self.alert)
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor(list: "alerts", key: last.lastSeen.microsecondsSince1970, id: last.id.value).text()
      }
    }
  }

  static func alert(_ row: inout Row) throws -> Alert {
    Alert(
      id: try row.id(), level: try row.word(), code: try row.text(), text: try row.text(),
      remedy: try row.textOrNil(), parameters: try row.json(), mailboxID: try row.idOrNil(),
      mailboxAddress: try row.textOrNil(), profileID: try row.idOrNil(), runID: try row.idOrNil(),
      count: Int(try row.int()), firstSeen: try row.date(), lastSeen: try row.date(), resolvedAt: try row.dateOrNil())
  }
}
