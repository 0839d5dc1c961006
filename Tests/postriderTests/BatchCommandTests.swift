import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import postrider

@Suite("Batches and imports on the command line")
struct BatchCommandTests {
  private static func batch(
    _ state: BatchState, verb: BatchVerb = .approve, total: Int = 1_200, done: Int = 0, unchanged: Int = 0,
    failed: Int = 0, waiting: Int = 0, dryRun: Bool = false
  ) -> Batch {
    Batch(
      id: BatchID(7), verb: verb, state: state, dryRun: dryRun, total: total, done: done, unchanged: unchanged,
      failed: failed, waiting: waiting, requestedBy: "Ada", createdAt: Sample.moment)
  }

  /// Answers as the API does for one batch that is read as each of these, one after the other.
  private static func answer(
    _ states: [Batch], failures: [BatchResult] = [], mailboxes: Int = 1_200
  ) -> @Sendable (SeenRequest) throws -> StubAnswer {
    let rest = Mutex(states)
    return { request in
      switch request.name {
      case "POST /batches", "POST /mailbox-imports": return .json(states[0], status: 202)
      case "GET /batches/7":
        return .json(rest.withLock { $0.count > 1 ? $0.removeFirst() : $0[0] })
      case "GET /batches/7/results":
        return .json(Page(items: failures, nextCursor: nil, total: failures.count))
      case "GET /mailboxes":
        return .json(Page(items: [Sample.mailbox(1)], nextCursor: nil, total: mailboxes))
      case "GET /mailboxes/1": return .json(Sample.mailbox(1))
      default: return .notFound
      }
    }
  }

  @Test("a filter is a batch that is waited for; what failed is listed, with exit code 1")
  func filter() async throws {
    let failure = BatchResult(
      row: 3, mailboxID: MailboxID(3), address: "m3@example.com", result: .failed, code: "not-found", message: "gone")
    try await StubAPI.run(
      answer: Self.answer(
        [
          Self.batch(.running), Self.batch(.running, done: 500),
          Self.batch(.finished, done: 1_199, unchanged: 9, failed: 1),
        ],
        failures: [failure])
    ) { stub in
      let result = try await stub.run("mailbox", "approve", "--view", "pending-approval", "--yes")
      #expect(result.exitCode == 1)
      #expect(result.output.contains("m3@example.com  failed  not-found  gone"))
      #expect(result.output.contains("1190 mailboxes approved, 9 so already, 1 failed (batch 7)."))
      let draft = try #require(stub.requests.first { $0.name == "POST /batches" }).decoded(BatchDraft.self)
      #expect(draft.verb == .approve && draft.filter == BatchFilter(view: .pendingApproval) && draft.ids == nil)
      #expect(stub.requests.filter { $0.name == "GET /batches/7" }.count >= 3)
      let json = try await stub.run("mailbox", "reject", "--all", "--yes", "--json")
      let answer = try JSONCoding.decoder().decode(BatchWatcher.Answer.self, from: Data(json.output.utf8))
      #expect(answer.batch.done == 1_199 && answer.failures == [failure])
    }
  }

  @Test("many mailboxes are asked about first; where nobody can be asked, --yes has to say it")
  func question() async throws {
    try await StubAPI.run(answer: Self.answer([Self.batch(.finished, total: 101, done: 101)], mailboxes: 101)) { stub in
      let refused = try await stub.run("mailbox", "reject", "--all")
      #expect(refused.exitCode == 64 && refused.errors.contains("this would reject 101 mailboxes: say --yes"))
      #expect(!stub.requests.contains { $0.method == "POST" })
      #expect(try await stub.run("mailbox", "reject", "--all", "--yes").exitCode == 0)
      let dry = try await stub.run("mailbox", "reject", "--all", "--dry-run")
      #expect(dry.exitCode == 0)
      #expect(try stub.requests.last { $0.method == "POST" }?.decoded(BatchDraft.self).dryRun == true)
    }
    try await StubAPI.run(answer: Self.answer([Self.batch(.finished, total: 100, done: 100)], mailboxes: 100)) { stub in
      let result = try await stub.run("mailbox", "test", "--all")
      #expect(result.exitCode == 0)
    }
  }

  @Test("--no-wait says how to follow it; named mailboxes can be looked at first")
  func withoutWaiting() async throws {
    try await StubAPI.run(answer: Self.answer([Self.batch(.running, verb: .test)])) { stub in
      let result = try await stub.run("mailbox", "test", "--all", "--yes", "--no-wait")
      #expect(result.exitCode == 0 && result.output.contains("postrider batch watch 7"))
      #expect(!stub.requests.contains { $0.name == "GET /batches/7" })
      let late = try await stub.run("mailbox", "test", "--all", "--yes", "--timeout", "1")
      #expect(late.exitCode == 1 && late.output.contains("1200 not done yet; it goes on by itself"))
    }
    try await StubAPI.run(answer: Self.answer([Self.batch(.finished, total: 1, done: 1, dryRun: true)])) { stub in
      let result = try await stub.run("mailbox", "approve", "1", "--dry-run")
      #expect(result.exitCode == 0 && result.output.contains("1 mailbox would be approved (batch 7)."))
      #expect(
        try stub.requests.last { $0.method == "POST" }?.decoded(BatchDraft.self).ids == [MailboxID(1)])
    }
  }

  @Test("defaults and deletions take a filter: shown first, asked about, and followed")
  func defaultsAndDeletions() async throws {
    func draft(_ stub: StubAPI) throws -> BatchDraft? {
      try stub.requests.last { $0.name == "POST /batches" }?.decoded(BatchDraft.self)
    }
    let settings = EmailSettings(
      defaultProfileID: ProfileID(5), defaultProfileName: "Example mail", updatedAt: Sample.moment)
    let batches = Self.answer([Self.batch(.finished, verb: .delete, total: 3, done: 2, failed: 1)], mailboxes: 3)
    try await StubAPI.run(answer: { try $0.name == "GET /email-settings" ? .json(settings) : batches($0) }) { stub in
      // Few mailboxes, and for good all the same.
      let refused = try await stub.run("mailbox", "delete", "--view", "inactive")
      #expect(refused.exitCode == 64, "\(refused.errors)")
      #expect(refused.errors.contains("this would delete 3 mailboxes with their stored mail for good: say --yes"))
      #expect(!stub.requests.contains { $0.method == "POST" })
      let dry = try await stub.run("mailbox", "delete", "--view", "inactive", "--dry-run")
      #expect(dry.exitCode == 1 && dry.output.contains("2 mailboxes deleted, 1 failed (batch 7)."), "\(dry.errors)")
      #expect(try draft(stub)?.verb == .delete && draft(stub)?.dryRun == true)
      let deleted = try await stub.run("mailbox", "delete", "--all", "--discard-unsent", "--yes", "--no-wait")
      #expect(deleted.exitCode == 0 && deleted.output.contains("postrider batch watch 7"), "\(deleted.errors)")
      #expect(try draft(stub)?.verb == .deleteWithUnsentMail && draft(stub)?.filter == BatchFilter())

      let applied = try await stub.run("mailbox", "apply-defaults", "--view", "failing", "--no-wait")
      #expect(applied.exitCode == 0 && applied.output.contains("Example mail"), "\(applied.errors)")
      #expect(try draft(stub)?.verb == .applyDefaults && draft(stub)?.filter == BatchFilter(view: .failing))
      _ = try await stub.run("mailbox", "apply-defaults", "--all", "--no-test", "--no-wait")
      #expect(try draft(stub)?.verb == .writeDefaults)
    }
    let none = EmailSettings(updatedAt: Sample.moment)
    try await StubAPI.run(answer: { try $0.name == "GET /email-settings" ? .json(none) : batches($0) }) { stub in
      let result = try await stub.run("mailbox", "apply-defaults", "--all", "--yes")
      #expect(result.exitCode == 1 && result.errors.contains("no default server profile"))
      #expect(!stub.requests.contains { $0.method == "POST" })
    }
  }

  @Test("T8: when nothing comes from workers it says why, once")
  func waiting() async throws {
    let waiting = Self.batch(.running, verb: .test, total: 3, done: 0, waiting: 3)
    let finished = Self.batch(.finished, verb: .test, total: 3, done: 3)
    let looks = Mutex(0)
    @Sendable func inspected() -> StubAnswer {
      looks.withLock { $0 += 1 }
      return .json(InspectAnswer(jobs: [JobLocation(job: "1t", state: "absent")]))
    }
    try await StubAPI.run { request in
      switch request.name {
      // It ends when the queue was looked at twice.
      case "GET /batches/7": .json(looks.withLock { $0 } < 2 ? waiting : finished)
      case "GET /batches/7/results":
        .json(
          Page(items: [BatchResult(row: 1, mailboxID: MailboxID(1), result: .waiting)], nextCursor: nil, total: 3))
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /queue/inspect": inspected()
      case "GET /queue/pauses":
        .json(Sample.page([Pause(scope: "organization", id: nil, name: "Example", since: Sample.moment, by: "Ada")]))
      default: .notFound
      }
    } _: { stub in
      let options = try ClientOptions.parse(["--api-url", stub.url, "--token", "t"])
      let api = APIClient(try ClientSettings.find(options, environment: [:]))
      let watcher = BatchWatcher(session: Session(api: api, isJSON: true), timeout: 60, patience: 0.2)
      let answer = try await watcher.wait(BatchID(7))
      await api.close()
      #expect(answer.waits?.map(\.reason.code) == ["paused"])
      #expect(stub.requests.first { $0.name == "GET /batches/7/results" }?.query["result"] == "waiting")
      #expect(stub.requests.count { $0.name == "GET /queue/inspect" } >= 2)
    }
  }

  @Test("an import sends the file as it is and lists wrong rows; the template needs no API")
  func importing() async throws {
    let template = try await Program.run(["mailbox", "import", "--template"])
    #expect(template.exitCode == 0 && template.output == MailboxImport.example + "\n")
    let names = try #require(template.output.split(separator: "\n").first).split(separator: ",").map(String.init)
    #expect(Set(names) == Set(ImportColumn.allCases.map(\.rawValue)))
    let file = FileManager.default.temporaryDirectory.appending(path: "import-\(UUID().uuidString).csv").path
    try template.output.write(toFile: file, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(atPath: file) }
    let failures = [
      BatchResult(
        row: 4, address: "x", result: .failed, code: "invalid",
        problems: [FieldProblem("/address", "not-an-address", "must be an address"), FieldProblem("", "y", "z")]),
      BatchResult(row: 9, address: "a@example.com", result: .failed, code: "address-taken", message: "is there"),
    ]
    try await StubAPI.run(
      answer: Self.answer(
        [
          Self.batch(.running, verb: .importMailboxes),
          Self.batch(.finished, verb: .importMailboxes, total: 3, done: 1, failed: 2),
        ],
        failures: failures)
    ) { stub in
      let result = try await stub.run("mailbox", "import", file, "--dry-run")
      #expect(result.exitCode == 1)
      #expect(result.output.contains("address  must be an address") && result.output.contains("is there"))
      #expect(result.output.contains("1 mailbox created, 2 failed (batch 7)."))
      let sent = try #require(stub.requests.first)
      #expect(sent.name == "POST /mailbox-imports" && sent.contentType == "text/csv" && sent.query["dryRun"] == "true")
      #expect(String(decoding: sent.body, as: UTF8.self) == template.output)
      #expect(try await stub.run("mailbox", "import", file, "--no-wait").exitCode == 0)
    }
  }

  @Test("batches are listed, shown, followed and canceled")
  func batches() async throws {
    var shown = Self.batch(.running, total: 30, done: 12, unchanged: 2, failed: 11, waiting: 3)
    shown.filter = BatchFilter(view: .failing, profileID: ProfileID(2))
    shown.failures = (1...10).map { BatchResult(row: $0, mailboxID: MailboxID(Int64($0)), result: .failed, code: "c") }
    let over = Self.batch(.canceled, total: 30, done: 12, failed: 0)
    try await StubAPI.run { [shown] request in
      switch request.name {
      case "GET /batches": .json(Page(items: [shown], nextCursor: nil, total: 1))
      case "GET /batches/7": .json(shown)
      case "GET /batches/8": .json(over)
      case "POST /batches/7/cancel": .json(over)
      default: .notFound
      }
    } _: { stub in
      #expect(try await stub.run("batch", "list").output.contains("approve  running     30    12      11"))
      let show = try await stub.run("batch", "show", "7")
      for words in ["view failing, profile 2", "12, 2 of them were so already", "7, 3 of them with workers"] {
        #expect(show.output.contains(words), "\(words)")
      }
      #expect(show.errors.contains("10 of 11; more with: postrider batch results 7"))
      let watch = try await stub.run("batch", "watch", "8")
      #expect(watch.exitCode == 1 && watch.output.contains("18 not done, because it was canceled"))
      #expect(try await stub.run("batch", "cancel", "7").output.contains("Batch 7 is canceled: 12 done"))
      let missing = try await stub.run("batch", "show", "9")
      #expect(missing.exitCode == 1 && missing.errors.contains("there is no batch 9"))
    }
  }
}
