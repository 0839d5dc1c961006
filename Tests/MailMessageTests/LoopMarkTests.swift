import Foundation
import PostriderCore
import Testing

@testable import MailMessage

@Suite("What a program wrote is known as such (RFC 3834)")
struct LoopMarkTests {
  @Test(
    "received mail",
    arguments: [
      ("Auto-Submitted: auto-replied (vacation)", MessageClass.automatic), ("Auto-Submitted: no", .ordinary),
      ("Auto-Submitted: No (really)", .ordinary), ("Precedence: auto_reply", .automatic),
      ("X-Autoreply: yes", .automatic), ("X-Autorespond: vacation 1.0", .automatic), ("X-Autoreply: no", .ordinary),
      ("Return-Path: <>", .automatic), ("X-Ticket: 1", .ordinary),
    ])
  func received(field: String, expected: MessageClass) throws {
    let text = "From: a@example.org\r\n\(field)\r\nSubject: x\r\n\r\nHello.\r\n"
    #expect(try MessageReader.parse(Array(text.utf8)).messageClass == expected)
  }

  @Test(
    "messages that are sent as they stand",
    arguments: [
      ("Auto-Submitted: auto-replied", AutoSubmitted.replied), ("auto-submitted:auto-generated;x=y", .generated),
      ("Auto-Submitted: auto-notified", .generated), ("Auto-Submitted: no", nil), ("X-A: b", nil),
    ])
  func raw(field: String, expected: AutoSubmitted?) throws {
    let text = "From: a@example.org\nTo: b@example.org\nIn-Reply-To: <1@example.org>\n\(field)\n\nHello.\n"
    let message = try RawMessageTests.take(text).message
    #expect(message.autoSubmitted == expected && message.inReplyTo == "1@example.org")
  }

  @Test("alert mail says that a program wrote it, names what happened, and answers to nobody")
  func alertMail() throws {
    let moment = Date(timeIntervalSince1970: 1_772_442_000)
    func alert(_ number: Int64, _ level: AlertLevel) -> Alert {
      Alert(
        id: AlertID(number), level: level, code: "auth.rejected", text: "The server refused it.",
        remedy: "Enter the right credentials.", mailboxID: MailboxID(number), mailboxAddress: "m\(number)@example.com",
        count: Int(number), firstSeen: moment, lastSeen: moment)
    }
    func text(_ alerts: [Alert]) throws -> (submission: OutgoingSubmission, raw: String) {
      let submission = try AlertMessage.submission(
        of: AlertDigest(
          organizationID: OrganizationID(1), mailboxID: MailboxID(9), sender: "alerts@bücher.example",
          recipients: ["ops@example.org", "OPS@example.org"], alerts: alerts), date: moment)
      guard case .bytes(let bytes) = submission.raw else { return (submission, "") }
      return (submission, String(decoding: bytes, as: UTF8.self))
    }
    let one = try text([alert(1, .error)])
    #expect(one.raw.contains("Auto-Submitted: auto-generated\r\n") && one.raw.contains("X-Auto-Response-Suppress: All"))
    #expect(one.submission.subject == "[Postrider] error: auth.rejected for m1@example.com")
    #expect(one.submission.recipients == ["ops@example.org"])
    #expect(one.submission.sender == "alerts@xn--bcher-kva.example" && one.submission.encoding == .sevenBit)
    #expect(one.raw.contains("What to do: Enter the right credentials."))
    #expect(try MessageReader.parse(Array(one.raw.utf8)).messageClass == .automatic)
    let many = try text((1...60).map { alert($0, $0 < 3 ? .error : .warning) })
    #expect(many.submission.subject == "[Postrider] 60 alerts: 2 × error, 58 × warning")
    #expect(many.raw.contains("and 10 more."))
  }
}
