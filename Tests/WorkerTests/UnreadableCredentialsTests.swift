import PostriderCore
import PostriderTesting
import Testing

@testable import Worker

@Suite("Passwords that cannot be decrypted")
struct UnreadableCredentialsTests {
  @Test("the session fails with a reason; the mailbox keeps its flags and is probed again")
  func unreadable() async throws {
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none))
      let mailbox = try await cluster.mailbox(on: profile)
      _ = try await cluster.sql("UPDATE mailbox SET version = version + 1, password = '\\x0102'")
      try await cluster.enable(mailbox)
      let run = try #require(try await cluster.waitForRuns(1, of: mailbox).first)
      #expect(run.result == .failure && run.failure?.code == .credentialsUnreadable)
      #expect(run.failure?.context == "the password of m@example.org")
      let after = try await cluster.mailbox(mailbox)
      #expect(after.incoming.enabled && after.incoming.nextRunReason == "credentials.unreadable")
      let alerts = try await cluster.store.alerts(AlertFilter(), PageRequest(), for: cluster.principal)
      #expect(alerts.items.contains { $0.code == "credentials.unreadable" && $0.profileID == profile.id })
    }
  }
}
