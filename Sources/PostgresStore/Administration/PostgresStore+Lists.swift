import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Mailboxes, by address or by their last change.
  public func mailboxes(
    _ filter: MailboxFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<Mailbox> {
    if filter.sort.isByChange && filter.isNarrowed {
      throw StoreError.invalid([
        FieldProblem("/sort", "not-sortable", "\(filter.sort.rawValue) works without other filters only")
      ])
    }
    let limit = try page.checkedLimit()
    let list = filter.sort == .address ? "mailboxes" : "mailboxes\(filter.sort.rawValue)"
    let cursor = try Cursor<MailboxKey>(page.cursor, list: list)
    let organization = principal.organizationID
    let person = filter.isOwn(of: principal) ? "$2" : nil
    let own: [PostgresValue] = [.id(organization)] + (person == nil ? [] : [.id(principal.userID)])
    let condition = filter.otherCondition(first: own.count + 1)
    let parameters = own + condition.parameters
    let bound = person == nil ? "" : " LIMIT \(ListCount.bound + 1)"
    let count = ListCount(
      "FROM (\(MailboxQuery.rows(of: person, condition.sql, bound))) m", parameters,
      estimated: "FROM (\(MailboxQuery.rows(of: person, condition.sql))) m")
    return try await pool.transaction(.api(principal)) { db in
      let after = filter.sort.after(cursor, first: parameters.count + 1)
      let page = filter.otherCondition(first: own.count + 1, asPage: true).sql + after.sql
      let order = " ORDER BY \(filter.sort.order) LIMIT \(limit + 1)"
      let results = try db.pipeline([
        Statement(
          // The page is found before anything is joined: its rows are then looked up one by one.
          "\(MailboxQuery.columns) FROM (\(MailboxQuery.rows(of: person, page, order))) m\n"
            + "\(MailboxQuery.joins) ORDER BY \(filter.sort.order)",
          parameters + after.parameters),
        count.statement,
      ])
      let rows = try results[0].map(MailboxQuery.read)
      let total = try count.total(results[1], db)
      try db.commit()
      let keys = Dictionary(uniqueKeysWithValues: rows.map { ($0.mailbox.id, $0.key) })
      return try Page(rows: rows.map(\.mailbox), limit: limit, total: total) { last in
        let key = MailboxKey(
          address: keys[last.id] ?? "", updated: filter.sort.isByChange ? last.updatedAt.microsecondsSince1970 : nil)
        return try Cursor(list: list, key: key, id: last.id.value).text()
      }
    }
  }

  /// Runs without steps, newest first unless the filter says otherwise.
  public func runs(_ filter: RunFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<RunRecord> {
    let limit = try page.checkedLimit()
    let list = filter.order == .descending ? "runs" : "runs-asc"
    let cursor = try Cursor<Int64>(page.cursor, list: list)
    let query = RunQuery(filter, principal)
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.pipeline([query.page(after: cursor, limit: limit + 1), query.count.statement])
      let rows = try results[0].map(Self.run)
      let total = try query.count.total(results[1], db)
      try db.commit()
      return try Page(rows: rows, limit: limit, total: total) { last in
        try Cursor(list: list, key: last.startedAt.microsecondsSince1970, id: last.id?.value ?? 0).text()
      }
    }
  }

  /// Alerts, newest first unless the filter says otherwise.
  public func alerts(_ filter: AlertFilter, _ page: PageRequest, for principal: Principal) async throws -> Page<Alert> {
    let limit = try page.checkedLimit()
    let list = filter.order == .descending ? "alerts" : "alerts-asc"
    let cursor = try Cursor<Int64>(page.cursor, list: list)
    let query = AlertQuery(filter, principal)
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.pipeline([query.page(after: cursor, limit: limit + 1), query.count.statement])
      let rows = try results[0].map(Self.listedAlert)
      let total = try query.count.total(results[1], db)
      try db.commit()
      return try Page(rows: rows, limit: limit, total: total) { last in
        try Cursor(list: list, key: last.lastSeen.microsecondsSince1970, id: last.id.value).text()
      }
    }
  }
}

/// Where a page of mailboxes ended: the address, and the time of the change where that is sorted by.
struct MailboxKey: Codable, Sendable {
  var address: String
  /// Microseconds since 1970.
  var updated: Int64?
}

extension MailboxSort {
  /// The order of rows of `m`; an index has it.
  var order: String {
    switch self {
    case .address: "m.address_key"
    case .addressDescending: "m.address_key DESC"
    case .updated: "m.updated_at, m.id"
    case .updatedDescending: "m.updated_at DESC, m.id DESC"
    }
  }

  /// The condition that begins after a cursor. An address stands once in an organization and needs nothing beside it.
  func after(_ cursor: Cursor<MailboxKey>?, first: Int) -> (sql: String, parameters: [PostgresValue]) {
    guard let cursor else { return ("", []) }
    let sign = isDescending ? "<" : ">"
    if isByChange {
      return (
        " AND (m.updated_at, m.id) \(sign) ($\(first), $\(first + 1))",
        [.microseconds(cursor.key.updated), .int(cursor.id)]
      )
    }
    return (" AND m.address_key \(sign) $\(first)", [.text(cursor.key.address)])
  }
}

extension RowOrder {
  /// As SQL says it.
  var direction: String { self == .descending ? "DESC" : "ASC" }
  /// Which rows come after one.
  var sign: String { self == .descending ? "<" : ">" }
}
