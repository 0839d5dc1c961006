import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import postrider

@Suite("Commands that watch, pause and mend the queue")
struct QueueCommandTests {
  private static let profile = Sample.profile(5, "Example mail")

  // MARK: Changes

  @Test func aProfileIsEditedAsTheAPIReadsIt() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /server-profiles": .json(Sample.page([Self.profile]))
      case "PATCH /server-profiles/5": .json(Self.profile)
      default: .notFound
      }
    } _: { stub in
      let result = try await stub.run(
        "profile", "edit", "example MAIL", "--max-connections", "20", "--interval", "0", "--weight", "7",
        "--max-failed-logins", "25", "--deactivate", "--if-version", "3")
      #expect(result.exitCode == 0, "\(result.errors)")
      #expect(result.output.contains("Changed the profile Example mail.\n"))
      #expect(result.output.contains("at most 10 at once for each mailbox\n"))
      let body = String(decoding: stub.requests.last?.body ?? [], as: UTF8.self)
      #expect(
        body == #"{"isActive":false,"maximumConcurrentConnections":20,"maximumFailedLogins":25,"#
          + #""minimumPollingIntervalMinutes":0,"version":3,"weight":7}"#)
      _ = try await stub.run("profile", "edit", "example mail", "--weight", "2", "--json")
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"weight":2}"#)
    }
  }

  @Test func mailboxesAreMovedAndThoseThatAreRefusedAreNamed() async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /mailboxes/2": .json(Sample.mailbox(2))
      case "GET /server-profiles/5": .json(Self.profile)
      case "PATCH /mailboxes/1": .json(Sample.mailbox(1) { $0.profileID = ProfileID(5) })
      case "PATCH /mailboxes":
        .json(
          MailboxEditAnswer(results: [
            MailboxEditResult(
              id: MailboxID(1), ok: true, before: Sample.mailbox(1) { $0.isActive = false },
              mailbox: Sample.mailbox(1)),
            MailboxEditResult(
              id: MailboxID(2), ok: false, code: "profile.no-delegation", message: "another mailbox uses it already"),
          ]))
      default: .notFound
      }
    } _: { stub in
      let moved = try await stub.run("mailbox", "move", "1", "--profile", "5")
      #expect(moved.exitCode == 0)
      #expect(moved.output.contains("m1@example.com is now with Example mail.\n"))
      #expect(moved.output.contains("Next: postrider mailbox test 1\n"))
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"profileID":5}"#)
      let both = try await stub.run("mailbox", "edit", "1", "2", "--activate")
      #expect(both.exitCode == 1)
      #expect(both.output.contains("changed"), "\(both.output)")
      #expect(both.output.contains("active: no → yes"), "\(both.output)")
      #expect(both.output.contains("profile.no-delegation"), "\(both.output)")
      #expect(both.output.contains("another mailbox uses it already"), "\(both.output)")
      #expect(
        String(decoding: stub.requests.last?.body ?? [], as: UTF8.self)
          == #"{"change":{"isActive":true},"ids":[1,2]}"#)
    }
  }

  // MARK: Pauses, poison, repair

  @Test("pause and resume", arguments: ["pause", "resume"])
  func pauses(verb: String) async throws {
    try await StubAPI.run { request in
      switch request.name {
      case "GET /mailboxes/1": .json(Sample.mailbox(1))
      case "GET /server-profiles": .json(Sample.page([Self.profile]))
      case "POST /queue/\(verb)":
        .json(
          try { () throws -> PauseRequest in
            var answer = try request.decoded(PauseRequest.self)
            answer.paused = verb == "pause"
            return answer
          }())
      default: .notFound
      }
    } _: { stub in
      let result = try await stub.run("queue", verb, "--profile", "Example mail", "--mailbox", "1")
      #expect(result.exitCode == 0, "\(result.errors)")
      let state = verb == "pause" ? "paused" : "not paused any more"
      #expect(
        result.output == "The profile Example mail is \(state).\nThe mailbox m1@example.com is \(state).\n")
      let all = try await stub.run("queue", verb, "--all", "--json")
      let answer = try JSONCoding.decoder().decode(PauseTargets.Answer.self, from: Data(all.output.utf8))
      #expect(answer.changed.map(\.scope) == ["organization"] && answer.changed[0].paused == (verb == "pause"))
      let bodies = stub.requests.filter { $0.method == "POST" }.map { String(decoding: $0.body, as: UTF8.self) }
      #expect(
        bodies == [
          #"{"id":5,"scope":"profile"}"#, #"{"id":1,"scope":"mailbox"}"#, #"{"scope":"organization"}"#,
        ])
      // Whatever one name is wrong, nothing is done.
      let wrong = try await stub.run("queue", verb, "--profile", "Example mail", "--mailbox", "9")
      #expect(wrong.exitCode == 1 && wrong.errors.contains("there is no mailbox 9"))
      #expect(stub.requests.filter { $0.method == "POST" }.count == 3)
    }
  }

  @Test func pausesAndPoisonAreListed() async throws {
    let job = SetAsideJob(
      job: "12s1", mailboxID: MailboxID(12), address: "a@example.com", profileID: nil, reclaims: 3,
      worker: "host-\u{1B}[2J", since: Sample.moment)
    try await StubAPI.run { request in
      switch request.name {
      case "GET /queue/pauses":
        .json(Sample.page([Pause(scope: "profile", id: 5, name: "Example", since: Sample.moment, by: "Ada")]))
      case "GET /queue/set-aside": .json(Sample.page([job]))
      case "POST /queue/release": .json(ReleaseAnswer(released: ["12s1"]))
      default: .notFound
      }
    } _: { stub in
      let pauses = try await stub.run("queue", "pauses")
      #expect(pauses.output.contains("profile   5  Example  2026-03-02 09:00:00Z ("))
      #expect(pauses.output.contains("  Ada\n"))
      let poison = try await stub.run("queue", "poison", "list")
      #expect(poison.output.contains("12s1  send  a@example.com         3  host-\\u{1b}[2J"))
      let json = try await stub.run("queue", "poison", "list", "--json")
      #expect(try JSONCoding.decoder().decode(Page<SetAsideJob>.self, from: Data(json.output.utf8)).items == [job])
      let all = try await stub.run("queue", "poison", "release", "--all")
      #expect(all.exitCode == 0 && all.output == "1 job released.\n")
      #expect(String(decoding: stub.requests.last?.body ?? [], as: UTF8.self) == #"{"jobs":["12s1"]}"#)
      let some = try await stub.run("queue", "poison", "release", "12s1", "13p")
      #expect(some.exitCode == 1 && some.errors.contains("13p was not set aside.\n"))
    }
  }

  @Test func aRepairIsWaitedFor() async throws {
    let looks = Mutex(0)
    let asked = RepairRequest(id: 7, requestedAt: Sample.moment, by: "Ada")
    var done = asked
    done.finishedAt = Sample.moment
    done.report = RepairReport(
      examined: 900, mended: ["slot-without-lease": 2, "job-in-two-places": 1, "lane-without-turn": 0],
      isComplete: true)
    try await StubAPI.run { [done] request in
      switch request.name {
      case "POST /queue/repair": .json(asked, status: 202)
      case "GET /queue/repairs/7":
        .json(
          looks.withLock { looks in
            looks += 1
            return looks >= 3 ? done : asked
          })
      default: .notFound
      }
    } _: { stub in
      let result = try await stub.run("queue", "repair", "--wait")
      #expect(result.exitCode == 0)
      #expect(
        result.output
          == "Repair 7: 900 things looked at, 3 mended.\n  job-in-two-places: 1\n  slot-without-lease: 2\n")
      looks.withLock { $0 = .min }
      let asked = try await stub.run("queue", "repair")
      #expect(asked.exitCode == 0 && asked.output.contains("Repair 7 was asked for"))
      let late = try await stub.run("queue", "repair", "--wait", "--timeout", "1", "--json")
      #expect(late.exitCode == 1 && late.errors.contains("Not done after 1.0 s"))
      #expect(late.output.contains("\"id\" : 7"))
    }
  }

  // MARK: Looking

  private static let clock: Int64 = 1_772_442_000_000

  private static let stats = QueueAnswer(
    queue: QueueStatistics(
      ready: ["poll": 100], inFlight: 128, blocked: ["limit": 60, "breaker": 20],
      oldestDueMilliseconds: ["poll": clock - 90_000], workers: 2, workerSlots: 128, serverMilliseconds: clock),
    schedule: ScheduleStatistics(overdue: 0, oldestDueMilliseconds: nil, scheduled: 9, leader: "s1"),
    jobsPerSecond: 12, meanSessionSeconds: 1.5)

  private static let views = [
    ProfileQueueView(
      ProfileActivity(profileID: ProfileID(1), name: "Busy \u{1B}[2J", due: 101, runs: 8, failures: 1),
      queue: ProfileQueueStatistics(
        profileID: ProfileID(1), ready: ["poll": 100], inFlight: 4, slotsInUse: 4, limit: 4, limitIsPerProfile: true,
        oldestDueMilliseconds: clock - 90_000, blocked: ["limit": 60, "breaker": 20],
        heldUntilMilliseconds: clock + 20_000)),
    ProfileQueueView(
      ProfileActivity(
        profileID: ProfileID(2), name: "Still", due: 3, runs: 0, failures: 0, pausedAt: Sample.moment), queue: nil,
      profile: Sample.profile(2, "Still")),
  ]

  private static func answer(_ request: SeenRequest) -> StubAnswer {
    switch request.name {
    case "GET /queue/stats": .json(stats)
    case "GET /queue/profiles": .json(QueueProfilesAnswer(profiles: views, total: 3))
    default: .notFound
    }
  }

  @Test func topShowsEachProfile() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let result = try await stub.run("queue", "top", "--once", "--sort", "errors", "--limit", "2")
      #expect(result.exitCode == 0, "\(result.errors)")
      let output = result.output
      #expect(output.contains("12.0 jobs/s, 1.5 s each"))
      #expect(output.contains("in flight  128 of 128 slots of 2 workers: all are busy\n"))
      #expect(output.contains("waiting    100, the oldest due for 2 min, blocked: 60 by limit, 20 by breaker\n"))
      let rows = output.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: true) }
      let busy = try #require(rows.first { $0.first == "Busy" })
      #expect(
        busy.joined(separator: " ")
          == #"Busy \u{1b}[2J 101 100 4/4* 12.5 % 2 min 80 60 by limit, 20 by breaker until 09:00:20Z (20.0 s)"#)
      let still = try #require(rows.first { $0.first == "Still" })
      #expect(still.joined(separator: " ") == "Still 3 0 0/10 - - 0 paused since 2026-03-02 09:00:00Z")
      #expect(output.hasSuffix("\n1 more profile\n"))
      #expect(!output.contains("\u{1B}"), "nothing that only a terminal understands")
      let query = stub.requests.last?.query
      #expect(query == ["sort": "errors", "limit": "2"])
    }
  }

  @Test func topRefreshesAsLinesOfJSONAndEndsWithItsReader() async throws {
    try await StubAPI.run(answer: Self.answer) { stub in
      let running = try RunningProgram(
        ["queue", "top", "--json", "--interval", "1"],
        environment: ["POSTRIDER_API_URL": stub.url, "POSTRIDER_TOKEN": "t"])
      defer { running.forget() }
      #expect(await eventually { running.output.split(separator: "\n").count >= 2 })
      running.signal(SIGTERM)
      _ = await running.exit()
      for line in running.output.split(separator: "\n").prefix(2) {
        let view = try JSONCoding.decoder().decode(QueueTop.View.self, from: Data(line.utf8))
        #expect(view.profiles == Self.views && view.total == 3 && view.stats.queue.workers == 2)
      }
    }
  }

  @Test func statsAsksAgainWhenTheRateIsNotKnownYet() async throws {
    let calls = Mutex(0)
    try await StubAPI.run { _ in
      var answer = Self.stats
      if calls.withLock({ calls in
        calls += 1
        return calls == 1
      }) {
        answer.jobsPerSecond = nil
      }
      return .json(answer)
    } _: { stub in
      let result = try await stub.run("queue", "stats")
      #expect(result.output.contains("rate         12.0 jobs/s, 1.5 s each\n"))
      #expect(stub.requests.count == 2)
    }
  }

  @Test(
    "where a job is, in a sentence",
    arguments: [
      (JobLocation(job: "1p", state: "absent"), "not in the queue"),
      (
        JobLocation(
          job: "1p", state: "leased", worker: "w1", fence: Fence(7), leaseEndsMilliseconds: clock + 12_000,
          leasedSinceMilliseconds: clock - 3_000),
        "held by w1 for 3.0 s, fence 7, its lease ends in 12.0 s unless renewed"
      ),
      (
        JobLocation(
          job: "1p", state: "ready", jobClass: "poll", dueMilliseconds: clock - 5_000, blockedBy: "breaker",
          blockedUntilMilliseconds: clock + 20_000),
        "waits as poll, due for 5.0 s, blocked by breaker until 2026-03-02 09:00:20Z (in 20.0 s)"
      ),
      (
        JobLocation(job: "1p", state: "parked", blockedBy: "busy-mailbox"),
        "waits, another session of the mailbox is running"
      ),
      (JobLocation(job: "1p", state: "ready", blockedBy: "no-worker"), "waits, no worker is running"),
      (JobLocation(job: "1p", state: "ready", blockedBy: "workers-busy"), "waits, every worker is busy"),
      (JobLocation(job: "1p", state: "ready", blockedBy: "turn"), "waits, for its turn"),
      (JobLocation(job: "1p", state: "poisoned"), "set aside: postrider queue poison release 1p"),
    ] as [(JobLocation, String)])
  func places(job: JobLocation, expected: String) {
    #expect(QueueInspect.place(job, Sample.moment) == expected)
  }

  @Test func inspectSaysWhenItRunsNextAndWhy() async throws {
    let mailbox = Sample.mailbox(1) {
      $0.incoming = DirectionState(
        method: .serverSideSync, nextRunAt: Sample.moment, nextRunReason: "back-off after tcp.refused")
      $0.testsRequested = 2
      $0.testsServed = 1
    }
    try await StubAPI.run { request in
      request.path == "/queue/inspect"
        ? .json(InspectAnswer(jobs: JobKind.allCases.map { JobLocation(job: "1\($0.rawValue)", state: "absent") }))
        : .json(mailbox)
    } _: { stub in
      let output = try await stub.run("queue", "inspect", "1").output
      #expect(output.hasPrefix("m1@example.com (mailbox 1, profile Example)\n  poll        not in the queue\n"))
      #expect(output.contains("    next run  2026-03-02 09:00:00Z ("))
      #expect(output.contains("), back-off after tcp.refused\n"))
      #expect(output.contains("    next run  none: not-tested\n"))
      #expect(output.contains("    next run  as soon as a worker is free, requested\n"))
    }
  }
}
