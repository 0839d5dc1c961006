import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite struct MailboxEditTests {
  private func body(_ stub: StubAPI) -> String { String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) }

  @Test func whatIsNamedIsSentAndWhatFollowsIsSaid() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/3":
        .json(
          Sample.mailbox(3) {
            $0.approval = .approved
            $0.incoming.status = .success
          })
      case "PATCH /mailboxes/3": .json(Sample.mailbox(3))
      default: .notFound
      }
    } _: { stub in
      let changed = try await stub.run(
        "mailbox", "edit", "3", "--address", "m3@example.com", "--user-name", "third", "--incoming", "server-side-sync",
        "--outgoing", "none", "--no-use-credentials", "--all-mail", "--delete-after-processing")
      #expect(changed.exitCode == 0, "\(changed.errors)")
      #expect(
        body(stub) == #"{"address":"m3@example.com","allowsCredentials":false,"clears":["processEmailFrom"],"#
          + #""deleteAfterProcessing":true,"incomingMethod":"server-side-sync","outgoingMethod":"none","userName":"third"}"#
      )
      #expect(changed.output.contains("m3@example.com is changed."))
      #expect(changed.output.contains("postrider mailbox approve 3"))
      #expect(changed.output.contains("postrider mailbox test 3"))
    }
  }

  @Test func aNewPasswordComesFromStandardInputAndIsNeverShown() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/3", "PATCH /mailboxes/3": .json(Sample.mailbox(3))
      default: .notFound
      }
    } _: { stub in
      let changed = try await stub.run(
        "mailbox", "edit", "3", "--new-password", "--password-stdin", input: "s3cret\n")
      #expect(changed.exitCode == 0, "\(changed.errors)")
      #expect(!changed.output.contains("s3cret") && !changed.errors.contains("s3cret"))
      #expect(body(stub) == #"{"password":"s3cret"}"#)
      let without = try await stub.run("mailbox", "edit", "3", "--new-password", "--no-password")
      #expect(without.exitCode == 0, "\(without.errors)")
      #expect(body(stub) == #"{"clears":["password"]}"#)
    }
  }

  @Test func contradictionsAreRefusedBeforeAnythingIsAsked() async throws {
    try await StubAPI.run { _ in
      .notFound
    } _: { stub in
      func refused(_ words: String, _ result: Program.Result) {
        #expect(result.exitCode == 64 && result.errors.contains(words), "\(result.errors)")
      }
      refused("Nothing is to be changed", try await stub.run("mailbox", "edit", "3"))
      refused("not both", try await stub.run("mailbox", "edit", "3", "--user-name", "x", "--address-as-user-name"))
      refused(
        "not both", try await stub.run("mailbox", "edit", "3", "--process-email-from", "2026-01-31", "--all-mail"))
      refused("only changed with --new-password", try await stub.run("mailbox", "edit", "3", "--password-stdin"))
      refused("for one mailbox", try await stub.run("mailbox", "edit", "3", "4", "--address", "x@example.com"))
      #expect(stub.requests.isEmpty)
    }
  }
}
