import Foundation
import PostriderCore
import Synchronization
import Testing

@testable import postrider

/// Mailboxes whose requests are served after some looks at them.
private final class StubWorkers: Sendable {
  private struct State {
    var mailboxes: [Int64: Mailbox]
    var looks: [Int64: Int] = [:]
  }
  private let state: Mutex<State>
  private let looksNeeded: Int
  private let serve: @Sendable (inout Mailbox) -> Void

  init(_ ids: [Int64], looksNeeded: Int = 3, serve: @escaping @Sendable (inout Mailbox) -> Void) {
    state = Mutex(State(mailboxes: Dictionary(uniqueKeysWithValues: ids.map { ($0, Sample.mailbox($0)) })))
    self.looksNeeded = looksNeeded
    self.serve = serve
  }

  func answer(_ request: SeenRequest, runs: [RunRecord] = []) throws -> StubAnswer {
    if request.method == "POST" {
      let ids = try request.decoded(Ids.self).ids
      return state.withLock { state in
        let results = ids.map { id -> BulkResult in
          guard var mailbox = state.mailboxes[id.value] else {
            return BulkResult(id: id, ok: false, code: "not-found", message: "there is no such mailbox")
          }
          if request.path == "/mailboxes/poll" && mailbox.incoming.notRunningReason == "off" {
            return BulkResult(id: id, ok: false, code: "not-running", message: "it is not running: test it first")
          }
          if request.path == "/mailboxes/test" { mailbox.testsRequested += 1 } else { mailbox.pollsRequested += 1 }
          state.mailboxes[id.value] = mailbox
          state.looks[id.value] = 0
          return BulkResult(id: id, ok: true)
        }
        return .json(BulkAnswer(results: results), status: 202)
      }
    }
    if let run = runs.first(where: { request.path == "/runs/\($0.id?.value ?? 0)" }) { return .json(run) }
    guard let id = request.path.split(separator: "/").last.flatMap({ Int64($0) }), request.path.hasPrefix("/mailboxes/")
    else { return .notFound }
    return state.withLock { state in
      guard var mailbox = state.mailboxes[id] else { return .notFound }
      if let looks = state.looks[id] {
        state.looks[id] = looks + 1
        if looks + 1 >= looksNeeded { serve(&mailbox) }
        state.mailboxes[id] = mailbox
      }
      return .json(mailbox)
    }
  }

  private struct Ids: Decodable { var ids: [MailboxID] }
}

@Suite("Commands that ask workers and wait")
struct MailboxCommandTests {
  @Test func aTestIsWaitedForAndPasses() async throws {
    let workers = StubWorkers([1, 2]) { mailbox in
      mailbox.testsServed = mailbox.testsRequested
      mailbox.lastTestRunID = RunID(9)
      mailbox.incoming = DirectionState(method: .serverSideSync, status: .success, enabled: true)
      mailbox.outgoing = DirectionState(method: .none)
    }
    let run = Sample.run(9, .test, .success)
    try await StubAPI.run(answer: { try workers.answer($0, runs: [run]) }) { stub in
      let result = try await stub.run("mailbox", "test", "1", "2", "1")
      #expect(result.exitCode == 0, "\(result.errors)")
      #expect(result.output.contains("m1@example.com: passed (incoming works) in 2.5 s, run 9\n"))
      #expect(result.output.contains("m2@example.com: passed"))
      #expect(result.errors == "")
      let asked = stub.requests.filter { $0.method == "POST" }
      #expect(asked.count == 1)
      #expect(String(decoding: asked.first?.body ?? [], as: UTF8.self) == "{\"ids\":[1,2]}")
    }
  }

  @Test func aFailedTestShowsItsStepsAndTheRemedy() async throws {
    let workers = StubWorkers([1]) { mailbox in
      mailbox.testsServed = mailbox.testsRequested
      mailbox.lastTestRunID = RunID(8)
      mailbox.incoming.status = .failure
      mailbox.incoming.failureCode = "auth.rejected"
    }
    try await StubAPI.run(answer: { try workers.answer($0, runs: [Sample.failedTest]) }) { stub in
      let result = try await stub.run("mailbox", "test", "1")
      #expect(result.exitCode == 1)
      #expect(result.output.contains("m1@example.com: failed (incoming auth.rejected"))
      #expect(result.output.contains("DIRECTION"))
      #expect(result.output.contains("pop.example.com:995 → 192.0.2.1"))
      #expect(result.output.contains("authenticate"))
      #expect(result.output.contains("What to do: \(FailureCode.authRejected.remedy)"))
      #expect(!result.output.contains("\u{1B}"))
      let json = try await stub.run("mailbox", "test", "1", "--json")
      #expect(json.exitCode == 1)
      let answer = try JSONCoding.decoder().decode(RequestWaiter.Answer.self, from: Data(json.output.utf8))
      #expect(answer.results.map(\.state) == [.failed])
      #expect(answer.results.first?.run == Sample.failedTest)
    }
  }

  @Test func whatTakesTooLongIsLeftToItself() async throws {
    let workers = StubWorkers([1], looksNeeded: .max) { _ in }
    try await StubAPI.run(answer: { try workers.answer($0) }) { stub in
      let result = try await stub.run("mailbox", "test", "1", "--timeout", "1")
      #expect(result.exitCode == 1)
      #expect(result.output.contains("m1@example.com: waiting: not done after 1.0 s; it goes on by itself"))
      let immediately = try await stub.run("mailbox", "test", "1", "--no-wait")
      #expect(immediately.exitCode == 0)
      #expect(immediately.output.contains("1 mailbox test requested."))
    }
  }

  @Test func aPollSaysWhatWasStored() async throws {
    let workers = StubWorkers([1]) { mailbox in
      mailbox.pollsServed = mailbox.pollsRequested
      mailbox.lastPollRunID = RunID(5)
    }
    let run = Sample.run(5, .poll, .success) {
      $0.messagesStored = 3
      $0.octetsStored = 12_345
      $0.messagesKnown = 4
    }
    try await StubAPI.run(answer: { try workers.answer($0, runs: [run]) }) { stub in
      let result = try await stub.run("mailbox", "poll", "1")
      #expect(result.exitCode == 0)
      #expect(result.output == "m1@example.com: 3 messages stored (12.3 kB), 4 known, run 5\n")
    }
  }

  @Test func aRefusedPollSaysWhy() async throws {
    let refusing: @Sendable (SeenRequest) throws -> StubAnswer = { request in
      request.method == "GET"
        ? .json(Sample.mailbox(1))
        : .json(
          BulkAnswer(results: [
            BulkResult(id: MailboxID(1), ok: false, code: "not-running", message: "it is not running: test it first")
          ]), status: 202)
    }
    try await StubAPI.run(answer: refusing) { stub in
      let result = try await stub.run("mailbox", "poll", "1")
      #expect(result.exitCode == 1)
      #expect(result.output == "m1@example.com: refused: it is not running: test it first\n")
    }
  }

  @Test func anAddressIsTakenOverByATestThatSaysSo() async throws {
    let refused = Sample.mailbox(1) {
      $0.incoming = DirectionState(
        method: .serverSideSync, status: .failure, failureCode: "ownership.other-organization",
        notRunningReason: "disabled")
    }
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes": .json(Sample.page([refused]))
      case "GET /mailboxes/1": .json(refused)
      case "POST /mailboxes/test":
        .json(BulkAnswer(results: [BulkResult(id: MailboxID(1), ok: true)]), status: 202)
      default: .notFound
      }
    } _: { stub in
      let shown = try await stub.run("mailbox", "show", "1").output
      #expect(shown.contains(FailureCode.ownershipOtherOrganization.remedy))
      let list = try await stub.run("mailbox", "list").output
      #expect(list.contains("failure, ownership.other-organization"), "\(list)")
      func bodies() -> [String] {
        stub.requests.filter { $0.name == "POST /mailboxes/test" }.map { String(decoding: $0.body, as: UTF8.self) }
      }
      #expect(try await stub.run("mailbox", "test", "1", "--no-wait").exitCode == 0)
      #expect(try await stub.run("mailbox", "test", "1", "--take-over", "--no-wait").exitCode == 0)
      #expect(bodies() == [#"{"ids":[1]}"#, #"{"ids":[1],"takeOver":true}"#])
      for option in ["--all", "--view=failing"] {
        let wrong = try await stub.run("mailbox", "test", "--take-over", option)
        #expect(wrong.exitCode == 64 && wrong.errors.contains("named mailboxes"), "\(wrong.errors)")
      }
      #expect(bodies().count == 2)
    }
  }

  @Test func listsAreReadPageByPage() async throws {
    let all = (1...700).map { Sample.mailbox(Int64($0)) }
    try await StubAPI.run { request in
      let start = request.query["cursor"].flatMap { Int($0) } ?? 0
      let end = min(start + (request.query["limit"].flatMap { Int($0) } ?? 50), all.count)
      return .json(
        Page(items: Array(all[start..<end]), nextCursor: end < all.count ? "\(end)" : nil, total: all.count))
    } _: { stub in
      let result = try await stub.run("mailbox", "list", "--limit", "600", "--view", "failing")
      #expect(result.output.split(separator: "\n").count == 601)
      #expect(result.errors.contains("600 of 700"))
      #expect(stub.requests.map { $0.query["limit"] } == ["500", "100"])
      #expect(stub.requests.allSatisfy { $0.query["view"] == "failing" })
    }
  }

  @Test func aMailboxIsShownWithBothDirections() async throws {
    let mailbox = Sample.mailbox(1) {
      $0.incoming = DirectionState(
        method: .serverSideSync, status: .failure, failureCode: "auth.rejected", failedAt: Sample.moment,
        notRunningReason: "disabled")
      $0.outgoing = DirectionState(
        method: .serverSideSync, status: .success, enabled: true, nextRunAt: Sample.moment, nextRunReason: "slot",
        intervalSeconds: 300, effectiveIntervalSeconds: 780, effectiveIntervalReason: "limit")
      $0.pausedAt = Sample.moment
    }
    try await StubAPI.run(answer: { _ in .json(Sample.page([mailbox])) }) { stub in
      let output = try await stub.run("mailbox", "show", "m1@example.com").output
      #expect(output.contains("incoming\n  method"))
      #expect(output.contains("disabled"))
      #expect(output.contains("auth.rejected: \(FailureCode.authRejected.summary)"))
      #expect(output.contains(FailureCode.authRejected.remedy))
      #expect(output.contains("2026-03-02 09:00:00Z"))
      #expect(output.contains("slot"))
      #expect(output.contains("  interval       5 min\n"))
      #expect(output.contains("  really         13 min, because of limit\n"))
      #expect(output.contains("paused           since 2026-03-02 09:00:00Z ("), "\(output)")
      #expect(stub.requests.first?.query["address"] == "m1@example.com")
    }
  }

  @Test func aRenumberedMailboxGoesOnWithAChoice() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /mailboxes/2": .json(Sample.mailbox(2))
      case "POST /mailboxes/reimport":
        .json(
          BulkAnswer(results: [
            BulkResult(id: MailboxID(1), ok: true),
            BulkResult(id: MailboxID(2), ok: false, code: "no-choice", message: "it does not wait for a choice"),
          ]), status: 202)
      default: .notFound
      }
    } _: { stub in
      let result = try await stub.run("mailbox", "reimport", "1", "2", "--choice", "missing")
      #expect(result.exitCode == 1, "\(result.errors)")
      #expect(result.output.contains("m1@example.com  goes on"))
      #expect(result.output.contains("no-choice  it does not wait for a choice"))
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"choice":"missing","ids":[1,2]}"#)
    }
  }
}
