import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Lanes of a mailbox that sends")
struct LaneTests {
  /// A mailbox with three messages that are due.
  private func sender(_ database: TestDatabase) async throws -> Mailbox {
    _ = try await database.profile()
    let mailbox = try await database.runningMailbox("b@example.com")
    try await database.sql("UPDATE mailbox SET outgoing_method = 'server-side-sync' WHERE id = $1", [.id(mailbox.id)])
    try await database.sql("SELECT refresh_may_run(ARRAY[$1::bigint])", [.id(mailbox.id)])
    for number in 1...3 {
      _ = try await database.store.submit(
        OutgoingSubmission(
          mailboxID: mailbox.id, recipients: ["to@example.com"], subject: "x", messageID: "\(number)@example.com",
          raw: .bytes([1, 2, 3])), by: database.principal)
    }
    return mailbox
  }

  private func claim(_ lane: Int, _ mailbox: Mailbox, _ database: TestDatabase) async throws -> (Lease, Assignment) {
    let lease = Lease(
      job: JobID(mailbox: mailbox.id, kind: .send, lane: lane), profile: try #require(mailbox.profileID),
      jobClass: .send, fence: database.nextFence(), dueMilliseconds: 0, trustedUntil: .now + .seconds(15))
    guard case .run(let assignment) = try await database.store.check([lease])[lease.job] else {
      throw TimedOut(what: "a runnable lane \(lane)")
    }
    return (lease, assignment)
  }

  private func dueIn(_ database: TestDatabase) async throws -> Int64? {
    var row = try await database.sql(
      "SELECT extract(epoch FROM next_due_at - now())::bigint FROM mailbox_schedule WHERE kind = 's' AND enabled")[0]
    return try row.intOrNil()
  }

  @Test("a lane with an older lease writes beside lane 0; its own successor shuts it out")
  func fences() async throws {
    try await TestDatabase.with { database in
      let (store, mailbox) = (database.store, try await sender(database))
      let (old, assignment) = try await claim(1, mailbox, database)
      let (first, firstAssignment) = try await claim(0, mailbox, database)
      #expect(try await store.outlook(pace: .unlimited, writer: database.guardian(first, firstAssignment)).due == 3)
      guard case .written = try await store.commit(database.outcome(first, firstAssignment)) else {
        Issue.record("lane 0 is fenced")
        return
      }
      // Lane 0 has written with a newer fence: that is nothing to lane 1.
      let message = try #require(try await store.claimNext(database.guardian(old, assignment)))
      try await store.finish(message.id, AttemptResult(state: .sent), writer: database.guardian(old, assignment))

      let (new, newAssignment) = try await claim(1, mailbox, database)
      guard case .written(let run) = try await store.commit(database.outcome(new, newAssignment)) else {
        Issue.record("lane 1 is fenced")
        return
      }
      // Sent again after a lost connection it is the same outcome; the lane before it comes too late.
      #expect(try await store.commit(database.outcome(new, newAssignment)) == .written(run))
      #expect(try await store.commit(database.outcome(old, assignment)) == .fenced)
      await #expect(throws: FencedError.self) {
        try await store.claimNext(database.guardian(old, assignment))
      }
      #expect(try await database.int("SELECT last_fence FROM mailbox_schedule WHERE kind = 's'") == first.fence.value)
    }
  }

  @Test("a message whose end had not begun to leave waits again; its former session can neither go on nor finish it")
  func unsent() async throws {
    try await TestDatabase.with { database in
      let (store, mailbox) = (database.store, try await sender(database))
      let (old, assignment) = try await claim(0, mailbox, database)
      let writer = database.guardian(old, assignment)
      let message = try #require(try await store.claimNext(writer))
      // Behind the others, in case it is the message that ends sessions.
      try await database.sql("UPDATE outgoing_email SET state = 'canceled' WHERE state = 'pending-send'")
      let (new, newAssignment) = try await claim(0, mailbox, database)
      let successor = database.guardian(new, newAssignment)
      let outlook = try await store.outlook(pace: .unlimited, writer: successor)
      #expect(outlook.uncertain.isEmpty && outlook.due == 1)
      let again = try #require(try await store.claimNext(successor))
      #expect(again.id == message.id && again.attempt == 2 && again.recipients == message.recipients)
      // Frozen between the two commits, it wakes up too late: its octets must not get their end.
      await #expect(throws: FencedError.self) { try await store.beginHandover(of: message.id, writer: writer) }
      await #expect(throws: FencedError.self) {
        try await store.finish(message.id, AttemptResult(state: .sent), writer: writer)
      }
      try await store.beginHandover(of: message.id, writer: successor)
      let sent = AttemptResult(
        state: .sent, recipients: message.recipients.map { OutgoingRecipient(address: $0, state: .accepted) })
      try await store.finish(message.id, sent, writer: successor)
      // Sent again after a lost connection it is the same result.
      try await store.finish(message.id, sent, writer: successor)
      let email = try await store.outgoingEmail(message.id, for: database.principal)
      #expect(email.state == .sent && email.recipients.allSatisfy { $0.state == .accepted })
    }
  }

  @Test("steps of many sessions at once: each claims another mailbox's message, a bad result fails alone")
  func groups() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      var writers: [SessionGuard] = []
      for number in 0..<12 {
        let mailbox = try await database.runningMailbox("g\(number)@example.com")
        let message = OutgoingSubmission(
          mailboxID: mailbox.id, recipients: ["to@example.org"], subject: "\(number)",
          messageID: "\(number)@example.com", raw: .bytes([UInt8](repeating: UInt8(number), count: 10)))
        _ = try await store.submit(message, by: database.principal)
        let (lease, assignment) = try await database.assignment(mailbox, .send)
        writers.append(database.guardian(lease, assignment))
      }
      // One comes too late: its mailbox has a newer session.
      writers[5].generation -= 1
      let results = await withTaskGroup(of: (Int, ClaimedMessage?, Bool).self) { group in
        for (number, writer) in writers.enumerated() {
          group.addTask {
            do {
              let message = try await store.claimNext(writer)
              guard let message else { return (number, nil, false) }
              try await store.beginHandover(of: message.id, writer: writer)
              // A text that PostgreSQL cannot hold.
              let words = number == 7 ? "nul \u{0}" : "fine"
              let result = AttemptResult(
                state: .failed,
                recipients: [
                  OutgoingRecipient(address: "to@example.org\(number == 7 ? "\u{0}" : "")", state: .failed)
                ], failure: Failure(.smtpRejected, context: words))
              try await store.finish(message.id, result, writer: writer)
              return (number, message, true)
            } catch {
              return (number, nil, false)
            }
          }
        }
        return await group.reduce(into: [(Int, ClaimedMessage?, Bool)]()) { $0.append($1) }
      }
      for (number, message, isDone) in results {
        #expect(isDone == (number != 5 && number != 7), "\(number)")
        if let message { #expect(message.content.first.octets == [UInt8](repeating: UInt8(number), count: 10)) }
      }
      #expect(try await database.int("SELECT count(*) FROM outgoing_email WHERE state = 'failed'") == 10)
      #expect(try await database.int("SELECT count(*) FROM outgoing_email WHERE state = 'sending'") == 1)
    }
  }

  @Test("a message that another lane is sending stays its own, unless that lane's session or its epoch has ended")
  func abandoned() async throws {
    try await TestDatabase.with { database in
      let (store, mailbox) = (database.store, try await sender(database))
      let (second, assignment) = try await claim(1, mailbox, database)
      let message = try #require(try await store.claimNext(database.guardian(second, assignment)))
      try await store.beginHandover(of: message.id, writer: database.guardian(second, assignment))
      let (first, firstAssignment) = try await claim(0, mailbox, database)
      let outlook = try await store.outlook(pace: .unlimited, writer: database.guardian(first, firstAssignment))
      #expect(outlook.uncertain.isEmpty && outlook.lanesAtWork == [1] && outlook.due == 2)

      // Nothing else waits: the schedule looks after the lane all the same.
      try await database.sql("UPDATE outgoing_email SET state = 'canceled' WHERE state = 'pending-send'")
      _ = try await store.commit(
        database.outcome(first, firstAssignment, next: NextDue(at: nil, reason: "next-try")))
      #expect((1...30).contains(try #require(try await dueIn(database))))

      let (successor, itsAssignment) = try await claim(1, mailbox, database)
      let found = try await store.outlook(pace: .unlimited, writer: database.guardian(successor, itsAssignment))
      #expect(found.uncertain == [message.id] && found.lanesAtWork.isEmpty)
      _ = try await store.commit(
        database.outcome(successor, itsAssignment, next: NextDue(at: nil, reason: "next-try")))
      #expect(try await dueIn(database) == nil)
      #expect(
        try await database.int("SELECT count(*) FROM mailbox_schedule WHERE kind = 's' AND reason = 'sent'") >= 1)
      await #expect(throws: FencedError.self) {
        try await store.finish(message.id, AttemptResult(state: .sent), writer: database.guardian(second, assignment))
      }

      // Lane 5 died, and then the queue: nobody opens it again.
      try await database.sql(
        "UPDATE outgoing_email SET state = 'sending', lane = 5, fence = $2 WHERE id = $1",
        [.id(message.id), .int(second.fence.value)])
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 's'")
      var later = try await claim(0, mailbox, database)
      later.0 = Lease(
        job: later.0.job, profile: later.0.profile, jobClass: .send, fence: Fence(7 << 32), dueMilliseconds: 0,
        trustedUntil: .now + .seconds(15))
      let after = try await store.outlook(pace: .unlimited, writer: database.guardian(later.0, later.1))
      #expect(after.uncertain == [message.id])
    }
  }

  @Test("a lane has work only while mail is due and the mailbox need not wait")
  func due() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(database)
      _ = try await claim(1, mailbox, database)
      // The server asked for a pause: that holds for every lane.
      try await database.sql(
        "UPDATE mailbox_schedule SET next_due_at = now() + interval '10 minutes', served = requested WHERE kind = 's'")
      await #expect(throws: TimedOut.self) { try await claim(1, mailbox, database) }
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() + interval '500 ms' WHERE kind = 's'")
      _ = try await claim(1, mailbox, database)
      try await database.sql("UPDATE outgoing_email SET next_try_at = now() + interval '1 hour'")
      await #expect(throws: TimedOut.self) { try await claim(1, mailbox, database) }
    }
  }

  @Test("a message that another lane put off while this one wrote is not forgotten")
  func putOff() async throws {
    try await TestDatabase.with { database in
      let (store, mailbox) = (database.store, try await sender(database))
      let (first, firstAssignment) = try await claim(0, mailbox, database)
      _ = try await store.outlook(pace: .unlimited, writer: database.guardian(first, firstAssignment))
      // Lane 0 has seen nothing of this; its outcome must not say that nothing waits.
      try await database.sql("UPDATE outgoing_email SET next_try_at = now() + interval '5 minutes'")
      _ = try await store.commit(database.outcome(first, firstAssignment, next: NextDue(at: nil, reason: "next-try")))
      #expect((200...300).contains(try #require(try await dueIn(database))))
      // What the server asked for counts when it is later.
      let wait = Date().addingTimeInterval(3_600)
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 's'")
      let (again, itsAssignment) = try await claim(0, mailbox, database)
      _ = try await store.commit(
        database.outcome(again, itsAssignment, next: NextDue(at: wait, reason: "smtp.quota"), failures: 1))
      #expect((3_500...3_600).contains(try #require(try await dueIn(database))))
    }
  }
}
