import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite("The commands of settings, deletions and alerts")
struct SettingsCommandTests {
  private func body(_ stub: StubAPI) -> String { String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) }

  @Test func settingsAreShownAndChangedAsTheAPIReadsThem() async throws {
    var settings = EmailSettings(
      defaultProfileID: ProfileID(5), defaultProfileName: "Example mail",
      act: ACTState(method: .serverSideSync, on: .pop3SMTP), updatedAt: Sample.moment)
    settings.alertLevels = [.error]
    let answer = settings
    try await StubAPI.run { request in
      switch request.name {
      case "GET /email-settings", "PATCH /email-settings": .json(answer)
      case "GET /server-profiles/5": .json(Sample.profile(5, "Example mail"))
      default: .notFound
      }
    } _: { stub in
      let shown = try await stub.run("settings", "show")
      #expect(shown.exitCode == 0, "\(shown.errors)")
      for words in [
        "Example mail (5)", "server-side-sync, in effect none: act.unsupported-profile", "only when approved", "5.2 MB",
        "at most 1000 messages",
      ] { #expect(shown.output.contains(words), "\(shown.output)") }
      let changed = try await stub.run(
        "settings", "edit", "--default-profile", "5", "--interval", "10", "--act", "none", "--no-approved-users-only",
        "--alert-level", "error", "--alert-level", "warning", "--notify-owners", "--max-message-size", "25MiB",
        "--max-attachment-size", "300kB", "--messages-per-poll", "7", "--session-deadline", "60", "--if-version", "3")
      #expect(changed.exitCode == 0, "\(changed.errors)")
      #expect(
        body(stub) == #"{"actMethod":"none","alertLevels":["error","warning"],"approvedUsersOnly":false,"#
          + #""defaultProfileID":5,"maximumAttachmentOctets":300000,"maximumMessageOctets":26214400,"#
          + #""messagesPerPoll":7,"notifiesMailboxOwners":true,"pollingIntervalMinutes":10,"#
          + #""sessionDeadlineSeconds":60,"version":3}"#)
      _ = try await stub.run("settings", "edit", "--without-default-profile", "--without-alerts")
      #expect(body(stub) == #"{"alertLevels":[],"clears":["defaultProfileID"]}"#)
    }
  }

  @Test func aProfileIsDeletedOnlyWhenItIsSaidTwice() async throws {
    let deletion = ProfileDeletion(id: ProfileID(5), name: "Old", mailboxes: 3, isDone: true)
    try await StubAPI.run { request in
      switch request.name {
      case "GET /server-profiles/5": .json(Sample.profile(5, "Old"))
      case "POST /server-profiles/5/delete", "POST /server-profiles/5/deactivate":
        .json(deletion)
      default: .notFound
      }
    } _: { stub in
      let planned = try await stub.run("profile", "delete", "5", "--dry-run")
      #expect(planned.exitCode == 0 && planned.output.contains("3 mailboxes"), "\(planned.errors)")
      #expect(body(stub) == #"{"dryRun":true}"#)
      let asked = try await stub.run("profile", "delete", "5")
      #expect(asked.exitCode == 64 && asked.errors.contains("3 mailboxes") && asked.errors.contains("--yes"))
      #expect(body(stub) == #"{"dryRun":true}"#)
      let deleted = try await stub.run("profile", "delete", "5", "--yes")
      #expect(deleted.exitCode == 0 && deleted.output.contains("The profile Old is deleted."), "\(deleted.errors)")
      #expect(body(stub) == #"{"confirmsUnlinking":true}"#)
    }
  }

  @Test func mailboxesAreDeletedSwitchedAndPaused() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /mailboxes/2": .json(Sample.mailbox(2))
      case "POST /mailboxes/delete":
        .json(
          MailboxDeletionAnswer(results: [
            MailboxDeletion(id: MailboxID(1), ok: true, address: "m1@example.com", storedEmails: 12),
            MailboxDeletion(
              id: MailboxID(2), ok: false, code: "unsent-mail", message: "1 message waits", address: "m2@example.com",
              unsentEmails: 1),
          ]))
      case "POST /mailboxes/deactivate": .json(BulkAnswer(results: [BulkResult(id: MailboxID(1), ok: true)]))
      case "POST /queue/pause": .json(PauseRequest(scope: "mailbox", id: 1, paused: true))
      default: .notFound
      }
    } _: { stub in
      let asked = try await stub.run("mailbox", "delete", "1", "2")
      #expect(asked.exitCode == 64 && asked.errors.contains("1 mailbox with 12 stored messages"), "\(asked.errors)")
      #expect(body(stub) == #"{"dryRun":true,"ids":[1,2]}"#)
      let deleted = try await stub.run("mailbox", "delete", "1", "2", "--discard-unsent", "--yes")
      #expect(deleted.exitCode == 1)
      #expect(body(stub) == #"{"confirmsUnsentMail":true,"ids":[1,2]}"#)
      #expect(deleted.output.contains("1 mailbox deleted, 1 refused.") && deleted.output.contains("unsent-mail"))
      let stopped = try await stub.run("mailbox", "deactivate", "1")
      #expect(stopped.exitCode == 0 && stopped.output.contains("1 mailbox inactive."), "\(stopped.output)")
      let paused = try await stub.run("mailbox", "pause", "1")
      #expect(paused.exitCode == 0 && paused.output.contains("The mailbox m1@example.com is paused."))
      #expect(body(stub) == #"{"id":1,"scope":"mailbox"}"#)
    }
  }

  @Test func defaultsAreShownBeforeTheyAreApplied() async throws {
    let settings = EmailSettings(
      defaultProfileID: ProfileID(5), defaultProfileName: "Example mail", updatedAt: Sample.moment)
    let answer = AppliedDefaults(
      settings: settings,
      results: [
        MailboxEditResult(
          id: MailboxID(1), ok: true, before: Sample.mailbox(1),
          mailbox: Sample.mailbox(1) {
            $0.profileName = "Example mail"
            $0.outgoing.method = .none
          })
      ])
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "POST /mailboxes/apply-defaults": .json(answer)
      default: .notFound
      }
    } _: { stub in
      let planned = try await stub.run("mailbox", "apply-defaults", "1", "--dry-run")
      #expect(planned.exitCode == 0, "\(planned.errors)")
      #expect(body(stub) == #"{"dryRun":true,"ids":[1],"test":false}"#)
      #expect(planned.output.contains("profile: Example → Example mail"), "\(planned.output)")
      #expect(planned.output.contains("outgoing: server-side-sync → none"))
      let applied = try await stub.run("mailbox", "apply-defaults", "1", "--no-test")
      #expect(applied.exitCode == 0 && body(stub) == #"{"ids":[1],"test":false}"#)
      // Otherwise the test is what follows.
      let tested = try await stub.run("mailbox", "apply-defaults", "1", "--no-wait")
      #expect(tested.exitCode == 1 && stub.requests.last?.name == "POST /mailboxes/test", "\(tested.errors)")
    }
  }

  @Test func alertsAreShownDismissedAndDeleted() async throws {
    let alert = Alert(
      id: AlertID(7), level: .error, code: "auth.rejected", text: "no", remedy: "Change the password.",
      mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", firstSeen: Sample.moment, lastSeen: Sample.moment)
    try await StubAPI.run { request in
      switch request.name {
      case "GET /alerts": .json(Sample.page([alert]))
      case "GET /alerts/7": .json(alert)
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /server-profiles/5": .json(Sample.profile(5, "Example mail"))
      case "POST /alerts/dismiss": .json(["results": [AlertResult(id: AlertID(7), ok: true)]])
      case "POST /alerts/delete-all": .json(DeletedAlerts(count: 4, dryRun: true))
      default: .notFound
      }
    } _: { stub in
      let shown = try await stub.run("alert", "show", "7")
      #expect(shown.output.contains("Change the password.") && shown.output.contains("m1@example.com (1)"))
      #expect(try await stub.run("alert", "show", "8").errors.contains("there is no alert 8"))
      #expect(try await stub.run("alert", "dismiss", "7").output.contains("1 alert dismissed."))
      #expect(body(stub) == #"{"ids":[7]}"#)
      _ = try await stub.run("alert", "list", "--wall", "profile", "--profile", "5", "--code", "auth.rejected")
      #expect(stub.requests.last?.query == ["wall": "profile", "profile": "5", "code": "auth.rejected", "limit": "50"])
      let asked = try await stub.run("alert", "delete-all", "--mailbox", "1", "--level", "error")
      #expect(asked.exitCode == 64 && asked.errors.contains("4 alerts would be deleted for good"))
      #expect(body(stub) == #"{"dryRun":true,"level":"error","mailboxID":1}"#)
      let deleted = try await stub.run("alert", "delete-all", "--mailbox", "1", "--resolved", "--yes")
      #expect(deleted.exitCode == 0 && deleted.output.contains("4 alerts deleted."))
      #expect(body(stub) == #"{"confirms":true,"includeResolved":true,"mailboxID":1}"#)
    }
  }
}
