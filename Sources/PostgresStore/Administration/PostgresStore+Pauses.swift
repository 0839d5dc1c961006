import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Pauses or resumes; doing it twice changes nothing. Running sessions end by themselves, no new one begins.
  ///
  /// Writes one row whatever the scope: the pause of a profile or of everything reaches the queue as its profiles' switch
  /// and is read by the workers' check. Throws ``StoreError/notFound(_:)``.
  public func setPaused(_ paused: Bool, _ scope: PauseScope, by principal: Principal) async throws {
    let target = PauseTarget(scope, principal.organizationID)
    try await pool.transaction(.api(principal)) { db in
      let rows = try db.query(
        "SELECT paused_at IS NOT NULL FROM \(target.table) WHERE \(target.condition) FOR NO KEY UPDATE",
        target.parameters
      ).map { try $0.bool() }
      guard let wasPaused = rows.first else { throw StoreError.notFound(target.name) }
      if wasPaused == paused {
        try db.commit()
        return
      }
      // Resumed_at tells a gap in the schedule from lateness; a mailbox starts a new schedule instead.
      let moment = target.remembersResume && !paused ? ", resumed_at = now()" : ""
      let verb = "\(target.verb).\(paused ? "pause" : "resume")"
      let entry = AuditEntry(
        verb, target.subject, target.id, before: #"{"paused":\#(wasPaused)}"#, after: #"{"paused":\#(paused)}"#)
      let next = target.parameters.count + 1
      try db.commit(
        [
          Statement(
            """
            UPDATE \(target.table) SET paused_at = CASE WHEN $\(next) THEN now() END,
              paused_by = CASE WHEN $\(next) THEN $\(next + 1) END\(moment) WHERE \(target.condition)
            """, target.parameters + [.bool(paused), .text(principal.name)]),
          .audit([entry], by: principal),
        ] + target.announcements(paused: paused))
    }
  }

  /// The pauses in force: the organization's first, then profiles, then mailboxes, by name.
  public func pauses(_ page: PageRequest, for principal: Principal) async throws -> Page<Pause> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<String>(page.cursor, list: "pauses")
    let all = """
      SELECT 0 AS rank, 'organization' AS scope, NULL::bigint AS id, name, name AS key, paused_at, paused_by
      FROM organization WHERE id = $1 AND paused_at IS NOT NULL
      UNION ALL SELECT 1, 'profile', id, name, name_key, paused_at, paused_by
      FROM server_profile WHERE organization_id = $1 AND paused_at IS NOT NULL
      UNION ALL SELECT 2, 'mailbox', id, address, address_key, paused_at, paused_by
      FROM mailbox WHERE organization_id = $1 AND paused_at IS NOT NULL
      """
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          SELECT scope, id, name, paused_at, coalesce(paused_by, ''), rank || ' ' || key FROM (\(all)) AS pause
          WHERE $2::text IS NULL OR (rank || ' ' || key, coalesce(id, 0)) > ($2, $3)
          ORDER BY rank || ' ' || key, coalesce(id, 0) LIMIT $4
          """, [.id(principal.organizationID), .text(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM (\(all)) AS pause", [.id(principal.organizationID)]),
      ])
      let rows = try results[0].map { row in
        let pause = Pause(
          scope: try row.text(), id: try row.intOrNil(), name: try row.text(), since: try row.date(),
          by: try row.text())
        return (pause: pause, key: try row.text())
      }
      var total = results[1][0]
      let items = rows.prefix(Int(limit))
      let next =
        try rows.count > items.count
        ? items.last.map { try Cursor(list: "pauses", key: $0.key, id: $0.pause.id ?? 0).text() } : nil
      return Page(items: items.map(\.pause), nextCursor: next, total: Int(try total.int()))
    }
  }
}

/// The row that a pause is written to.
private struct PauseTarget: Sendable {
  var table: String
  var condition: String
  var parameters: [PostgresValue]
  /// In errors.
  var name: String
  /// In the audit.
  var subject: String
  var verb: String
  var id: Int64
  var remembersResume = true
  private var scope: PauseScope

  init(_ scope: PauseScope, _ organization: OrganizationID) {
    self.scope = scope
    switch scope {
    case .organization:
      (table, condition, parameters) = ("organization", "id = $1", [.id(organization)])
      (name, subject, verb, id) = ("organization", "organization", "organization", organization.value)
    case .profile(let profile):
      (table, condition) = ("server_profile", "id = $1 AND organization_id = $2")
      parameters = [.id(profile), .id(organization)]
      (name, subject, verb, id) = ("server profile", "server-profile", "profile", profile.value)
    case .mailbox(let mailbox):
      (table, condition) = ("mailbox", "id = $1 AND organization_id = $2")
      parameters = [.id(mailbox), .id(organization)]
      (name, subject, verb, id) = ("mailbox", "mailbox", "mailbox", mailbox.value)
      remembersResume = false
    }
  }

  func announcements(paused: Bool) -> [Statement] {
    switch scope {
    case .organization: [SchedulePayload.profiles]
    // A resumed profile's jobs wait in the queue; a rescan finds those that a new epoch forgot.
    case .profile(let id): [SchedulePayload.statement(profile: id)] + (paused ? [] : [SchedulePayload.rescan])
    case .mailbox(let id): [.refreshMayRun(.ids([id]))]
    }
  }
}
