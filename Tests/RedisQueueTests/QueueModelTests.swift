import PostriderCore
import Testing

/// Random operations and faults, each compared with ``QueueModel``. `POSTRIDER_SEED` replays a failure.
@Suite("Random faults against a model", .timeLimit(.minutes(10)))
struct QueueModelTests {
  @Test("every step does what the model says", arguments: QueueKind.unsharded, 0..<3)
  func steps(_ kind: QueueKind, _ round: Int) async throws {
    let seed = testSeed() &+ UInt64(round)
    try await kind.withQueue(lease: .seconds(600)) { test in
      var run = QueueModelRun(test: test, seed: seed)
      try await run.start()
      for _ in 0..<(kind == .memory ? 700 : 500) {
        try await run.step()
        if !run.complaints.isEmpty { break }
      }
      if run.complaints.isEmpty { try await run.drain() }
      if !run.complaints.isEmpty {
        Issue.record(
          """
          POSTRIDER_SEED=\(seed &- UInt64(round)) round \(round):
          \(run.complaints.joined(separator: "\n"))
          after
          \(run.log.suffix(30).joined(separator: "\n"))
          """)
      }
    }
  }
}

/// One random run.
struct QueueModelRun {
  private static let mailboxes: ClosedRange<Int64> = 1...10
  private static let profiles: [ProfileID] = [1, 2, 3, 4, 5].map { ProfileID($0) }

  let test: QueueUnderTest
  var random: SeededGenerator
  var model = QueueModel()
  var epoch: Int64 = 7
  var log: [String] = []
  var complaints: [String] = []
  /// Leases of workers that do not know that they lost them.
  private var stale: [Lease] = []
  /// The profile of each mailbox.
  private var home: [Int64: ProfileID] = [:]

  init(test: QueueUnderTest, seed: UInt64) {
    self.test = test
    random = SeededGenerator(state: seed)
  }

  mutating func start() async throws {
    for mailbox in Self.mailboxes { home[mailbox] = Self.profiles[Int(mailbox) % Self.profiles.count] }
    try await setEveryProfile()
  }

  mutating func step() async throws {
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<26: try await enqueue()
    case 26..<50: try await claim()
    case 50..<64: try await end(completed: true)
    case 64..<70: try await end(completed: false)
    case 70..<76: try await renew()
    case 76..<81: try await withdraw()
    case 81..<86: try await hold()
    case 86..<90: try await changeProfile()
    case 90..<95: try await expire()
    case 95..<97: try await move()
    case 97: try await lateWrites()
    case 98: try await breakKeys()
    default: try await newEpoch()
    }
    try await check()
  }

  private mutating func note(_ what: String) { log.append(what) }

  private mutating func expect(_ holds: Bool, _ complaint: String) {
    if !holds { complaints.append(complaint) }
  }

  private mutating func anyJob() -> Job {
    let mailbox = Int64.random(in: Self.mailboxes, using: &random)
    let kind = JobKind.allCases.randomElement(using: &random) ?? .poll
    // Due times are other clocks' and may be anything.
    let due = Bool.random(using: &random) ? Int64.random(in: 1...1_000, using: &random) : 4_000_000_000_000
    return job(
      mailbox, kind, lane: kind == .send ? Int.random(in: 0...2, using: &random) : 0,
      profile: home[mailbox]?.value ?? 1, as: JobClass.allCases.randomElement(using: &random), due: due)
  }

  /// A script's call may not arrive, and its reply may be lost: then only the queue knows.
  private mutating func fault() -> (arrives: Bool, replies: Bool) {
    switch Int.random(in: 0..<12, using: &random) {
    case 0: (false, false)
    case 1: (true, false)
    default: (true, true)
    }
  }

  private mutating func enqueue() async throws {
    var jobs: [Job] = []
    for _ in 0..<Int.random(in: 1...6, using: &random) {
      let job = anyJob()
      if !jobs.contains(where: { $0.id == job.id }) { jobs.append(job) }
    }
    let fault = fault()
    note("enqueue \(jobs.map { "\($0.id):\($0.jobClass.rawValue)@\($0.profile)" }) \(fault)")
    guard fault.arrives else { return }
    let added = try await test.queue.enqueue(jobs)
    expect(added == model.enqueue(jobs), "\(added) jobs were new")
  }

  private mutating func claim() async throws {
    let limit = Int.random(in: 1...14, using: &random)
    let fault = fault()
    guard fault.arrives else { return note("claim is lost") }
    let expired = model.reap()
    let claim = try await test.queue.claim(limit: limit, worker: "w")
    note(
      "claim \(limit): \(claim.leases.map { "\($0.job):\($0.jobClass.rawValue)" }) taken back \(claim.reclaimed) \(fault)"
    )
    expect(claim.reclaimed == expired, "\(claim.reclaimed) leases taken back instead of \(expired)")
    complaints += model.claimed(claim, limit: limit)
    if !fault.replies { for lease in claim.leases { model.leased[lease.job]?.known = false } }
  }

  /// Leases that some worker knows it has.
  private mutating func someLeases() -> [Lease] {
    let known = model.leased.values.filter(\.known).map(\.lease).sorted { $0.fence < $1.fence }
    return known.filter { _ in Int.random(in: 0..<3, using: &random) > 0 }
  }

  private mutating func end(completed: Bool) async throws {
    let some = someLeases()
    let fault = fault()
    note("\(completed ? "complete" : "give back") \(some.map(\.job)) \(fault)")
    guard fault.arrives else { return }
    let ends = completed ? try await test.queue.complete(some) : try await test.queue.giveBack(some)
    expect(ends.allSatisfy { $0 == .ended }, "a lease was lost: \(ends)")
    for lease in some { model.end(lease.job, completed: completed) }
    // Sent once more, as the reply was lost: it changes nothing.
    if !fault.replies { stale += some }
  }

  private mutating func renew() async throws {
    let some = someLeases()
    note("renew \(some.map(\.job))")
    let renewed = Set(try await test.queue.renew(some).map(\.job))
    for lease in some {
      guard let held = model.leased[lease.job] else { continue }
      let extends = !held.withdrawn && !held.expired
      expect(renewed.contains(lease.job) == extends, "\(lease.job) was \(extends ? "not " : "")renewed")
      if extends { model.leased[lease.job]?.renewed = true }
    }
  }

  private mutating func withdraw() async throws {
    let jobs = (0..<Int.random(in: 1...4, using: &random)).map { _ in anyJob() }
    note("withdraw \(jobs.map { "\($0.id)@\($0.profile)" })")
    let leased = Set(try await test.queue.withdraw(jobs))
    expect(leased == model.withdraw(jobs), "withdrawing says \(leased) are leased")
  }

  private mutating func hold() async throws {
    guard let profile = Self.profiles.randomElement(using: &random) else { return }
    let direction: Direction = Bool.random(using: &random) ? .incoming : .outgoing
    let holds = Bool.random(using: &random)
    note("\(holds ? "hold" : "lift") \(direction) of \(profile)")
    try await test.queue.hold(direction, of: profile.value, for: holds ? .seconds(600) : .zero)
    if holds { model.held[profile, default: []].insert(direction) } else { model.held[profile]?.remove(direction) }
  }

  private mutating func anyProfile(_ id: ProfileID) -> QueueProfile {
    QueueProfile(
      id: id, limit: Int.random(in: 0...4, using: &random), countsIncomingOnProfile: Bool.random(using: &random),
      countsOutgoingOnProfile: Bool.random(using: &random), weight: Int.random(in: 1...5, using: &random),
      paused: Int.random(in: 0..<8, using: &random) == 0)
  }

  private mutating func changeProfile() async throws {
    guard let id = Self.profiles.randomElement(using: &random) else { return }
    let profile = anyProfile(id)
    note("update \(profile)")
    try await test.queue.update(profiles: [profile])
    model.profiles[id] = profile
  }

  private mutating func setEveryProfile() async throws {
    for id in Self.profiles { model.profiles[id] = anyProfile(id) }
    try await test.queue.update(profiles: Array(model.profiles.values))
  }

  /// Workers die: nothing renews their leases any more.
  private mutating func expire() async throws {
    let some = model.leased.values.filter { !$0.expired }.map(\.lease).sorted { $0.fence < $1.fence }
      .filter { _ in Bool.random(using: &random) }.prefix(16 - model.leased.values.count { $0.expired })
    note("leases of \(some.map(\.job)) end")
    try await test.endLeases(some.map(\.job))
    for lease in some {
      model.leased[lease.job]?.expired = true
      if Bool.random(using: &random) {
        // Nobody will ever speak of it again.
        model.leased[lease.job]?.known = false
        stale.append(lease)
      }
    }
  }

  /// A mailbox moves to another profile: withdrawn under the old one until nothing is leased, as the scheduler does.
  private mutating func move() async throws {
    let mailbox = Int64.random(in: Self.mailboxes, using: &random)
    guard let old = home[mailbox], let new = Self.profiles.randomElement(using: &random), new != old else { return }
    let jobs = JobKind.allCases.flatMap { kind in
      (0...(kind == .send ? 2 : 0)).map { job(mailbox, kind, lane: $0, profile: old.value) }
    }
    note("move \(mailbox) from \(old) to \(new)")
    let leased = Set(try await test.queue.withdraw(jobs))
    expect(leased == model.withdraw(jobs), "withdrawing says \(leased) are leased")
    home[mailbox] = new
  }

  /// A worker that was stopped for long writes: its fences are old.
  private mutating func lateWrites() async throws {
    let old = stale.filter { model.leased[$0.job]?.lease.fence != $0.fence }
    note("late writes of \(old.map(\.job))")
    expect(try await test.queue.complete(old).allSatisfy { $0 == .lost }, "a late complete was taken")
    expect(try await test.queue.giveBack(old).allSatisfy { $0 == .lost }, "a late give-back was taken")
    expect(try await test.queue.renew(old).isEmpty, "a late renewal was taken")
    stale.removeAll()
  }

  /// The queue is emptied, or a new leader opens an epoch over it.
  private mutating func newEpoch() async throws {
    let emptied = Bool.random(using: &random)
    note(emptied ? "the queue is emptied" : "a new epoch")
    if emptied {
      try await test.empty()
      do {
        _ = try await test.queue.claim(limit: 1, worker: "w")
        complaints.append("a claim of an emptied queue did not fail")
      } catch JobQueueError.epochLost {}
    }
    epoch += 1
    try await test.queue.open(epoch: epoch, delay: .zero)
    stale += model.leased.values.map(\.lease)
    model.forget()
    try await setEveryProfile()
  }

  /// Something in the server is lost that must not be: repair makes a sound queue of the rest, and no limit is exceeded
  /// after it. What was lost, the scheduler enqueues again; here the model is told what is left.
  private mutating func breakKeys() async throws {
    guard let breakKeys = test.breakKeys else { return }
    let what = try await breakKeys(&random)
    note("broken: \(what)")
    // Each worker asks for its leases and closes the sessions of those it lost.
    let kept = Set(try await test.queue.renew(model.leased.values.map(\.lease)).map(\.job))
    let lost = model.leased.values.filter { !kept.contains($0.lease.job) }.map(\.lease)
    try await test.endLeases(lost.map(\.job))
    // Whether they had been renewed may be lost too: so nothing of them counts.
    let gone = lost.map { job($0.job.mailbox.value, $0.job.kind, lane: $0.job.lane, profile: $0.profile.value) }
    try await test.queue.withdraw(gone)
    _ = model.withdraw(gone)
    for _ in 0..<2 {
      var steps = 0
      while try await !test.queue.repair(limit: 20).isComplete {
        steps += 1
        if steps > 1_000 { return complaints.append("repair comes to no end") }
      }
    }
    try await reapAll(lost)
    try await test.queue.update(profiles: Array(model.profiles.values))
    for (profile, directions) in model.held {
      for direction in directions { try await test.queue.hold(direction, of: profile.value, for: .seconds(600)) }
    }
    for id in kept { model.leased[id]?.renewed = true }
    try await adopt()
  }

  /// Lets the queue take back every lease that has ended, of which it does 16 at a time. Nothing is granted meanwhile.
  private mutating func reapAll(_ ended: [Lease]) async throws {
    for lease in ended {
      model.leased[lease.job]?.expired = true
      stale.append(lease)
    }
    try await test.endLeases(ended.map(\.job))
    try await test.queue.update(profiles: Self.profiles.map { QueueProfile(id: $0, limit: 1, paused: true) })
    while case let claim = try await test.queue.claim(limit: 1, worker: "w"), claim.reclaimed > 0 {
      expect(claim.leases.isEmpty, "paused profiles were granted \(claim.leases)")
    }
    _ = model.reap()
  }

  /// Makes the model's the places that the queue says.
  private mutating func adopt() async throws {
    let all = Self.mailboxes.flatMap { mailbox in
      Self.profiles.flatMap { profile in
        JobKind.allCases.flatMap { kind in
          (0...(kind == .send ? 2 : 0)).map { job(mailbox, kind, lane: $0, profile: profile.value) }
        }
      }
    }
    model.waiting = [:]
    model.possible = [:]
    for (asked, place) in zip(all, try await test.queue.inspect(all)) {
      if place.state == "leased" {
        expect(place.fence == model.leased[asked.id]?.lease.fence, "\(asked.id) is leased after its worker lost it")
      } else if place.state == "ready" || place.state == "parked",
        let jobClass = JobClass.allCases.first(where: { $0.label == place.jobClass })
      {
        expect(model.waiting[asked.id] == nil, "\(asked.id) waits under two profiles")
        model.waiting[asked.id] = Job(
          id: asked.id, profile: asked.profile, jobClass: jobClass, dueMilliseconds: place.dueMilliseconds ?? 0)
      }
    }
  }

  private mutating func check() async throws {
    let broken = try await test.verify().filter { !$0.hasPrefix("limit:") }
    expect(broken.isEmpty, "broken: \(broken)")
    let statistics = try await test.queue.statistics()
    expect(statistics.inFlight == model.leased.count, "\(statistics.inFlight) in flight, not \(model.leased.count)")
    expect(statistics.totalReady == model.waiting.count, "\(statistics.totalReady) wait, not \(model.waiting.count)")
    expect(statistics.poisoned == model.poisoned.count, "\(statistics.poisoned) set aside, not \(model.poisoned.count)")
  }

  /// Everything can be finished: nothing is stuck where nobody looks.
  mutating func drain() async throws {
    note("drain")
    try await reapAll(model.leased.values.map(\.lease))
    model.held = [:]
    for profile in Self.profiles {
      for direction in Direction.allCases { try await test.queue.hold(direction, of: profile.value, for: .zero) }
      model.profiles[profile] = QueueProfile(id: profile, limit: 2, countsIncomingOnProfile: profile.value == 2)
    }
    try await test.queue.update(profiles: Array(model.profiles.values))
    var rounds = 0
    while !model.waiting.isEmpty, rounds < 200, complaints.isEmpty {
      let claim = try await test.queue.claim(limit: 20, worker: "w")
      complaints += model.claimed(claim, limit: 20)
      try await test.queue.complete(claim.leases)
      for lease in claim.leases { model.end(lease.job, completed: true) }
      rounds += 1
    }
    expect(model.waiting.isEmpty, "\(model.waiting.keys) are stuck")
  }
}
