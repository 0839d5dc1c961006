import Foundation
import PostriderCore
import RedisQueue
import Synchronization

/// A number that many tasks add to.
final class Counted: Sendable {
  private let count = Atomic(0)

  var value: Int { count.load(ordering: .relaxed) }

  func add() { count.add(1, ordering: .relaxed) }
  func raise(to value: Int) { count.max(value, ordering: .relaxed) }
}

/// `bench pipeline`: jobs are enqueued, claimed, checked, run as sessions that do nothing, committed and completed.
struct PipelineBench: Sendable {
  let command: BenchPipelineCommand
  let servers: BenchServers

  /// Jobs that wait in Redis while it runs, at most.
  private static let backlog = 20_000
  private static let claimBatch = 128

  /// What was used and done until a moment.
  private struct Moment {
    var at = ContinuousClock.now
    var runs: Double
    var own: Double
    var redis: RedisProbe.Counters
    var postgres: Double?
  }

  func run(_ report: inout BenchReport) async throws {
    let seconds = command.options.seconds
    let redisURL = try await servers.redisURL()
    let url = try await servers.databaseURL()
    report.addMachine(
      "redis_rpop_per_s", await Machine.redisPops(url: redisURL, seconds: 1),
      "RPOP a second by redis-benchmark at pipeline 16")
    try RedisProbe(url: redisURL).command(["FLUSHDB"])
    try Machine.addPostgresBatch(url: url, seconds: Double(min(seconds, 3)), to: &report)
    let past = Date(timeIntervalSinceNow: -60)
    let tenant = try await BenchTenant.create(
      [.init(mailboxes: command.mailboxes, profiles: max(1, command.mailboxes / 100))], in: url,
      interval: .seconds(300), due: { _ in past })
    let started = Counted()
    let rig = try WorkerRig(
      databaseURL: url, redisURL: redisURL,
      options: .init(workers: command.workers, sessions: command.sessions, claimBatch: Self.claimBatch),
      settingsCache: command.mailboxes * 2
    ) { lease, assignment in
      started.add()
      // Due again as soon as the row may be, so that the mailboxes can go round.
      return WorkerRig.outcome(lease, assignment, startedAt: Date(), next: Date())
    }
    report.load.merge([
      "mailboxes": .integer(command.mailboxes), "profiles": .integer(max(1, command.mailboxes / 100)),
      "workers": .integer(command.workers), "sessions_each": .integer(command.sessions),
      "claim_batch": .integer(Self.claimBatch), "settings": "cached",
      "fsync": .text(command.options.databaseURL == nil ? "on" : "as given"),
    ]) { $1 }
    let moments = Mutexed<(Moment, Moment)>()
    try await rig.run { rig in
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await enqueueForEver(tenant.groups[0], rig, started) }
        defer { group.cancelAll() }
        Bench.say("Jobs through the pipeline …")
        let probe = try RedisProbe(url: redisURL)
        let database = try PostgresProbe(url: url)
        // Each mailbox often enough that most workers have its settings in memory.
        while started.value < command.mailboxes * (command.workers + 1) {
          try await Task.sleep(for: .milliseconds(100))
        }
        let before = try await moment(probe, database)
        try await Task.sleep(for: .seconds(seconds))
        moments.value = (before, try await moment(probe, database))
      }
    }
    guard let (before, after) = moments.value, after.runs > before.runs else {
      throw BenchFailure(description: "no job was done")
    }
    let jobs = after.runs - before.runs
    report.add(
      "jobs_per_s", jobs / (after.at - before.at).inSeconds,
      "jobs a second, outcome committed, all of it on this machine",
      goal: .atLeast(15_000))
    let redis = after.redis - before.redis
    report.add("worker_us_per_job", (after.own - before.own) * 1e6 / jobs, "CPU of this program: workers and enqueuer")
    report.add("redis_us_per_job", redis.cpuSeconds * 1e6 / jobs, "CPU of Redis")
    if let from = before.postgres, let to = after.postgres {
      report.add("postgres_us_per_job", (to - from) * 1e6 / jobs, "CPU of PostgreSQL")
    }
    report.add("round_trips_per_job", Double(redis.scriptCalls) / jobs, "Redis calls of one job", goal: .atMost(0.15))
  }

  /// Counts committed runs, which takes some milliseconds.
  private func moment(_ probe: RedisProbe, _ database: PostgresProbe) async throws -> Moment {
    let runs = try database.number("SELECT count(*) FROM run")
    return Moment(
      runs: runs, own: Machine.ownCPUSeconds, redis: try probe.counters(),
      postgres: Machine.cpuSeconds(of: await servers.postgresProcess, withChildren: true))
  }

  /// Keeps jobs waiting, each mailbox in turn, as a scheduler would that finds all of them due. How many wait is counted
  /// here: asking Redis that often would cost more than the jobs.
  private func enqueueForEver(
    _ mailboxes: [(mailbox: MailboxID, profile: ProfileID)], _ rig: WorkerRig, _ started: Counted
  ) async throws {
    let page = min(1_000, mailboxes.count / 10)
    let backlog = min(Self.backlog, mailboxes.count / 2)
    var (next, waiting) = (0, 0)
    var seen = (started: 0, at: ContinuousClock.now)
    while true {
      let now = (started: started.value, at: ContinuousClock.now)
      waiting -= now.started - seen.started
      if now.started != seen.started {
        seen = now
      } else if now.at - seen.at > .milliseconds(300) {
        // Jobs that were not due yet end without a start.
        waiting = try await rig.queue.statistics().totalReady
        seen = now
      }
      guard waiting < backlog else {
        try await Task.sleep(for: .milliseconds(10))
        continue
      }
      let due = Int64(Date().timeIntervalSince1970 * 1_000)
      let jobs = (next..<next + page).map { number in
        let place = mailboxes[number % mailboxes.count]
        return Job(
          id: JobID(mailbox: place.mailbox, kind: .poll), profile: place.profile, jobClass: .poll, dueMilliseconds: due)
      }
      waiting += try await rig.queue.enqueue(jobs)
      next += page
      // A mailbox is due again half a second after its outcome.
      if next % mailboxes.count < page, mailboxes.count < 10_000 { try await Task.sleep(for: .milliseconds(600)) }
    }
  }
}
