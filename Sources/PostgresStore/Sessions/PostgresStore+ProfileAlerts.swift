import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Raises or resolves alerts on the walls of profiles, outside any session. A profile that is gone is left out.
  ///
  /// Resolving comes first, so that one call may do both. Rows are taken in the order of the profile, so two workers that
  /// tell of the same server do not wait for each other in a circle.
  public func change(profileAlerts changes: [ProfileAlertChange]) async throws {
    var resolved: [(profile: ProfileID, code: String?, direction: Direction?)] = []
    var raised: [(profile: ProfileID, draft: AlertDraft)] = []
    for entry in changes.sorted(by: { $0.profileID < $1.profileID }) {
      switch entry.change {
      case .resolve(codes: nil, let direction): resolved.append((entry.profileID, nil, direction))
      case .resolve(codes: let codes?, let direction): resolved += codes.map { (entry.profileID, $0, direction) }
      case .raise(let draft): raised.append((entry.profileID, draft))
      }
    }
    var statements: [Statement] = []
    let back = resolved.compactMap { entry in
      entry.code == nil ? nil : entry.direction.map { ServerLane(profile: entry.profile, direction: $0) }
    }
    // Rows of the schedule before alerts, as outcomes lock them.
    if !back.isEmpty { statements.append(Self.goOn(Set(back))) }
    if !resolved.isEmpty {
      statements.append(
        Statement(
          """
          WITH open AS (
            SELECT a.id FROM unnest($1, $2, $3) AS i (profile_id, code, direction)
            JOIN alert a ON a.profile_id = i.profile_id
            WHERE a.mailbox_id IS NULL AND a.resolved_at IS NULL AND a.level IN ('warning', 'error')
              AND (i.code IS NULL OR a.code = i.code) AND (i.direction IS NULL OR a.direction = i.direction)
            ORDER BY a.profile_id, a.id FOR NO KEY UPDATE OF a
          )
          UPDATE alert SET resolved_at = now() WHERE id IN (SELECT id FROM open)
          """,
          [.ids(resolved.map(\.profile)), .texts(resolved.map(\.code)), .texts(resolved.map(\.direction?.rawValue))]))
    }
    if !raised.isEmpty { statements.append(try Self.raise(raised)) }
    if statements.isEmpty { return }
    try await pool.transaction(.worker) { [statements] db in _ = try db.commit(statements) }
  }

  /// Mailboxes whose latest session met what is over now come within a minute, not with the probe they waited for.
  private static func goOn(_ lanes: Set<ServerLane>) -> Statement {
    let lanes = lanes.sorted { ($0.profile, $0.direction.rawValue) < ($1.profile, $1.direction.rawValue) }
    return Statement(
      """
      UPDATE mailbox_schedule AS s SET next_due_at = now() + random() * interval '1 minute'
      FROM (
        SELECT h.mailbox_id, h.kind FROM unnest($1, $2) AS i (profile_id, kind)
        JOIN mailbox m ON m.profile_id = i.profile_id
        JOIN mailbox_schedule h ON h.mailbox_id = m.id AND h.kind = i.kind
        WHERE h.enabled AND h.failures = 0 AND h.reason = h.failure_code
          AND h.next_due_at > now() + interval '1 minute'
        ORDER BY h.mailbox_id, h.kind FOR NO KEY UPDATE OF h
      ) waiting WHERE s.mailbox_id = waiting.mailbox_id AND s.kind = waiting.kind
      """,
      [
        .ids(lanes.map(\.profile)),
        .texts(lanes.map { $0.direction == .incoming ? JobKind.poll.rawValue : JobKind.send.rawValue }),
      ])
  }

  private static func raise(_ rows: [(profile: ProfileID, draft: AlertDraft)]) throws -> Statement {
    let drafts = rows.map(\.draft)
    return Statement(
      """
      INSERT INTO alert AS a (organization_id, profile_id, code, direction, level, text, remedy, parameters)
      SELECT DISTINCT ON (p.id, i.code, i.direction) p.organization_id, p.id, i.code, i.direction, i.level, i.text,
        i.remedy, i.parameters::jsonb
      FROM unnest($1, $2, $3, $4, $5, $6, $7) AS i (profile_id, code, direction, level, text, remedy, parameters)
      JOIN server_profile p ON p.id = i.profile_id
      ORDER BY p.id, i.code, i.direction
      ON CONFLICT (profile_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND profile_id IS NOT NULL
      DO UPDATE SET
        count = a.count + 1, last_seen = now(), level = EXCLUDED.level, text = EXCLUDED.text,
        remedy = EXCLUDED.remedy, parameters = EXCLUDED.parameters
      """,
      [
        .ids(rows.map(\.profile)), .texts(drafts.map(\.code)), .texts(drafts.map { $0.parameters["direction"] }),
        .texts(drafts.map(\.level.rawValue)), .texts(drafts.map(\.text)), .texts(drafts.map(\.remedy)),
        .texts(try drafts.map { try PostgresValue.jsonText($0.parameters) }),
      ])
  }
}
