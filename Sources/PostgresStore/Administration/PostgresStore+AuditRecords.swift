import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// What people did, newest first.
  public func auditRecords(
    _ filter: AuditFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<AuditRecord> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "audit")
    // An action is its kind of thing, a point and a verb: both the whole and the kind alone are asked for.
    let condition = """
       WHERE a.organization_id = $1 AND ($2::text IS NULL OR a.action = $2 OR starts_with(a.action, $2 || '.'))
      AND ($3::text IS NULL OR a.subject_kind = $3) AND ($4::bigint IS NULL OR a.subject_id = $4)
      AND ($5::bigint IS NULL OR a.user_id = $5) AND ($6::timestamptz IS NULL OR a.at >= $6)
      AND ($7::timestamptz IS NULL OR a.at < $7)
      """
    let values: [PostgresValue] = [
      .id(principal.organizationID), .text(filter.action), .text(filter.entity), .int(filter.entityID),
      .id(filter.userID), .time(filter.from), .time(filter.to),
    ]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          SELECT a.id, a.at, a.user_id, a.user_name, a.action, a.subject_kind, a.subject_id, a.before, a.after
          FROM audit a
          """ + condition + """
             AND ($8::timestamptz IS NULL OR (a.at, a.id) < ($8, $9)) ORDER BY a.at DESC, a.id DESC LIMIT $10
            """, values + [.microseconds(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM audit a" + condition, values),
      ])
      let rows = try results[0].map { row in
        AuditRecord(
          id: try row.id(), at: try row.date(), userID: try row.idOrNil(), userName: try row.text(),
          action: try row.text(), entity: try row.text(), entityID: try row.intOrNil(), before: try row.jsonOrNil(),
          after: try row.jsonOrNil())
      }
      var total = results[1][0]
      return try Page(rows: rows, limit: limit, total: try total.int()) { last in
        try Cursor(list: "audit", key: last.at.microsecondsSince1970, id: last.id.value).text()
      }
    }
  }

  /// Notes a request that was refused for want of a right.
  public func recordRefusal(_ refusal: RefusedRequest, of principal: Principal) async throws {
    let entry = AuditEntry("request.refused", "request", nil, after: try PostgresValue.jsonText(refusal))
    try await pool.transaction(.api(principal)) { db in
      _ = try db.commit([.audit([entry], by: principal)])
    }
  }
}
