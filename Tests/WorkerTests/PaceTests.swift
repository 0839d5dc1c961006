import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@Suite("Pace of sending sessions (feature O5)")
struct SendingPaceTests {
  @Test("ten thousand messages of low priority delay an important one by one message's time")
  func bulk() async throws {
    let server = try await ScriptedMailServer.start(
      SendingTests().smtp(extensions: "250-PIPELINING\r\n") { _ in nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 1)
      try await cluster.submitBulk(10_000, from: id, priority: .low)
      // In the middle of it: some sessions have ended, and one is at work.
      try await eventually("the bulk is on its way", within: .seconds(120)) { server.messageIDs.count > 120 }
      let urgent = try await cluster.submit("urgent", from: id, to: ["to@example.org"], priority: .high)
      let before = server.messageIDs.count
      try await eventually("the important one has left") { server.messageIDs.contains(urgent.messageID) }
      let place = try #require(server.messageIDs.firstIndex(of: urgent.messageID))
      // One may have been claimed before the submit was committed, and one more may be on the wire.
      #expect(place <= before + 2, "\(place - before) messages went before it")
      let sent = try await cluster.waitForState(.sent, of: urgent)
      #expect(sent.attempts == 1)
    }
    await server.stop()
  }

  @Test("a mailbox that has used up its quota keeps its mail, says until when, and goes on when it may")
  func quota() async throws {
    let server = try await ScriptedMailServer.start(SendingTests().smtp { _ in nil })
    try await Spine.with(workers: 2) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 3)
      _ = try await cluster.store.updateMailbox(
        id, MailboxChange(sendQuota: SendQuota(messagesPerDay: 70)), by: cluster.principal)
      try await cluster.submitBulk(130, from: id, priority: .normal)
      let waiting = try await eventually("it waits for its quota") {
        let mailbox = try await cluster.mailbox(id)
        return mailbox.outgoing.nextRunReason == "quota" ? mailbox : nil
      }
      // The sessions of the other lanes end after it was written, or look once more.
      try await spine.withGuard { serverGuard in
        try await eventually("no session is under way") { try await serverGuard.queueIsEmpty() }
      }
      #expect(try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "70")
      #expect(try #require(waiting.outgoing.nextRunAt).timeIntervalSinceNow > 80_000)
      #expect(server.messageIDs.count == 70)
      #expect(waiting.outgoing.enabled && waiting.outgoing.failureCode == nil)
      // Nothing connects to find that out again, whatever is submitted.
      let connections = server.connections.count
      _ = try await cluster.submit("one more", from: id, to: ["to@example.org"])
      try await eventually("the request is answered") {
        try await cluster.sql("SELECT requested = served FROM mailbox_schedule WHERE kind = 's'") == "t"
      }
      #expect(server.connections.count == connections)

      _ = try await cluster.store.updateMailbox(id, MailboxChange(sendQuota: SendQuota.none), by: cluster.principal)
      try await eventually("the rest is sent", within: .seconds(120)) {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "131"
      }
    }
    await server.stop()
  }

  @Test("the provider's quota: mail stays queued, later submits do not ask the server again")
  func providersQuota() async throws {
    let accepted = Mutex(0)
    let server = try await ScriptedMailServer.start(
      SendingTests().smtp { line in
        guard line.hasPrefix("RCPT") else { return nil }
        // Exchange says it to a recipient, and every further one would hear the same.
        return accepted.withLock { count in
          count += 1
          return count > 3 ? "452 4.5.3 Daily recipient limit exceeded\r\n" : nil
        }
      })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 1)
      try await cluster.submitBulk(10, from: id, priority: .normal)
      try await eventually("it waits for the provider") {
        try await cluster.mailbox(id).outgoing.nextRunReason == "smtp.quota"
      }
      #expect(try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "3")
      #expect(accepted.withLock { $0 } == 4, "the session ended with the first refusal")
      let connections = server.connections.count
      _ = try await cluster.submit("one more", from: id, to: ["to@example.org"], priority: .high)
      try await eventually("the request is answered") {
        try await cluster.sql("SELECT requested = served FROM mailbox_schedule WHERE kind = 's'") == "t"
      }
      #expect(server.connections.count == connections)
      let mailbox = try await cluster.mailbox(id)
      #expect(mailbox.outgoing.enabled && mailbox.outgoing.nextRunReason == "smtp.quota")
      #expect(try await cluster.alerts(of: id).contains { $0.code == "smtp.quota" && $0.level == .warning })
    }
    await server.stop()
  }

  @Test("a server that refuses more connections is not asked for as many again")
  func concurrency() async throws {
    let open = Mutex(0)
    let refused = Mutex(0)
    let taking = SendingTests().smtp { line in
      if line.hasPrefix("AUTH") {
        let isFirst = open.withLock { count in
          count += 1
          return count == 1
        }
        if !isFirst {
          open.withLock { $0 -= 1 }
          refused.withLock { $0 += 1 }
          return "432 4.3.2 Concurrent connections limit exceeded\r\n"
        }
      }
      if line.hasPrefix("QUIT") { open.withLock { $0 -= 1 } }
      return nil
    }
    let server = try await ScriptedMailServer.start(taking)
    try await Spine.with(workers: 1) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server, limit: 4)
      try await cluster.submitBulk(400, from: id, priority: .normal)
      try await eventually("all are sent", within: .seconds(240)) {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'sent'") == "400"
      }
      // Eight sessions of lane 0: each would have tried three more.
      #expect(refused.withLock { $0 } <= 6)
      #expect(try await cluster.sql("SELECT connections FROM send_pace") == "1")
      #expect(try await cluster.sql("SELECT failures FROM mailbox_schedule WHERE kind = 's'") == "0")
    }
    await server.stop()
  }
}

extension ScriptedMailServer {
  /// The Message-IDs of the messages it read, in their order, without angle brackets.
  var messageIDs: [String] {
    connections.flatMap(\.lines).compactMap { text in
      guard let start = text.range(of: "Message-ID: <", options: .caseInsensitive) else { return nil }
      return text[start.upperBound...].split(separator: ">").first.map(String.init)
    }
  }
}
