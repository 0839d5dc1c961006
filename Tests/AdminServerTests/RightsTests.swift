import HTTPTypes
import PostriderCore
import Testing

@testable import AdminServer

@Suite("Rights")
struct RightsTests {
  /// The whole table, written out: who may use which route.
  static let table: [(route: String, roles: String)] = [
    ("GET /api/v1/whoami", "administrator mailbox-manager approver reader owner"),
    ("GET /api/v1/server-profiles", "administrator mailbox-manager reader"),
    ("POST /api/v1/server-profiles", "administrator"),
    ("GET /api/v1/server-profiles/{id}", "administrator mailbox-manager reader"),
    ("GET /api/v1/mailboxes", "administrator mailbox-manager approver reader owner"),
    ("POST /api/v1/mailboxes", "administrator mailbox-manager"),
    ("GET /api/v1/mailboxes/{id}", "administrator mailbox-manager approver reader owner"),
    ("GET /api/v1/mailboxes/{id}/quota", "administrator mailbox-manager approver reader"),
    ("GET /api/v1/alert-mail", "administrator mailbox-manager reader"),
    ("PATCH /api/v1/alert-mail", "administrator"),
    ("GET /api/v1/email-settings", "administrator mailbox-manager reader"),
    ("PATCH /api/v1/email-settings", "administrator"),
    ("POST /api/v1/server-profiles/{id}/activate", "administrator"),
    ("POST /api/v1/server-profiles/{id}/deactivate", "administrator"),
    ("POST /api/v1/server-profiles/{id}/delete", "administrator"),
    ("PATCH /api/v1/mailboxes", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/activate", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/deactivate", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/delete", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/apply-defaults", "administrator mailbox-manager"),
    ("GET /api/v1/alerts/{id}", "administrator mailbox-manager reader owner"),
    ("POST /api/v1/alerts/dismiss", "administrator mailbox-manager"),
    ("POST /api/v1/alerts/delete-all", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/approve", "administrator approver"),
    ("POST /api/v1/mailboxes/reject", "administrator approver"),
    ("POST /api/v1/mailboxes/test", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/poll", "administrator mailbox-manager"),
    ("POST /api/v1/mailboxes/reimport", "administrator mailbox-manager"),
    ("GET /api/v1/alerts", "administrator mailbox-manager reader owner"),
    ("GET /api/v1/runs", "administrator mailbox-manager reader owner"),
    ("GET /api/v1/runs/{id}", "administrator mailbox-manager reader owner"),
    ("GET /api/v1/emails", "administrator mailbox-manager reader"),
    ("GET /api/v1/emails/{id}", "administrator mailbox-manager reader"),
    ("GET /api/v1/emails/{id}/raw", "administrator mailbox-manager reader"),
    ("GET /api/v1/outgoing-emails", "administrator mailbox-manager reader"),
    ("POST /api/v1/outgoing-emails", "administrator mailbox-manager"),
    ("GET /api/v1/outgoing-emails/{id}", "administrator mailbox-manager reader"),
    ("POST /api/v1/outgoing-emails/{id}/cancel", "administrator mailbox-manager"),
    ("POST /api/v1/outgoing-emails/{id}/retry", "administrator mailbox-manager"),
    ("GET /api/v1/quarantine", "administrator mailbox-manager reader"),
    ("GET /api/v1/quarantine/{id}", "administrator mailbox-manager reader"),
    ("GET /api/v1/quarantine/{id}/raw", "administrator mailbox-manager reader"),
    ("POST /api/v1/quarantine/reprocess", "administrator mailbox-manager"),
    ("POST /api/v1/quarantine/discard", "administrator mailbox-manager"),
    ("GET /api/v1/queue/stats", "administrator mailbox-manager reader"),
    ("GET /api/v1/queue/inspect", "administrator mailbox-manager reader"),
    ("PATCH /api/v1/server-profiles/{id}", "administrator"),
    ("PATCH /api/v1/mailboxes/{id}", "administrator mailbox-manager"),
    ("GET /api/v1/queue/profiles", "administrator mailbox-manager reader"),
    ("GET /api/v1/queue/pauses", "administrator mailbox-manager reader"),
    ("POST /api/v1/queue/pause", "administrator mailbox-manager"),
    ("POST /api/v1/queue/resume", "administrator mailbox-manager"),
    ("GET /api/v1/queue/set-aside", "administrator mailbox-manager reader"),
    ("POST /api/v1/queue/release", "administrator"),
    ("POST /api/v1/queue/repair", "administrator"),
    ("GET /api/v1/queue/repairs/{id}", "administrator mailbox-manager reader"),
    ("GET /api/v1/scale", "administrator mailbox-manager reader"),
    ("GET /api/v1/server-profiles/{id}/oauth-client", "administrator mailbox-manager reader"),
    ("POST /api/v1/server-profiles/{id}/oauth-client", "administrator"),
    ("POST /api/v1/server-profiles/{id}/oauth-client/remove", "administrator"),
    ("GET /api/v1/mailboxes/{id}/connection", "administrator mailbox-manager approver reader owner"),
    ("POST /api/v1/mailboxes/{id}/connect", "administrator mailbox-manager owner"),
    ("POST /api/v1/mailboxes/{id}/disconnect", "administrator mailbox-manager owner"),
    ("GET /api/v1/webhooks", "administrator"),
    ("POST /api/v1/webhooks", "administrator"),
    ("GET /api/v1/webhooks/{id}", "administrator"),
    ("POST /api/v1/webhooks/{id}/delete", "administrator"),
    ("POST /api/v1/webhooks/{id}/test", "administrator"),
    ("GET /api/v1/webhook-deliveries", "administrator"),
    ("GET /api/v1/webhook-deliveries/{id}", "administrator"),
    ("POST /api/v1/webhook-deliveries/retry", "administrator"),
    ("GET /api/v1/batches", "administrator mailbox-manager approver reader"),
    // The verb decides; see the tests of batches.
    ("POST /api/v1/batches", "administrator mailbox-manager approver reader"),
    ("GET /api/v1/batches/{id}", "administrator mailbox-manager approver reader"),
    ("GET /api/v1/batches/{id}/results", "administrator mailbox-manager approver reader"),
    ("GET /api/v1/batches/{id}/events", "administrator mailbox-manager approver reader"),
    ("POST /api/v1/batches/{id}/cancel", "administrator mailbox-manager approver reader"),
    ("POST /api/v1/mailbox-imports", "administrator mailbox-manager"),
    ("GET /api/v1/roles", "administrator mailbox-manager approver reader owner"),
    ("GET /api/v1/users", "administrator mailbox-manager reader"),
    ("POST /api/v1/users", "administrator"),
    ("GET /api/v1/users/{id}", "administrator mailbox-manager reader"),
    ("PATCH /api/v1/users/{id}", "administrator"),
    ("POST /api/v1/users/{id}/delete", "administrator"),
    // The administrator is user 1 here; other people's passwords are theirs to set.
    ("POST /api/v1/users/{id}/password", "administrator"),
    ("GET /api/v1/shared-queues", "administrator mailbox-manager reader"),
    ("POST /api/v1/shared-queues", "administrator"),
    ("GET /api/v1/shared-queues/{id}", "administrator mailbox-manager reader"),
    ("PATCH /api/v1/shared-queues/{id}", "administrator"),
    ("POST /api/v1/shared-queues/{id}/delete", "administrator"),
    ("GET /api/v1/audit", "administrator"),
    ("GET /api/v1/tokens", "administrator mailbox-manager approver reader owner"),
    ("POST /api/v1/tokens", "administrator mailbox-manager approver reader owner"),
    ("POST /api/v1/tokens/{id}/revoke", "administrator mailbox-manager approver reader owner"),
    ("DELETE /api/v1/sessions/current", "administrator mailbox-manager approver reader owner"),
  ]

  @Test("the table has every route of the API but signing in, and each of them needs a token")
  func complete() {
    let all = AdminServer.routes.filter { $0.path.hasPrefix("/api/") }
    #expect(all.filter { $0.access == .open }.map { "\($0.method) \($0.path)" } == ["POST /api/v1/sessions"])
    let routes = all.filter { $0.access != .open }
    #expect(Set(routes.map { "\($0.method) \($0.path)" }) == Set(Self.table.map(\.route)))
    #expect(routes.count == Self.table.count)
  }

  @Test("each role at each route", arguments: table)
  func each(_ row: (route: String, roles: String)) async throws {
    let parts = row.route.split(separator: " ")
    let method = HTTPRequest.Method(String(parts[0])) ?? .get
    let path = "/" + parts[1].split(separator: "{id}", omittingEmptySubsequences: false).joined(separator: "1")
    let api = TestAPI(channel: .unixSocket)
    try await api.with { client in
      for role in Role.allCases {
        api.store.change { $0.people.refusals = [] }
        let answer = try await client.send(
          method, path, as: role.rawValue, body: method == .get ? nil : Array("{}".utf8))
        let refusals = api.store.state.withLock { $0.people.refusals }
        if row.roles.split(separator: " ").contains(Substring(role.rawValue)) {
          #expect(answer.status != 403 && answer.status != 401 && answer.status < 500, "\(role)")
          #expect(refusals.isEmpty, "\(role)")
        } else {
          #expect(answer.status == 403, "\(role)")
          #expect(try answer.problem().code == "forbidden")
          // Whoever was refused stands in the audit, with what they asked for.
          #expect(refusals.map { "\($0.method) \($0.route) \($0.role.rawValue)" } == ["\(row.route) \(role.rawValue)"])
          #expect(Right(rawValue: refusals.first?.right ?? "") != nil)
        }
      }
      let unknown = try await client.send(method, path, as: nil, body: nil)
      #expect(unknown.status == 401)
    }
  }

  @Test("a refusal is logged with who and what")
  func logged() async throws {
    let api = TestAPI()
    _ = try await api.get("/emails/1", as: "approver")
    #expect(api.log.text.contains("A request without the right was refused"))
    #expect(api.log.text.contains("\"user.role\":\"approver\""))
  }

  @Test("a mailbox manager pauses mailboxes, not profiles or everything; the refusal is logged")
  func pauses() async throws {
    let api = TestAPI(channel: .unixSocket)
    try await api.with { (client: TestAPI.Client) async throws in
      for (body, status) in [
        (#"{"scope":"mailbox","id":7}"#, 200), (#"{"scope":"profile","id":7}"#, 403),
        (#"{"scope":"organization"}"#, 403),
      ] {
        for verb in ["pause", "resume"] {
          #expect(try await client.post("/queue/\(verb)", as: "mailbox-manager", body).status == status)
          #expect(try await client.post("/queue/\(verb)", as: "administrator", body).status == 200)
        }
      }
    }
    let mine = api.store.state.withLock { $0.writes.filter { $0.contains("mailbox-manager") } }
    #expect(mine == ["pause mailbox 7 by mailbox-manager", "resume mailbox 7 by mailbox-manager"])
    #expect(api.log.text.split(separator: "\n").count { $0.contains("A request without the right was refused") } == 4)
  }
}
