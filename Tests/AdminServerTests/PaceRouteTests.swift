import Foundation
import HTTPTypes
import PostriderCore
import Testing

@testable import AdminServer

@Suite("Quotas, delivery reports and alert mail over the API")
struct PaceRouteTests {
  let api = TestAPI(channel: .unixSocket)

  private func mailbox(_ client: TestAPI.Client) async throws {
    #expect(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).status == 201)
  }

  @Test("a mailbox's quota is shown with what has left and until when it waits")
  func allowance() async throws {
    try await api.with { client in
      try await mailbox(client)
      let allowance = try await client.get("/mailboxes/1/quota").decode(SendAllowance.self)
      #expect(allowance.reason == "quota" && allowance.waitsUntil != nil && allowance.used.messagesLastDay == 3)
      #expect(try await client.get("/mailboxes/7/quota").status == 404)
    }
  }

  @Test(
    "quotas out of range are refused with the field",
    arguments: [
      (#"{"sendQuota":{"messagesPerMinute":0}}"#, "/sendQuota/messagesPerMinute"),
      (#"{"sendQuota":{"recipientsPerMessage":10001}}"#, "/sendQuota/recipientsPerMessage"),
      (#"{"sendQuota":{"messagesPerHour":1}}"#, "/sendQuota/messagesPerHour"),
      (#"{"sendQuota":{"messagesPerDay":1},"clears":["sendQuota"]}"#, "/sendQuota"),
    ])
  func ranges(body: String, pointer: String) async throws {
    try await api.with { client in
      try await mailbox(client)
      let refused = try await client.patch("/mailboxes/1", body)
      #expect(refused.status == 422 || refused.status == 400)
      #expect(refused.text.contains(pointer), "\(refused.text)")
    }
  }

  @Test("what a message asks for and what it answers reach the store, composed or as it stands")
  func submissions() async throws {
    try await api.with { client in
      try await mailbox(client)
      let composed = try await client.post(
        "/outgoing-emails",
        """
        {"mailboxID":1,"to":["b@example.org"],"subject":"Re: Hi","text":"x","inReplyTo":"<1@example.org>",
        "autoSubmitted":"auto-replied","notification":{"notify":["failure","delay"],"returns":"headers"}}
        """)
      #expect(composed.status == 201)
      let raw = try await client.post(
        "/outgoing-emails?mailbox=1&notify=success,failure&returns=full", headers: OutgoingRouteTests.message,
        "From: a@example.com\r\nTo: b@example.org\r\nIn-Reply-To: <2@example.org>\r\n"
          + "Auto-Submitted: auto-generated (cron)\r\nSubject: x\r\n\r\nHello.\r\n")
      #expect(raw.status == 201)
      let submissions = api.store.state.withLock { $0.submissions }
      #expect(submissions.map(\.inReplyTo) == ["1@example.org", "2@example.org"])
      #expect(submissions.map(\.autoSubmitted) == [.replied, .generated])
      #expect(submissions.map(\.correspondent) == ["b@example.org", "b@example.org"])
      #expect(submissions[0].notification == DSNRequest(notify: [.failure, .delay], returns: .headers))
      #expect(submissions[1].notification == DSNRequest(notify: [.success, .failure], returns: .full))
      let contradiction = try await client.post(
        "/outgoing-emails",
        """
        {"mailboxID":1,"to":["b@example.org"],"subject":"x","text":"x","notification":{"notify":["never","delay"]}}
        """)
      #expect(contradiction.text.contains("/notification/notify"))
      #expect(
        try await client.post(
          "/outgoing-emails?mailbox=1&notify=often", headers: OutgoingRouteTests.message, "From: a@example.com\r\n\r\nx"
        ).status
          >= 400)
    }
  }

  @Test("alert mail is set in parts; turned on it needs a mailbox and recipients")
  func alertMail() async throws {
    try await api.with { client in
      #expect(try await client.get("/alert-mail").decode(AlertMailSettings.self) == AlertMailSettings())
      let refused = try await client.patch("/alert-mail", #"{"isOn":true}"#)
      #expect(refused.text.contains("/mailboxID") && refused.text.contains("/recipients"))
      let body = #"{"isOn":true,"mailboxID":1,"recipients":["ops@example.org"],"levels":["error"]}"#
      let on = try await client.patch("/alert-mail", body).decode(AlertMailSettings.self)
      #expect(on.isOn && on.levels == [.error])
      let more = try await client.patch("/alert-mail", #"{"levels":["information","error"]}"#)
      #expect(try more.decode(AlertMailSettings.self).recipients == ["ops@example.org"])
      #expect(try await client.patch("/alert-mail", "{}").status >= 400)
    }
  }
}
