import Foundation
import MailMessage
import PostriderCore
import PostriderTesting
import Testing

@testable import Worker

@Suite("Messages are read from storage while they are sent")
struct StoredBodyTests {
  /// Lines that begin with dots, across the borders of chunks and pieces.
  static func body(octets: Int) -> [UInt8] {
    var text: [UInt8] = []
    var number = 0
    while text.count < octets {
      text += Array("..line \(number) .\r\n.\r\n".utf8)
      number += 1
    }
    return text
  }

  static let header = Array("From: m@example.org\r\nTo: good@example.org\r\nMessage-ID: <big@example.org>\r\n\r\n".utf8)

  @Test("a large message arrives octet for octet, and its SIZE is announced")
  func arrivesWhole() async throws {
    let server = try await ScriptedMailServer.start(
      SendingTests().smtp(extensions: "250-SIZE 50000000\r\n250-8BITMIME\r\n") { _ in nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let raw = Self.header + Self.body(octets: 1_400_000)
      let email = try await cluster.store.submit(
        OutgoingSubmission(
          mailboxID: id, recipients: ["good@example.org"], subject: "big", messageID: "big@example.org",
          raw: .bytes(raw), encoding: .eightBit), by: cluster.principal)
      _ = try await cluster.waitForState(.sent, of: email)
      let lines = try #require(server.connections.first?.lines)
      #expect(lines.contains("MAIL FROM:<m@example.org> SIZE=\(raw.count) BODY=8BITMIME"))
      let sent = try #require(lines.max { $0.utf8.count < $1.utf8.count })
      #expect(Self.unstuffed(sent) == raw)
    }
    await server.stop()
  }

  @Test("a stored message that is not whole never ends with a dot")
  func incomplete() async throws {
    let server = try await ScriptedMailServer.start(SendingTests().smtp { _ in nil })
    try await Spine.with(scheduler: false) { spine in
      let cluster = spine.cluster
      let id = try await cluster.sender(to: server)
      let email = try await cluster.store.submit(
        OutgoingSubmission(
          mailboxID: id, recipients: ["good@example.org"], subject: "big", messageID: "big@example.org",
          raw: .bytes(Self.header + Self.body(octets: 1_400_000))), by: cluster.principal)
      try await cluster.sql("DELETE FROM content_chunk WHERE position = 1")
      _ = try spine.startScheduler()
      let waiting = try await eventually("the attempt") {
        let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
        return now.attempts > 0 && now.state != .sending ? now : nil
      }
      #expect(waiting.state == .pendingSend || waiting.state == .failed)
      #expect(waiting.state != .sent)
      #expect(await server.wait { $0.first?.isClosed == true })
      #expect(server.connections.allSatisfy { !$0.lines.contains { $0.hasSuffix("\r\n.\r\n") } })
    }
    await server.stop()
  }

  static let smugglers = [
    "one\n.\ntwo\n", "one\r.\rtwo\r", "one\r\n.\ntwo\r\n", "one\n.\r\ntwo\r\n", "one\r.\r\ntwo\r\n",
    "one\n.\r\nMAIL FROM:<x@example.org>\r\nRCPT TO:<y@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nbody\r\n.\r\n",
    "..\r\n.\r\n...\r\n.", ".",
  ]

  @Test("whatever its line ends, a raw message arrives as one, its body intact (CVE-2023-51764 and its kin)")
  func smuggling() async throws {
    let address = try await Sandbox.account()
    let receiver = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.sandboxProfile()
      let id = try await cluster.mailbox(address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      for (number, body) in Self.smugglers.enumerated() {
        let email = try await cluster.submitRaw(
          "From: \(address)\nTo: \(receiver)\nSubject: raw \(number)\n\n\(body)", from: id, spool: spine.spool)
        _ = try await cluster.waitForState(.sent, of: email)
      }
      let other = try await cluster.mailbox(receiver, on: profile, password: Sandbox.password)
      try await cluster.enable(other)
      let emails = try await cluster.received(Self.smugglers.count, by: other)
      #expect(emails.map(\.envelope.subject).sorted() == Self.smugglers.indices.map { "raw \($0)" })
      for (number, body) in Self.smugglers.enumerated() {
        let lines = body.replacing("\r\n", with: "\n").replacing("\r", with: "\n")
        let received = emails.first { $0.envelope.subject == "raw \(number)" }
        #expect(received?.text == (lines.hasSuffix("\n") ? lines : lines + "\n"), "\(body.debugDescription)")
      }
    }
  }

  /// What a server makes of the octets after DATA.
  static func unstuffed(_ text: String) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.utf8.count)
    var isLineStart = true
    for byte in text.utf8.dropLast(3) {
      if isLineStart, byte == UInt8(ascii: ".") {
        isLineStart = false
        continue
      }
      result.append(byte)
      isLineStart = byte == UInt8(ascii: "\n")
    }
    return result
  }
}

@Suite("Files, reports and addresses through real servers")
struct SubmissionTests {
  @Test("files arrive as they were, with their names; the answer's header fields too")
  func files() async throws {
    let address = try await Sandbox.account()
    let receiver = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.sandboxProfile()
      let id = try await cluster.mailbox(address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      let octets = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
      let draft = OutgoingDraft(
        mailboxID: id, to: [receiver], replyTo: ["answers@example.org"], subject: "Grüße", html: "<p>Übung</p>",
        attachments: [
          OutgoingAttachment(fileName: "Rechnung über „alles“.pdf", content: Data(octets)),
          OutgoingAttachment(fileName: "a.txt", content: Data("eins\n.\nzwei".utf8)),
        ], inReplyTo: "<first@example.org>", headers: [OutgoingHeader(name: "X-Ticket", value: "17")],
        autoSubmitted: .replied)
      let builder = MessageBuilder(
        draft, from: address, messageID: MessageBuilder.newMessageID(for: address), date: Date())
      let email = try await cluster.store.submit(
        OutgoingSubmission(
          mailboxID: id, recipients: draft.recipients, subject: draft.subject, messageID: builder.messageID,
          raw: .bytes(try builder.build()), encoding: builder.encoding), by: cluster.principal)
      _ = try await cluster.waitForState(.sent, of: email)
      let other = try await cluster.mailbox(receiver, on: profile, password: Sandbox.password)
      try await cluster.enable(other)
      let received = try await cluster.received(1, by: other)[0]
      #expect(received.html == "<p>Übung</p>\n" && received.text == nil && received.messageClass == .automatic)
      #expect(received.envelope.replyTo.map(\.address) == ["answers@example.org"])
      #expect(received.envelope.inReplyTo == "first@example.org")
      #expect(received.envelope.references == ["first@example.org"])
      #expect(received.attachments.map(\.fileName) == ["Rechnung über „alles“.pdf", "a.txt"])
      #expect(received.attachments.map(\.contentType) == ["application/pdf", "text/plain"])
      let parsed = try MessageReader.parse(try await cluster.raw(received.id))
      #expect(parsed.attachments.map(\.content) == [octets, Array("eins\n.\nzwei".utf8)])
      #expect(String(decoding: try await cluster.raw(received.id), as: UTF8.self).contains("X-Ticket: 17\r\n"))
    }
  }

  @Test("a message that comes back marks its recipient, and is shown as the report that it is")
  func bounce() async throws {
    let address = try await Sandbox.account()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.sandboxProfile()
      let id = try await cluster.mailbox(address, on: profile, password: Sandbox.password, outgoing: .serverSideSync)
      try await cluster.enableOutgoing(id)
      // The sandbox takes mail to other domains, and returns it.
      let email = try await cluster.submit("lost", from: id, to: ["nobody@elsewhere.example", address])
      let sent = try await cluster.waitForState(.sent, of: email)
      #expect(sent.recipients.allSatisfy { $0.report == nil } && sent.bounced == nil)
      try await cluster.enable(id)
      let report = try await cluster.received(1, by: id)[0]
      #expect(report.messageClass == .bounce && report.reportOfID == email.id)
      let now = try await cluster.store.outgoingEmail(email.id, for: cluster.principal)
      #expect(now.state == .sent && now.bounced == 1)
      let lost = try #require(now.recipients.first?.report)
      #expect(lost.isBounce && lost.status?.hasPrefix("5.") == true && lost.emailID == report.id)
      #expect(lost.reportedAt != nil && lost.diagnostic != nil)
      #expect(now.recipients.last?.report == nil)
    }
  }

  @Test("an address that needs SMTPUTF8 goes only to a server that offers it; a domain alone does not need it")
  func international() async throws {
    let plain = try await ScriptedMailServer.start(SendingTests().smtp { _ in nil })
    let modern = try await ScriptedMailServer.start(
      SendingTests().smtp(extensions: "250-SMTPUTF8\r\n250-8BITMIME\r\n") { _ in nil })
    try await Spine.with { spine in
      let cluster = spine.cluster
      for (server, state) in [(plain, OutgoingState.failed), (modern, .sent)] {
        let draft = ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none)
        let id = try await cluster.mailbox(
          "m\(server.port)@example.org",
          on: try await cluster.profile("\(server.port)", incoming: draft, outgoing: draft),
          outgoing: .serverSideSync)
        try await cluster.enableOutgoing(id)
        let header = "From: m@example.org\nTo: =?utf-8?q?J?= <info@xn--bcher-kva.example>\n"
        let ascii = try await cluster.submitRaw(header + "Subject: x\n\nHello.\n", from: id, spool: spine.spool)
        _ = try await cluster.waitForState(.sent, of: ascii)
        let utf8 = try await cluster.submitRaw(header + "Subject: Grüße\n\nHello.\n", from: id, spool: spine.spool)
        let done = try await cluster.waitForState(state, of: utf8)
        #expect(done.failure?.context?.contains("SMTPUTF8") ?? false == (state == .failed))
        let local = try await cluster.submit("x", from: id, to: ["jürgen@example.org"])
        let answer = try await cluster.waitForState(state, of: local)
        #expect(answer.recipients[0].failure?.context?.contains("SMTPUTF8") ?? false == (state == .failed))
      }
      let lines = modern.connections.flatMap(\.lines).filter { $0.hasPrefix("MAIL") }
      #expect(lines.count(where: { $0.contains(" SMTPUTF8") }) == 2)
    }
    await plain.stop()
    await modern.stop()
  }
}

extension TestCluster {
  /// Takes a message in as the API does, and submits it.
  func submitRaw(_ text: String, from id: MailboxID, spool: String) async throws -> OutgoingEmail {
    let address = try await mailbox(id).address
    var intake = RawMessageIntake(sender: address, maximumOctets: 1 << 24, directory: spool)
    try Array(text.utf8).withUnsafeBytes { bytes in try intake.append(bytes) }
    let message = try intake.finish()
    return try await store.submit(
      OutgoingSubmission(
        mailboxID: id, recipients: message.recipients.compactMap(InternationalAddress.wireForm),
        subject: message.subject, messageID: message.messageID, raw: message.content,
        encoding: message.encoding), by: principal)
  }
}
