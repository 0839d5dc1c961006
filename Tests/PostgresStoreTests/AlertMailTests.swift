import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Alert mail: what goes out, once, and never about itself (features P20, S4)")
struct AlertMailTests {
  private struct Setup {
    let database: TestDatabase
    let alerting: Mailbox
    let other: Mailbox

    func digests() async throws -> [AlertDigest] { try await database.store.alertDigests(pause: .zero) }

    /// Hands what is due over, as the scheduler does; the codes that were in it.
    func mail() async throws -> [String] {
      var codes: [String] = []
      for digest in try await digests() {
        let mail = OutgoingSubmission(
          mailboxID: digest.mailboxID, recipients: digest.recipients, subject: "alerts",
          messageID: "\(UUID().uuidString)@example.com", raw: .bytes([1]))
        #expect(try await database.store.submit(mail, of: digest, pause: .zero))
        codes += digest.alerts.map(\.code)
      }
      return codes
    }

    func raise(
      _ code: String, _ level: AlertLevel = .error, on mailbox: Mailbox? = nil, profile: ProfileID? = nil,
      direction: Direction? = nil
    ) async throws {
      let subject = mailbox.map { ("mailbox_id", $0.id.value) } ?? ("profile_id", profile?.value ?? 0)
      try await database.sql(
        """
        INSERT INTO alert AS a (organization_id, \(subject.0), code, level, direction, text, remedy)
        VALUES ($1, $2, $3, $4, $5, 'It happened.', 'Do something.')
        ON CONFLICT (\(subject.0), code, coalesce(direction, '')) WHERE resolved_at IS NULL AND \(subject.0) IS NOT NULL
        DO UPDATE SET count = a.count + 1, level = EXCLUDED.level, last_seen = now()
        """,
        [
          .id(database.principal.organizationID), .int(subject.1), .text(code), .text(level.rawValue),
          .text(direction?.rawValue),
        ])
    }

    func resolve(_ code: String) async throws {
      try await database.sql("UPDATE alert SET resolved_at = now() WHERE code = $1", [.text(code)])
    }
  }

  private func with(_ body: @escaping @Sendable (Setup) async throws -> Void) async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let alerting = try await database.runningMailbox("alerts@example.com")
      try await database.sql(
        "UPDATE mailbox SET outgoing_method = 'server-side-sync' WHERE id = $1", [.id(alerting.id)])
      try await database.sql("SELECT refresh_may_run(ARRAY[$1::bigint])", [.id(alerting.id)])
      _ = try await database.profile("Another", isDefault: true)
      let other = try await database.runningMailbox("other@example.com")
      // What the tests of the mailboxes said.
      try await database.sql("DELETE FROM alert")
      let setup = Setup(database: database, alerting: alerting, other: other)
      _ = try await database.store.updateAlertMail(
        AlertMailChange(isOn: true, mailboxID: alerting.id, recipients: ["ops@example.org"]), by: database.principal)
      try await body(setup)
    }
  }

  @Test("each alert once, again when it becomes an error, not again when it comes back within the hour")
  func once() async throws {
    try await with { setup in
      try await setup.raise("smtp.busy", .warning, on: setup.other)
      try await setup.raise("good.to-know", .information, on: setup.other)
      let digest = try #require(try await setup.digests().first)
      #expect(digest.sender == "alerts@example.com" && digest.recipients == ["ops@example.org"])
      #expect(digest.alerts.map(\.code) == ["smtp.busy"] && digest.alerts.first?.mailboxAddress == "other@example.com")
      #expect(try await setup.mail() == ["smtp.busy"])
      #expect(try await setup.mail() == [])
      // A repeat updates the row and is no news; the same as an error is.
      try await setup.raise("smtp.busy", .warning, on: setup.other)
      #expect(try await setup.mail() == [])
      try await setup.raise("smtp.busy", .error, on: setup.other)
      #expect(try await setup.mail() == ["smtp.busy"])
      try await setup.resolve("smtp.busy")
      try await setup.raise("smtp.busy", .error, on: setup.other)
      #expect(try await setup.mail() == [], "it flaps")
      try await setup.database.sql("UPDATE alert SET mailed_at = mailed_at - interval '2 hours'")
      #expect(try await setup.mail() == ["smtp.busy"])

      let emails = try await setup.database.store.outgoingEmails(
        mailbox: setup.alerting.id, state: .pendingSend, PageRequest(), for: setup.database.principal)
      #expect(emails.total == 3)
      #expect(
        try await setup.database.int(
          "SELECT requested - served FROM mailbox_schedule WHERE mailbox_id = $1 AND kind = 's'",
          [.id(setup.alerting.id)]) == 3)
    }
  }

  @Test("nothing about the mailbox that sends it, nor about its outgoing server")
  func neverAboutItself() async throws {
    try await with { setup in
      let profile = try #require(setup.alerting.profileID)
      try await setup.raise("smtp.recipient", on: setup.alerting, direction: .outgoing)
      try await setup.raise("auth.rejected", on: setup.alerting, direction: .incoming)
      try await setup.raise("tls.expired", profile: profile, direction: .outgoing)
      #expect(try await setup.digests().isEmpty)
      // The incoming server of the same profile, and everything of others, is news.
      try await setup.raise("pop3.greeting", profile: profile, direction: .incoming)
      try await setup.raise("tls.expired", profile: setup.other.profileID, direction: .outgoing)
      #expect(try await setup.mail().sorted() == ["pop3.greeting", "tls.expired"])
    }
  }

  @Test("one mail in a while, from one of several leaders, only while the mailbox sends")
  func pace() async throws {
    try await with { setup in
      let store = setup.database.store
      try await setup.raise("a.first", on: setup.other)
      let digest = try #require(try await setup.digests().first)
      let mail = OutgoingSubmission(
        mailboxID: setup.alerting.id, recipients: ["ops@example.org"], subject: "x", messageID: "1@example.com",
        raw: .bytes([1]))
      #expect(try await store.submit(mail, of: digest, pause: .seconds(60)))
      // Another leader had read the same before.
      #expect(try await store.submit(mail, of: digest, pause: .seconds(60)) == false)
      #expect(try await setup.database.int("SELECT count(*) FROM outgoing_email") == 1)
      try await setup.raise("a.second", on: setup.other)
      #expect(try await store.alertDigests(pause: .seconds(60)).isEmpty)
      #expect(try await store.alertDigests(pause: .zero).count == 1)
      // A mailbox that is stopped keeps the news until it sends again.
      _ = try await store.updateMailbox(
        setup.alerting.id, MailboxChange(isActive: false), by: setup.database.principal)
      #expect(try await setup.digests().isEmpty)
      let settings = try await store.alertMail(for: setup.database.principal)
      #expect(settings.isOn && settings.notSendingReason == "mailbox-inactive" && settings.lastMailedAt != nil)
      _ = try await store.updateMailbox(setup.alerting.id, MailboxChange(isActive: true), by: setup.database.principal)
      #expect(try await setup.mail() == ["a.second"])
      _ = try await store.updateAlertMail(AlertMailChange(isOn: false), by: setup.database.principal)
      try await setup.raise("a.third", on: setup.other)
      #expect(try await setup.digests().isEmpty)
    }
  }

  @Test("the owner of a profile is told, once, when more than half of its mailboxes fail within an hour")
  func owner() async throws {
    try await with { setup in
      let (database, store) = (setup.database, setup.database.store)
      let profile = try #require(setup.other.profileID)
      let second = try await database.runningMailbox("second@example.com")
      _ = try await database.runningMailbox("third@example.com")
      try await database.sql("DELETE FROM alert")
      // Only the owner is told, nobody else.
      _ = try await store.updateAlertMail(AlertMailChange(isOn: false), by: database.principal)
      func fail(_ mailbox: Mailbox, _ code: String?) async throws {
        try await database.sql(
          "UPDATE mailbox_schedule SET failure_code = $2, last_run_at = now() WHERE mailbox_id = $1 AND kind = 'p'",
          [.id(mailbox.id), .text(code)])
        try await store.reportFailingProfiles()
      }
      try await fail(setup.other, "tcp.refused")
      try await fail(second, "auth.rejected")
      #expect(try await setup.digests().isEmpty, "it is off until somebody is named")
      let changed = try await store.updateProfile(
        profile, ProfileChange(failureNoticeTo: "owner@example.org"), by: database.principal)
      #expect(changed.failureNoticeTo == "owner@example.org")
      try await fail(second, nil)
      #expect(try await setup.digests().isEmpty, "one of three")
      try await fail(second, "auth.rejected")
      let digest = try #require(try await setup.digests().first)
      #expect(digest.isForOwner && digest.recipients == ["owner@example.org"] && digest.mailboxID == setup.alerting.id)
      #expect(digest.alerts.first?.text == "2 of 3 mailboxes of this profile failed within the last hour.")
      #expect(try await setup.mail() == ["profile.failing"])
      try await fail(second, "auth.rejected")
      #expect(try await setup.mail() == [])
      try await fail(setup.other, nil)
      #expect(try await database.int("SELECT count(*) FROM alert WHERE resolved_at IS NULL") == 0)
      let off = try await store.updateProfile(profile, ProfileChange(failureNoticeTo: ""), by: database.principal)
      #expect(off.failureNoticeTo == nil)
    }
  }

  @Test("settings are an organization's own; what is wrong is named")
  func settings() async throws {
    try await with { setup in
      let store = setup.database.store
      let stranger = try await setup.database.otherPrincipal()
      #expect(try await store.alertMail(for: stranger) == AlertMailSettings())
      await #expect(throws: StoreError.self) {
        try await store.updateAlertMail(
          AlertMailChange(isOn: true, mailboxID: setup.alerting.id, recipients: ["x@example.org"]), by: stranger)
      }
      var problems: [String] = []
      do {
        _ = try await store.updateAlertMail(
          AlertMailChange(recipients: ["no address"], levels: []), by: setup.database.principal)
      } catch StoreError.invalid(let found) {
        problems = found.map(\.pointer)
      }
      #expect(problems == ["/recipients/0", "/levels"])
      let after = try await store.updateAlertMail(
        AlertMailChange(levels: [.information]), by: setup.database.principal)
      #expect(after.levels == [.information] && after.recipients == ["ops@example.org"] && after.isOn)
      try await setup.raise("good.to-know", .information, on: setup.other)
      #expect(try await setup.mail() == ["good.to-know"])
    }
  }
}
