import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("One organization of an installation receives an address (M10)", .timeLimit(.minutes(3)))
struct OwnershipTests {
  /// An organization with a mailbox of the shared address.
  struct Side: Sendable {
    let database: TestDatabase
    let principal: Principal
    let id: MailboxID

    /// An approved mailbox that was never tested.
    init(_ address: String, _ principal: Principal, _ database: TestDatabase) async throws {
      self.database = database
      self.principal = principal
      let store = database.store
      let profiles = try await store.profiles(PageRequest(), for: principal)
      let profile: ServerProfile
      if let first = profiles.items.first {
        profile = first
      } else {
        let draft = ProfileDraft(
          name: "Mail", type: .pop3SMTP, isDefault: true, incoming: ServerDraft(host: "pop.example.com"),
          outgoing: ServerDraft(host: "smtp.example.com"))
        profile = try await store.createProfile(try ProfileRules().resolve(draft), by: principal)
      }
      id = try await store.createMailbox(
        MailboxDraft(address: address, profileID: profile.id, password: Secret("hunter2")), by: principal
      ).id
      _ = try await store.setApproval(.approved, of: [id], by: principal)
    }

    var mailbox: Mailbox {
      get async throws { try await database.store.mailbox(id, for: principal) }
    }

    /// Requests a test and carries it out as a worker does whose logins succeed.
    @discardableResult
    func test(takingOver: Bool = false) async throws -> AddressClaim {
      let results = try await database.store.requestTest(of: [id], takingOver: takingOver, by: principal)
      guard results.allSatisfy(\.ok) else { throw TimedOut(what: "an accepted request: \(results)") }
      let (lease, assignment) = try await database.assignment(try await mailbox, .test)
      let claim = try await database.store.claimAddress(writer: database.guardian(lease, assignment))
      try await commit(lease, assignment, incoming: claim != .elsewhere)
      return claim
    }

    /// Carries a requested test out as a worker of the release before does: it enables what passed.
    func testAsBefore() async throws {
      _ = try await database.store.requestTest(of: [id], by: principal)
      let (lease, assignment) = try await database.assignment(try await mailbox, .test)
      try await commit(lease, assignment, incoming: true)
    }

    func commit(_ lease: Lease, _ assignment: Assignment, incoming: Bool) async throws {
      let refusal: FailureCode? = incoming ? nil : .ownershipOtherOrganization
      _ = try await database.store.commit(
        database.outcome(
          lease, assignment,
          directions: [
            DirectionChange(
              .incoming, status: incoming ? .success : .failure, enabled: incoming, failureCode: refusal),
            DirectionChange(.outgoing, status: .success, enabled: true),
          ]))
    }

    /// `level code` of open alerts.
    func alerts(_ filter: AlertFilter = AlertFilter()) async throws -> [Alert] {
      try await database.store.alerts(filter, PageRequest(), for: principal).items
    }
  }

  /// Two organizations with the same address.
  private func sides(
    _ database: TestDatabase, _ address: String = "a@example.com"
  ) async throws -> (first: Side, second: Side) {
    let other = try await database.otherPrincipal()
    return (
      try await Side(address, database.principal, database),
      try await Side(address.uppercased(), other, database)
    )
  }

  /// Every address has one owner, every mailbox that receives is one, and only those are polled.
  private func check(_ database: TestDatabase) async throws {
    let receiving = """
      FROM mailbox m LEFT JOIN address_owner a ON a.mailbox_id = m.id AND a.address_key = m.address_key
        AND a.organization_id = m.organization_id
      WHERE m.incoming_enabled AND m.is_active AND m.incoming_method = 'server-side-sync'
      """
    #expect(try await database.int("SELECT count(*) \(receiving) AND a.mailbox_id IS NULL") == 0)
    #expect(
      try await database.int(
        """
        SELECT count(*) FROM mailbox_schedule s WHERE s.kind = 'p' AND s.enabled
          AND NOT EXISTS (SELECT FROM address_owner a WHERE a.mailbox_id = s.mailbox_id)
        """) == 0)
  }

  @Test("the second organization is refused for incoming mail alone, and its own mailboxes are none of it")
  func refused() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (first, second) = try await sides(database)
      #expect(try await first.test() == .held)
      #expect(try await first.test() == .held)
      #expect(try await second.test() == .elsewhere)
      let mailbox = try await second.mailbox
      #expect(mailbox.incoming.status == .failure && !mailbox.incoming.enabled)
      #expect(mailbox.incoming.failureCode == "ownership.other-organization")
      #expect(mailbox.incoming.notRunningReason == "disabled" && mailbox.incoming.nextRunAt == nil)
      #expect(mailbox.outgoing.notRunningReason == nil)
      let poll = try await store.requestPoll(of: [second.id], by: second.principal)
      #expect(poll.map(\.code) == ["not-running"])
      #expect(poll[0].message?.hasSuffix("disabled by ownership.other-organization") == true)
      let lease = database.lease(second.id, .poll, try #require(mailbox.profileID))
      #expect(try await store.check([lease])[lease.job] == .skip("disabled"))
      // Another address of theirs is nobody else's.
      #expect(try await Side("b@example.com", second.principal, database).test() == .held)
      let kept = try await first.mailbox
      #expect(kept.incoming.notRunningReason == nil && kept.incoming.enabled)
      #expect(try await first.alerts().isEmpty)
      try await check(database)
    }
  }

  @Test("taken over: there it stands still, running sessions are fenced, both are told, and nobody who it was")
  func takenOver() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (first, second) = try await sides(database)
      try await first.test()
      try await second.test()
      let profile = try #require(try await first.mailbox.profileID)
      _ = try await store.requestPoll(of: [first.id], by: first.principal)
      let (poll, polling) = try await database.assignment(try await first.mailbox, .poll)
      _ = try await store.requestTest(of: [first.id], by: first.principal)
      let (test, testing) = try await database.assignment(try await first.mailbox, .test)

      #expect(try await second.test(takingOver: true) == .takenOver)
      #expect(try await second.mailbox.incoming.notRunningReason == nil)
      let lost = try await first.mailbox
      #expect(lost.incoming.status == .failure && !lost.incoming.enabled && lost.incoming.failedAt != nil)
      #expect(lost.incoming.failureCode == "ownership.taken-over")
      #expect(lost.incoming.notRunningReason == "disabled" && lost.incoming.nextRunAt == nil)
      #expect(lost.outgoing.enabled && lost.outgoing.notRunningReason == nil)

      // Whatever runs there stores nothing and enables nothing.
      await #expect(throws: FencedError.self) {
        _ = try await store.store([.sample("1")], writer: database.guardian(poll, polling))
      }
      #expect(try await store.commit(database.outcome(poll, polling)) == .fenced)
      await #expect(throws: FencedError.self) {
        _ = try await store.claimAddress(writer: database.guardian(test, testing))
      }
      try await first.commit(test, testing, incoming: true)
      #expect(try await first.mailbox.incoming.enabled == false)
      let lease = database.lease(first.id, .poll, profile)
      #expect(try await store.check([lease])[lease.job] == .skip("disabled"))

      // On the walls of the mailbox, its owner and the profile's owner.
      for wall in [AlertWall.mailbox(first.id), .profile(profile)] {
        let alerts = try await first.alerts(AlertFilter(wall: wall))
        #expect(alerts.map(\.code) == ["ownership.taken-over"], "\(wall)")
        #expect(alerts.first?.level == .error && alerts.first?.parameters["direction"] == "incoming")
      }
      let told = try await second.alerts()
      #expect(told.map(\.code) == ["ownership.took-over"] && told.first?.level == .information)
      // The number of an organization or a mailbox stands in neither, nor its name.
      for alert in try await first.alerts() + told {
        #expect(alert.parameters == ["direction": "incoming"])
        #expect(!alert.text.contains("Other") && !alert.text.contains("Example"))
      }
      let audit = try await database.sql(
        """
        SELECT organization_id::text || ' ' || action || ' ' || coalesce(user_id::text, '-') || ' ' || user_name
        FROM audit WHERE action LIKE 'mailbox.take%' ORDER BY organization_id
        """
      ).map { try $0.text() }
      #expect(
        audit == [
          "\(first.principal.organizationID) mailbox.taken-over - another organization",
          "\(second.principal.organizationID) mailbox.take-over \(second.principal.userID) Olga",
        ])

      // And back again, with an answer to the alert as a passed test gives it.
      #expect(try await first.test() == .elsewhere)
      #expect(try await first.test(takingOver: true) == .takenOver)
      #expect(try await first.mailbox.incoming.notRunningReason == nil)
      #expect(try await second.mailbox.incoming.failureCode == "ownership.taken-over")
      try await check(database)
    }
  }

  @Test("the box counts for one test, whether or not that passes, and takes nothing before it has")
  func box() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (first, second) = try await sides(database)
      try await first.test()
      _ = try await store.requestTest(of: [second.id], takingOver: true, by: second.principal)
      let (lease, assignment) = try await database.assignment(try await second.mailbox, .test)
      #expect(try await first.mailbox.incoming.notRunningReason == nil)
      // Its password is refused.
      _ = try await store.commit(
        database.outcome(
          lease, assignment,
          directions: [DirectionChange(.incoming, status: .failure, enabled: false, failureCode: .authRejected)],
          failure: Failure(.authRejected)))
      #expect(try await first.mailbox.incoming.notRunningReason == nil)
      #expect(try await second.test() == .elsewhere)
      #expect(try await second.test(takingOver: true) == .takenOver)
      #expect(try await database.int("SELECT count(*) FROM address_take_over") == 0)
      // What it has is taken from nobody.
      #expect(try await second.test(takingOver: true) == .held)

      var sending = MailboxChange()
      sending.incomingMethod = SyncMethod.none
      _ = try await store.updateMailbox(second.id, sending, by: second.principal)
      let refused = try await store.requestTest(of: [second.id], takingOver: true, by: second.principal)
      #expect(refused.map(\.code) == ["nothing-to-take-over"])
      let audit = try await database.int(
        "SELECT count(*) FROM audit WHERE action = 'mailbox.test' AND after = '{\"takeOver\": true}'")
      #expect(audit == 3)
    }
  }

  @Test("two organizations test at the same time: one of them has the address", arguments: [false, true])
  func race(asBefore: Bool) async throws {
    try await TestDatabase.with(poolSize: 12) { database in
      let other = try await database.otherPrincipal()
      var pairs: [[Side]] = []
      for number in 0..<20 {
        pairs.append([
          try await Side("r\(number)@example.com", database.principal, database),
          try await Side("r\(number)@example.com", other, database),
        ])
      }
      for pair in pairs {
        let held = try await withThrowingTaskGroup(of: AddressClaim?.self) { group in
          for side in pair {
            group.addTask {
              if !asBefore { return try await side.test() }
              try await side.testAsBefore()
              return nil
            }
          }
          return try await group.reduce(into: []) { $0.append($1) }
        }
        if !asBefore { #expect(held.count { $0 == .held } == 1 && held.count { $0 == .elsewhere } == 1) }
        var running = 0
        for side in pair where try await side.mailbox.incoming.notRunningReason == nil { running += 1 }
        #expect(running == 1)
      }
      try await check(database)
    }
  }

  @Test("two organizations take an address over from a third at the same time: the last one has it, two are told")
  func raceForABox() async throws {
    try await TestDatabase.with(poolSize: 12) { database in
      let other = try await database.otherPrincipal()
      let third = try await database.principal(ofOrganization: "Third")
      for number in 0..<10 {
        let address = "r\(number)@example.com"
        let owner = try await Side(address, database.principal, database)
        let rivals = [try await Side(address, other, database), try await Side(address, third, database)]
        try await owner.test()
        try await withThrowingTaskGroup(of: Void.self) { group in
          for rival in rivals { group.addTask { _ = try await rival.test(takingOver: true) } }
          try await group.waitForAll()
        }
        var running = 0
        for side in [owner] + rivals where try await side.mailbox.incoming.notRunningReason == nil { running += 1 }
        #expect(running == 1)
        #expect(
          try await database.int(
            """
            SELECT count(*) FROM alert a JOIN mailbox m ON m.id = a.mailbox_id
            WHERE a.code = 'ownership.taken-over' AND m.address = '\(address)'
            """) == 2)
      }
      try await check(database)
    }
  }

  enum Release: String, CaseIterable, Sendable {
    case delete, deactivate, address, method
  }

  @Test("an address is given up with what it was held for", arguments: Release.allCases)
  func released(by release: Release) async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (first, second) = try await sides(database)
      try await first.test()
      #expect(try await second.test() == .elsewhere)
      // What fails, is edited or paused afterwards gives nothing up.
      var change = MailboxChange()
      change.password = Secret("another")
      _ = try await store.updateMailbox(first.id, change, by: first.principal)
      #expect(try await first.mailbox.incoming.status == .notRun)
      #expect(try await second.test() == .elsewhere)
      try await first.test()

      change = MailboxChange()
      switch release {
      case .delete:
        _ = try await store.deleteMailboxes(MailboxDeletionRequest(ids: [first.id]), by: first.principal)
      case .deactivate: change.isActive = false
      case .address: change.address = "new@example.com"
      case .method: change.incomingMethod = SyncMethod.none
      }
      if release != .delete { _ = try await store.updateMailbox(first.id, change, by: first.principal) }
      #expect(try await second.test() == .held)
      #expect(try await second.alerts().isEmpty)

      if release == .deactivate {
        // Who comes back finds it taken, and is told.
        change.isActive = true
        let back = try await store.updateMailbox(first.id, change, by: first.principal)
        #expect(back.isActive && back.incoming.failureCode == "ownership.other-organization")
        #expect(back.incoming.notRunningReason == "disabled" && back.outgoing.notRunningReason == nil)
        #expect(try await first.alerts().map(\.code) == ["ownership.other-organization"])
      }
      try await check(database)
    }
  }

  @Test("who comes back before anybody else has the address again, without a test")
  func comesBack() async throws {
    try await TestDatabase.with { database in
      let (first, second) = try await sides(database)
      try await first.test()
      var change = MailboxChange()
      change.isActive = false
      _ = try await database.store.updateMailbox(first.id, change, by: first.principal)
      #expect(try await database.int("SELECT count(*) FROM address_owner") == 0)
      change.isActive = true
      let back = try await database.store.updateMailbox(first.id, change, by: first.principal)
      #expect(back.incoming.notRunningReason == nil)
      #expect(try await second.test() == .elsewhere)
    }
  }

  @Test("a worker of the release before is held to it as well")
  func releaseBefore() async throws {
    try await TestDatabase.with { database in
      let (first, second) = try await sides(database)
      try await first.testAsBefore()
      try await second.testAsBefore()
      #expect(try await first.mailbox.incoming.notRunningReason == nil)
      let refused = try await second.mailbox
      #expect(refused.incoming.failureCode == "ownership.other-organization")
      #expect(refused.incoming.notRunningReason == "disabled" && refused.outgoing.notRunningReason == nil)
      #expect(try await second.alerts().map(\.code) == ["ownership.other-organization"])
      try await check(database)
    }
  }

  @Test("nobody reads or moves what another organization has; only a worker takes over")
  func rights() async throws {
    try await TestDatabase.with { database in
      let (first, second) = try await sides(database)
      try await first.test()
      let app = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      let seen = { (principal: Principal) in
        try await app.transaction(.api(principal)) { db in try db.query("SELECT * FROM address_owner").count }
      }
      #expect(try await seen(first.principal) == 1)
      #expect(try await seen(second.principal) == 0)
      let claimed = try await app.transaction(.api(second.principal)) { db in
        try db.query(
          """
          INSERT INTO address_owner (address_key, organization_id, mailbox_id) VALUES ('a@example.com', $1, $2)
          ON CONFLICT DO NOTHING RETURNING 1
          """, [.id(second.principal.organizationID), .id(second.id)]
        ).count
      }
      #expect(claimed == 0)
      for statement in [
        "UPDATE address_owner SET claimed_at = now()", "SELECT claim_address(\(second.id), 1, 1, 1)",
        "INSERT INTO address_owner VALUES ('x', \(first.principal.organizationID), 1)",
      ] {
        await #expect(throws: PostgresError.self, "\(statement)") {
          try await app.transaction(.api(second.principal)) { db in _ = try db.query(statement) }
        }
      }
      let deleted = try await app.transaction(.api(second.principal)) { db in
        try db.query("DELETE FROM address_owner RETURNING 1").count
      }
      #expect(deleted == 0)
      await app.close()
    }
  }

  @Test("the database tells it in the words of the table of failures")
  func words() async throws {
    try await TestDatabase.with { database in
      let side = try await Side("a@example.com", database.principal, database)
      for code in [FailureCode.ownershipOtherOrganization, .ownershipTakenOver] {
        try await database.sql(
          "SELECT raise_ownership_alert($1, $2, $3)",
          [.id(side.id), .id(side.principal.organizationID), .text(code.rawValue)])
        let alert = try #require(try await side.alerts(AlertFilter(code: code.rawValue)).first)
        #expect(alert.text == Failure(code).description && alert.remedy == code.remedy && alert.level == .error)
      }
    }
  }
}

extension TestDatabase {
  /// The administrator of one more organization.
  func principal(ofOrganization organization: String) async throws -> Principal {
    let made = try await Bootstrap(url: server.url("pr_owner", name), logger: .test).ensureOrganization(
      name: organization, administratorName: "Tom", administratorAddress: "tom@example.net")
    guard let principal = try await store.principal(token: made.token) else { throw TimedOut(what: "a principal") }
    return principal
  }
}
