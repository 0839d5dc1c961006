import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

@Suite("Commands for messages in quarantine")
struct QuarantineCommandTests {
  private static let kept = QuarantinedMessage(
    id: QuarantineID(17), mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", uidl: "u\u{1B}[2J",
    failure: Failure(.messageUnparsable, context: "no structure"), attempts: 3, sizeOctets: 12_345,
    quarantinedAt: Sample.moment)
  private static let asked = QuarantinedMessage(
    id: QuarantineID(18), mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", uidl: "u2",
    failure: Failure(.pop3Retrieve), attempts: 3, sizeOctets: nil, quarantinedAt: Sample.moment,
    reprocessRequestedAt: Sample.moment)

  private static func answer(_ request: SeenRequest) throws -> StubAnswer {
    switch request.name {
    case "GET /mailboxes/1": return .json(Sample.mailbox(1))
    case "GET /quarantine": return .json(Sample.page([asked, kept]))
    case "GET /quarantine/17": return .json(kept)
    case "GET /quarantine/17/raw": return StubAnswer(type: "message/rfc822", body: [0, 0x1B, 0xFF, 0x0A])
    case "POST /quarantine/reprocess", "POST /quarantine/discard":
      let body = try request.decoded(QuarantineRequest.self)
      return .json(
        QuarantineAnswer(
          results: body.ids.map {
            $0.value < 100
              ? QuarantineResult(id: $0, ok: true)
              : QuarantineResult(
                id: $0, ok: false, code: "not-found", message: "there is no such message in quarantine")
          }, dryRun: body.dryRun ?? false))
    default: return .notFound
    }
  }

  @Test func theQuarantineIsListedAndShown() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let list = try await stub.run("quarantine", "list", "--mailbox", "1", "--reason", "message.store")
      #expect(list.exitCode == 0, "\(list.errors)")
      #expect(stub.requests.last?.query["mailbox"] == "1" && stub.requests.last?.query["reason"] == "message.store")
      #expect(list.output.contains("m1@example.com  pop3.retr               3  nothing  u2"))
      #expect(list.output.contains("to be tried again"))
      #expect(list.output.contains("message.unparsable      3  12.3 kB  u\\u{1b}[2J"))
      let json = try await stub.run("quarantine", "list", "--json")
      let page = try JSONCoding.decoder().decode(Page<QuarantinedMessage>.self, from: Data(json.output.utf8))
      #expect(page.items == [Self.asked, Self.kept])
      let shown = try await stub.run("quarantine", "show", "17")
      #expect(shown.output.contains("message.unparsable: The message cannot be parsed. (no structure)"))
      #expect(shown.output.contains("the whole message, 12.3 kB") && !shown.output.contains("\u{1B}"))
      let gone = try await stub.run("quarantine", "show", "99")
      #expect(gone.exitCode == 1 && gone.errors.contains("there is no message 99 in quarantine"))
    }
  }

  @Test func aMessageIsDownloadedOctetForOctetAndNeverOverAnother() async throws {
    try await withFolder { folder in
      try await StubAPI.run(answer: Self.answer) { stub in
        let path = "\(folder)/message.eml"
        let result = try await stub.run("quarantine", "download", "17", "--output", path)
        #expect(result.exitCode == 0 && result.output == "4 B written to \(path).\n")
        #expect(FileManager.default.contents(atPath: path) == Data([0, 0x1B, 0xFF, 0x0A]))
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
        let again = try await stub.run("quarantine", "download", "17", "--output", path)
        #expect(again.exitCode == 1 && again.errors.contains("cannot be made: File exists"))
        #expect(FileManager.default.contents(atPath: path)?.count == 4)
        let json = try await stub.run("quarantine", "download", "17", "--output", path + "2", "--json")
        let answer = try JSONCoding.decoder().decode(QuarantineDownload.Answer.self, from: Data(json.output.utf8))
        #expect(answer.sizeOctets == 4 && answer.file == path + "2")
        // Nothing is left of one that is not there.
        let gone = try await stub.run("quarantine", "download", "99", "--output", path + "3")
        #expect(gone.exitCode == 1 && gone.errors.contains("there is no message 99 in quarantine"))
        #expect(!FileManager.default.fileExists(atPath: path + "3"))
      }
    }
  }

  @Test func messagesAreReprocessed() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let result = try await stub.run("quarantine", "reprocess", "17", "18", "17")
      #expect(result.exitCode == 0 && result.output.hasSuffix("2 messages to be tried again.\n"))
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"ids":[17,18]}"#)
      let some = try await stub.run("quarantine", "reprocess", "17", "100")
      #expect(some.exitCode == 1 && some.output.contains("100  not-found"))
      #expect(some.output.hasSuffix("1 message to be tried again, 1 refused.\n"))
      let dry = try await stub.run("quarantine", "reprocess", "--all", "--mailbox", "1", "--dry-run", "--json")
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"dryRun":true,"ids":[18,17]}"#)
      let answer = try JSONCoding.decoder().decode(QuarantineAnswer.self, from: Data(dry.output.utf8))
      #expect(answer.dryRun && answer.results.allSatisfy(\.ok))
    }
  }

  @Test func nothingIsDiscardedWithoutAWord() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let bare = try await stub.run("quarantine", "discard", "17")
      #expect(bare.exitCode == 64)
      #expect(bare.errors.contains("1 message would be deleted for good: say --yes, or look first with --dry-run"))
      let dry = try await stub.run("quarantine", "discard", "--all", "--dry-run")
      #expect(dry.exitCode == 0 && dry.output.hasSuffix("2 messages would be discarded.\n"))
      #expect(
        stub.requests.filter { $0.method == "POST" }.map { String(decoding: $0.body, as: UTF8.self) } == [
          #"{"dryRun":true,"ids":[18,17]}"#
        ])
      let done = try await stub.run("quarantine", "discard", "17", "--yes")
      #expect(done.exitCode == 0 && done.output.hasSuffix("1 message discarded.\n"))
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"ids":[17]}"#)
    }
  }
}
