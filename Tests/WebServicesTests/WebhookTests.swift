import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import ServiceLifecycle
import Testing
import WebServices

@Suite("Webhooks: signed, at least once, retried, given up visibly (feature R8)")
struct WebhookTests {
  /// Runs a body beside dispatchers, each with a store of its own like a process.
  private func dispatching(
    _ cluster: TestCluster, count: Int = 1, configure: (inout WebhookDispatcher.Configuration) -> Void = { _ in },
    _ body: @Sendable () async throws -> Void
  ) async throws {
    var configuration = WebhookDispatcher.Configuration()
    configuration.firstPause = .milliseconds(50)
    configuration.longestPause = .milliseconds(200)
    configuration.idleWait = .milliseconds(100)
    configuration.tidying = .milliseconds(200)
    configure(&configuration)
    let stores = (0..<count).map { _ in cluster.makeStore(poolSize: 2) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for store in stores {
        let dispatcher = WebhookDispatcher(
          queue: store, web: try loopbackClient(), configuration: configuration, logger: cluster.logger)
        group.addTask { try await dispatcher.run() }
      }
      try await body()
      group.cancelAll()
    }
    for store in stores { await store.close() }
  }

  private func desk(_ cluster: TestCluster) throws -> WebhookService {
    WebhookService(store: cluster.store, web: try loopbackClient())
  }

  @Test("a test is delivered with a signature that a receiver can verify, and whose time counts")
  func signature() async throws {
    let receiver = try await TestHTTPServer.start { _ in TestHTTPServer.Response(204) }
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let created = try await desk.create(WebhookDraft(url: receiver.url("/hook")), by: cluster.principal)
      let delivery = try await desk.testWebhook(created.webhook.id, by: cluster.principal)
      try await dispatching(cluster) {
        try await eventually("a delivery") {
          try await desk.webhookDelivery(delivery.id, for: cluster.principal).state == .delivered
        }
      }
      let request = try #require(receiver.requests.first)
      let id = try #require(request.headers["webhook-id"])
      let time = try #require(request.headers["webhook-timestamp"].flatMap { Int64($0) })
      let signature = try #require(request.headers["webhook-signature"])
      #expect(id == "postrider-\(delivery.id)" && request.method == "POST")
      func isValid(_ body: [UInt8], at now: Date = Date(), _ secret: Secret) -> Bool {
        WebhookSignature.isValid(signature, id: id, timestamp: time, body: body, secret: secret, at: now)
      }
      #expect(isValid(request.body, created.secret))
      #expect(!isValid(request.body + [32], created.secret))
      #expect(!isValid(request.body, WebhookSignature.makeSecret()))
      #expect(!isValid(request.body, at: Date(timeIntervalSinceNow: 600), created.secret))
      #expect(String(decoding: request.body, as: UTF8.self).contains(#""type":"test""#))
      let stored = try await cluster.sql("SELECT encode(secret, 'escape') FROM webhook")
      #expect(!stored.contains(created.secret.revealed.dropFirst(6)))
      // The example of the Standard Webhooks specification.
      #expect(
        WebhookSignature.sign(
          id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: 1_614_265_330, body: Array(#"{"test": 2432232314}"#.utf8),
          with: Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
          == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    }
    await receiver.stop()
  }

  /// Puts events of messages into the queue, as storing does.
  private func queue(_ count: Int, _ cluster: TestCluster) async throws {
    let profile = try await cluster.profile(incoming: ServerDraft(host: "127.0.0.1", port: 1))
    let mailbox = try await cluster.mailbox("ann@example.org", on: profile)
    try await cluster.sql(
      """
      WITH raw AS (INSERT INTO content (organization_id, size_octets)
          SELECT \(cluster.principal.organizationID), 1 RETURNING id),
        mail AS (INSERT INTO email (organization_id, mailbox_id, uidl, subject, sender, recipients, copies, reply_to,
            reference_ids, message_class, size_octets, attachment_count, raw_content_id)
          SELECT \(cluster.principal.organizationID), \(mailbox), 'u' || n, 'Subject ' || n, '[]', '[]', '[]', '[]', '[]',
            'ordinary', 1, 0, raw.id FROM raw, generate_series(1, \(count)) n RETURNING id, organization_id)
      INSERT INTO webhook_delivery (organization_id, webhook_id, event, email_id)
      SELECT w.organization_id, w.id, 'email.received', m.id FROM mail m JOIN webhook w USING (organization_id)
      """)
  }

  @Test(
    "failures are tried again with the same id and body until the receiver takes them; two dispatchers share the work")
  func retried() async throws {
    let failing = Flag()
    let receiver = try await TestHTTPServer.start { _ in
      failing.isSet ? TestHTTPServer.Response(200) : TestHTTPServer.Response(503)
    }
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let webhook = try await desk.create(WebhookDraft(url: receiver.url("/hook")), by: cluster.principal).webhook
      try await queue(40, cluster)
      try await dispatching(cluster, count: 2) {
        // Two of them may have asked eight times before the first answer is written.
        let seen = try await eventually("failures") {
          let now = try await desk.webhook(webhook.id, for: cluster.principal)
          return receiver.requests.count >= 5 && now.failures > 0 ? now : nil
        }
        #expect(seen.pending == 40 && seen.lastError?.contains("503") == true)
        failing.set()
        try await eventually("all of them") {
          try await desk.webhook(webhook.id, for: cluster.principal).pending == 0
        }
      }
      let after = try await desk.webhook(webhook.id, for: cluster.principal)
      #expect(after.failures == 0 && after.dead == 0 && after.lastSuccessAt != nil)
      let byID = Dictionary(grouping: receiver.requests) { $0.headers["webhook-id"] ?? "" }
      #expect(byID.count == 40)
      for (_, attempts) in byID { #expect(Set(attempts.map(\.body)).count == 1) }
      let delivered = try await desk.webhookDeliveries(
        WebhookDeliveryFilter(webhookID: webhook.id, state: .delivered), PageRequest(limit: 500), for: cluster.principal
      )
      #expect(delivered.total == 40)
    }
    await receiver.stop()
  }

  @Test(
    "a receiver that is dead for too long: given up visibly, tried again when a person says so; others are not held up")
  func givenUp() async throws {
    let isBack = Flag()
    let receiver = try await TestHTTPServer.start { _ in TestHTTPServer.Response(isBack.isSet ? 200 : 500) }
    let gone = try await TestHTTPServer.start { _ in TestHTTPServer.Response(410) }
    let healthy = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200) }
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let dead = try await desk.create(WebhookDraft(url: receiver.url("/hook")), by: cluster.principal).webhook
      let left = try await desk.create(WebhookDraft(url: gone.url("/hook")), by: cluster.principal).webhook
      let good = try await desk.create(WebhookDraft(url: healthy.url("/hook")), by: cluster.principal).webhook
      try await queue(3, cluster)
      @Sendable func state(_ webhook: Webhook) async throws -> Webhook {
        try await desk.webhook(webhook.id, for: cluster.principal)
      }
      try await dispatching(cluster) {
        try await eventually("deliveries to the healthy one") { try await state(good).pending == 0 }
        // Each was tried before it has waited for too long, however slow the machine is.
        try await eventually("an attempt of each") {
          try await cluster.sql(
            "SELECT count(*) FROM webhook_delivery WHERE webhook_id = \(dead.id) AND last_status = 500") == "3"
        }
        try await cluster.sql(
          "UPDATE webhook_delivery SET waits_since = now() - interval '4 days' WHERE webhook_id = \(dead.id)")
        try await eventually("the others to be given up") {
          let states = (try await state(dead), try await state(left))
          return states.0.dead == 3 && states.1.dead == 3
        }
        #expect(gone.requests.count == 3)
        isBack.set()
        let list = try await desk.webhookDeliveries(
          WebhookDeliveryFilter(webhookID: dead.id, state: .dead), PageRequest(), for: cluster.principal)
        #expect(list.items.allSatisfy { $0.lastError?.contains("500") == true && $0.finishedAt != nil })
        let answers = try await desk.retryDeliveries(list.items.map(\.id), by: cluster.principal)
        #expect(answers.allSatisfy { $0.ok })
        try await eventually("what a person asked for") {
          let now = try await state(dead)
          return now.pending == 0 && now.dead == 0
        }
        let again = try await desk.retryDeliveries(
          list.items.map(\.id) + [WebhookDeliveryID(999)], by: cluster.principal)
        #expect(again.map(\.code) == ["delivered", "delivered", "delivered", "not-found"])
      }
    }
    await receiver.stop()
    await gone.stop()
    await healthy.stop()
  }

  @Test("a dispatcher that dies with deliveries in its hands: another one delivers them when the lease is over")
  func crashed() async throws {
    let receiver = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200) }
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let webhook = try await desk.create(WebhookDraft(url: receiver.url("/hook")), by: cluster.principal).webhook
      try await queue(2, cluster)
      let taken = try await cluster.store.claimDeliveries(limit: 10, perWebhook: 10, except: [], lease: .seconds(60))
      #expect(taken.count == 2 && taken.allSatisfy { $0.email?.subject.hasPrefix("Subject") == true })
      let more = try await cluster.store.claimDeliveries(limit: 10, perWebhook: 10, except: [], lease: .seconds(60))
      #expect(more.isEmpty)
      // Its end is the time of the next attempt.
      try await cluster.sql("UPDATE webhook_delivery SET next_try_at = now()")
      try await dispatching(cluster) {
        try await eventually("the successor") {
          try await desk.webhook(webhook.id, for: cluster.principal).pending == 0
        }
      }
      // What the dead one would say now changes nothing.
      try await cluster.store.deliveryFailed(taken[0], status: 500, reason: "late", retry: nil, pause: nil)
      #expect(try await desk.webhook(webhook.id, for: cluster.principal).dead == 0)
    }
    await receiver.stop()
  }

  @Test("a receiver that does not answer keeps its own few slots: the others' deliveries go on")
  func slow() async throws {
    let never = ScriptSignal()
    let stuck = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200, after: never) }
    let healthy = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200) }
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let slow = try await desk.create(WebhookDraft(url: stuck.url("/hook")), by: cluster.principal).webhook
      let good = try await desk.create(WebhookDraft(url: healthy.url("/hook")), by: cluster.principal).webhook
      try await queue(20, cluster)
      // So patient that no attempt ends within the test.
      try await dispatching(cluster, configure: { $0.timeout = .seconds(300) }) {
        try await eventually("deliveries to the healthy one") {
          try await desk.webhook(good.id, for: cluster.principal).pending == 0
        }
        try await eventually("attempts at the slow one") { stuck.requests.count >= 4 }
        // Some more looks.
        try await Task.sleep(for: .milliseconds(500))
        #expect(stuck.requests.count == 4)
      }
      #expect(try await desk.webhook(slow.id, for: cluster.principal).pending == 20)
    }
    never.fire()
    await stuck.stop()
    await healthy.stop()
  }

  @Test("deliveries that fail side by side are one failure of their webhook")
  func failedTogether() async throws {
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let webhook = try await desk.create(WebhookDraft(url: "http://127.0.0.1:1/hook"), by: cluster.principal).webhook
      try await queue(4, cluster)
      let none = try await cluster.store.claimDeliveries(
        limit: 10, perWebhook: 10, except: [webhook.id], lease: .seconds(60))
      #expect(none.isEmpty)
      for round in 1...2 {
        let taken = try await cluster.store.claimDeliveries(
          limit: 10, perWebhook: 10, except: [], lease: .seconds(60))
        #expect(taken.count == 4)
        for delivery in taken {
          try await cluster.store.deliveryFailed(
            delivery, status: 500, reason: "no", retry: Duration.zero, pause: Duration.zero)
        }
        #expect(try await desk.webhook(webhook.id, for: cluster.principal).failures == round)
      }
    }
  }

  @Test("a test goes before what is overdue already")
  func testFirst() async throws {
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let webhook = try await desk.create(WebhookDraft(url: "http://127.0.0.1:1/hook"), by: cluster.principal).webhook
      try await queue(5, cluster)
      try await cluster.sql("UPDATE webhook_delivery SET next_try_at = now() - interval '1 hour'")
      let test = try await desk.testWebhook(webhook.id, by: cluster.principal)
      let first = try await cluster.store.claimDeliveries(limit: 1, perWebhook: 1, except: [], lease: .seconds(60))
      #expect(first.map(\.id) == [test.id])
    }
  }

  @Test("what was finished long ago is forgotten to its end, however much there is")
  func tidied() async throws {
    try await withCluster { cluster in
      let desk = try desk(cluster)
      let webhook = try await desk.create(WebhookDraft(url: "http://127.0.0.1:1/hook"), by: cluster.principal).webhook
      try await cluster.sql(
        """
        INSERT INTO webhook_delivery (organization_id, webhook_id, event, state, finished_at)
        SELECT organization_id, id, 'test', 'delivered', now() - interval '60 days'
        FROM webhook, generate_series(1, 11000) WHERE id = \(webhook.id)
        """)
      try await dispatching(cluster, configure: { $0.tidying = .seconds(3_600) }) {
        try await eventually("an empty table") {
          try await cluster.sql("SELECT count(*) FROM webhook_delivery") == "0"
        }
      }
    }
  }

  @Test("addresses inside are refused on save and when they are called")
  func egress() async throws {
    try await withCluster { cluster in
      let strict = WebhookService(store: cluster.store, web: try WebClient(egress: .init()))
      for url in ["https://10.0.0.1/", "http://example.com/", "https://example.com:22/", "https://u:p@example.com/"] {
        await #expect(throws: StoreError.self, "\(url)") {
          try await strict.create(WebhookDraft(url: url), by: cluster.principal)
        }
      }
      // Its name led elsewhere when it was saved.
      let webhook = try await strict.create(WebhookDraft(url: "https://localhost/"), by: cluster.principal).webhook
      let delivery = try await strict.testWebhook(webhook.id, by: cluster.principal)
      let dispatcher = WebhookDispatcher(
        queue: cluster.store, web: try WebClient(egress: .init()), logger: cluster.logger)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await dispatcher.run() }
        try await eventually("a refusal") {
          try await strict.webhookDelivery(delivery.id, for: cluster.principal).lastError?.contains("egress.denied")
            == true
        }
        group.cancelAll()
      }
    }
  }
}
