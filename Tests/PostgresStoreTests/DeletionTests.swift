import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Deletion of profiles and mailboxes", .timeLimit(.minutes(3)))
struct DeletionTests {
  // MARK: Profiles

  @Test("a profile with mailboxes asks first; they stay, stand still and say so; late results change nothing")
  func profile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let planned = try await store.deleteProfile(
        profile.id, confirmsUnlinking: false, dryRun: true, by: database.principal)
      #expect(planned == ProfileDeletion(id: profile.id, name: "Mail", mailboxes: 1, isDone: false))
      let error = await #expect(throws: StoreError.self) {
        try await store.deleteProfile(profile.id, confirmsUnlinking: false, dryRun: false, by: database.principal)
      }
      guard case .conflict(code: "has-mailboxes", let message) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(message.hasPrefix("1 mailbox loses"))
      let foreign = try await database.otherPrincipal()
      await #expect(throws: StoreError.notFound("server profile")) {
        try await store.deleteProfile(profile.id, confirmsUnlinking: true, dryRun: false, by: foreign)
      }
      #expect(try await store.mailbox(mailbox.id, for: database.principal).incoming.enabled)

      let deletion = try await store.deleteProfile(
        profile.id, confirmsUnlinking: true, dryRun: false, by: database.principal)
      #expect(deletion.isDone && deletion.mailboxes == 1)
      await #expect(throws: StoreError.notFound("server profile")) {
        try await store.profile(profile.id, for: database.principal)
      }
      let left = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(left.profileID == nil && left.profileName == nil && left.version == mailbox.version + 1)
      for state in [left.incoming, left.outgoing] {
        #expect(state.notRunningReason == "no-profile" && state.status == .notRun && !state.enabled)
        #expect(state.nextRunAt == nil)
      }
      #expect(try await store.commit(database.outcome(lease, assignment)) == .fenced)
      // The queue is told: its jobs are withdrawn, the profile gives no lease.
      #expect(try await store.moves(limit: 10) == [MailboxMove(mailbox: mailbox.id, from: profile.id)])
      #expect(try await store.queueProfile(profile.id).limit == 0)
      // It goes on with another profile, once nothing is leased under the old one.
      let next = try await database.profile("Next")
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(profileID: next.id), by: database.principal)
      try await store.finish(try await store.moves(limit: 10))
      try await database.pass(try await store.mailbox(mailbox.id, for: database.principal))
      #expect(try await store.mailbox(mailbox.id, for: database.principal).incoming.notRunningReason == nil)
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE action = 'profile.delete' AND before->>'name' = 'Mail'") == 1)
    }
  }

  @Test("a profile with very many mailboxes is inactive at once, cannot be changed or used, and gone with the last")
  func bigProfile() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      try await database.sql(
        """
        INSERT INTO mailbox (organization_id, address, address_key, user_id, profile_id, incoming_method, outgoing_method)
        SELECT m.organization_id, 'x' || n || '@example.com', 'x' || n || '@example.com', m.user_id, m.profile_id,
          m.incoming_method, m.outgoing_method
        FROM mailbox m CROSS JOIN generate_series(1, 1000) AS n WHERE m.id = $1
        """, [.id(mailbox.id)])
      let deletion = try await store.deleteProfile(
        profile.id, confirmsUnlinking: true, dryRun: false, by: database.principal)
      #expect(!deletion.isDone && deletion.mailboxes == 1_001)
      let stopped = try await store.profile(profile.id, for: database.principal)
      #expect(!stopped.isActive && !stopped.isDefault && stopped.deletingSince != nil)
      #expect(
        try await store.mailbox(mailbox.id, for: database.principal).incoming.notRunningReason == "profile-inactive")
      let error = await #expect(throws: StoreError.self) {
        try await store.updateProfile(profile.id, ProfileChange(isActive: true), by: database.principal)
      }
      guard case .conflict(code: "being-deleted", _) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      await #expect(throws: StoreError.self) {
        try await store.createMailbox(
          MailboxDraft(address: "new@example.com", profileID: profile.id), by: database.principal)
      }
      let left = "SELECT count(*) FROM mailbox WHERE profile_id IS NOT NULL"
      #expect(try await store.sweep())
      #expect(try await database.int(left) == 1)
      #expect(try await store.sweep())
      #expect(try await store.sweep())
      #expect(try await database.int(left) == 0)
      #expect(try await database.int("SELECT count(*) FROM server_profile") == 0)
      #expect(try await store.sweep() == false)
    }
  }

  // MARK: Mailboxes

  @Test("a deleted mailbox is gone at once with its grants and alerts; its mail, ledger and runs are swept")
  func mailbox() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let gone = try await database.runningMailbox("a@example.com")
      let kept = try await database.runningMailbox("b@example.com")
      for mailbox in [gone, kept] {
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        var message = ReceivedMessage.sample("1", octets: 3_000)
        message.attachments = [
          ReceivedAttachment(
            record: AttachmentRecord(fileName: "a", contentType: "text/plain", sizeOctets: 1), content: .bytes([1]))
        ]
        let writer = database.guardian(lease, assignment)
        _ = try await store.store([message], writer: writer)
        for _ in 0..<3 {
          _ = try await store.messageFailed(
            uidl: "2", failure: Failure(.messageUnparsable), raw: .bytes([1, 2]), writer: writer)
        }
        let step = TraceStep(
          direction: .incoming, name: .connect, tried: "x", result: .ok, startedAt: Date(), milliseconds: 1)
        _ = try await store.commit(
          database.outcome(
            lease, assignment, alerts: [.raise(AlertDraft(level: .error, code: "tcp.closed", text: "x"))],
            steps: [step]))
        _ = try await store.submit(
          OutgoingSubmission(
            mailboxID: mailbox.id, recipients: ["c@example.com"], subject: "x", messageID: "1@example.com",
            raw: .bytes([1]), hold: true), by: database.principal)
      }
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
      let (lease, assignment) = try await database.assignment(gone, .poll)
      let foreign = try await database.otherPrincipal()
      let refused = try await store.deleteMailboxes(MailboxDeletionRequest(ids: [gone.id]), by: foreign)
      #expect(refused.map(\.code) == ["not-found"])
      let planned = try await store.deleteMailboxes(
        MailboxDeletionRequest(ids: [gone.id], dryRun: true), by: database.principal)
      #expect(planned.map(\.ok) == [true] && planned.map(\.storedEmails) == [1])
      _ = try await store.mailbox(gone.id, for: database.principal)

      let answers = try await store.deleteMailboxes(
        MailboxDeletionRequest(ids: [gone.id, MailboxID(99_999)]), by: database.principal)
      #expect(answers.map(\.ok) == [true, false] && answers.map(\.code) == [nil, "not-found"])
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.mailbox(gone.id, for: database.principal)
      }
      #expect(try await store.emails(mailbox: nil, PageRequest(), for: database.principal).items.count == 1)
      // A session that began before writes nothing, whatever it tries.
      await #expect(throws: FencedError.self) {
        _ = try await store.store([.sample("9")], writer: database.guardian(lease, assignment))
      }
      await #expect(throws: FencedError.self) {
        try await store.noteOwnMessage("own@example.com", writer: database.guardian(lease, assignment))
      }
      #expect(try await store.commit(database.outcome(lease, assignment)) == .fenced)
      // The address is free, and the mail of its former mailbox is not the new one's.
      let again = try await database.mailbox("a@example.com")
      #expect(again.id != gone.id && again.emailCount == 0)

      #expect(try await store.deletedMailboxes(limit: 10) == [MailboxMove(mailbox: gone.id, from: profile.id)])
      try await store.finishWithdrawal(of: [gone.id])
      #expect(try await store.deletedMailboxes(limit: 10).isEmpty)
      while try await store.sweep() {}
      for table in ["email", "ledger", "quarantine", "outgoing_email", "run"] {
        #expect(
          try await database.int("SELECT count(*) FROM \(table) WHERE mailbox_id = $1", [.id(gone.id)]) == 0, "\(table)"
        )
        #expect(
          try await database.int("SELECT count(*) FROM \(table) WHERE mailbox_id = $1", [.id(kept.id)]) > 0, "\(table)")
      }
      // Of what both had, one half is left: raw message, attachment, quarantined and outgoing message.
      #expect(try await database.int("SELECT count(DISTINCT content_id) FROM content_chunk") == 4)
      #expect(try await database.int("SELECT count(*) FROM attachment") == 1)
      #expect(try await database.int("SELECT count(*) FROM outgoing_recipient") == 1)
      #expect(try await database.int("SELECT count(*) FROM run_step") == 1)
      #expect(try await database.int("SELECT count(*) FROM alert WHERE mailbox_id = $1", [.id(gone.id)]) == 0)

      // What was under way is found an hour later; then nothing remembers it but the audit.
      try await database.sql(
        """
        INSERT INTO ledger (mailbox_id, uidl, organization_id, state) VALUES ($1, 'late', $2, 'stored')
        """, [.id(gone.id), .id(database.principal.organizationID)])
      #expect(try await store.sweep() == false)
      try await database.sql("UPDATE deleted_mailbox SET deleted_at = now() - interval '2 hours', next_step_at = now()")
      while try await store.sweep() {}
      #expect(try await database.int("SELECT count(*) FROM ledger WHERE mailbox_id = $1", [.id(gone.id)]) == 0)
      #expect(try await database.int("SELECT count(*) FROM deleted_mailbox") == 0)
      #expect(
        try await database.int(
          "SELECT count(*) FROM audit WHERE action = 'mailbox.delete' AND before->>'address' = 'a@example.com'") == 1)
    }
  }

  @Test("mail that waits to be sent, and the mailbox that alerts are mailed from, are refused")
  func refusals() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      _ = try await store.submit(
        OutgoingSubmission(
          mailboxID: mailbox.id, recipients: ["c@example.com"], subject: "x", messageID: "1@example.com",
          raw: .bytes([1])), by: database.principal)
      let unsent = try await store.deleteMailboxes(MailboxDeletionRequest(ids: [mailbox.id]), by: database.principal)
      #expect(unsent.map(\.code) == ["unsent-mail"] && unsent.map(\.unsentEmails) == [1])
      #expect(unsent.first?.message?.hasPrefix("1 message waits") == true)
      var mail = AlertMailChange(isOn: true, recipients: ["ops@example.com"])
      mail.mailboxID = mailbox.id
      _ = try await store.updateAlertMail(mail, by: database.principal)
      let request = MailboxDeletionRequest(ids: [mailbox.id], confirmsUnsentMail: true)
      #expect(try await store.deleteMailboxes(request, by: database.principal).map(\.code) == ["sends-alerts"])
      _ = try await store.updateAlertMail(AlertMailChange(isOn: false), by: database.principal)
      #expect(try await store.deleteMailboxes(request, by: database.principal).map(\.ok) == [true])
      // Who gets alerts is not forgotten with it.
      let settings = try await store.alertMail(for: database.principal)
      #expect(settings.recipients == ["ops@example.com"] && settings.mailboxID == nil)
    }
  }
}
