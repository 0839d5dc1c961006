import MailMessage
import PostriderCore
import Testing

@Suite("Delivery reports (RFC 3464, RFC 3834)")
struct DeliveryStatusTests {
  private func report(
    _ status: String, original: String = "Content-Type: message/rfc822\r\n\r\nMessage-ID: <one@example.com>\r\n\r\nx"
  ) throws -> ParsedMessage {
    try MessageReader.parse(
      message(
        "From: MAILER-DAEMON@example.com", "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
        "Auto-Submitted: auto-replied", "", "--x", "", "It did not work.", "--x",
        "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.example.com", "", status, "--x", original,
        "--x--"))
  }

  @Test("Postfix: several recipients, a folded diagnostic, the message returned")
  func postfix() throws {
    let parsed = try report(
      """
      Final-Recipient: rfc822; B@example.org\r
      Original-Recipient: rfc822;alias@example.org\r
      Action: failed\r
      Status: 5.1.1\r
      Remote-MTA: dns; mx.example.org\r
      Diagnostic-Code: smtp; 550 5.1.1 <b@example.org>: no such\r
          user here\r
      \r
      Final-Recipient: rfc822; c@example.org\r
      Action: Delayed (for now)\r
      Status: 4.4.1 (no route)\r
      """)
    #expect(parsed.messageClass == .bounce)
    let found = try #require(parsed.notification)
    #expect(found.messageID == "one@example.com" && found.recipients.count == 2)
    #expect(found.recipients[0].addresses == ["alias@example.org", "b@example.org"])
    #expect(
      found.recipients[0].report
        == DeliveryReport(
          action: .failed, status: "5.1.1", diagnostic: "550 5.1.1 <b@example.org>: no such user here"))
    #expect(found.recipients[1].report.action == .delayed && found.recipients[1].report.status == "4.4.1")
  }

  @Test("only the header came back")
  func headersOnly() throws {
    let parsed = try report(
      "Final-Recipient: rfc822; b@example.org\r\nAction: failed\r\nStatus: 5.0.0",
      original: "Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\nMessage-ID:\r\n <two@example.com>")
    #expect(parsed.notification?.messageID == "two@example.com" && parsed.messageClass == .bounce)
  }

  @Test("a delay or a delivery is no bounce", arguments: ["delayed", "delivered", "relayed", "expanded"])
  func notBounced(action: String) throws {
    let parsed = try report("Final-Recipient: rfc822; b@example.org\r\nAction: \(action)\r\nStatus: 2.0.0")
    #expect(parsed.messageClass == .automatic && parsed.notification?.recipients.first?.report.isBounce == false)
  }

  @Test("what cannot be read is left out, and still a bounce")
  func broken() throws {
    let parsed = try report(
      "Final-Recipient: nobody\r\nAction: failed\r\n\r\nAction: exploded\r\nFinal-Recipient: rfc822; b@example.org",
      original: "Content-Type: text/plain\r\n\r\nMessage-ID: <one@example.com>")
    #expect(parsed.messageClass == .bounce)
    #expect(parsed.notification == DeliveryNotification(messageID: nil, recipients: []))
  }

  @Test(
    "the null path alone says that nobody may answer",
    arguments: [("<>", MessageClass.automatic), ("<a@b.c>", .ordinary)])
  func nullPath(path: String, expected: MessageClass) throws {
    #expect(try MessageReader.parse(message("Return-Path: \(path)", "Subject: x", "", "y")).messageClass == expected)
  }
}
