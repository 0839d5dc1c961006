import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Testing

@Suite("CHUNKING and DSN with Postfix (features O3)")
struct ChunkedSendingTests {
  @Test(
    "300 kB of 8-bit text with lone dots go as chunks and arrive as they were; the report comes back to its message")
  func postfix() async throws {
    let sender = try await Sandbox.account()
    let receiver = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.sandboxProfile()
      let from = try await cluster.mailbox(sender, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      let to = try await cluster.mailbox(receiver, on: profile, password: Sandbox.password)
      try await cluster.enable([from, to])
      try await cluster.enableOutgoing(from)
      let id = MessageBuilder.newMessageID(for: sender)
      let body =
        (0..<6_000).map { $0 % 3 == 0 ? "." : "\($0) ä.\u{e9} " + String(repeating: ".", count: 40) }
        .joined(separator: "\r\n") + "\r\n"
      let header =
        "From: \(sender)\r\nTo: \(receiver)\r\nSubject: chunks\r\nMessage-ID: <\(id)>\r\n"
        + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
      let email = try await cluster.store.submit(
        OutgoingSubmission(
          mailboxID: from, recipients: [receiver], subject: "chunks", messageID: id,
          raw: .bytes(Array((header + body).utf8)),
          encoding: .eightBit, notification: DSNRequest(notify: [.success, .failure], returns: .headers)),
        by: cluster.principal)
      _ = try await cluster.waitForState(.sent, of: email)
      let received = try await cluster.received(1, by: to)
      let raw = String(decoding: try await cluster.raw(received[0].id), as: UTF8.self)
      #expect(raw.hasSuffix("\r\n\r\n" + body), "the body is what was submitted")
      #expect(received[0].envelope.messageID == id)
      // Postfix counts the commands of each session in its log.
      let logPath = try #require(try await Sandbox.shared().postfix).logPath
      try await eventually("a session with chunks in Postfix's log") {
        try String(contentsOfFile: logPath, encoding: .utf8).contains("bdat=")
      }

      // The delivery was asked to be reported, which servers do not do by themselves.
      try await eventually("the report") {
        _ = try await cluster.poll(from)
        let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        let action = now.recipients.first?.report?.action
        return action == .delivered || action == .relayed
      }
      let report = try #require(try await cluster.emails(of: from).first)
      #expect(report.messageClass == .automatic && report.reportOfID == email.id)
      let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
      #expect(now.bounced == nil && now.notification?.returns == .headers)
    }
  }
}
