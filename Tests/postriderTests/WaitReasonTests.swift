import Foundation
import PostriderCore
import Synchronization
import Testing

@testable import postrider

@Suite("Why a requested test or poll does not start (T8)")
struct WaitReasonTests {
  /// What the API knows.
  struct Knowledge: Sendable {
    var job: JobLocation?
    var pauses: [Pause] = []
    var leader: String? = "s1"
    var profile = Sample.profile(1, "Example")
  }

  private static func answer(_ request: SeenRequest, _ known: Knowledge) -> StubAnswer {
    switch request.name {
    case "GET /queue/inspect":
      .json(InspectAnswer(jobs: [JobLocation(job: "1p", state: "absent"), known.job].compactMap { $0 }))
    case "GET /queue/pauses": .json(Sample.page(known.pauses))
    case "GET /server-profiles/1": .json(known.profile)
    case "GET /queue/stats":
      .json(
        QueueAnswer(
          queue: QueueStatistics(inFlight: 128, workers: 2, workerSlots: 128),
          schedule: ScheduleStatistics(overdue: 0, oldestDueMilliseconds: nil, scheduled: 1, leader: known.leader)))
    default: .notFound
    }
  }

  private static func withAPI<Value>(
    _ answer: @escaping @Sendable (SeenRequest) throws -> StubAnswer, _ body: (Session) async throws -> Value
  ) async throws -> Value {
    var value: Value?
    try await StubAPI.run(answer: answer) { stub in
      let options = try ClientOptions.parse(["--api-url", stub.url, "--token", "t"])
      let api = APIClient(try ClientSettings.find(options, environment: [:]))
      do {
        value = try await body(Session(api: api, isJSON: true))
      } catch {
        await api.close()
        throw error
      }
      await api.close()
    }
    return try #require(value)
  }

  private static func pause(_ scope: String, _ id: Int64?) -> Pause {
    Pause(scope: scope, id: id, name: "Example", since: Sample.moment, by: "Ada")
  }

  private static func ready(_ blockedBy: String?, until: Int64? = nil) -> JobLocation {
    JobLocation(job: "1t", state: "ready", blockedBy: blockedBy, blockedUntilMilliseconds: until)
  }

  @Test(
    "in words, with numbers and times",
    arguments: [
      (Knowledge(job: ready("no-worker")), "no-worker", "no worker is running"),
      (Knowledge(job: ready("workers-busy")), "workers-busy", "all 128 slots of 2 workers are busy"),
      (Knowledge(job: ready("limit")), "limit", "the profile Example is at its limit of 10 connections"),
      (Knowledge(job: ready("busy-mailbox")), "busy-mailbox", "another session of m1@example.com is running"),
      (Knowledge(job: ready("paused")), "paused", "the profile Example is paused"),
      (
        Knowledge(job: ready("paused"), pauses: [pause("profile", 2), pause("profile", 1)]), "paused",
        "the profile Example is paused since 2026-03-02 09:00:00Z by Ada: postrider queue resume --profile 1"
      ),
      (
        Knowledge(pauses: [pause("organization", nil)]), "paused",
        "everything is paused since 2026-03-02 09:00:00Z by Ada: postrider queue resume --all"
      ),
      (Knowledge(pauses: [pause("mailbox", 1)]), "paused", "postrider queue resume --mailbox 1"),
      (
        Knowledge(job: ready("breaker", until: 1_772_442_020_000)), "breaker",
        "breaker open until 2026-03-02 09:00:20Z (in 20.0 s)"
      ),
      (Knowledge(job: ready("login-budget")), "login-budget", "has used up its logins"),
      (Knowledge(job: ready("halted")), "halted", "the profile Example is halted"),
      (Knowledge(job: ready("moon-phase")), "moon-phase", "held back by moon-phase"),
      (Knowledge(job: ready("turn")), "turn", "waits for its turn"),
      (Knowledge(job: ready(nil)), "turn", "waits for its turn"),
      (
        Knowledge(job: JobLocation(job: "1t", state: "poisoned")), "poisoned", "postrider queue poison release 1t"
      ),
      (Knowledge(leader: nil), "no-scheduler", "no scheduler is running"),
      (Knowledge(), "not-queued", "the test is not in the queue yet"),
    ] as [(Knowledge, String, String)])
  func words(known: Knowledge, code: String, words: String) async throws {
    let reason = try await Self.withAPI({ Self.answer($0, known) }) { session in
      try await WaitReasonFinder(kind: .test, api: session.api).reason([Sample.mailbox(1)], now: Sample.moment)
    }
    let found = try #require(reason)
    #expect(found.code == code)
    #expect(found.message.contains(words), "\(found.message)")
  }

  @Test func nothingIsSaidWhileAWorkerIsAtIt() async throws {
    let known = Knowledge(job: JobLocation(job: "1t", state: "leased"))
    let reason: [WaitReason] = try await Self.withAPI({ Self.answer($0, known) }) { session in
      let found = try await WaitReasonFinder(kind: .test, api: session.api).reason([Sample.mailbox(1)])
      return found.map { [$0] } ?? []
    }
    #expect(reason == [])
  }

  @Test func aQueueThatDoesNotAnswerIsAReasonToo() async throws {
    let reason = try await Self.withAPI({ _ in .problem(503, "unavailable", "Redis cannot be reached.") }) { session in
      try await WaitReasonFinder(kind: .poll, api: session.api).reason([Sample.mailbox(1)])
    }
    #expect(reason?.code == "queue-unavailable" && reason?.message.contains("Redis cannot be reached.") == true)
  }

  /// A mailbox whose test is served after some looks, with a reason that changes meanwhile.
  private final class Scene: Sendable {
    private let looks = Mutex(0)
    let reasons: [String]
    init(_ reasons: [String]) { self.reasons = reasons }

    func answer(_ request: SeenRequest) -> StubAnswer {
      switch request.name {
      case "POST /mailboxes/test":
        return .json(BulkAnswer(results: [BulkResult(id: MailboxID(1), ok: true)]), status: 202)
      case "GET /queue/inspect":
        let look = looks.withLock { looks in
          looks += 1
          return looks - 1
        }
        let why = look < reasons.count ? reasons[look] : "leased"
        return .json(
          InspectAnswer(jobs: [
            why == "leased" ? JobLocation(job: "1t", state: "leased") : WaitReasonTests.ready(why)
          ]))
      case "GET /mailboxes/1":
        let isServed = looks.withLock { $0 } > reasons.count
        return .json(
          Sample.mailbox(1) {
            $0.testsRequested = 1
            $0.testsServed = isServed ? 1 : 0
            if isServed { $0.incoming.status = .success }
          })
      default: return WaitReasonTests.answer(request, Knowledge())
      }
    }
  }

  @Test func theReasonIsRepeatedWhenItChangesAndTheWaitGoesOn() async throws {
    let scene = Scene(["no-worker", "no-worker", "workers-busy", "turn"])
    let answer = try await Self.withAPI({ scene.answer($0) }) { session in
      var waiter = RequestWaiter(kind: .test, session: session, timeout: 120) { _, _ in }
      waiter.patience = 0.1
      return try await waiter.run([Sample.mailbox(1)])
    }
    #expect(answer.waits?.map(\.reason.code) == ["no-worker", "workers-busy", "turn"])
    #expect(answer.results.map(\.state) == [.passed])
    #expect(answer.results.first?.waitsFor == nil)
  }

  @Test func afterTenSecondsTheProgramSaysWhyAndTheJSONToo() async throws {
    let scene = Scene(Array(repeating: "no-worker", count: 1_000))
    try await StubAPI.run(answer: { scene.answer($0) }) { stub in
      async let json = stub.run("mailbox", "test", "1", "--timeout", "20", "--json")
      let early = try await stub.run("mailbox", "test", "1", "--timeout", "2")
      #expect(early.exitCode == 1 && early.errors == "")
      let result = try await json
      #expect(result.exitCode == 1)
      #expect(result.errors.contains("waiting for 1"), "\(result.errors)")
      #expect(result.errors.contains("s: no worker is running: start `postrider worker`\n"))
      let answer = try JSONCoding.decoder().decode(RequestWaiter.Answer.self, from: Data(result.output.utf8))
      #expect(answer.results.map(\.state) == [.waiting])
      #expect(answer.results.first?.waitsFor?.code == "no-worker")
      #expect(answer.results.first?.message?.hasSuffix("(no worker is running: start `postrider worker`)") == true)
      let wait = try #require(answer.waits?.first)
      #expect(answer.waits?.count == 1 && wait.afterSeconds >= 10 && wait.afterSeconds < 20)
    }
  }
}
