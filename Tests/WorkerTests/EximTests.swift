import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@Suite("Sending over Exim (features O1, O3)", .enabled(if: geteuid() == 0, "Exim changes between users by itself"))
struct EximTests {
  @Test("several messages in one session: logged in under TLS, each recipient with its own answer")
  func sends() async throws {
    let data = try await TestServers.shared.dedicatedDirectory(named: "exim")
    let authority = try await TestAuthority.open(in: data.path + "/authority", owner: data.user)
    let exim = try await PrivateExim.start(
      in: data, certificate: try await authority.leaf("exim", for: ["localhost"]),
      accounts: [.init("anna@sandbox.test", password: "correct horse"), .init("ben@sandbox.test", password: "other")])
    try await Spine.with { spine in
      let cluster = spine.cluster
      let server = ServerDraft(host: "localhost", port: exim.submissionPort, tls: .starttls)
      let profile = try await cluster.profile(
        incoming: server, outgoing: server, caPEM: authority.certificatePEM)
      let id = try await cluster.mailbox(
        "anna@sandbox.test", on: profile, password: "correct horse", outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      let both = try await cluster.submit("both", from: id, to: ["ben@sandbox.test", "nobody@sandbox.test"])
      let one = try await cluster.submit("one", from: id, to: ["ben@sandbox.test"])
      let none = try await cluster.submit("none", from: id, to: ["nobody@sandbox.test"])
      let partly = try await cluster.waitForState(.partlySent, of: both)
      #expect(partly.recipients.map(\.state) == [.accepted, .failed])
      #expect(partly.recipients.last?.failure?.code == .smtpRecipient)
      _ = try await cluster.waitForState(.sent, of: one)
      let failed = try await cluster.waitForState(.failed, of: none)
      #expect(failed.failure?.code == .smtpRecipient)
      try await eventually("both messages are there") {
        let arrived = exim.messages(of: "ben@sandbox.test").map { String(decoding: $0, as: UTF8.self) }
        let found = [both, one].filter { sent in arrived.contains { $0.contains(sent.messageID) } }
        return arrived.count == 2 && found.count == 2
      }
    }
    await exim.stop()
  }
}
