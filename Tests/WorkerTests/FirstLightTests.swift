import Foundation
import PostriderCore
import PostriderTesting
import Testing

@Suite("A poll from the due row to the stored message")
struct FirstLightTests {
  static let attachment = Array("%PDF-1.4 not really".utf8)

  static func mail(_ subject: String, to address: String) -> String {
    """
    From: Ann <ann@example.org>\r
    To: \(address)\r
    Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe_\(subject)?=\r
    Date: Sun, 01 Nov 2026 10:00:00 +0000\r
    Message-ID: <\(subject)@example.org>\r
    MIME-Version: 1.0\r
    Content-Type: multipart/mixed; boundary=b\r
    \r
    --b\r
    Content-Type: text/plain; charset=utf-8\r
    Content-Transfer-Encoding: 8bit\r
    \r
    Schöne Grüße\r
    .a line with a dot\r
    --b\r
    Content-Type: application/pdf\r
    Content-Disposition: attachment; filename="letter.pdf"\r
    Content-Transfer-Encoding: base64\r
    \r
    \(Data(attachment).base64EncodedString())\r
    --b--\r

    """
  }

  @Test("the message is stored once, complete and unchanged; what comes later arrives once")
  func firstLight() async throws {
    let sandbox = try await Sandbox.shared()
    let address = try await Sandbox.account()
    let first = Self.mail("one", to: address)
    try sandbox.deliver(to: address, message: Array(first.utf8), messageID: "<one@example.org>")
    try await Spine.with { spine in
      let cluster = spine.cluster
      let mailbox = try await cluster.mailbox(
        address, on: try await cluster.sandboxProfile(), password: Sandbox.password)
      try await cluster.enable(mailbox)
      let run = try #require(try await cluster.waitForRuns(1, of: mailbox).first)
      #expect(run.result == .success && run.trigger == .enabled && run.messagesStored == 1)
      #expect(run.octetsStored == Int64(first.utf8.count))
      #expect(run.steps.isEmpty, "a successful run keeps no steps")

      let email = try #require(try await cluster.emails(of: mailbox).first)
      #expect(email.envelope.subject == "Grüße one")
      #expect(email.envelope.from == [EmailAddress(name: "Ann", address: "ann@example.org")])
      #expect(email.envelope.to.map(\.address) == [address])
      #expect(email.envelope.messageID == "one@example.org")
      #expect(email.text == "Schöne Grüße\r\n.a line with a dot" || email.text == "Schöne Grüße\n.a line with a dot")
      #expect(
        email.attachments == [
          AttachmentRecord(
            fileName: "letter.pdf", contentType: "application/pdf", sizeOctets: Int64(Self.attachment.count))
        ])
      #expect(try await cluster.raw(email.id) == Array(first.utf8))

      // The time has come again; nothing is announced, so the watermark alone finds it.
      try await cluster.makeDue([mailbox])
      let second = try #require(try await cluster.waitForRuns(2, of: mailbox).last)
      #expect(second.messagesStored == 0 && second.messagesKnown == 1 && second.trigger == .slot)

      try sandbox.deliver(
        to: address, message: Array(Self.mail("two", to: address).utf8), messageID: "<two@example.org>")
      let third = try await cluster.poll(mailbox)
      #expect(third.messagesStored == 1 && third.messagesKnown == 1 && third.trigger == .request)
      #expect(try await cluster.emails(of: mailbox).map(\.envelope.subject) == ["Grüße one", "Grüße two"])
      #expect(try await cluster.mailbox(mailbox).emailCount == 2)
      #expect(try await cluster.alerts(of: mailbox).isEmpty)
    }
  }

  @Test("mail is removed from the server only once it is stored")
  func deletes() async throws {
    let sandbox = try await Sandbox.shared()
    let address = try await Sandbox.account()
    let old = "Date: Sun, 01 Jan 2017 10:00:00 +0000\r\nSubject: old\r\n\r\nold\r\n"
    try sandbox.deliver(to: address, message: Array(old.utf8), messageID: "<old@example.org>")
    try sandbox.deliver(to: address, subject: "new")
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: ServerDraft(host: sandbox.hostName, port: sandbox.pop3sPort, tls: .implicit), caPEM: sandbox.caPEM,
        processEmailFrom: Date(timeIntervalSinceNow: -86_400))
      let mailbox = try await cluster.mailboxes(
        [address], on: profile, password: Sandbox.password, owner: .queue, deletes: true)[0]
      try await cluster.enable(mailbox)
      let first = try #require(try await cluster.waitForRuns(1, of: mailbox).first)
      #expect(first.messagesStored == 1)
      let second = try await cluster.poll(mailbox)
      // The old one is there still, and known; the new one is gone.
      #expect(second.messagesStored == 0 && second.messagesKnown == 1)
      #expect(try await cluster.emails(of: mailbox).map(\.envelope.subject) == ["new"])
    }
  }

  @Test("more mail than one session takes comes in the next ones")
  func moreMail() async throws {
    let drop = Maildrop((1...5).map { ("u\($0)", message("s\($0)")) })
    let server = try await ScriptedMailServer.start(drop.script)
    try await Spine.with { spine in
      let cluster = spine.cluster
      try await cluster.sql("UPDATE organization SET messages_per_poll = 2, version = version + 1")
      let mailbox = try await cluster.mailbox(on: try await cluster.profile(server))
      try await cluster.enable(mailbox)
      let runs = try await cluster.waitForRuns(3, of: mailbox)
      #expect(runs.map(\.messagesStored) == [2, 2, 1])
    }
    await server.stop()
  }
}
