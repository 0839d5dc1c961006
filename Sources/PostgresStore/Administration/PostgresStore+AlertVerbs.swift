import PostriderCore

extension PostgresStore {
  /// One alert. Throws ``StoreError/notFound(_:)``.
  public func alert(_ id: AlertID, for principal: Principal) async throws -> Alert {
    try await pool.transaction(.api(principal)) { db in
      let rows = try db.commit([
        Statement(
          Self.alertColumns("alert") + " WHERE a.id = $1 AND a.organization_id = $2",
          [.id(id), .id(principal.organizationID)])
      ])[0].map(Self.listedAlert)
      guard let alert = rows.first else { throw StoreError.notFound("alert") }
      return alert
    }
  }

  /// Closes alerts that somebody has seen to; one answer per row, in the order asked. Those that are closed already answer
  /// ok and stay as they are.
  public func dismissAlerts(_ ids: [AlertID], by principal: Principal) async throws -> [AlertResult] {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let found = try db.query(
        """
        SELECT id, code, resolved_at IS NULL FROM alert WHERE id = ANY ($1) AND organization_id = $2
        ORDER BY id FOR NO KEY UPDATE
        """, [.ids(ids), .id(organization)]
      ).map { row in (id: try row.id() as AlertID, code: try row.text(), isOpen: try row.bool()) }
      let open = found.filter(\.isOpen)
      let entries = try open.map {
        AuditEntry("alert.dismiss", "alert", $0.id.value, before: try PostgresValue.jsonText(["code": $0.code]))
      }
      try db.commit(
        open.isEmpty
          ? []
          : [
            Statement(
              "UPDATE alert SET resolved_at = now(), dismissed_by = $2 WHERE id = ANY ($1)",
              [.ids(open.map(\.id)), .text(principal.name)]), .audit(entries, by: principal),
          ])
      let known = Set(found.map(\.id))
      return ids.map {
        known.contains($0)
          ? AlertResult(id: $0, ok: true)
          : AlertResult(id: $0, ok: false, code: "not-found", message: "there is no such alert")
      }
    }
  }

  /// Alerts deleted in one transaction.
  private static let deletedAtOnce = 5_000

  /// Deletes alerts for good, those that are raised meanwhile left out; returns how many. A fault that goes on raises a new
  /// one.
  public func deleteAlerts(
    _ filter: AlertFilter, dryRun: Bool, by principal: Principal
  ) async throws -> Int {
    let organization = principal.organizationID
    let condition = AlertCondition(filter, principal)
    let last = try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement("SELECT count(*), max(a.id) FROM alert a" + condition.sql, condition.parameters)
      ])[0].map { row in (count: Int(try row.int()), id: try row.intOrNil()) }.first
    }
    guard !dryRun, let last, let newest = last.id else { return last?.count ?? 0 }
    let next = condition.parameters.count + 1
    let statement = Statement(
      """
      DELETE FROM alert WHERE id IN (
        SELECT a.id FROM alert a\(condition.sql) AND a.id <= $\(next) ORDER BY a.id LIMIT $\(next + 1) FOR UPDATE)
      """, condition.parameters + [.int(newest), .int(Int64(Self.deletedAtOnce))])
    var deleted = 0
    while true {
      let step = try await pool.transaction(.api(principal)) { db in
        let count = try db.pipeline([statement])[0].affected
        let entry = AuditEntry(
          "alert.delete", "organization", organization.value, after: #"{"deleted":\#(count)}"#)
        try db.commit(count == 0 ? [] : [.audit([entry], by: principal)])
        return count
      }
      deleted += step
      if step < Self.deletedAtOnce { return deleted }
    }
  }
}

/// The condition on alerts `a` that stands for a filter, with its parameters from `$1` on.
struct AlertCondition: Sendable {
  private(set) var sql = " WHERE a.organization_id = $1"
  private(set) var parameters: [PostgresValue]

  init(_ filter: AlertFilter, _ principal: Principal) {
    parameters = [.id(principal.organizationID)]
    if !filter.includeResolved { sql += " AND a.resolved_at IS NULL" }
    if let mailbox = filter.mailboxID { add(.id(mailbox)) { "a.mailbox_id = \($0)" } }
    if let profile = filter.profileID { add(.id(profile)) { "a.profile_id = \($0)" } }
    if let level = filter.level { add(.text(level.rawValue)) { "a.level = \($0)" } }
    if let code = filter.code { add(.text(code)) { "a.code = \($0)" } }
    switch filter.wall {
    case nil: break
    case .mine:
      add(.id(principal.userID)) { person in
        """
        (\(Self.wall(of: "m.organization_id = $1 AND \(MailboxQuery.isMine(person))"))
          OR a.profile_id IN (SELECT p.id FROM server_profile p WHERE p.organization_id = $1 AND p.owner_id = \(person))
          \(principal.role == .administrator ? Self.orphaned : ""))
        """
      }
    case .mailbox(let mailbox): add(.id(mailbox)) { Self.wall(of: "m.id = \($0)") }
    // The owner of a profile sees what its mailboxes fail with.
    case .profile(let profile):
      add(.id(profile)) { number in
        """
        (a.profile_id = \(number)
          OR a.level = 'error' AND a.mailbox_id IN (SELECT m.id FROM mailbox m WHERE m.profile_id = \(number)))
        """
      }
    }
  }

  /// The alerts of these mailboxes, and the errors of their profiles where the organization wants owners to see them.
  private static func wall(of mailboxes: String) -> String {
    """
    (a.mailbox_id IN (SELECT m.id FROM mailbox m WHERE \(mailboxes))
      OR a.level = 'error' AND a.profile_id IN (SELECT m.profile_id FROM mailbox m WHERE \(mailboxes))
        AND (SELECT o.notifies_mailbox_owners FROM organization o WHERE o.id = $1))
    """
  }

  /// The alerts that no wall of a person who can sign in shows: of mailboxes whose user is inactive, or whose shared
  /// queue has neither an active owner nor an active member, and of profiles whose owner is inactive or gone. They stand
  /// on every administrator's wall.
  private static let orphaned = """
    OR a.mailbox_id IN (SELECT m.id FROM mailbox m JOIN app_user w ON w.id = m.user_id
      WHERE w.organization_id = $1 AND NOT w.is_active)
    OR a.mailbox_id IN (SELECT m.id FROM mailbox m JOIN shared_queue q ON q.id = m.queue_id
      WHERE q.organization_id = $1
        AND NOT EXISTS (SELECT FROM app_user w WHERE w.id = q.owner_id AND w.is_active)
        AND NOT EXISTS (SELECT FROM shared_queue_member s JOIN app_user w ON w.id = s.user_id
          WHERE s.queue_id = q.id AND w.is_active))
    OR a.profile_id IN (SELECT p.id FROM server_profile p LEFT JOIN app_user w ON w.id = p.owner_id
      WHERE p.organization_id = $1 AND w.is_active IS NOT TRUE)
    """

  private mutating func add(_ value: PostgresValue, _ condition: (String) -> String) {
    parameters.append(value)
    sql += " AND " + condition("$\(parameters.count)")
  }
}
