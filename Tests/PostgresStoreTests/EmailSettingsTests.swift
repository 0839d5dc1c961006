import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("The organization's email settings (S1 to S5)", .timeLimit(.minutes(3)))
struct EmailSettingsTests {
  private func change(_ set: (inout EmailSettingsChange) -> Void) -> EmailSettingsChange {
    var change = EmailSettingsChange()
    set(&change)
    return change
  }

  @Test("the default profile is one stored value, whichever way it is set")
  func defaultProfile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      #expect(try await store.emailSettings(for: database.principal).defaultProfileID == nil)
      let first = try await database.profile("First")
      let second = try await database.profile("Second", isDefault: false)
      #expect(try await store.emailSettings(for: database.principal).defaultProfileID == first.id)
      let moved = try await store.updateEmailSettings(
        change { $0.defaultProfileID = second.id }, by: database.principal)
      #expect(moved.defaultProfileID == second.id && moved.defaultProfileName == "Second")
      #expect(try await store.profile(second.id, for: database.principal).isDefault)
      #expect(try await store.profile(first.id, for: database.principal).isDefault == false)
      #expect(try await database.mailbox("a@example.com").profileID == second.id)
      var back = ProfileChange()
      back.isDefault = true
      _ = try await store.updateProfile(first.id, back, by: database.principal)
      #expect(try await store.emailSettings(for: database.principal).defaultProfileID == first.id)
      let none = try await store.updateEmailSettings(
        change { $0.clears = [.defaultProfileID] }, by: database.principal)
      #expect(none.defaultProfileID == nil)
      #expect(try await database.mailbox("b@example.com").profileID == nil)
      let other = try await database.otherPrincipal()
      let error = await #expect(throws: StoreError.self) {
        try await store.updateEmailSettings(change { $0.defaultProfileID = first.id }, by: other)
      }
      #expect(
        error
          == .invalid([FieldProblem("/defaultProfileID", "unknown", "there is no server profile \(first.id)")]))
      #expect(try await store.emailSettings(for: other).version == 1)
    }
  }

  @Test("limits and the interval reach the next session of a running worker; an older version is refused")
  func limits() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let before = try await database.assignment(mailbox, .poll).1.settings
      #expect(before.messagesPerPoll == 1_000 && before.pollingInterval == .seconds(300))
      let settings = try await store.emailSettings(for: database.principal)
      let changed = try await store.updateEmailSettings(
        change {
          $0.maximumMessageOctets = 2_048
          $0.maximumAttachmentOctets = 1_024
          $0.messagesPerPoll = 7
          $0.sessionDeadlineSeconds = 99
          $0.pollingIntervalMinutes = 60
          $0.version = settings.version
        }, by: database.principal)
      #expect(changed.version == settings.version + 1)
      let after = try await database.assignment(mailbox, .poll).1.settings
      #expect(after.maximumMessageOctets == 2_048 && after.maximumAttachmentOctets == 1_024)
      #expect(after.messagesPerPoll == 7 && after.sessionDeadline == .seconds(99))
      #expect(after.pollingInterval == .seconds(3_600))
      let stale = await #expect(throws: StoreError.self) {
        try await store.updateEmailSettings(
          change {
            $0.messagesPerPoll = 8
            $0.version = settings.version
          }, by: database.principal)
      }
      #expect(stale == .stale)
      // What changes nothing writes nothing.
      #expect(
        try await store.updateEmailSettings(change { $0.messagesPerPoll = 7 }, by: database.principal).version
          == changed.version)
      #expect(try await database.int("SELECT count(*) FROM audit WHERE action = 'email-settings.update'") == 1)
    }
  }

  @Test("a shorter interval brings waiting polls forward")
  func shorterInterval() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let due = "SELECT count(*) FROM mailbox_schedule WHERE kind = 'p' AND next_due_at > now() + interval '2 minutes'"
      try await database.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '50 minutes', reason = 'slot' WHERE kind = 'p'")
      _ = try await database.store.updateEmailSettings(
        change { $0.pollingIntervalMinutes = 60 }, by: database.principal)
      #expect(try await database.int(due) == 1, "\(mailbox.id)")
      _ = try await database.store.updateEmailSettings(
        change { $0.pollingIntervalMinutes = 2 }, by: database.principal)
      #expect(try await database.int(due) == 0)
    }
  }

  @Test("S3: approval asked for or not starts and stops mailboxes, also those that only the leader reaches")
  func approval() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let user = try await database.runningMailbox("a@example.com")
      _ = try await store.setApproval(.rejected, of: [user.id], by: database.principal)
      func incoming() async throws -> DirectionState {
        try await store.mailbox(user.id, for: database.principal).incoming
      }
      #expect(try await incoming().notRunningReason == "not-approved")
      _ = try await store.updateEmailSettings(change { $0.approvedQueuesOnly = false }, by: database.principal)
      #expect(try await incoming().notRunningReason == "not-approved")
      _ = try await store.updateEmailSettings(change { $0.approvedUsersOnly = false }, by: database.principal)
      #expect(try await incoming().notRunningReason == nil)
      let runs = "SELECT count(*) FROM mailbox_schedule WHERE mailbox_id = \(user.id) AND kind = 'p' AND enabled"
      #expect(try await database.int(runs) == 1)
      #expect(try await database.int("SELECT count(*) FROM organization WHERE settled_to IS NOT NULL") == 0)
      _ = try await store.updateEmailSettings(change { $0.approvedUsersOnly = true }, by: database.principal)
      #expect(try await database.int(runs) == 0)

      // More than one step: the mailbox with the highest number is not reached by the change itself.
      _ = try await store.updateEmailSettings(change { $0.approvedUsersOnly = false }, by: database.principal)
      try await database.sql(
        """
        WITH made AS (
          INSERT INTO mailbox (organization_id, address, address_key, user_id, profile_id, incoming_method,
            outgoing_method, incoming_status, incoming_enabled)
          SELECT m.organization_id, 'x' || n || '@example.com', 'x' || n || '@example.com', m.user_id, m.profile_id,
            m.incoming_method, m.outgoing_method, 'success', true
          FROM mailbox m CROSS JOIN generate_series(1, 1100) AS n WHERE m.id = $1 RETURNING id, organization_id, profile_id)
        INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled)
        SELECT id, organization_id, profile_id, 'p', 2, true FROM made
        """, [.id(user.id)])
      let allRun = "SELECT count(*) FROM mailbox_schedule WHERE kind = 'p' AND enabled"
      #expect(try await database.int(allRun) == 1_101)
      _ = try await store.updateEmailSettings(change { $0.approvedUsersOnly = true }, by: database.principal)
      #expect(try await database.int(allRun) == 101)
      #expect(try await store.sweep())
      #expect(try await database.int(allRun) == 0)
      #expect(try await store.sweep() == false)
    }
  }

  @Test("S4: a level that is off raises no alert, whoever raises it; others do")
  func alertLevels() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let raise = { (level: AlertLevel) async throws in
        try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        let alert = AlertDraft(level: level, code: "test.\(level.rawValue)", text: "x")
        _ = try await store.commit(database.outcome(lease, assignment, alerts: [.raise(alert)]))
        try await store.change(profileAlerts: [
          ProfileAlertChange(
            profileID: profile.id,
            .raise(AlertDraft(level: level, code: "wall.\(level.rawValue)", text: "x", onProfile: true)))
        ])
      }
      let counts = "SELECT coalesce(sum(count), 0)::bigint FROM alert WHERE level = "
      try await raise(.warning)
      #expect(try await database.int(counts + "'warning'") == 2)
      _ = try await store.updateEmailSettings(change { $0.alertLevels = [.error] }, by: database.principal)
      try await raise(.warning)
      try await raise(.information)
      try await raise(.error)
      #expect(try await database.int(counts + "'warning'") == 2)
      #expect(try await database.int(counts + "'information'") == 0)
      #expect(try await database.int(counts + "'error'") == 2)
      // Another organization decides for itself.
      #expect(
        try await store.emailSettings(for: try await database.otherPrincipal()).alertLevels == AlertLevel.allCases)
    }
  }

  @Test("S2: server-side-sync for appointments may be the default, is none in effect, and is refused on the mailbox")
  func act() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let settings = try await store.updateEmailSettings(
        change { $0.actMethod = .serverSideSync }, by: database.principal)
      #expect(settings.act.method == .serverSideSync && settings.act.effectiveMethod == .none)
      #expect(settings.act.reason == "act.unsupported-profile")
      let mailbox = try await database.mailbox("a@example.com")
      #expect(mailbox.profileID == profile.id)
      #expect(mailbox.act == ACTState(method: .serverSideSync, on: .pop3SMTP))
      #expect(mailbox.act.status == .notRun && mailbox.act.effectiveMethod == .none)
      var change = MailboxChange()
      change.actMethod = .serverSideSync
      let error = await #expect(throws: StoreError.self) {
        try await store.updateMailbox(mailbox.id, change, by: database.principal)
      }
      guard case .invalid(let problems) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(problems.map(\.pointer) == ["/actMethod"] && problems.map(\.code) == ["act.unsupported-profile"])
      change.actMethod = SyncMethod.none
      let without = try await store.updateMailbox(mailbox.id, change, by: database.principal)
      #expect(without.act.method == .none && without.act.reason == nil)
      // Nothing of mail was touched by it.
      #expect(without.incoming.status == mailbox.incoming.status)
      var draft = MailboxDraft(address: "b@example.com")
      draft.actMethod = .serverSideSync
      await #expect(throws: StoreError.self) { try await store.createMailbox(draft, by: database.principal) }
      try await database.pass(try await approved(mailbox, database))
      #expect(try await store.mailbox(mailbox.id, for: database.principal).act.status == .notRun)
    }
  }

  private func approved(_ mailbox: Mailbox, _ database: TestDatabase) async throws -> Mailbox {
    _ = try await database.store.setApproval(.approved, of: [mailbox.id], by: database.principal)
    return mailbox
  }
}
