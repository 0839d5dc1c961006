import Foundation
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("New mail is announced on a channel of PostgreSQL (feature R8)")
struct AnnouncementTests {
  private struct Payload: Decodable {
    var organizationID: Int64
    var mailboxID: Int64
    var emailIDs: [Int64]
  }

  @Test("who listens hears of each stored message after its commit, and of nothing else")
  func heard() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      // A program of the user's own, with a role that may do nothing but log in.
      let listener = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      try await listener.run { db in _ = try db.query("LISTEN postrider_email") }
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      let messages = (1...3).map { ReceivedMessage.sample("u\($0)") }
      let stored = try await database.store.store(messages, writer: writer)
      // The same again, and what is not stored: silence.
      _ = try await database.store.store(messages, writer: writer)
      var stale = writer
      stale.generation += 1
      await #expect(throws: FencedError.self) {
        try await database.store.store([.sample("late")], writer: stale)
      }
      _ = try await database.store.store([.sample("u4")], writer: writer)
      var heard: [Payload] = []
      while heard.flatMap(\.emailIDs).count < 4 {
        let payloads = try await listener.notifications(timeout: .seconds(20))
        if payloads.isEmpty { break }
        heard += try payloads.map { try JSONDecoder().decode(Payload.self, from: Data($0.utf8)) }
      }
      let ids = stored.compactMap { result -> Int64? in
        if case .stored(let id) = result { id.value } else { nil }
      }
      #expect(heard.flatMap(\.emailIDs).count == 4 && Set(heard.flatMap(\.emailIDs)).isSuperset(of: ids))
      #expect(heard.allSatisfy { $0.mailboxID == mailbox.id.value })
      #expect(heard.allSatisfy { $0.organizationID == database.principal.organizationID.value })
      let there = try await database.int("SELECT count(*) FROM email")
      #expect(there == 4)
      await listener.close()
    }
  }

  @Test("events of mail are queued in the transaction that stores it, for this organization's webhooks only")
  func queued() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let other = try await database.otherPrincipal()
      let url = try #require(WebURL("https://hooks.example.com/"))
      let mine = try await store.createWebhook(
        url, description: "", secret: Secret("whsec_AAAA"), by: database.principal)
      let theirs = try await store.createWebhook(url, description: "", secret: Secret("whsec_BBBB"), by: other)
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let writer = database.guardian(lease, assignment)
      _ = try await store.store([.sample("u1"), .sample("u2")], writer: writer)
      var stale = writer
      stale.generation += 1
      await #expect(throws: FencedError.self) { try await store.store([.sample("late")], writer: stale) }
      #expect(try await store.webhook(mine.id, for: database.principal).pending == 2)
      #expect(try await store.webhook(theirs.id, for: other).pending == 0)
      await #expect(throws: StoreError.self) { try await store.webhook(mine.id, for: other) }
      await #expect(throws: StoreError.self) { try await store.deleteWebhook(mine.id, by: other) }
      let claimed = try await store.claimDeliveries(limit: 10, perWebhook: 10, except: [], lease: .seconds(60))
      #expect(claimed.count == 2 && claimed.allSatisfy { $0.secret == Secret("whsec_AAAA") && $0.email != nil })
      try await store.deleteWebhook(mine.id, by: database.principal)
      #expect(try await database.int("SELECT count(*) FROM webhook_delivery") == 0)
    }
  }
}
