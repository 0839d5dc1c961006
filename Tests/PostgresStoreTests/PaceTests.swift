import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

extension PostgresStore {
  /// The next message of a mailbox without quotas.
  func claimNext(_ writer: SessionGuard) async throws -> ClaimedMessage? {
    guard case .message(let message) = try await claimMessage(pace: .unlimited, writer: writer) else { return nil }
    return message
  }
}

@Suite("Pace: how much a mailbox may send (feature O5)")
struct PaceTests {
  /// Mailboxes of one profile that send, with messages that are due.
  private func sender(
    _ count: Int, at address: String = "b@example.com", priority: OutgoingPriority = .normal, recipients: Int = 1,
    in database: TestDatabase
  ) async throws -> Mailbox {
    if try await database.int("SELECT count(*) FROM server_profile") == 0 { _ = try await database.profile() }
    let mailbox = try await database.runningMailbox(address)
    try await database.sql("UPDATE mailbox SET outgoing_method = 'server-side-sync' WHERE id = $1", [.id(mailbox.id)])
    try await database.sql("SELECT refresh_may_run(ARRAY[$1::bigint])", [.id(mailbox.id)])
    for _ in 0..<count { try await submit(mailbox, priority: priority, recipients: recipients, in: database) }
    return mailbox
  }

  @discardableResult
  private func submit(
    _ mailbox: Mailbox, priority: OutgoingPriority, recipients: Int = 1, in database: TestDatabase
  ) async throws -> OutgoingEmailID {
    try await database.store.submit(
      OutgoingSubmission(
        mailboxID: mailbox.id, recipients: (1...recipients).map { "r\($0)@example.com" }, subject: "x",
        messageID: "\(UUID().uuidString)@example.com", raw: .bytes([1, 2, 3]), priority: priority),
      by: database.principal
    ).id
  }

  private func writer(_ mailbox: Mailbox, lane: Int = 0, _ database: TestDatabase) async throws -> SessionGuard {
    let lease = Lease(
      job: JobID(mailbox: mailbox.id, kind: .send, lane: lane), profile: try #require(mailbox.profileID),
      jobClass: .send, fence: database.nextFence(), dueMilliseconds: 0, trustedUntil: .now + .seconds(15))
    guard case .run(let assignment) = try await database.store.check([lease])[lease.job] else {
      throw TimedOut(what: "a runnable lane \(lane)")
    }
    return database.guardian(lease, assignment)
  }

  /// Claims until there is nothing more to have; says how many there were, and what ended it.
  private func drain(
    _ pace: SendPace, _ writer: SessionGuard, _ database: TestDatabase
  ) async throws -> (messages: [ClaimedMessage], end: MessageClaim) {
    var messages: [ClaimedMessage] = []
    while true {
      let claim = try await database.store.claimMessage(pace: pace, writer: writer)
      guard case .message(let message) = claim else { return (messages, claim) }
      messages.append(message)
    }
  }

  /// Moves what was counted into the past.
  private func age(_ database: TestDatabase, seconds: Int) async throws {
    // In two steps: on the way a row must not meet another one's place.
    try await database.sql(
      "UPDATE send_usage SET bucket = bucket - interval '1000 days' - $1 * interval '1 second'", [.int(Int64(seconds))])
    try await database.sql("UPDATE send_usage SET bucket = bucket + interval '1000 days'")
  }

  private func until(_ claim: MessageClaim) -> SendWait? {
    if case .wait(let wait) = claim { wait } else { nil }
  }

  @Test(
    "a part that was left in the middle is uncertain, the recipients of later parts are not; the alert is there at once"
  )
  func uncertainPart() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let mailbox = try await sender(1, recipients: 5, in: database)
      let pace = SendPace(mailbox: SendQuota(recipientsPerMessage: 2))
      let dead = try await writer(mailbox, database)
      let claim = try await store.claimMessage(pace: pace, writer: dead)
      guard case .message(let message) = claim else {
        Issue.record("\(claim)")
        return
      }
      #expect(message.recipients.count == 2 && message.others.count == 3)
      try await store.beginHandover(of: message.id, writer: dead)
      let outlook = try await store.outlook(pace: pace, writer: try await writer(mailbox, database))
      #expect(outlook.uncertain == [message.id])
      let left = try await store.outgoingEmail(message.id, for: database.principal)
      #expect(left.recipients.map(\.state) == [.uncertain, .uncertain, .pending, .pending, .pending])
      // That session has written no outcome.
      #expect(
        try await database.int(
          "SELECT count(*) FROM alert WHERE mailbox_id = $1 AND code = 'smtp.uncertain' AND resolved_at IS NULL",
          [.id(mailbox.id)]) == 1)
    }
  }

  @Test("eight lanes at once get exactly as many messages as the quota allows, and are told when there will be more")
  func exactAcrossLanes() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(40, in: database)
      let pace = SendPace(mailbox: SendQuota(messagesPerMinute: 25))
      let before = Date()
      let results = try await withThrowingTaskGroup(of: (Int, SendWait?).self) { group in
        for lane in 0..<8 {
          let writer = try await writer(mailbox, lane: lane, database)
          group.addTask {
            let (messages, end) = try await drain(pace, writer, database)
            return (messages.count, until(end))
          }
        }
        return try await group.reduce(into: [(Int, SendWait?)]()) { $0.append($1) }
      }
      #expect(results.map(\.0).reduce(0, +) == 25)
      for (_, wait) in results {
        let wait = try #require(wait)
        #expect(wait.reason == "quota" && wait.until > before.addingTimeInterval(55))
        #expect(wait.until < Date().addingTimeInterval(65))
      }
      #expect(try await database.int("SELECT count(*) FROM outgoing_email WHERE state = 'sending'") == 25)
      #expect(try await database.int("SELECT sum(messages) FROM send_usage WHERE span = 1") == 25)
      // Before a session connects it sees the same.
      let outlook = try await database.store.outlook(pace: pace, writer: try await writer(mailbox, lane: 9, database))
      #expect(outlook.wait?.reason == "quota" && outlook.due == 15)

      try await age(database, seconds: 62)
      let more = try await drain(pace, try await writer(mailbox, lane: 3, database), database)
      #expect(more.messages.count == 15 && more.end == .nothing)
    }
  }

  @Test("mailboxes that share the profile's quota get as many together")
  func shared() async throws {
    try await TestDatabase.with { database in
      let pace = SendPace(profile: SendQuota(messagesPerDay: 11))
      let results = try await withThrowingTaskGroup(of: (Int, SendWait?).self) { group in
        for number in 0..<4 {
          let mailbox = try await sender(6, at: "m\(number)@example.com", in: database)
          let writer = try await writer(mailbox, database)
          group.addTask {
            let (messages, end) = try await drain(pace, writer, database)
            return (messages.count, until(end))
          }
        }
        return try await group.reduce(into: [(Int, SendWait?)]()) { $0.append($1) }
      }
      #expect(results.map(\.0).reduce(0, +) == 11)
      let waits = results.compactMap(\.1)
      #expect(!waits.isEmpty && waits.allSatisfy { $0.reason == "profile-quota" })
      #expect(waits.allSatisfy { abs($0.until.timeIntervalSinceNow - 86_400) < 400 })
    }
  }

  @Test("messages of low priority leave at an even pace and leave a tenth to the others")
  func lowPriority() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(80, priority: .low, in: database)
      let pace = SendPace(mailbox: SendQuota(messagesPerMinute: 30))
      let writer = try await writer(mailbox, database)
      /// Drains; says how many an even pace may give in the time that it took: one, and another one after each two
      /// seconds, which are counted from a full one.
      func drained() async throws -> (messages: [ClaimedMessage], end: MessageClaim, most: Int) {
        let began = ContinuousClock.now
        let (messages, end) = try await drain(pace, writer, database)
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        return (messages, end, 1 + Int((seconds + 1) / 2))
      }
      // One, and the next in two seconds.
      let first = try await drained()
      #expect(!first.messages.isEmpty && first.messages.count <= first.most)
      #expect(try #require(until(first.end)).until.timeIntervalSinceNow <= 2)
      // One after the other up to the share that low priority has.
      var sent = first.messages.count
      for _ in 0..<40 {
        try await age(database, seconds: 2)
        let (messages, end, most) = try await drained()
        sent += messages.count
        #expect(messages.count <= most)
        if messages.isEmpty { #expect(until(end)?.reason == "quota") }
      }
      let inWindow = """
        SELECT sum(messages) FROM send_usage WHERE span = 1
          AND bucket >= date_bin('1 second', now(), 'epoch') - interval '60 seconds'
        """
      #expect(try await database.int(inWindow) <= 27 && sent >= 27)
      // Then three more important ones come at once.
      var important: Set<OutgoingEmailID> = []
      for _ in 0..<3 { important.insert(try await submit(mailbox, priority: .high, in: database)) }
      let high = try await drain(pace, writer, database)
      #expect(Set(high.messages.prefix(3).map(\.id)) == important, "they have the tenth for themselves")
      #expect(try await database.int(inWindow) <= 30)
    }
  }

  @Test("a message with more recipients than a quota lets it have is handed over in parts")
  func parts() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(1, recipients: 7, in: database)
      let pace = SendPace(mailbox: SendQuota(recipientsPerDay: 5, recipientsPerMessage: 3))
      let writer = try await writer(mailbox, database)
      var sizes: [Int] = []
      var end = MessageClaim.nothing
      while case .message(let message) = try await database.store.claimMessage(pace: pace, writer: writer) {
        sizes.append(message.recipients.count)
        #expect(message.recipients.count + message.others.count + message.accepted == 7)
        try await database.store.finish(
          message.id,
          AttemptResult(
            state: .pendingSend,
            recipients: message.recipients.map { OutgoingRecipient(address: $0, state: .accepted) },
            nextTryAt: Date().addingTimeInterval(-1)), writer: writer)
      }
      end = try await database.store.claimMessage(pace: pace, writer: writer)
      #expect(sizes == [3, 2])
      #expect(abs(try #require(until(end)).until.timeIntervalSinceNow - 86_400) < 400)
      #expect(try await database.int("SELECT sum(recipients) FROM send_usage WHERE span = 300") == 5)
      try await age(database, seconds: 26 * 3_600)
      guard case .message(let rest) = try await database.store.claimMessage(pace: pace, writer: writer) else {
        Issue.record("a day later the rest may leave")
        return
      }
      #expect(rest.recipients == ["r6@example.com", "r7@example.com"] && rest.others.isEmpty)
      // What no window reaches any more is gone.
      #expect(try await database.int("SELECT sum(recipients) FROM send_usage WHERE span = 300") == 2)
    }
  }

  @Test("what waits for room does not keep a more important message that becomes due")
  func importantLater() async throws {
    try await TestDatabase.with { database in
      let mailbox = try await sender(12, priority: .low, in: database)
      let pace = SendPace(mailbox: SendQuota(messagesPerDay: 10))
      let writer = try await writer(mailbox, database)
      #expect(try await drain(pace, writer, database).messages.count == 9)
      let id = try await submit(mailbox, priority: .high, in: database)
      try await database.sql(
        "UPDATE outgoing_email SET next_try_at = now() + interval '1 hour' WHERE id = $1", [.id(id)])
      let wait = try #require(try await database.store.outlook(pace: pace, writer: writer).wait)
      #expect(abs(wait.until.timeIntervalSinceNow - 3_600) < 60)
    }
  }

  @Test("a server's answers are kept: a longer wait and fewer connections count, a passed test ends them")
  func adapted() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let mailbox = try await sender(2, in: database)
      let writer = try await writer(mailbox, database)
      let later = Date().addingTimeInterval(7_200)
      try await store.adapt(.wait(SendWait(until: later, reason: "smtp.quota")), writer: writer)
      try await store.adapt(
        .wait(SendWait(until: Date().addingTimeInterval(60), reason: "auth.throttled")), writer: writer)
      try await store.adapt(.connections(2, until: later), writer: writer)
      try await store.adapt(.connections(3, until: later), writer: writer)
      let outlook = try await store.outlook(pace: .unlimited, writer: writer)
      #expect(outlook.wait?.reason == "smtp.quota" && outlook.connections == 2 && outlook.due == 2)
      #expect(abs(try #require(outlook.wait).until.timeIntervalSince(later)) < 1)
      #expect(try await store.claimMessage(pace: .unlimited, writer: writer) == .nothing)
      let allowance = try await store.sendAllowance(of: mailbox.id, for: database.principal)
      #expect(allowance.reason == "smtp.quota" && allowance.connections == 2 && allowance.waitsUntil != nil)
      await #expect(throws: StoreError.notFound("mailbox")) {
        try await store.sendAllowance(of: mailbox.id, for: try await database.otherPrincipal())
      }

      try await database.pass(mailbox)
      let after = try await store.outlook(pace: .unlimited, writer: try await self.writer(mailbox, lane: 1, database))
      #expect(after.wait == nil && after.connections == nil)
    }
  }

  @Test("quotas: the mailbox's own, else the profile's, else the provider's; an edit wakes what waits")
  func settings() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let mailbox = try await sender(1, in: database)
      let profile = try #require(mailbox.profileID)
      func pace() async throws -> SendPace {
        let (_, assignment) = try await database.assignment(mailbox, .poll)
        return assignment.settings.pace
      }
      #expect(try await pace() == .unlimited)
      let each = SendQuota(messagesPerMinute: 30)
      _ = try await store.updateProfile(
        profile, ProfileChange(sendQuota: each, sharedSendQuota: SendQuota(messagesPerDay: 5_000)),
        by: database.principal)
      #expect(try await pace() == SendPace(mailbox: each, profile: SendQuota(messagesPerDay: 5_000)))
      let before = try await store.sendAllowance(of: mailbox.id, for: database.principal)
      #expect(before.quota == each && before.source == .profile && before.sharedQuota.messagesPerDay == 5_000)

      try await database.sql(
        """
        UPDATE mailbox_schedule SET next_due_at = now() + interval '5 hours', reason = 'quota'
        WHERE mailbox_id = $1 AND kind = 's'
        """, [.id(mailbox.id)])
      let shown = try await store.mailbox(mailbox.id, for: database.principal)
      #expect(shown.outgoing.nextRunReason == "quota")
      let own = SendQuota(recipientsPerMessage: 2)
      let changed = try await store.updateMailbox(mailbox.id, MailboxChange(sendQuota: own), by: database.principal)
      #expect(changed.sendQuota == own && changed.version == mailbox.version + 1)
      #expect(try await pace().mailbox == own)
      #expect(
        try await database.int(
          "SELECT count(*) FROM mailbox_schedule WHERE kind = 's' AND reason = 'quota' AND next_due_at <= now()") == 1)
      _ = try await store.updateMailbox(mailbox.id, MailboxChange(clears: [.sendQuota]), by: database.principal)
      #expect(try await pace().mailbox == each)
      await #expect(throws: StoreError.self) {
        try await store.updateProfile(
          profile, ProfileChange(sendQuota: SendQuota(messagesPerMinute: 0)), by: database.principal)
      }
    }
    #expect(ProfileType.microsoft365.sendQuota.messagesPerMinute == 30)
    #expect(ProfileType.gmail.sendQuota.recipientsPerMessage == 100)
  }
}
