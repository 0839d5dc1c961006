import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Loops: two programs do not answer each other for ever (RFC 3834)")
struct LoopTests {
  private func sender(_ database: TestDatabase) async throws -> Mailbox {
    _ = try await database.profile()
    let mailbox = try await database.runningMailbox("b@example.com")
    try await database.sql("UPDATE mailbox SET outgoing_method = 'server-side-sync' WHERE id = $1", [.id(mailbox.id)])
    return mailbox
  }

  private func submit(
    _ mailbox: Mailbox, to address: String = "a@example.org", answers: String? = nil, by program: AutoSubmitted? = nil,
    _ database: TestDatabase
  ) async throws -> OutgoingEmail {
    try await database.store.submit(
      OutgoingSubmission(
        mailboxID: mailbox.id, recipients: [address, "second@example.org"], subject: "x",
        messageID: "\(UUID().uuidString)@example.com", raw: .bytes([1]), inReplyTo: answers, autoSubmitted: program),
      by: database.principal)
  }

  @Test("one answer too many within an hour is kept as a draft, with its reason and an alert")
  func cap() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(database)
      for _ in 0..<SendQuota.standardAnswersPerHour {
        #expect(try await submit(mailbox, answers: "1@example.org", database).state == .pendingSend)
      }
      let held = try await submit(mailbox, to: "A@Example.org", answers: "1@example.org", database)
      #expect(held.state == .draft && held.failure?.code == .sendLoop)
      _ = try await submit(mailbox, by: .generated, database)
      let alerts = try await database.store.alerts(
        AlertFilter(mailboxID: mailbox.id, level: .warning), PageRequest(), for: database.principal
      ).items
      #expect(alerts.map(\.code) == ["send.loop"] && alerts.first?.count == 2 && alerts.first?.remedy != nil)
      // Another address, and mail that answers nothing, are not concerned.
      #expect(try await submit(mailbox, to: "c@example.org", answers: "1@example.org", database).state == .pendingSend)
      #expect(try await submit(mailbox, database).state == .pendingSend)
      // A person's word sends it; an hour later there is room again.
      let retried = try await database.store.retryOutgoing(held.id, resendUncertain: false, by: database.principal)
      #expect(retried.state == .pendingSend && retried.failure == nil)
      try await database.sql("UPDATE outgoing_email SET created_at = created_at - interval '61 minutes'")
      #expect(try await submit(mailbox, answers: "1@example.org", database).state == .pendingSend)

      // The alert goes away when it has been quiet for a day.
      try await database.store.forgetHeldAnswers()
      #expect(
        try await database.int("SELECT count(*) FROM alert WHERE code = 'send.loop' AND resolved_at IS NULL") == 1)
      try await database.sql("UPDATE alert SET last_seen = last_seen - interval '25 hours'")
      try await database.store.forgetHeldAnswers()
      #expect(
        try await database.int("SELECT count(*) FROM alert WHERE code = 'send.loop' AND resolved_at IS NULL") == 0)
    }
  }

  @Test("the cap is the mailbox's or the profile's, and holds when answers come at once")
  func exact() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(database)
      _ = try await database.store.updateMailbox(
        mailbox.id, MailboxChange(sendQuota: SendQuota(answersPerHour: 3)), by: database.principal)
      let states = try await withThrowingTaskGroup(of: OutgoingState.self) { group in
        for _ in 0..<12 {
          group.addTask { try await submit(mailbox, answers: "1@example.org", database).state }
        }
        return try await group.reduce(into: [OutgoingState]()) { $0.append($1) }
      }
      #expect(states.count { $0 == .pendingSend } == 3 && states.count { $0 == .draft } == 9)
    }
  }

  @Test("an automatic answer to an automatic message or a bounce is kept; a person may answer both")
  func automaticAnswers() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(database)
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      for (number, messageClass) in [MessageClass.automatic, .bounce, .ordinary].enumerated() {
        var message = ReceivedMessage.sample("u\(number)")
        message.envelope.messageID = "\(messageClass.rawValue)@example.org"
        message.messageClass = messageClass
        _ = try await database.store.store([message], writer: database.guardian(lease, assignment))
      }
      for messageClass in ["automatic", "bounce"] {
        let answers = "\(messageClass)@example.org"
        let held = try await submit(mailbox, answers: answers, by: .replied, database)
        #expect(held.state == .draft && held.failure?.code == .sendAutomaticAnswer)
        #expect(try await submit(mailbox, answers: answers, database).state == .pendingSend)
      }
      #expect(
        try await submit(mailbox, answers: "ordinary@example.org", by: .replied, database).state == .pendingSend)
    }
  }
}
