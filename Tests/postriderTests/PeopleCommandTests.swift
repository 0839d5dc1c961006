import AdminServer
import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

/// The commands of people against a real API and a real database.
@Suite("Users, shared queues, tokens and the audit from the command line (features M0, A3, A4)")
struct PeopleCommandTests {
  private struct Site: Sendable {
    let cluster: TestCluster
    let url: String
    let token: String

    func run(
      _ arguments: String..., as other: String? = nil, environment: [String: String] = [:], input: String = ""
    ) async throws -> Program.Result {
      var variables = ["POSTRIDER_API_URL": url, "POSTRIDER_TOKEN": other ?? token]
      variables.merge(environment) { _, new in new }
      return try await Program.run(arguments, environment: variables, input: input)
    }
  }

  private func withSite(_ body: @escaping @Sendable (Site) async throws -> Void) async throws {
    let cluster = try await TestCluster.make()
    let (_, token) = try await Bootstrap(url: cluster.databaseURL, logger: cluster.logger).ensureOrganization(
      name: "Test", administratorName: "Ada", administratorAddress: "ada@example.org")
    try await withFolder { folder in
      let queue = try cluster.makeQueue()
      let api = AdminServer(
        configuration: AdminServerConfiguration(unixSocket: folder + "/api.sock"), store: cluster.store, queue: queue,
        logger: cluster.logger)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await queue.run() }
        group.addTask { try await api.run() }
        _ = try await api.listening()
        let socket = (folder + "/api.sock").replacing("/", with: "%2F")
        try await body(Site(cluster: cluster, url: "http+unix://\(socket)", token: token.revealed))
        group.cancelAll()
      }
    }
    await cluster.close()
  }

  @Test(
    "a shared queue is made with owner and members, changed, stopped and deleted; its mailbox says why it stands still")
  func people() async throws {
    try await withSite { site in
      for name in ["ann", "bob", "cy"] {
        let made = try await site.run("user", "create", "\(name)@example.org", "--name", name)
        #expect(made.exitCode == 0 && made.output.contains("\(name)@example.org"), "\(made.errors)")
      }
      let queue = try await site.run(
        "shared-queue", "create", "help@example.org", "--name", "Help", "--owner", "ann@example.org", "--member", "bob")
      #expect(queue.exitCode == 0, "\(queue.errors)")
      let edited = try await site.run(
        "shared-queue", "edit", "Help", "--member", "cy@example.org", "--no-member", "bob@example.org")
      #expect(edited.output.contains("members  cy@example.org"), "\(edited.output)\(edited.errors)")
      let old = try await site.run("shared-queue", "edit", "Help", "--name", "H", "--if-version", "1")
      #expect(old.exitCode == 1 && old.errors.contains("stale"), "\(old.errors)")
      let list = try await site.run("shared-queue", "list", "--text", "help")
      #expect(list.output.contains("ann@example.org") && list.output.contains("active"))

      let profile = try await site.cluster.profile(incoming: ServerDraft(host: "127.0.0.1", port: 1))
      _ = try await site.cluster.mailboxes(["help@example.org"], on: profile, owner: .queue)
      let stopped = try await site.run("shared-queue", "deactivate", "help@example.org")
      #expect(stopped.output.contains("help@example.org is inactive."), "\(stopped.errors)")
      #expect(try await site.run("mailbox", "show", "help@example.org").output.contains("owner-inactive"))
      let kept = try await site.run("shared-queue", "delete", "help@example.org", "--yes")
      #expect(kept.exitCode == 1 && kept.errors.contains("in-use") && kept.errors.contains("mailbox help@example.org"))
      let owner = try await site.run("user", "delete", "ann@example.org", "--yes")
      #expect(owner.exitCode == 1 && owner.errors.contains("shared queue help@example.org"), "\(owner.errors)")
      #expect(try await site.run("user", "delete", "bob").exitCode == 64)
      #expect(try await site.run("user", "delete", "bob", "--yes").output.contains("Deleted the user bob@example.org."))
      #expect(try await site.run("user", "deactivate", "cy").output.contains("cy@example.org is inactive."))
      let inactive = try await site.run("user", "list", "--inactive", "--json")
      let page = try JSONCoding.decoder().decode(Page<User>.self, from: Data(inactive.output.utf8))
      #expect(page.items.map(\.address) == ["cy@example.org"])
      #expect(try await site.run("user", "show", "nobody@example.org").errors.contains("there is no user"))

      let given = try await site.run("profile", "edit", "\(profile.id)", "--owner", "ann@example.org")
      #expect(given.output.contains("owner") && given.output.contains("ann (user"), "\(given.output)\(given.errors)")
    }
  }

  @Test("a password never comes from an argument; with it somebody signs in, and everything stands in the audit")
  func passwords() async throws {
    try await withSite { site in
      _ = try await site.run("user", "create", "ann@example.org", "--role", "reader")
      let argument = try await site.run(
        "user", "set-password", "ann@example.org", "--password", "correct horse battery")
      #expect(argument.exitCode == 64 && argument.errors.contains("never an argument"))
      let short = try await site.run("user", "set-password", "ann@example.org", "--password-stdin", input: "short\n")
      #expect(short.exitCode == 1 && short.errors.contains("at least 12"), "\(short.errors)")
      let set = try await site.run(
        "user", "set-password", "ann@example.org", "--password-stdin", input: "correct horse battery\n")
      #expect(set.output.contains("The password is set."), "\(set.errors)")
      let ticket = try #require(
        try await site.cluster.store.beginSignIn(organization: "Test", address: "ann@example.org"))
      #expect(ticket.hash.revealed.hasPrefix("$scrypt$ln=15,r=8,p=1$"))
      let session = try #require(
        try await site.cluster.store.completeSignIn(ticket, life: SessionLife(), rehashed: nil))
      #expect(try await site.run("whoami", as: session.token.revealed).output.contains("reader"))

      // Signed in from the command line, until she signs out.
      try await withFolder { folder in
        let environment = ["XDG_CONFIG_HOME": folder, "POSTRIDER_API_URL": site.url]
        let arguments = ["login", "ann@example.org", "--organization", "Test", "--password-stdin"]
        let wrong = try await Program.run(arguments, environment: environment, input: "wrong horse battery\n")
        #expect(wrong.exitCode == 1 && wrong.errors.contains("sign-in-refused"), "\(wrong.errors)")
        let login = try await Program.run(arguments, environment: environment, input: "correct horse battery\n")
        #expect(login.exitCode == 0 && login.output.contains("(reader) until"), "\(login.errors)")
        let kept = try #require(FileManager.default.contents(atPath: folder + "/postrider/session.json"))
        let token = try JSONCoding.decoder().decode(SessionFile.self, from: kept).token
        #expect(try await Program.run(["whoami"], environment: ["XDG_CONFIG_HOME": folder]).output.contains("reader"))
        #expect(try await Program.run(["logout"], environment: environment).exitCode == 0)
        #expect(try await site.run("whoami", as: token).exitCode == 1)
      }

      // Her own, with the present one.
      let own = try await site.run(
        "user", "set-password", "\(session.principal.userID)", "--password-stdin", as: session.token.revealed,
        environment: ["POSTRIDER_CURRENT_PASSWORD": "wrong horse battery"], input: "another long password\n")
      #expect(own.exitCode == 1 && own.errors.contains("not the present password"), "\(own.errors)")
      let right = try await site.run(
        "user", "set-password", "\(session.principal.userID)", "--password-stdin", as: session.token.revealed,
        environment: ["POSTRIDER_CURRENT_PASSWORD": "correct horse battery"], input: "another long password\n")
      #expect(right.exitCode == 0, "\(right.errors)")

      let refused = try await site.run("user", "create", "eve@example.org", as: session.token.revealed)
      #expect(refused.exitCode == 1 && refused.errors.contains("users.manage"), "\(refused.errors)")
      let audit = try await site.run("audit", "list", "--user", "ann@example.org")
      #expect(
        audit.output.contains("request.refused") && audit.output.contains("POST /api/v1/users without users.manage"))
      #expect(audit.output.contains("session.create") && audit.output.contains("user.set-password"), "\(audit.output)")
      let json = try await site.run("audit", "list", "--action", "user.create", "--json")
      let page = try JSONCoding.decoder().decode(Page<AuditRecord>.self, from: Data(json.output.utf8))
      #expect(page.items.count == 1 && page.items[0].entity == "user")
      #expect(!json.output.contains("scrypt") && !audit.output.contains("horse"))
    }
  }

  @Test("tokens are issued alone on standard output, listed without themselves, and revoked")
  func tokens() async throws {
    try await withSite { site in
      let issued = try await site.run(
        "token", "issue", "--name", "report", "--role", "reader", "--expires", "2099-01-31")
      let token = issued.output.split(separator: "\n").map(String.init)
      #expect(token.count == 1 && token[0].hasPrefix("postrider_"), "\(issued.output)\(issued.errors)")
      #expect(try await site.run("whoami", as: token[0]).output.contains("reader"))
      let more = try await site.run("token", "issue", "--name", "x", "--role", "administrator", as: token[0])
      #expect(more.exitCode == 1 && more.errors.contains("may do more than your own role"), "\(more.errors)")
      let list = try await site.run("token", "list")
      #expect(list.output.contains("report") && list.output.contains("2099") && !list.output.contains("postrider_"))
      let json = try await site.run("token", "list", "--kind", "token", "--json")
      let page = try JSONCoding.decoder().decode(Page<APIToken>.self, from: Data(json.output.utf8))
      let id = try #require(page.items.first { $0.name == "report" }?.id)
      #expect(try await site.run("token", "revoke", "\(id)").output.contains("Revoked the token \(id)"))
      #expect(try await site.cluster.store.principal(token: Secret(token[0])) == nil)
      #expect(try await site.run("token", "revoke", "999999").errors.contains("there is no token 999999"))
      let roles = try await site.run("user", "roles")
      #expect(roles.output.contains("mailbox-manager") && roles.output.contains("the own"))
    }
  }
}
