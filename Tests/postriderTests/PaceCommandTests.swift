import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite("Commands for quotas, delivery reports and alert mail")
struct PaceCommandTests {
  private static let allowance = SendAllowance(
    mailboxID: MailboxID(1), quota: SendQuota(messagesPerMinute: 30), source: .profile, sharedQuota: .none,
    used: SendUsage(messagesLastMinute: 30, messagesLastDay: 200, recipientsLastDay: 1),
    sharedUsed: SendUsage(), waitsUntil: Sample.moment, reason: "quota")

  private func body(_ stub: StubAPI) -> String { String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) }

  @Test("a mailbox's quota is shown and set; what is not named stays, 0 lifts a limit")
  func mailboxQuota() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1", "PATCH /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /mailboxes/1/quota": .json(Self.allowance)
      default: .notFound
      }
    } _: { stub in
      let shown = try await stub.run("mailbox", "quota", "1")
      #expect(shown.exitCode == 0, "\(shown.errors)")
      #expect(shown.output.contains("30 messages a minute (set on the profile)"))
      #expect(shown.output.contains("30 messages in the last minute, 200 messages to 1 recipient in the last day"))
      #expect(shown.output.contains("because of quota"))
      _ = try await stub.run("mailbox", "quota", "1", "--messages-per-minute", "0", "--recipients-per-day", "500")
      let changes = stub.requests.filter { $0.name == "PATCH /mailboxes/1" }
      #expect(String(decoding: changes.last?.body ?? [], as: UTF8.self) == #"{"sendQuota":{"recipientsPerDay":500}}"#)
      _ = try await stub.run("mailbox", "quota", "1", "--inherit")
      let reset = stub.requests.last { $0.name == "PATCH /mailboxes/1" }
      #expect(String(decoding: reset?.body ?? [], as: UTF8.self) == #"{"clears":["sendQuota"]}"#)
      #expect(try await stub.run("mailbox", "quota", "1", "--inherit", "--messages-per-day", "1").exitCode == 64)
      let json = try await stub.run("mailbox", "quota", "1", "--json")
      #expect(json.output.contains(#""reason""#) && json.output.contains(#""mailboxID""#))
    }
  }

  @Test("a profile's quotas begin with its provider's figures")
  func profileQuota() async throws {
    var profile = Sample.profile(5, "Example mail")
    profile.type = .microsoft365
    let answer = profile
    try await StubAPI.run { request in
      switch request.name {
      case "GET /server-profiles": .json(Sample.page([answer]))
      case "PATCH /server-profiles/5": .json(answer)
      default: .notFound
      }
    } _: { stub in
      let result = try await stub.run(
        "profile", "edit", "example mail", "--messages-per-minute", "10", "--all-messages-per-day", "5000")
      #expect(result.exitCode == 0, "\(result.errors)")
      #expect(
        body(stub)
          == #"{"sendQuota":{"messagesPerMinute":10,"recipientsPerDay":10000,"recipientsPerMessage":500},"#
          + #""sharedSendQuota":{"messagesPerDay":5000}}"#)
      #expect(result.output.contains("30 messages a minute, 10000 recipients a day, 500 recipients at once"))
    }
  }

  @Test("mailbox show and queue inspect say that it waits for quota, and until when")
  func waits() {
    let mailbox = Sample.mailbox(1) {
      $0.outgoing = DirectionState(
        method: .serverSideSync, status: .success, enabled: true, nextRunAt: Sample.moment, nextRunReason: "quota")
    }
    #expect(MailboxShow.details(mailbox).rendered().contains("waits for quota until 2026-03-02 09:00:00Z"))
    let location = JobLocation(job: "1s", state: "absent")
    #expect(
      QueueInspect.text(mailbox, [location], now: Sample.moment).contains("waits for quota until 2026-03-02 09:00:00Z"))
  }

  @Test("delivery reports are asked for, also of a message as it stands")
  func reports() async throws {
    try await StubAPI.run(answer: EmailSendTests.answer) { stub in
      let sent = try await stub.run(
        "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--text-file", "-", "--notify",
        "failure", "--notify", "delay", "--return-content", "headers", input: "x\n")
      #expect(sent.exitCode == 0, "\(sent.errors)")
      let draft: OutgoingDraft = try #require(stub.requests.last).decoded()
      #expect(draft.notification == DSNRequest(notify: [.failure, .delay], returns: .headers))
      let raw = try await stub.run(
        "email", "send", "--from", "1", "--raw", "-", "--notify", "never",
        input: "From: a@example.org\nTo: b@example.org\n\nx\n")
      #expect(raw.exitCode == 0, "\(raw.errors)")
      #expect(stub.requests.last?.query["notify"] == "never")
    }
  }

  @Test("an answer that is kept back says why and what to do")
  func held() async throws {
    var email = EmailSendTests.outgoing
    email.state = .draft
    email.failure = Failure(.sendLoop, context: "20 answers to b@example.org within an hour")
    let answer = email
    try await StubAPI.run { request in
      request.name == "POST /outgoing-emails" ? .json(answer, status: 201) : EmailSendTests.answer(request)
    } _: { stub in
      let sent = try await stub.run(
        "email", "send", "--from", "1", "--to", "b@example.org", "--subject", "x", "--text-file", "-", input: "x\n")
      #expect(sent.output.contains("Message 7 is draft: send.loop: "))
      #expect(sent.output.contains("postrider email outgoing retry"))
    }
  }

  @Test("alert mail is shown and set")
  func alertMail() async throws {
    let settings = AlertMailSettings(
      isOn: true, mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", recipients: ["ops@example.org"],
      notSendingReason: "not-tested")
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /alert-mail", "PATCH /alert-mail": .json(settings)
      default: .notFound
      }
    } _: { stub in
      let shown = try await stub.run("alert", "mail")
      #expect(shown.exitCode == 0, "\(shown.errors)")
      #expect(shown.output.contains("not-tested") && shown.output.contains("ops@example.org"))
      let set = try await stub.run(
        "alert", "mail", "--on", "--from", "1", "--to", "ops@example.org", "--level", "error", "--json")
      #expect(set.exitCode == 0, "\(set.errors)")
      #expect(body(stub) == #"{"isOn":true,"levels":["error"],"mailboxID":1,"recipients":["ops@example.org"]}"#)
      #expect(try await stub.run("alert", "mail", "--on", "--off").exitCode == 64)
    }
  }
}
