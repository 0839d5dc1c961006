import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// What happened lately on each profile of the organization with mailboxes, by name.
  ///
  /// Runs and failures are counted by each process in memory and written every few seconds, so they are at most that old
  /// and exact to the minute; what is due comes from the schedule's own index, of which at most the 200,000 oldest due
  /// rows are counted. Neither grows with the number of mailboxes that are in time.
  public func profileActivity(for principal: Principal) async throws -> [ProfileActivity] {
    try await pool.transaction(.api(principal)) { db in
      try db.commit([
        Statement(
          """
          WITH due AS (
            SELECT profile_id, count(*) AS jobs FROM (
              SELECT profile_id FROM mailbox_schedule
              WHERE enabled AND next_due_at <= now() AND profile_id IS NOT NULL AND organization_id = $1
              ORDER BY next_due_at, mailbox_id, kind LIMIT 200000
            ) AS oldest GROUP BY profile_id
          ), activity AS (
            SELECT profile_id, sum(runs) AS runs, sum(failures) AS failures FROM profile_activity
            WHERE minute > now() - interval '5 minutes' AND organization_id = $1 GROUP BY profile_id
          )
          SELECT p.id, p.name, coalesce(due.jobs, 0), coalesce(activity.runs, 0), coalesce(activity.failures, 0),
            least(p.paused_at, o.paused_at)
          FROM server_profile p JOIN organization o ON o.id = p.organization_id
          LEFT JOIN due ON due.profile_id = p.id LEFT JOIN activity ON activity.profile_id = p.id
          WHERE p.organization_id = $1 AND EXISTS (SELECT FROM mailbox m WHERE m.profile_id = p.id)
          ORDER BY p.name_key, p.id
          """, [.id(principal.organizationID)])
      ])[0].map { row in
        ProfileActivity(
          profileID: try row.id(), name: try row.text(), due: Int(try row.int()), runs: Int(try row.int()),
          failures: Int(try row.int()), pausedAt: try row.dateOrNil())
      }
    }
  }
}
