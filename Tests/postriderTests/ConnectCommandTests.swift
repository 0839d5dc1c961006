import AdminServer
import Foundation
import Logging
import MailProtocols
import PostgresStore
import PostriderCore
import PostriderTesting
import ServiceLifecycle
import Testing
import WebServices

@testable import postrider

/// The commands of OAuth and webhooks against a real API, a real database and a real authorization server.
@Suite("Connecting mailboxes and webhooks from the command line (features P18, R8)")
struct ConnectCommandTests {
  private struct Site: Sendable {
    let cluster: TestCluster
    let server: OAuthServer
    let socket: String
    let callback: String
    let token: String

    func run(_ arguments: String..., input: String = "") async throws -> Program.Result {
      try await Program.run(arguments, environment: environment, input: input)
    }

    var environment: [String: String] {
      ["POSTRIDER_API_URL": "http+unix://" + socket.replacing("/", with: "%2F"), "POSTRIDER_TOKEN": token]
    }
  }

  private func withSite(_ body: @escaping @Sendable (Site) async throws -> Void) async throws {
    let cluster = try await TestCluster.make()
    let server = try await OAuthServer.start()
    let (_, token) = try await Bootstrap(url: cluster.databaseURL, logger: cluster.logger).ensureOrganization(
      name: "Test", administratorName: "Ada", administratorAddress: "ada@example.org")
    let folder = FileManager.default.temporaryDirectory.appending(path: "c-\(UUID().uuidString.prefix(8))").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let web = try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*"))
    let queue = try cluster.makeQueue()
    let store = cluster.store
    let api = AdminServer(
      configuration: AdminServerConfiguration(
        tcp: TCPListener(host: "127.0.0.1", port: 0), unixSocket: folder + "/api.sock"),
      store: store, queue: queue,
      oauth: ConsentService(store: store, web: web, publicURL: "http://127.0.0.1:1"),
      webhooks: WebhookService(store: store, web: web), logger: cluster.logger)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await queue.run() }
      group.addTask { try await api.run() }
      group.addTask {
        try await WebhookDispatcher(queue: store, web: web, logger: cluster.logger).run()
      }
      let tcp = try #require(
        try await api.listening().first { if case .tcp = $0 { true } else { false } })
      try await body(
        Site(
          cluster: cluster, server: server, socket: folder + "/api.sock", callback: "\(tcp)", token: token.revealed))
      group.cancelAll()
    }
    await cluster.close()
    await server.stop()
  }

  @Test("an application is set, a consent begun, finished in the browser, seen, and ended")
  func connect() async throws {
    try await withSite { site in
      let profile = try await site.cluster.profile(
        "Mail", incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, credentials: .oauth))
      let mailbox = try await site.cluster.mailbox("ann@example.org", on: profile, password: nil)
      let early = try await site.run("mailbox", "connect", "ann@example.org")
      #expect(early.exitCode == 1 && early.errors.contains("postrider profile oauth set"), "\(early.errors)")
      let set = try await site.run(
        "profile", "oauth", "set", "Mail", "--client-id", "client", "--authorization-url",
        site.server.authorizationURL, "--token-url", site.server.tokenURL, "--revocation-url",
        site.server.revocationURL, "--scope", "mail", "--secret-stdin", input: "client-secret\n")
      #expect(set.exitCode == 0 && set.output.contains("client secret  stored"), "\(set.output)\(set.errors)")
      let shown = try await site.run("profile", "oauth", "show", "Mail", "--json")
      #expect(shown.output.contains("\"secretSet\" : true") && !shown.output.contains("client-secret"))

      // The test that follows a consent waits for a worker, and there is none.
      try await site.cluster.sql("UPDATE mailbox SET approval = 'pending'")
      let waiting = try RunningProgram(
        ["mailbox", "connect", "ann@example.org", "--timeout", "600"], environment: site.environment)
      defer { waiting.forget() }
      let url = try await eventually("the address") {
        waiting.output.split(separator: "\n").first { $0.hasPrefix("http") }.map(String.init)
      }
      let page = try await Browser.open(url)
      let location = try #require(page.location)
      #expect(location.hasPrefix("http://127.0.0.1:1/oauth/callback?"))
      let query = try #require(location.split(separator: "?").last)
      let done = try await Browser.open("\(site.callback)/oauth/callback?\(query)")
      #expect(done.status == 200 && done.text.contains("ann@example.org is connected"), "\(done)")
      #expect(await waiting.exit() == 1)
      #expect(waiting.output.contains("ann@example.org is connected."), "\(waiting.output)\(waiting.errors)")
      let twice = try await Browser.open("\(site.callback)/oauth/callback?\(query)")
      #expect(twice.status == 400 && twice.text.contains("not known"))
      #expect(try await Browser.open("\(site.callback)/oauth/callback").status == 400)

      let connection = try await site.run("mailbox", "connection", "ann@example.org")
      #expect(connection.output.contains("connected") && connection.output.contains("granted"), "\(connection.output)")
      let ended = try await site.run("mailbox", "disconnect", "ann@example.org", "--yes")
      #expect(ended.output.contains("the provider was told"), "\(ended.output)\(ended.errors)")
      #expect(site.server.refreshTokens.isEmpty)
      #expect(try await site.cluster.store.connection(of: mailbox, for: site.cluster.principal).state == .notConnected)
      let removed = try await site.run("profile", "oauth", "remove", "Mail", "--yes")
      #expect(removed.exitCode == 0)
      #expect(try await site.run("profile", "oauth", "show", "Mail").errors.contains("has no OAuth application"))
    }
  }

  @Test("an owner who comes back after the application was replaced reads why, and what to do")
  func replacedMeanwhile() async throws {
    try await withSite { site in
      let profile = try await site.cluster.profile(
        "Mail", incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, credentials: .oauth))
      let mailbox = try await site.cluster.mailbox("ann@example.org", on: profile, password: nil)
      func set(_ client: String) async throws {
        let set = try await site.run(
          "profile", "oauth", "set", "Mail", "--client-id", client, "--authorization-url", site.server.authorizationURL,
          "--token-url", site.server.tokenURL, "--scope", "mail", "--secret-stdin", input: "client-secret\n")
        #expect(set.exitCode == 0, "\(set.errors)")
      }
      try await set("client")
      let desk = ConsentService(
        store: site.cluster.store, web: try WebClient(egress: EgressPolicy(allow: "127.0.0.0/8:*")),
        publicURL: "http://127.0.0.1:1")
      let page = try await Browser.open(
        try await desk.beginConsent(of: mailbox, by: site.cluster.principal).consentURL)
      let query = try #require(page.location?.split(separator: "?").last)
      try await set("another")
      let refused = try await Browser.open("\(site.callback)/oauth/callback?\(query)")
      #expect(refused.status == 400 && refused.text.contains("Not connected"))
      #expect(refused.text.contains("another OAuth application") && refused.text.contains("mailbox connect"))
      #expect(!site.server.requests.contains { $0.path == "/token" })
    }
  }

  @Test("secrets are not taken over plain HTTP, and a page of the callback is harmless")
  func insecure() async throws {
    try await withSite { site in
      let profile = try await site.cluster.profile(
        "Mail", incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, credentials: .oauth))
      var environment = site.environment
      environment["POSTRIDER_API_URL"] = site.callback
      environment["POSTRIDER_OAUTH_SECRET"] = "hunter2"
      let refused = try await Program.run(
        ["profile", "oauth", "set", "\(profile.id)", "--client-id", "c"], environment: environment)
      #expect(refused.exitCode == 1 && refused.errors.contains("insecure-channel"), "\(refused.errors)")
      let page = try await Browser.open("\(site.callback)/oauth/callback?state=x&error=%3Cscript%3E")
      #expect(page.status == 400 && !page.text.contains("<script>"))
    }
  }

  @Test("a webhook is created, tested, listed and deleted; what was given up is listed and tried again")
  func webhooks() async throws {
    let receiver = try await TestHTTPServer.start { request in
      TestHTTPServer.Response(request.path == "/good" ? 200 : 500)
    }
    try await withSite { site in
      let created = try await site.run("webhook", "create", receiver.url("/good"), "--description", "tickets")
      #expect(created.exitCode == 0 && created.output.contains("whsec_"), "\(created.output)\(created.errors)")
      let inside = try await site.run("webhook", "create", "https://10.0.0.1/")
      #expect(inside.exitCode == 1 && inside.errors.contains("private address"), "\(inside.errors)")
      let tested = try await site.run("webhook", "test", "1")
      #expect(tested.exitCode == 0 && tested.output.contains("answered 200"), "\(tested.output)\(tested.errors)")
      _ = try await site.run("webhook", "create", receiver.url("/bad"))
      let failed = try await site.run("webhook", "test", "2")
      #expect(failed.exitCode == 1 && failed.output.contains("answered 500"), "\(failed.output)\(failed.errors)")
      let list = try await site.run("webhook", "list")
      #expect(list.output.contains("/good") && list.output.contains("/bad"))
      let dead = try await site.run("webhook", "deliveries", "list", "--state", "dead", "--json")
      let page = try JSONCoding.decoder().decode(Page<WebhookDelivery>.self, from: Data(dead.output.utf8))
      #expect(page.items.map(\.webhookID) == [WebhookID(2)] && page.items.first?.lastStatus == 500)
      let again = try await site.run("webhook", "deliveries", "retry", "--all-dead", "--webhook", "2")
      #expect(again.exitCode == 0 && again.output.contains("1 delivery to be tried again"), "\(again.errors)")
      try await eventually("another attempt") { receiver.requests.count { $0.path == "/bad" } >= 2 }
      #expect(try await site.run("webhook", "delete", "1", "--yes").exitCode == 0)
      #expect(try await site.run("webhook", "show", "1").errors.contains("there is no webhook 1"))
      #expect(try await site.run("webhook", "delete", "2").exitCode == 64)
    }
    await receiver.stop()
  }
}
