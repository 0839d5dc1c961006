import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Alerts as people see them, read from some rows of the table as `a`.
  static func alertColumns(_ source: String) -> String {
    """
    SELECT a.id, a.level, a.code, a.text, a.remedy, a.parameters, a.mailbox_id, m.address, a.profile_id, a.run_id,
      a.count, a.first_seen, a.last_seen, a.resolved_at, a.dismissed_by
    FROM \(source) a LEFT JOIN mailbox m ON m.id = a.mailbox_id
    """
  }

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
