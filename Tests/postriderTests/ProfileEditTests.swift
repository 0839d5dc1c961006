import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite struct ProfileEditTests {
  private func body(_ stub: StubAPI) -> String { String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) }

  @Test func serversAndLoginsAreChangedAndMailboxesThatStandStillAreAskedAbout() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /server-profiles": .json(Sample.page([Sample.profile(5, "Example mail")]))
      case "PATCH /server-profiles/5":
        String(decoding: request.body, as: UTF8.self).contains("confirmsNewTests")
          ? .json(Sample.profile(5, "Example mail"))
          : .problem(409, "needs-new-tests", "12 mailboxes stand still until tested again.")
      default: .notFound
      }
    } _: { stub in
      // There is no terminal to ask at.
      let refused = try await stub.run("profile", "edit", "Example mail", "--incoming-host", "pop2.example.com")
      #expect(refused.exitCode == 64)
      #expect(refused.errors.contains("12 mailboxes stand still until tested again"))
      #expect(refused.errors.contains("--yes"))
      let changed = try await stub.run(
        "profile", "edit", "Example mail", "--incoming-host", "pop2.example.com", "--outgoing-port", "2587",
        "--system-certificates", "--all-mail", "--yes")
      #expect(changed.exitCode == 0, "\(changed.errors)")
      #expect(
        body(stub) == #"{"clears":["processEmailFrom","caCertificatesPEM"],"confirmsNewTests":true,"#
          + #""incoming":{"host":"pop2.example.com"},"outgoing":{"port":2587}}"#)
      let own = try await stub.run(
        "profile", "edit", "Example mail", "--credentials", "profile", "--user-name", "sync", "--login-as", "authzid",
        "--password-stdin", "--yes", input: "s3cret\n")
      #expect(own.exitCode == 0, "\(own.errors)")
      #expect(!own.output.contains("s3cret") && !own.errors.contains("s3cret"))
      #expect(
        body(stub) == #"{"confirmsNewTests":true,"incoming":{"credentials":"profile","loginAs":"authzid","#
          + #""password":"s3cret","userName":"sync"}}"#)
    }
  }

  @Test func contradictionsAreRefusedBeforeAnythingIsAsked() async throws {
    try await StubAPI.run { _ in
      .notFound
    } _: { stub in
      let nothing = try await stub.run("profile", "edit", "1")
      #expect(nothing.exitCode == 64 && nothing.errors.contains("Nothing is to be changed"))
      let certificates = try await stub.run("profile", "edit", "1", "--ca-file", "x.pem", "--system-certificates")
      #expect(certificates.exitCode == 64 && certificates.errors.contains("not both"))
      let dates = try await stub.run("profile", "edit", "1", "--process-email-from", "2026-01-31", "--all-mail")
      #expect(dates.exitCode == 64 && dates.errors.contains("not both"))
      let seconds = try await stub.run("profile", "edit", "1", "--timeout", "101")
      #expect(seconds.exitCode == 64 && seconds.errors.contains("--timeout must be from 1 to 100"))
      #expect(stub.requests.isEmpty)
    }
  }
}
