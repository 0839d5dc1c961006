import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Bootstrap: tokens over the owner's connection")
struct BootstrapTests {
  @Test("further tokens have a role of their own, and stand beside those of before", arguments: Role.allCases)
  func furtherTokens(role: Role) async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let bootstrap = Bootstrap(url: database.server.url("pr_owner", database.name), logger: .test)
      let first = try await bootstrap.createToken(
        organization: "Example", address: "tool@example.com", role: role, name: "tool")
      let tool = try #require(try await store.principal(token: first))
      #expect(tool.role == role && tool.name == "tool@example.com")
      #expect(tool.organizationID == database.principal.organizationID && tool.userID != database.principal.userID)
      let second = try await bootstrap.createToken(
        organization: "Example", address: "Tool@example.com", role: role, name: "tool")
      let other = try await bootstrap.createToken(
        organization: "Example", address: "tool@example.com", role: .reader, name: "other")
      #expect(try await store.principal(token: second) == tool)
      #expect(try await store.principal(token: first) == tool)

      // One in the place of those of its name, whoever has them.
      let third = try await bootstrap.createToken(
        organization: "Example", address: "tool@example.com", role: role, name: "tool", replaces: true)
      #expect(try await store.principal(token: third) == tool)
      #expect(try await store.principal(token: first) == nil)
      #expect(try await store.principal(token: second) == nil)
      #expect(try await store.principal(token: other)?.role == .reader)
      #expect(try await store.principal(token: database.token) == database.principal)
    }
  }

  @Test("the administrator's first token is lost: another one in its place")
  func lostToken() async throws {
    try await TestDatabase.with { database in
      let again = try await Bootstrap(url: database.server.url("pr_owner", database.name), logger: .test).createToken(
        organization: "Example", address: "ada@example.com", role: .administrator, name: "bootstrap", replaces: true)
      #expect(try await database.store.principal(token: again) == database.principal)
      #expect(try await database.store.principal(token: database.token) == nil)
    }
  }

  @Test("an organization that is not there is not made; what is not allowed is told at once")
  func refusals() async throws {
    try await TestDatabase.with { database in
      let bootstrap = Bootstrap(url: database.server.url("pr_owner", database.name), logger: .test)
      let unknown = await #expect(throws: StoreError.self) {
        _ = try await bootstrap.createToken(
          organization: "Exampel", address: "tool@example.com", role: .reader, name: "tool")
      }
      #expect(unknown?.description.contains("“Exampel”") == true)
      let organizations = try await database.int("SELECT count(*) FROM organization")
      #expect(organizations == 1)
      let wrong = await #expect(throws: StoreError.self) {
        _ = try await bootstrap.createToken(organization: "Example", address: "tool", role: .reader, name: "")
      }
      guard case .invalid(let problems) = wrong else {
        Issue.record("\(String(describing: wrong))")
        return
      }
      #expect(problems.map(\.pointer) == ["/name", "/address"])
    }
  }
}
