import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Alerts: walls, dismissing, deleting (E5)", .timeLimit(.minutes(3)))
struct AlertVerbTests {
  /// A mailbox of the principal, one of somebody else, and their profile, each with an error and a warning.
  private func raise(_ database: TestDatabase) async throws -> (mine: Mailbox, other: Mailbox, profile: ServerProfile) {
    let profile = try await database.profile()
    // The principal is the user with this address.
    let mine = try await database.mailbox("ada@example.com")
    let other = try await database.mailbox("bob@example.com")
    // Somebody else's.
    try await database.sql(
      "UPDATE server_profile SET owner_id = (SELECT user_id FROM mailbox WHERE id = $2) WHERE id = $1",
      [.id(profile.id), .id(other.id)])
    try await database.sql(
      """
      INSERT INTO alert (organization_id, mailbox_id, profile_id, level, code, text)
      SELECT $1, s.mailbox_id, s.profile_id, l.level, 'test.' || l.level, 'x'
      FROM (VALUES ($2::bigint, NULL::bigint), ($3, NULL), (NULL, $4)) AS s (mailbox_id, profile_id)
      CROSS JOIN (VALUES ('error'), ('warning')) AS l (level)
      """, [.id(database.principal.organizationID), .id(mine.id), .id(other.id), .id(profile.id)])
    return (mine, other, profile)
  }

  @Test("each wall shows its own; errors of a profile reach owners of mailboxes where the settings say so")
  func walls() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (mine, other, profile) = try await raise(database)
      func wall(_ wall: AlertWall?) async throws -> [String] {
        let page = try await store.alerts(AlertFilter(wall: wall), PageRequest(), for: database.principal)
        #expect(page.total == page.items.count)
        return page.items.map { alert in
          let whose = alert.mailboxID == mine.id ? "mine" : alert.mailboxID == other.id ? "other" : "profile"
          return "\(whose) \(alert.level.rawValue)"
        }.sorted()
      }
      let own = ["mine error", "mine warning"]
      #expect(try await wall(nil).count == 6)
      #expect(try await wall(.mine) == own)
      #expect(try await wall(.mailbox(other.id)) == ["other error", "other warning"])
      #expect(
        try await wall(.profile(profile.id)) == ["mine error", "other error", "profile error", "profile warning"])
      var change = EmailSettingsChange()
      change.notifiesMailboxOwners = true
      _ = try await store.updateEmailSettings(change, by: database.principal)
      #expect(try await wall(.mine) == own + ["profile error"])
      #expect(try await wall(.mailbox(other.id)) == ["other error", "other warning", "profile error"])
      try await database.sql(
        "UPDATE server_profile SET owner_id = $2 WHERE id = $1", [.id(profile.id), .id(database.principal.userID)])
      #expect(try await wall(.mine) == own + ["profile error", "profile warning"])
      let page = try await store.alerts(
        AlertFilter(profileID: profile.id, level: .error, code: "test.error"), PageRequest(), for: database.principal)
      #expect(page.items.map(\.profileID) == [profile.id])
      let foreign = try await database.otherPrincipal()
      for wall in [AlertWall.mailbox(mine.id), .profile(profile.id), .mine] {
        #expect(try await store.alerts(AlertFilter(wall: wall), PageRequest(), for: foreign).total == 0)
      }
      await #expect(throws: StoreError.notFound("alert")) {
        try await store.alert(try #require(page.items.first?.id), for: foreign)
      }
    }
  }

  @Test("alerts of inactive people stand on the administrators' wall, so that somebody sees them")
  func orphans() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (_, other, profile) = try await raise(database)
      func mine(_ role: Role) async throws -> Int {
        var principal = database.principal
        principal.role = role
        return try await store.alerts(AlertFilter(wall: .mine), PageRequest(), for: principal).total
      }
      #expect(try await mine(.administrator) == 2)
      // The two of a profile that nobody owns.
      try await database.sql("UPDATE server_profile SET owner_id = NULL WHERE id = $1", [.id(profile.id)])
      #expect(try await mine(.administrator) == 4)
      #expect(try await mine(.reader) == 2)
      try await database.sql(
        "UPDATE server_profile SET owner_id = (SELECT user_id FROM mailbox WHERE id = $2) WHERE id = $1",
        [.id(profile.id), .id(other.id)])
      #expect(try await mine(.administrator) == 2)
      let bob = try await database.sql("SELECT user_id FROM mailbox WHERE id = $1", [.id(other.id)]).map { row in
        try row.id() as UserID
      }[0]
      _ = try await store.updateUser(bob, UserChange(isActive: false), by: database.principal)
      #expect(try await mine(.administrator) == 6)
      #expect(try await mine(.reader) == 2)

      // A shared queue goes on for its members.
      let queue = try await store.createSharedQueue(
        SharedQueueDraft(address: "help@example.com", ownerID: bob), by: database.principal)
      try await database.sql(
        "UPDATE mailbox SET user_id = NULL, queue_id = $2 WHERE id = $1", [.id(other.id), .id(queue.id)])
      #expect(try await mine(.administrator) == 6)
      let cy = try await store.createUser(UserDraft(address: "cy@example.com"), by: database.principal)
      _ = try await store.updateSharedQueue(
        queue.id, SharedQueueChange(memberIDs: [cy.id]), by: database.principal)
      #expect(try await mine(.administrator) == 4)
      _ = try await store.updateUser(cy.id, UserChange(isActive: false), by: database.principal)
      #expect(try await mine(.administrator) == 6)
    }
  }

  @Test("a dismissed alert is closed and says by whom; what happens again is a new one")
  func dismissal() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await raise(database)
      let all = try await store.alerts(AlertFilter(), PageRequest(), for: database.principal).items
      let alert = try #require(all.first { $0.profileID != nil && $0.level == .error })
      #expect(try await store.alert(alert.id, for: database.principal) == alert)
      let foreign = try await database.otherPrincipal()
      #expect(try await store.dismissAlerts([alert.id], by: foreign).map(\.code) == ["not-found"])
      #expect(
        try await store.dismissAlerts([alert.id, AlertID(99_999)], by: database.principal).map(\.ok) == [true, false])
      let closed = try await store.alert(alert.id, for: database.principal)
      #expect(closed.resolvedAt != nil && closed.dismissedBy == database.principal.name)
      // Twice is once.
      #expect(try await store.dismissAlerts([alert.id], by: database.principal).map(\.ok) == [true])
      #expect(try await store.alert(alert.id, for: database.principal) == closed)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'alert.dismiss'") == 1)
      try await store.change(profileAlerts: [
        ProfileAlertChange(
          profileID: try #require(alert.profileID),
          .raise(AlertDraft(level: .error, code: alert.code, text: "again", onProfile: true)))
      ])
      let open = try await store.alerts(AlertFilter(code: alert.code), PageRequest(), for: database.principal).items
      #expect(open.count { $0.profileID == alert.profileID } == 1 && !open.contains { $0.id == alert.id })
    }
  }

  @Test("delete-all deletes what the filter leaves, of this organization alone, and counts first")
  func deletion() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let (mine, _, _) = try await raise(database)
      let foreign = try await database.otherPrincipal()
      #expect(try await store.deleteAlerts(AlertFilter(), dryRun: false, by: foreign) == 0)
      #expect(try await store.deleteAlerts(AlertFilter(level: .warning), dryRun: true, by: database.principal) == 3)
      #expect(try await database.int("SELECT count(*) FROM alert") == 6)
      #expect(try await store.deleteAlerts(AlertFilter(level: .warning), dryRun: false, by: database.principal) == 3)
      #expect(
        try await store.deleteAlerts(AlertFilter(mailboxID: mine.id), dryRun: false, by: database.principal) == 1)
      #expect(try await database.int("SELECT count(*) FROM alert") == 2)
      try await database.sql("UPDATE alert SET resolved_at = now()")
      #expect(try await store.deleteAlerts(AlertFilter(), dryRun: false, by: database.principal) == 0)
      let all = AlertFilter(includeResolved: true)
      #expect(try await store.deleteAlerts(all, dryRun: false, by: database.principal) == 2)
      #expect(
        try await database.int("SELECT sum((after->>'deleted')::int)::bigint FROM audit WHERE action = 'alert.delete'")
          == 6)
    }
  }
}
