import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Poison jobs, oldest first.
  public func setAsideJobs(_ page: PageRequest, for principal: Principal) async throws -> Page<SetAsideJob> {
    let limit = try page.checkedLimit()
    // The key is the time and the kind, which with the mailbox's number name a row.
    let cursor = try Cursor<SetAsideKey>(page.cursor, list: "set-aside")
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          """
          SELECT a.job, a.mailbox_id, m.address, a.profile_id, a.reclaims, a.worker, a.since, a.kind
          FROM set_aside_job a JOIN mailbox m ON m.id = a.mailbox_id
          WHERE a.organization_id = $1
            AND ($2::timestamptz IS NULL OR (a.since, a.mailbox_id, a.kind) > ($2, $3, $4))
          ORDER BY a.since, a.mailbox_id, a.kind LIMIT $5
          """,
          [
            .id(principal.organizationID), .microseconds(cursor?.key.since), .int(cursor?.id), .text(cursor?.key.kind),
            .int(limit + 1),
          ]),
        Statement("SELECT count(*) FROM set_aside_job WHERE organization_id = $1", [.id(principal.organizationID)]),
      ])
      let rows = try results[0].map { row in
        let job = SetAsideJob(
          job: try row.text(), mailboxID: try row.id(), address: try row.text(), profileID: try row.idOrNil(),
          reclaims: Int(try row.int()), worker: try row.text(), since: try row.date())
        return (job: job, kind: try row.text())
      }
      var total = results[1][0]
      let items = rows.prefix(Int(limit))
      let next =
        try rows.count > items.count
        ? items.last.map { last in
          let key = SetAsideKey(since: last.job.since.microsecondsSince1970, kind: last.kind)
          return try Cursor(list: "set-aside", key: key, id: last.job.mailboxID.value).text()
        } : nil
      return Page(items: items.map(\.job), nextCursor: next, total: Int(try total.int()))
    }
  }

  /// Lets poison jobs run again, at once; returns those that were released, in the order asked.
  public func releaseJobs(_ jobs: [JobID], by principal: Principal) async throws -> [JobID] {
    if jobs.isEmpty { return [] }
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let found = try db.pipeline([
        Statement(
          "SELECT 1 FROM mailbox WHERE id = ANY ($1) AND organization_id = $2 ORDER BY id FOR NO KEY UPDATE",
          [.ids(jobs.map(\.mailbox)), .id(organization)]),
        Statement(
          """
          DELETE FROM set_aside_job a USING unnest($1, $2) AS i (mailbox_id, kind)
          WHERE a.mailbox_id = i.mailbox_id AND a.kind = i.kind AND a.organization_id = $3
          RETURNING a.mailbox_id, a.kind, a.job
          """, [.ids(jobs.map(\.mailbox)), .texts(jobs.map(\.kind.rawValue)), .id(organization)]),
      ])[1].map { row in
        (mailbox: try row.id() as MailboxID, kind: try row.word() as JobKind, job: try row.text())
      }
      if found.isEmpty {
        try db.commit()
        return []
      }
      let mailboxes = PostgresValue.ids(Array(Set(found.map(\.mailbox))).sorted())
      try db.commit([
        // A poll begins anew by itself; a send or a test that was wanted is due now.
        Statement(
          """
          UPDATE mailbox_schedule s SET next_due_at = now(), reason = 'released'
          FROM unnest($1, $2) AS i (mailbox_id, kind)
          WHERE s.mailbox_id = i.mailbox_id AND s.kind = i.kind
            AND (s.next_due_at IS NOT NULL OR s.requested > s.served)
          """, [.ids(found.map(\.mailbox)), .texts(found.map(\.kind.rawValue))]),
        .refreshMayRun(mailboxes),
        Statement(
          """
          UPDATE alert a SET resolved_at = now()
          WHERE a.mailbox_id = ANY ($1) AND a.code = $2 AND a.resolved_at IS NULL
            AND NOT EXISTS (SELECT FROM set_aside_job s WHERE s.mailbox_id = a.mailbox_id)
          """, [mailboxes, .text(PoisonAlert.code)]),
        .audit(
          found.map { AuditEntry("job.release", "mailbox", $0.mailbox.value, before: #"{"job":"\#($0.job)"}"#) },
          by: principal),
      ])
      let released = Set(found.map { [$0.mailbox.description, $0.kind.rawValue] })
      return jobs.filter { released.contains([$0.mailbox.description, $0.kind.rawValue]) }
    }
  }
}

/// The rest of a set-aside job's place in the list.
private struct SetAsideKey: Codable, Sendable {
  var since: Int64
  var kind: String
}

/// The alert that says that a job was set aside.
enum PoisonAlert {
  static let code = "job.poisoned"
}
