import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import Testing
import WebServices

@Suite("New mail is announced to webhooks (feature R8)")
struct NewMailTests {
  @Test("each message that is stored is announced once it is there, and can be fetched by its number")
  func announced() async throws {
    let receiver = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200) }
    let drop = Maildrop([("u1", message("first")), ("u2", message("second"))])
    let server = try await ScriptedMailServer.start { _ in drop.script }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let web = try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*"))
      let desk = WebhookService(store: cluster.store, web: web)
      let webhook = try await desk.create(WebhookDraft(url: receiver.url("/mail")), by: cluster.principal).webhook
      let dispatcherStore = cluster.makeStore(poolSize: 2)
      let dispatcher = WebhookDispatcher(queue: dispatcherStore, web: web, logger: cluster.logger)
      let profile = try await cluster.profile(server)
      let mailbox = try await cluster.mailbox(on: profile)
      try await cluster.enable(mailbox)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await dispatcher.run() }
        _ = try await cluster.received(2, by: mailbox)
        try await eventually("both announcements") { receiver.requests.count >= 2 }
        drop.add("u3", message("third"))
        _ = try await cluster.received(3, by: mailbox)
        try await eventually("the third") {
          try await desk.webhook(webhook.id, for: cluster.principal).pending == 0 && receiver.requests.count >= 3
        }
        group.cancelAll()
      }
      await dispatcherStore.close()
      struct Event: Decodable {
        struct Mail: Decodable {
          var id: Int64
          var subject: String
          var mailboxAddress: String
        }
        var type: String
        var email: Mail
      }
      let events = try receiver.requests.map { try JSONDecoder().decode(Event.self, from: Data($0.body)) }
      let emails = try await cluster.emails(of: mailbox)
      #expect(Set(events.map(\.email.id)) == Set(emails.map(\.id.value)) && events.count == 3)
      #expect(Set(events.map(\.email.subject)) == ["first", "second", "third"])
      #expect(events.allSatisfy { $0.type == "email.received" && $0.email.mailboxAddress == "m@example.org" })
    }
    await server.stop()
    await receiver.stop()
  }
}
