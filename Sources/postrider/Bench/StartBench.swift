import Foundation
import PostriderCore
import RedisQueue
import Synchronization

/// How soon sessions start: through real workers, with the check of each claimed batch in PostgreSQL.
struct StartBench: Sendable {
  let options: BenchOptions
  let servers: BenchServers
  let redisURL: String
  /// Jobs of the big profile.
  let mailboxes: Int

  private static let jobsPerSecond = 1_000
  private static let smallProfiles = 100
  private static let sessionWhileBusy = Duration.milliseconds(20)
  /// What a test takes with a server that is near.
  private static let testSession = Duration.milliseconds(500)
  /// Mailboxes of the batch that is tested while single ones are, where so many exist.
  private static let batchTests = 20_000

  /// When jobs were enqueued, and how long they took to start.
  private struct Watch {
    var enqueued: [JobID: ContinuousClock.Instant] = [:]
    var samples = Samples()
  }

  func run(_ report: inout BenchReport) async throws {
    let seconds = options.seconds
    let url = try await servers.databaseURL()
    // A mailbox comes round again after twice the time that its row needs to be due again.
    let paced = Self.jobsPerSecond * 4
    let past = Date(timeIntervalSinceNow: -60)
    let tenant = try await BenchTenant.create(
      [
        .init(mailboxes: paced, profiles: 100), .init(mailboxes: mailboxes, profiles: 1),
        .init(mailboxes: Self.smallProfiles * 10, profiles: Self.smallProfiles),
      ], in: url, interval: .seconds(300), due: { _ in past })
    let watch = Mutex(Watch())
    let busy = Mutex<Duration?>(nil)
    let rig = try WorkerRig(
      databaseURL: url, redisURL: redisURL, options: .init(workers: 2, sessions: 64), settingsCache: 200_000
    ) { lease, assignment in
      let startedAt = Date()
      watch.withLock { watch in
        if let since = watch.enqueued.removeValue(forKey: lease.job) { watch.samples.add(.now - since) }
      }
      if let duration = busy.withLock({ $0 }) { try await Task.sleep(for: duration) }
      return WorkerRig.outcome(lease, assignment, startedAt: startedAt, next: Date())
    }
    report.load["start_jobs_per_s"] = .integer(Self.jobsPerSecond)
    report.load["small_profiles"] = .integer(Self.smallProfiles)
    report.load["busy_workers"] = 2
    report.load["busy_sessions_each"] = 64
    report.load["busy_session_ms"] = 20
    let batch = min(Self.batchTests, mailboxes)
    report.load["batch_tests"] = .integer(batch)
    report.load["test_session_ms"] = 500
    let found = Mutexed<(idle: Double, start: Samples, small: Samples, test: Samples)>()
    try await rig.run { rig in
      let probe = try RedisProbe(url: redisURL)
      Bench.say("Idle workers …")
      try await Task.sleep(for: .seconds(1))
      let before = try probe.counters()
      try await Task.sleep(for: .seconds(min(seconds, 5)))
      let idle = try probe.counters() - before
      // Reading the counters is a read as well; two workers are there.
      let idleCalls = Double(idle.reads - 1) / (idle.at - before.at).inSeconds / 2

      Bench.say("Start of sessions at \(Self.jobsPerSecond) jobs a second …")
      // The first second fills the cache of settings.
      try await pace(tenant.groups[0], perSecond: Self.jobsPerSecond, for: min(seconds, 4), watch, rig)
      watch.withLock { $0 = Watch() }
      try await pace(tenant.groups[0], perSecond: Self.jobsPerSecond, for: seconds, watch, rig)
      let start = watch.withLock(\.samples)

      Bench.say("Small profiles beside one with \(mailboxes) due jobs …")
      busy.withLock { $0 = Self.sessionWhileBusy }
      let due = Int64(Date().timeIntervalSince1970 * 1_000) - 30_000
      let big = tenant.groups[1].map {
        Job(id: JobID(mailbox: $0.mailbox, kind: .poll), profile: $0.profile, jobClass: .poll, dueMilliseconds: due)
      }
      try await enqueue(big, rig)
      watch.withLock { $0 = Watch() }
      try await pace(tenant.groups[2], perSecond: 200, for: seconds, watch, rig)
      let small = watch.withLock(\.samples)
      let left = try await rig.queue.statistics().totalReady
      guard left > 0 || mailboxes < 20_000 else {
        throw BenchFailure(
          description: "the big profile was done before the small ones were measured; use fewer --seconds")
      }

      Bench.say("Single tests while \(batch) mailboxes are tested …")
      busy.withLock { $0 = Self.testSession }
      try PostgresProbe(url: url).run(
        "UPDATE mailbox_schedule SET next_due_at = now() - interval '1 minute' WHERE kind = 't'")
      try await enqueue(
        tenant.groups[1].prefix(batch).map {
          Job(
            id: JobID(mailbox: $0.mailbox, kind: .test), profile: $0.profile, jobClass: .batchTest,
            dueMilliseconds: due)
        }, rig)
      watch.withLock { $0 = Watch() }
      try await pace(tenant.groups[2], kind: .test, .interactive, perSecond: 20, for: seconds, watch, rig)
      try await Task.sleep(for: .seconds(1))
      let (test, waiting) = watch.withLock { ($0.samples, $0.enqueued.count) }
      guard waiting == 0 else { throw BenchFailure(description: "\(waiting) single tests had not started after 1.5 s") }
      found.value = (idleCalls, start, small, test)
    }
    guard let found = found.value, found.start.count > 0, found.small.count > 0, found.test.count > 0 else {
      throw BenchFailure(description: "no session started")
    }
    report.add("start_p50_ms", found.start.percentile(0.5), "enqueued → session starts, idle workers", goal: .atMost(2))
    report.add("start_p99_ms", found.start.percentile(0.99), "the slowest hundredth", goal: .atMost(10))
    report.add(
      "small_profile_p99_ms", found.small.percentile(0.99), "small profiles beside a big one, all sessions busy",
      goal: .atMost(250))
    report.add(
      "test_start_p99_ms", found.test.percentile(0.99), "a single test during the test of a batch, all sessions busy",
      goal: .atMost(1_000))
    report.add("idle_calls_per_s", found.idle, "Redis calls a second of a worker without work", goal: .atMost(5))
  }

  private func enqueue(_ jobs: [Job], _ rig: WorkerRig) async throws {
    for start in stride(from: 0, to: jobs.count, by: 1_000) {
      try await rig.queue.enqueue(Array(jobs[start..<min(start + 1_000, jobs.count)]))
    }
  }

  /// Enqueues single jobs at an even pace, each mailbox in turn.
  private func pace(
    _ mailboxes: [(mailbox: MailboxID, profile: ProfileID)], kind: JobKind = .poll, _ jobClass: JobClass = .poll,
    perSecond: Int, for seconds: Int, _ watch: borrowing Mutex<Watch>, _ rig: WorkerRig
  ) async throws {
    let clock = ContinuousClock()
    let began = clock.now
    for number in 0..<perSecond * seconds {
      let at = began + .seconds(1) * Double(number) / Double(perSecond)
      if at > clock.now { try await clock.sleep(until: at) }
      let place = mailboxes[number % mailboxes.count]
      let job = Job(
        id: JobID(mailbox: place.mailbox, kind: kind), profile: place.profile, jobClass: jobClass,
        dueMilliseconds: Int64(Date().timeIntervalSince1970 * 1_000))
      watch.withLock { $0.enqueued[job.id] = .now }
      try await rig.queue.enqueue([job])
    }
    try await clock.sleep(for: .milliseconds(500))
  }
}
