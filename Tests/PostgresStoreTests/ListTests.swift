import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Lists of any size")
struct ListTests {
  /// A list from one end to the other in pages.
  private func walk<Item>(
    limit: Int = 7, _ page: (PageRequest) async throws -> Page<Item>
  ) async throws -> (items: [Item], total: Int) {
    var request = PageRequest(limit: limit)
    var items: [Item] = []
    var total = 0
    repeat {
      let answer = try await page(request)
      items += answer.items
      total = answer.total
      #expect(answer.totalIsEstimate == nil && answer.items.count <= limit)
      request.cursor = answer.nextCursor
    } while request.cursor != nil
    return (items, total)
  }

  /// Forty mailboxes in all states on two profiles, and one of another organization.
  private func fill(_ database: TestDatabase) async throws -> ServerProfile {
    let profile = try await database.profile("Mail")
    let other = try await database.profile("Other", isDefault: false)
    for index in 0..<40 {
      let draft = MailboxDraft(
        address: "m\(index)@example.com", profileID: index % 4 == 0 ? other.id : profile.id)
      _ = try await database.store.createMailbox(draft, by: database.principal)
    }
    try await database.sql(
      """
      UPDATE mailbox SET is_active = id % 3 <> 0, approval = CASE WHEN id % 5 = 0 THEN 'pending' ELSE 'approved' END,
        incoming_status = CASE WHEN id % 7 = 0 THEN 'failure' WHEN id % 7 < 5 THEN 'success' ELSE 'not-run' END,
        outgoing_status = CASE WHEN id % 11 = 0 THEN 'failure' ELSE 'success' END,
        outgoing_method = CASE WHEN id % 2 = 0 THEN 'none' ELSE 'server-side-sync' END,
        updated_at = now() - (id * 17 % 40 / 2) * interval '1 minute'
      """)
    // Some are of one person: own ones, of a queue that the person owns, and of one whose member the person is.
    let person = database.principal.userID
    let owned = try await database.store.createSharedQueue(
      SharedQueueDraft(address: "owned@example.com", ownerID: person), by: database.principal)
    let shared = try await database.store.createSharedQueue(
      SharedQueueDraft(address: "shared@example.com", memberIDs: [person]), by: database.principal)
    try await database.sql(
      """
      UPDATE mailbox SET user_id = CASE WHEN id % 3 = 0 THEN $1::bigint END,
        queue_id = CASE id % 3 WHEN 1 THEN $2::bigint WHEN 2 THEN $3::bigint END WHERE id % 4 = 0
      """, [.id(person), .id(owned.id), .id(shared.id)])
    _ = try await database.store.createMailbox(
      MailboxDraft(address: "m1@example.com"), by: try await database.otherPrincipal())
    return profile
  }

  @Test("every view, with and without a profile, forwards and backwards, shows the same mailboxes as the table")
  func mailboxes() async throws {
    try await TestDatabase.with { database in
      let profile = try await fill(database)
      let conditions: [(MailboxFilter.View?, String)] = [
        (nil, "true"), (.active, "is_active"), (.inactive, "NOT is_active"),
        (
          .notTested,
          "(incoming_status = 'not-run' OR (outgoing_status = 'not-run' AND outgoing_method <> 'none'))"
        ), (.failing, "'failure' IN (incoming_status, outgoing_status)"), (.pendingApproval, "approval = 'pending'"),
        (.mine, "(user_id = \(database.principal.userID) OR queue_id IS NOT NULL)"),
      ]
      for (view, condition) in conditions {
        for id in [nil, profile.id] {
          let wanted = try await database.sql(
            """
            SELECT id FROM mailbox WHERE organization_id = $1 AND \(condition) AND ($2::bigint IS NULL OR profile_id = $2)
            ORDER BY address_key
            """, [.id(database.principal.organizationID), .id(id)]
          ).map { try $0.id() as MailboxID }
          #expect(!wanted.isEmpty)
          for (sort, expected) in [(MailboxSort.address, wanted), (.addressDescending, wanted.reversed())] {
            let filter = MailboxFilter(view: view, profileID: id, sort: sort)
            let found = try await walk {
              try await database.store.mailboxes(filter, $0, for: database.principal)
            }
            #expect(found.items.map(\.id) == expected && found.total == expected.count, "\(filter)")
          }
        }
      }
      let none = MailboxFilter(address: "nobody@example.com")
      #expect(try await database.store.mailboxes(none, PageRequest(), for: database.principal).total == 0)
    }
  }

  @Test("by the last change, with many at the same moment; not together with a filter")
  func changes() async throws {
    try await TestDatabase.with { database in
      _ = try await fill(database)
      let wanted = try await database.sql(
        "SELECT id FROM mailbox WHERE organization_id = $1 ORDER BY updated_at, id",
        [.id(database.principal.organizationID)]
      ).map { try $0.id() as MailboxID }
      for (sort, expected) in [(MailboxSort.updated, wanted), (.updatedDescending, wanted.reversed())] {
        let found = try await walk {
          try await database.store.mailboxes(MailboxFilter(sort: sort), $0, for: database.principal)
        }
        #expect(found.items.map(\.id) == expected && found.total == 40)
      }
      for filter in [
        MailboxFilter(view: .active, sort: .updated), MailboxFilter(profileID: ProfileID(1), sort: .updatedDescending),
      ] {
        await #expect(throws: StoreError.self) {
          try await database.store.mailboxes(filter, PageRequest(), for: database.principal)
        }
      }
      // A cursor belongs to its order.
      let page = try await database.store.mailboxes(
        MailboxFilter(), PageRequest(limit: 5), for: database.principal)
      await #expect(throws: StoreError.self) {
        try await database.store.mailboxes(
          MailboxFilter(sort: .addressDescending), PageRequest(limit: 5, cursor: page.nextCursor),
          for: database.principal)
      }
    }
  }

  @Test("runs by kind, result and mailbox, from both ends, over days with partitions and without")
  func runs() async throws {
    try await TestDatabase.with { database in
      let organization = database.principal.organizationID
      let mailbox = try await database.mailbox("a@example.com")
      // Some of each day before there were partitions; several at the same moment.
      try await database.sql(
        """
        INSERT INTO run (id, organization_id, mailbox_id, kind, trigger, worker, fence, due_at, started_at, finished_at,
          result, messages_stored, octets_stored, messages_known, messages_failed, messages_sent)
        SELECT n, CASE n % 9 WHEN 0 THEN $1 + 1 ELSE $1 END, CASE n % 3 WHEN 0 THEN $2 ELSE $2 + 1 END,
          (ARRAY['p', 'p', 's', 't', 'p'])[1 + n % 5], 'slot', 'w', n, now(), at, at,
          (ARRAY['success', 'success', 'failure', 'partial'])[1 + n % 4], 0, 0, 0, 0, 0
        FROM (SELECT n, date_trunc('second', now()) - (n / 3) * interval '2 hours' AS at
          FROM generate_series(1, 180) AS n) r
        """, [.id(organization), .id(mailbox.id)])
      let filters =
        [RunFilter(), RunFilter(mailboxID: mailbox.id), RunFilter(mailboxID: mailbox.id, kind: .send)]
        + JobKind.allCases.map { RunFilter(kind: $0) } + RunResult.allCases.map { RunFilter(result: $0) }
        + JobKind.allCases.flatMap { kind in RunResult.allCases.map { RunFilter(kind: kind, result: $0) } }
      for filter in filters {
        let wanted = try await database.sql(
          """
          SELECT id FROM run WHERE organization_id = $1 AND ($2::bigint IS NULL OR mailbox_id = $2)
            AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR result = $4) ORDER BY started_at DESC, id DESC
          """,
          [.id(organization), .id(filter.mailboxID), .text(filter.kind?.rawValue), .text(filter.result?.rawValue)]
        ).map { try $0.id() as RunID }
        #expect(!wanted.isEmpty)
        for (order, expected) in [(RowOrder.descending, wanted), (.ascending, wanted.reversed())] {
          var filter = filter
          filter.order = order
          let found = try await walk { [filter] in try await database.store.runs(filter, $0, for: database.principal) }
          #expect(found.items.map(\.id) == expected && found.total == expected.count, "\(filter)")
        }
      }
    }
  }

  @Test("alerts by level and mailbox, open or all, from both ends")
  func alerts() async throws {
    try await TestDatabase.with { database in
      let organization = database.principal.organizationID
      let first = try await database.mailbox("a@example.com")
      let second = try await database.mailbox("b@example.com")
      try await database.sql(
        """
        INSERT INTO alert (organization_id, mailbox_id, level, code, text, first_seen, last_seen, resolved_at)
        SELECT $1, CASE n % 3 WHEN 0 THEN $2 ELSE $3 END,
          (ARRAY['error', 'warning', 'warning', 'information'])[1 + n % 4], 'c' || n, 't', now(),
          date_trunc('second', now()) - (n / 3) * interval '1 minute', CASE WHEN n % 5 < 2 THEN now() END
        FROM generate_series(1, 60) AS n
        """, [.id(organization), .id(first.id), .id(second.id)])
      let levels = [nil] + AlertLevel.allCases.map(Optional.some)
      let cases = levels.flatMap { level -> [(AlertLevel?, MailboxID?, Bool)] in
        [(level, nil, false), (level, nil, true), (level, first.id, false), (level, first.id, true)]
      }
      for (level, mailbox, resolved) in cases {
        let wanted = try await database.sql(
          """
          SELECT id FROM alert WHERE organization_id = $1 AND ($2::text IS NULL OR level = $2)
            AND ($3::bigint IS NULL OR mailbox_id = $3) AND ($4 OR resolved_at IS NULL) ORDER BY last_seen DESC, id DESC
          """, [.id(organization), .text(level?.rawValue), .id(mailbox), .bool(resolved)]
        ).map { try $0.id() as AlertID }
        #expect(!wanted.isEmpty)
        for (order, expected) in [(RowOrder.descending, wanted), (.ascending, wanted.reversed())] {
          let filter = AlertFilter(mailboxID: mailbox, level: level, includeResolved: resolved, order: order)
          let found = try await walk { try await database.store.alerts(filter, $0, for: database.principal) }
          #expect(found.items.map(\.id) == expected && found.total == expected.count, "\(filter)")
        }
      }
    }
  }

  @Test("a total is counted to 10,000 and estimated beyond, and says so")
  func totals() async throws {
    try await TestDatabase.with { database in
      let insert = """
        INSERT INTO run (id, organization_id, mailbox_id, kind, trigger, worker, fence, due_at, started_at, finished_at,
          result, messages_stored, octets_stored, messages_known, messages_failed, messages_sent)
        SELECT n, $1, 1, 't', 'slot', 'w', n, now(), now(), now(), 'success', 0, 0, 0, 0, 0
        FROM generate_series($2::bigint, $3) AS n
        """
      func total(_ filter: RunFilter) async throws -> (rows: Int, isEstimate: Bool?) {
        let page = try await database.store.runs(filter, PageRequest(limit: 1), for: database.principal)
        return (page.total, page.totalIsEstimate)
      }
      let organization = PostgresValue.id(database.principal.organizationID)
      try await database.sql(insert, [organization, .int(1), .int(10_000)])
      for filter in [RunFilter(), RunFilter(kind: .test)] {
        let counted = try await total(filter)
        #expect(counted.rows == 10_000 && counted.isEstimate == nil)
      }
      try await database.sql(insert, [organization, .int(10_001), .int(30_000)])
      try await database.sql("ANALYZE run")
      for filter in [
        RunFilter(), RunFilter(kind: .test), RunFilter(result: .success), RunFilter(mailboxID: MailboxID(1)),
      ] {
        let (rows, isEstimate) = try await total(filter)
        #expect(isEstimate == true && (25_000...35_000).contains(rows), "\(filter): \(rows)")
      }
    }
  }

  /// The indexes by which a view, a kind or a level is found in its order. Without one of them the lists still work, at a
  /// size that tests do not have; `postrider bench lists` shows it.
  @Test("pages and counts come from the indexes made for them")
  func plans() async throws {
    try await TestDatabase.with { database in
      let organization = database.principal.organizationID
      _ = try await fill(database)
      try await database.sql("ANALYZE mailbox")
      var cases: [(Statement, String)] = [
        (
          RunQuery(RunFilter(kind: .test), database.principal).page(after: nil, limit: 51),
          "_organization_id_kind_result_"
        ),
        (AlertQuery(AlertFilter(), database.principal).page(after: nil, limit: 51), "alert_open_level"),
        (AlertQuery(AlertFilter(includeResolved: true), database.principal).page(after: nil, limit: 51), "alert_level"),
      ]
      let views: [(MailboxFilter.View, String)] = [
        (.notTested, "mailbox_not_tested"), (.failing, "mailbox_failing"), (.pendingApproval, "mailbox_pending"),
      ]
      for (view, index) in views {
        let condition = MailboxFilter(view: view).condition(first: 2, for: database.principal)
        let sql =
          "SELECT m.id FROM mailbox m WHERE m.organization_id = $1\(condition.sql) ORDER BY m.address_key LIMIT 51"
        cases.append((Statement(sql, [.id(organization)] + condition.parameters), index))
      }
      for (statement, index) in cases {
        // Small tables are read whole unless that is forbidden; so is sorting where an index has the order.
        let lines = try await database.store.pool.transaction(.api(database.principal)) { db in
          try db.query("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)")
          try db.query("SELECT set_config('enable_bitmapscan', 'off', true)")
          return try db.query("EXPLAIN " + statement.sql, statement.parameters).map { try $0.text() }
        }
        let plan = lines.joined(separator: "\n")
        #expect(plan.contains(index), "\(index):\n\(plan)")
      }
    }
  }
}
