import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Testing

@Suite("Alert mail from alert to server (features P20, S4)")
struct SentAlertMailTests {
  @Test("an alert is mailed once, marked as automatic; what goes wrong with that mail makes no other")
  func once() async throws {
    // It takes nothing for ops@, so the mail about alerts fails for good.
    let server = try await ScriptedMailServer.start(
      SendingTests().smtp { line in line.hasPrefix("RCPT TO:<gone@") ? "550 5.1.1 no such user\r\n" : nil })
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let alerting = try await cluster.sender(to: server)
      _ = try await cluster.store.updateAlertMail(
        AlertMailChange(isOn: true, mailboxID: alerting, recipients: ["ops@example.org", "gone@example.org"]),
        by: cluster.principal)
      let other = try await cluster.mailbox(
        "broken@example.org", on: try await cluster.profile("Other", incoming: ServerDraft(host: "127.0.0.1", port: 1)))
      try await cluster.raise("auth.rejected", on: other)
      _ = try spine.startScheduler {
        $0.alertMail = .milliseconds(100)
        $0.alertMailPause = .milliseconds(100)
        $0.composeAlertMail = { try AlertMessage.submission(of: $0) }
      }
      try await eventually("the mail is decided") {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'partly-sent'") == "1"
      }
      let text = try #require(server.connections.flatMap(\.lines).first { $0.contains("Auto-Submitted:") })
      #expect(text.contains("Auto-Submitted: auto-generated") && text.contains("auth.rejected"))
      #expect(text.contains("broken@example.org") && text.contains("postrider alert list"))
      // The refused recipient stands on the wall of the mailbox that sends them: no mail about it.
      try await eventually("the alert of the mail") {
        try await cluster.alerts(of: alerting).contains { $0.code == "smtp.recipient" && $0.level == .error }
      }
      try await cluster.raise("tls.expired", on: other)
      try await eventually("the next mail is decided") {
        try await cluster.sql("SELECT count(*) FROM outgoing_email WHERE state = 'partly-sent'") == "2"
      }
      #expect(try await cluster.sql("SELECT count(*) FROM outgoing_email") == "2")
      #expect(!server.connections.flatMap(\.lines).contains { $0.contains("error: smtp.recipient") })
    }
    await server.stop()
  }
}

extension TestCluster {
  /// Puts an error on a mailbox's wall.
  fileprivate func raise(_ code: String, on mailbox: MailboxID) async throws {
    try await sql(
      """
      INSERT INTO alert (organization_id, mailbox_id, code, level, text)
      SELECT organization_id, id, '\(code)', 'error', 'It happened.' FROM mailbox WHERE id = \(mailbox)
      """)
  }
}
