import Foundation
import Logging
import PostgresStore
import PostriderCore
import PostriderTesting
import Testing

@Suite("An address that another organization receives (M10)")
struct OwnershipTests {
  @Test("refused after the login, sending apart; taken over it is polled here and stands still there, with alerts")
  func takeOver() async throws {
    let drop = Maildrop([("u1", message("one"))])
    let server = try await ScriptedMailServer.start { _ in drop.script }
    try await Spine.with { spine in
      let cluster = spine.cluster
      let first = try await cluster.mailbox("shared@example.org", on: try await cluster.profile(server))
      #expect(try await cluster.test(first).result == .success)
      try await eventually("the first organization's mail") { try await cluster.emails(of: first).count == 1 }

      let (_, token) = try await Bootstrap(url: cluster.databaseURL, logger: .init(label: "test")).ensureOrganization(
        name: "Other", administratorName: "Olga", administratorAddress: "olga@example.org")
      let olga = try #require(try await cluster.store.principal(token: token))
      let draft = ProfileDraft(
        name: "Profile", type: .pop3SMTP,
        incoming: ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none, mechanism: .plain),
        outgoing: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none, mechanism: .plain))
      let profile = try await cluster.store.createProfile(
        try ProfileRules(allowsNonTLSMail: true).resolve(draft), by: olga)
      let second = try await cluster.store.createMailbox(
        MailboxDraft(
          address: "Shared@example.org", profileID: profile.id, outgoingMethod: SyncMethod.none,
          password: Secret("secret")), by: olga
      ).id
      _ = try await cluster.store.setApproval(.approved, of: [second], by: olga)
      @Sendable func theirs() async throws -> Mailbox { try await cluster.store.mailbox(second, for: olga) }
      @Sendable func test(takingOver: Bool) async throws -> RunRecord {
        _ = try await cluster.store.requestTest(of: [second], takingOver: takingOver, by: olga)
        let wanted = try await theirs().testsRequested
        let run = try await eventually("the test") {
          let now = try await theirs()
          return now.testsServed >= wanted ? now.lastTestRunID : nil
        }
        return try await cluster.store.run(run, for: olga)
      }

      let refused = try await test(takingOver: false)
      #expect(refused.result == .failure && refused.failure?.code == .ownershipOtherOrganization)
      let step = try #require(refused.steps.last)
      #expect(step.name == .store && step.result == .failed && step.code == .ownershipOtherOrganization)
      #expect(step.remedy?.contains("--take-over") == true)
      // Only who could log in is told.
      #expect(refused.steps.dropLast().contains { $0.name == .authenticate && $0.result == .ok })
      #expect(refused.steps.dropLast().allSatisfy { $0.result == .ok })
      #expect(try await theirs().incoming.failureCode == "ownership.other-organization")
      let alerts = try await cluster.store.alerts(AlertFilter(mailboxID: second), PageRequest(), for: olga)
      #expect(alerts.items.map(\.code) == ["ownership.other-organization"])
      #expect(alerts.items.first?.text == Failure(.ownershipOtherOrganization).description)
      #expect(try await cluster.mailbox(first).incoming.notRunningReason == nil)

      let taken = try await test(takingOver: true)
      #expect(taken.result == .success)
      #expect(taken.steps.last?.name == .store && taken.steps.last?.result == .ok)
      try await eventually("the second organization's mail") {
        try await cluster.store.emails(mailbox: second, PageRequest(), for: olga).total == 1
      }
      #expect(try await theirs().incoming.notRunningReason == nil)
      let told = try await cluster.store.alerts(AlertFilter(mailboxID: second), PageRequest(), for: olga)
      #expect(Set(told.items.map(\.code)) == ["mailbox.connected.incoming", "ownership.took-over"])

      let lost = try await cluster.mailbox(first)
      #expect(lost.incoming.failureCode == "ownership.taken-over" && lost.incoming.notRunningReason == "disabled")
      let error = try #require(try await cluster.alerts(of: first).first { $0.level == .error })
      #expect(error.code == "ownership.taken-over" && error.remedy != nil)
      // New mail comes to the one alone, although the other's poll is made due behind everybody's back.
      let polls = try await cluster.runs(of: first).count
      drop.add("u2", message("two"))
      try await cluster.makeDue([first, second])
      try await eventually("new mail") {
        _ = try await cluster.store.requestPoll(of: [second], by: olga)
        return try await cluster.store.emails(mailbox: second, PageRequest(), for: olga).total == 2
      }
      #expect(try await cluster.emails(of: first).count == 1)
      #expect(try await cluster.runs(of: first).count == polls)
    }
    await server.stop()
  }
}
