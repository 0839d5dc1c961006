import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("postrider init and token, run as programs")
struct TokenCommandTests {
  private func printed(_ arguments: [String], over url: String) async throws -> Secret {
    let result = try await Program.run(arguments, environment: ["POSTRIDER_DATABASE_URL": url])
    try #require(result.exitCode == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n")
    try #require(lines.count == 1, "nothing but the token is printed")
    let token = String(lines[0])
    #expect(token.hasPrefix("postrider_") && !result.errors.contains(token))
    return Secret(token)
  }

  @Test("init makes the first token, token create further ones, and one in the place of a lost one")
  func tokens() async throws {
    let cluster = try await TestCluster.make()
    let create = ["token", "create", "--organization", "Small", "--address", "Bob@example.com"]
    let first = try await printed(
      ["init", "--organization", "Small", "--admin-address", "bob@example.com"], over: cluster.databaseURL)
    let bob = try #require(try await cluster.store.principal(token: first))
    #expect(bob.role == .administrator && bob.organizationID != cluster.principal.organizationID)
    let reader = try await printed(create + ["--role", "reader"], over: cluster.databaseURL)
    let manager = try await printed(
      create + ["--role", "mailbox-manager", "--name", "desk"], over: cluster.databaseURL)
    #expect(try await cluster.store.principal(token: reader)?.role == .reader)
    #expect(try await cluster.store.principal(token: manager)?.role == .mailboxManager)
    #expect(try await cluster.store.principal(token: manager)?.userID == bob.userID)
    #expect(try await cluster.store.principal(token: first) == bob)

    let again = try await printed(
      create + ["--role", "administrator", "--name", "bootstrap", "--replace"], over: cluster.databaseURL)
    #expect(try await cluster.store.principal(token: again) == bob)
    #expect(try await cluster.store.principal(token: first) == nil)
    #expect(try await cluster.store.principal(token: reader)?.role == .reader)
    await cluster.close()
  }

  @Test("what is wrong is told: an unknown organization, a role that does not exist, a database that does not answer")
  func refusals() async throws {
    let cluster = try await TestCluster.make()
    let create = ["token", "create", "--address", "bob@example.com", "--organization"]
    let unknown = try await Program.run(
      create + ["Nobody", "--role", "reader"], environment: ["POSTRIDER_DATABASE_URL": cluster.databaseURL])
    #expect(unknown.exitCode == 1 && unknown.errors.contains("“Nobody”"), "\(unknown.errors)")
    #expect(unknown.output.isEmpty)
    let role = try await Program.run(create + ["Test", "--role", "god"])
    #expect(role.exitCode == 64 && role.errors.contains("mailbox-manager"), "\(role.errors)")
    let away = try await Program.run(
      create + ["Test", "--role", "reader"],
      environment: ["POSTRIDER_DATABASE_URL": "postgresql:///none?host=/nonexistent"])
    #expect(away.exitCode == 69 && away.errors.contains("PostgreSQL cannot be reached"), "\(away.errors)")
    await cluster.close()
  }

  @Test func help() async throws {
    let result = try await Program.run(["token", "create", "--help"])
    #expect(result.exitCode == 0)
    for words in ["Example: postrider token create", "mailbox-manager", "--replace", "shown once"] {
      #expect(result.output.contains(words), "\(result.output)")
    }
  }
}
