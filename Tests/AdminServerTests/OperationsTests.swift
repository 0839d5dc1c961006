import FoundationEssentials
import PostriderCore
import Telemetry
import Testing

@testable import AdminServer

@Suite("Operations: changes, pauses, poison, repair, scale")
struct OperationsTests {
  let api = TestAPI(channel: .unixSocket)

  private func makeProfile(_ client: TestAPI.Client, _ name: String) async throws {
    #expect(try await client.post("/server-profiles", #"{"name":"\#(name)","type":"microsoft365"}"#).status == 201)
  }

  // MARK: Changes

  @Test("a profile's change touches what it names, nothing else")
  func changeProfile() async throws {
    try await api.with { client in
      try await makeProfile(client, "A")
      let answer = try await client.patch(
        "/server-profiles/1", #"{"maximumConcurrentConnections":4,"weight":3,"maximumFailedLogins":25}"#)
      #expect(answer.status == 200)
      let profile = try answer.decode(ServerProfile.self)
      #expect(profile.maximumConcurrentConnections == 4 && profile.weight == 3 && profile.version == 2)
      #expect(profile.minimumPollingIntervalMinutes == 0 && profile.isActive && profile.maximumFailedLogins == 25)
      let off = try await client.patch(
        "/server-profiles/1", #"{"isActive":false,"minimumPollingIntervalMinutes":9,"version":2}"#
      ).decode(ServerProfile.self)
      #expect(!off.isActive && off.minimumPollingIntervalMinutes == 9 && off.maximumConcurrentConnections == 4)
      let stale = try await client.patch("/server-profiles/1", #"{"weight":5,"version":2}"#)
      #expect(stale.status == 409)
      #expect(try stale.problem().code == "stale")
      #expect(try await client.patch("/server-profiles/1", as: "foreign", #"{"weight":5}"#).status == 404)
      #expect(try await client.patch("/server-profiles/9", #"{"weight":5}"#).status == 404)
      #expect(try await client.get("/server-profiles/1").decode(ServerProfile.self).weight == 3)
    }
  }

  @Test("wrong values are named, and nothing is changed")
  func wrongChanges() async throws {
    try await api.with { client in
      try await makeProfile(client, "A")
      let answer = try await client.patch(
        "/server-profiles/1",
        #"{"maximumConcurrentConnections":301,"minimumPollingIntervalMinutes":-1,"weight":0,"#
          + #""maximumFailedLogins":1001}"#)
      #expect(answer.status == 422)
      let pointers = try answer.problem().errors?.map(\.pointer)
      #expect(
        pointers
          == ["/weight", "/minimumPollingIntervalMinutes", "/maximumConcurrentConnections", "/maximumFailedLogins"])
      for body in ["{}", #"{"version":1}"#, #"{"nickname":"B"}"#, #"{"weight":"2"}"#, #"{"isActive":1}"#] {
        #expect(try await client.patch("/server-profiles/1", body).status == 422, "\(body)")
        #expect(try await client.patch("/mailboxes/1", body).status == 422, "\(body)")
      }
      #expect(try await client.send(.patch, "/server-profiles/1", as: "administrator", body: []).status == 400)
      #expect(try await client.send(.patch, "/server-profiles", as: "administrator", body: nil).status == 405)
    }
    #expect(api.store.state.withLock { $0.writes } == [])
  }

  @Test("a mailbox is moved and switched off")
  func changeMailbox() async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com","profileID":1}"#)
      let moved = try await client.patch("/mailboxes/1", as: "mailbox-manager", #"{"profileID":5}"#)
      #expect(try moved.decode(Mailbox.self).profileID == ProfileID(5))
      let off = try await client.patch("/mailboxes/1", #"{"isActive":false,"version":2}"#).decode(Mailbox.self)
      #expect(!off.isActive && off.profileID == ProfileID(5))
      #expect(try await client.patch("/mailboxes/1", #"{"isActive":true,"version":2}"#).problem().code == "stale")
      #expect(try await client.patch("/mailboxes/1", as: "foreign", #"{"isActive":true}"#).status == 404)
      #expect(try await client.patch("/mailboxes/1", as: "reader", #"{"isActive":true}"#).status == 403)
    }
  }

  // MARK: Pauses

  @Test("pause and resume: each scope, twice changes nothing, listed with who and since when")
  func pauses() async throws {
    try await api.with { client in
      for body in [#"{"scope":"organization"}"#, #"{"scope":"profile","id":3}"#, #"{"scope":"mailbox","id":4}"#] {
        #expect(try await client.post("/queue/pause", body).status == 200)
        #expect(try await client.post("/queue/pause", body).status == 200)
      }
      let page = try await client.get("/queue/pauses", as: "reader").decode(Page<Pause>.self)
      #expect(page.items.map(\.scope) == ["organization", "profile", "mailbox"])
      #expect(page.items.map(\.id) == [nil, 3, 4] && page.items.allSatisfy { $0.by == "administrator" })
      let answer = try await client.post("/queue/resume", #"{"scope":"profile","id":3}"#)
      #expect(answer.text == #"{"id":3,"paused":false,"scope":"profile"}"#)
      #expect(try await client.get("/queue/pauses?limit=1").decode(Page<Pause>.self).total == 2)
      for body in [
        #"{"scope":"organization","id":1}"#, #"{"scope":"profile"}"#, #"{"scope":"mailbox","id":0}"#,
        #"{"scope":"everything"}"#, "{}",
      ] {
        #expect(try await client.post("/queue/pause", body).status == 422, "\(body)")
      }
    }
  }

  // MARK: Poison and repair

  struct Released: Decodable { let released: [String] }

  @Test("poison jobs: listed, released once each; others are not")
  func poison() async throws {
    api.store.change { state in
      state.setAside = [
        SetAsideJob(
          job: "12p", mailboxID: MailboxID(12), address: "a@example.com", profileID: ProfileID(1), reclaims: 3,
          worker: "w1", since: FakeAdminStore.date)
      ]
    }
    api.queue.places.withLock {
      $0 = [JobLocation(job: "12p", state: "absent"), JobLocation(job: "12s", state: "absent")]
    }
    try await api.with { client in
      #expect(try await client.get("/queue/stats").decode(Stats.self).setAside == 1)
      api.store.change { state in
        state.mailboxes = [
          Mailbox(
            id: MailboxID(12), organizationID: OrganizationID(1), address: "a@example.com",
            owner: MailboxOwner(kind: .user, id: 1, name: "A"), profileID: ProfileID(1),
            incoming: DirectionState(method: .serverSideSync), outgoing: DirectionState(method: .serverSideSync),
            createdAt: FakeAdminStore.date, updatedAt: FakeAdminStore.date)
        ]
      }
      let places = try await client.get("/queue/inspect?mailbox=12").decode(RouteTests.Jobs.self).jobs
      #expect(places.map(\.state) == ["poisoned", "absent"] && places.first?.worker == "w1")
      let page = try await client.get("/queue/set-aside", as: "reader").decode(Page<SetAsideJob>.self)
      #expect(page.items.first?.worker == "w1" && page.items.first?.reclaims == 3)
      let answer = try await client.post("/queue/release", #"{"jobs":["12p","13s2","12p"]}"#)
      #expect(try answer.decode(Released.self).released == ["12p"])
      let wrong = try await client.post("/queue/release", #"{"jobs":["12p","twelve","12x"]}"#)
      #expect(try wrong.problem().errors?.map(\.pointer) == ["/jobs/1", "/jobs/2"])
      #expect(try await client.post("/queue/release", #"{"jobs":[]}"#).status == 422)
    }
    #expect(api.store.state.withLock { $0.writes } == ["release 12p 13s2"])
  }

  @Test("a repair is asked for, with or without a body, and looked at", arguments: ["", "{}"])
  func repair(body: String) async throws {
    try await api.with { client in
      let asked = try await client.post("/queue/repair", body)
      #expect(asked.status == 202)
      #expect(asked.headers[.location] == "/api/v1/queue/repairs/1")
      #expect(try asked.decode(RepairRequest.self).report == nil)
      api.store.change {
        $0.repairs[0].finishedAt = FakeAdminStore.date
        $0.repairs[0].report = RepairReport(examined: 9, mended: ["slot-without-lease": 2], isComplete: true)
      }
      let done = try await client.get("/queue/repairs/1", as: "reader").decode(RepairRequest.self)
      #expect(done.report?.total == 2 && done.finishedAt == FakeAdminStore.date)
      #expect(try await client.get("/queue/repairs/2").status == 404)
      #expect(try await client.get("/queue/repairs/x").status == 422)
    }
  }

  // MARK: Profiles

  struct Profiles: Decodable {
    let profiles: [ProfileQueueView]
    let total: Int
  }

  private func fillProfiles() {
    api.queue.profileNumbers.withLock {
      $0 = [
        ProfileQueueStatistics(
          profileID: ProfileID(1), ready: ["poll": 90, "send": 10], inFlight: 4, slotsInUse: 4, limit: 4,
          limitIsPerProfile: true, oldestDueMilliseconds: 5, blocked: ["limit": 60, "breaker": 20, "paused": 0],
          heldUntilMilliseconds: 77),
        ProfileQueueStatistics(profileID: ProfileID(8), ready: ["poll": 5], inFlight: 2, limit: 10),
        ProfileQueueStatistics(profileID: ProfileID(99), ready: ["poll": 1_000], inFlight: 50, limit: 300),
      ]
    }
    api.store.change { state in
      state.activity[OrganizationID(1)] = [
        ProfileActivity(profileID: ProfileID(1), name: "B", due: 100, runs: 8, failures: 2),
        ProfileActivity(
          profileID: ProfileID(8), name: "C", due: 6, runs: 0, failures: 0, pausedAt: FakeAdminStore.date),
        ProfileActivity(profileID: ProfileID(7), name: "A", due: 0, runs: 5, failures: 5),
      ]
      state.activity[OrganizationID(2)] = [
        ProfileActivity(profileID: ProfileID(99), name: "Foreign", due: 1_000, runs: 1, failures: 0)
      ]
    }
  }

  @Test("profiles: queue joined with schedule, of the own organization alone")
  func profiles() async throws {
    fillProfiles()
    try await api.with { client in
      let answer = try await client.get("/queue/profiles", as: "reader")
      let list = try answer.decode(Profiles.self)
      #expect(list.profiles.map(\.name) == ["B", "C", "A"] && list.total == 3)
      #expect(!answer.text.contains("99") && !answer.text.contains("Foreign"))
      let busy = try #require(list.profiles.first)
      #expect(busy.due == 100 && busy.totalReady == 100 && busy.inUse == 4 && busy.limit == 4)
      #expect(busy.blocked == ["limit": 60, "breaker": 20] && busy.blockedBy == "limit")
      #expect(busy.heldUntilMilliseconds == 77 && busy.errorRate == 0.25 && busy.oldestDueMilliseconds == 5)
      #expect(list.profiles[1].blockedBy == "paused" && list.profiles[1].pausedAt == FakeAdminStore.date)
      #expect(list.profiles[1].errorRate == nil && list.profiles[1].inUse == 2)
      let foreign = try await client.get("/queue/profiles", as: "foreign").decode(Profiles.self)
      #expect(foreign.profiles.map(\.name) == ["Foreign"])
    }
  }

  @Test(
    "profiles are sorted and cut as asked for",
    arguments: [
      ("due", "BCA"), ("ready", "BCA"), ("in-use", "BCA"), ("blocked", "BAC"), ("errors", "ABC"), ("name", "ABC"),
    ])
  func sorting(order: String, expected: String) async throws {
    fillProfiles()
    try await api.with { client in
      let list = try await client.get("/queue/profiles?sort=\(order)").decode(Profiles.self)
      #expect(list.profiles.map(\.name).joined() == expected)
      let cut = try await client.get("/queue/profiles?sort=\(order)&limit=1").decode(Profiles.self)
      #expect(cut.profiles.count == 1 && cut.total == 3)
      #expect(try await client.get("/queue/profiles?sort=size").status == 422)
      #expect(try await client.get("/queue/profiles?limit=0").status == 422)
    }
  }

  @Test("however many look at the profiles, PostgreSQL and Redis are asked once in a while")
  func profilesAreCached() async throws {
    var api = api
    api.configuration.statisticsLifetime = .seconds(600)
    fillProfiles()
    try await api.with { client in
      for _ in 0..<10 { _ = try await client.get("/queue/profiles") }
    }
    #expect(api.queue.profileCalls.withLock { $0 } == 1)
    #expect(api.store.state.withLock { $0.activityCalls } == 1)
  }

  @Test("the limit of a profile without work comes from the profile")
  func idleLimit() async throws {
    api.store.change {
      $0.activity[OrganizationID(1)] = [
        ProfileActivity(profileID: ProfileID(1), name: "A", due: 0, runs: 0, failures: 0)
      ]
    }
    try await api.with { client in
      try await makeProfile(client, "A")
      _ = try await client.patch("/server-profiles/1", #"{"maximumConcurrentConnections":17}"#)
      #expect(try await client.get("/queue/profiles").decode(Profiles.self).profiles.first?.limit == 17)
    }
  }

  // MARK: Scale and rates

  struct Stats: Decodable {
    let queue: QueueStatistics
    let jobsPerSecond: Double?
    let setAside: Int
  }

  @Test("stats: workers, slots, poison, and a rate from the second reading on")
  func rate() async throws {
    var api = api
    api.configuration.statisticsLifetime = .zero
    let queue = api.queue
    queue.numbers.withLock {
      $0 = QueueStatistics(
        inFlight: 8, finished: 1_000, poisoned: 1, workers: 2, workerSlots: 128, epoch: 4, serverMilliseconds: 10_000)
    }
    try await api.with { client in
      let first = try await client.get("/queue/stats").decode(Stats.self)
      #expect(first.queue.workers == 2 && first.queue.workerSlots == 128 && first.queue.poisoned == 1)
      #expect(first.jobsPerSecond == nil)
      queue.numbers.withLock {
        $0.finished = 1_300
        $0.serverMilliseconds = 13_000
      }
      #expect(try await client.get("/queue/stats").decode(Stats.self).jobsPerSecond == 100)
    }
  }

  @Test("scale: what a limit blocks does not count; the target and the slots are configured")
  func scale() async throws {
    var api = api
    api.configuration.statisticsLifetime = .zero
    api.configuration.scale = ScaleRule(targetSeconds: 1, slotsPerWorker: 10)
    let queue = api.queue
    queue.numbers.withLock {
      $0 = QueueStatistics(ready: ["poll": 1_000], inFlight: 12, blocked: ["limit": 960, "breaker": 40], epoch: 4)
    }
    try await api.with { client in
      let blocked = try await client.get("/scale", as: "reader").decode(ScaleHint.self)
      #expect(blocked.workers == 2 && blocked.runnable == 0 && blocked.isCurrent, "12 ÷ (10 × 0.8)")
      queue.numbers.withLock { $0.blocked = [:] }
      let free = try await client.get("/scale").decode(ScaleHint.self)
      #expect(free.workers == 252 && free.runnable == 1_000, "(12 + 1,000 × 2 s ÷ 1 s) ÷ 8")
    }
  }

  @Test("scale always answers: with 1 before anything is known, with the last number while Redis is away")
  func scaleWithoutRedis() async throws {
    var api = api
    api.configuration.statisticsLifetime = .zero
    api.configuration.scale = ScaleRule(slotsPerWorker: 10)
    let queue = api.queue
    queue.failure.withLock { $0 = .unavailable(reason: "connection refused") }
    try await api.with { client in
      let unknown = try await client.get("/scale")
      #expect(unknown.status == 200)
      #expect(try unknown.decode(ScaleHint.self).workers == 1)
      queue.failure.withLock { $0 = nil }
      queue.numbers.withLock { $0 = QueueStatistics(inFlight: 100, workers: 9, workerSlots: 90, epoch: 4) }
      #expect(try await client.get("/scale").decode(ScaleHint.self).workers == 13)
      queue.failure.withLock { $0 = .epochLost(reason: "emptied") }
      let last = try await client.get("/scale").decode(ScaleHint.self)
      #expect(last.workers == 13 && !last.isCurrent && last.presentWorkers == 9)
    }
  }
}
