import Foundation
import Logging
import PostriderCore
import RedisQueue

/// `bench queue`: what the queue alone reaches, then how soon sessions of real workers start.
struct QueueBench: Sendable {
  let command: BenchQueueCommand
  let servers: BenchServers

  private static let connections = 2
  private static let claimersPerConnection = 4

  func run(_ report: inout BenchReport) async throws {
    let redisURL = try await servers.redisURL()
    let probe = try RedisProbe(url: redisURL)
    let pops = await Machine.redisPops(url: redisURL, seconds: Double(min(command.options.seconds, 3)))
    report.addMachine("redis_rpop_per_s", pops, "RPOP a second by redis-benchmark at pipeline 16")
    try probe.command(["FLUSHDB"])
    let base = QueueLoad(mailboxes: command.mailboxes)
    report.load.merge(base.describe(batch: command.batch)) { $1 }
    report.load["claimers"] = .integer(Self.connections * Self.claimersPerConnection)

    let bytes = try await bytesPerJob(base, redisURL, probe)
    Bench.say("Cycles under the base load …")
    let plain = try await cycles(base, redisURL, probe)
    Bench.say("Cycles beside limit-blocked jobs …")
    var blocked = base
    blocked.blockedProfiles = 100
    blocked.blockedJobsEach = command.mailboxes / 100
    let besideBlocked = try await cycles(blocked, redisURL, probe)
    Bench.say("Cycles beside one big profile …")
    var big = base
    big.bigMailboxes = command.mailboxes
    let besideBig = try await cycles(big, redisURL, probe)
    report.load["blocked_jobs"] = .integer(blocked.blockedProfiles * blocked.blockedJobsEach)
    report.load["big_profile_jobs"] = .integer(big.bigMailboxes)

    report.add(
      "cycles_per_s", plain.cyclesPerSecond, "claim + complete a second, limits, fairness and fences on",
      goal: .atLeast(50_000))
    report.add("redis_us_per_cycle", plain.redisMicroseconds, "CPU of Redis's one thread for each", goal: .atMost(20))
    report.add(
      "client_us_per_cycle", plain.clientSeconds * 1e6 / Double(max(plain.cycles, 1)), "CPU of this program for each")
    add("blocked", besideBlocked, plain, "with limit-blocked jobs beside it", &report)
    add("one_big", besideBig, plain, "with one profile of many due jobs beside it", &report)
    report.add(
      "round_trips_per_job", plain.roundTripsPerJob, "Redis calls to enqueue, claim, renew and complete one job",
      goal: .atMost(0.15))
    report.add(
      "jobs_per_claim", Double(plain.cycles) / Double(max(plain.claims, 1)),
      "jobs that a claim brings while some wait; at most the batch")
    report.add(
      "leases_lost", Double(plain.lost + besideBlocked.lost + besideBig.lost), "leases that ended before their job",
      goal: .atMost(0))
    report.add(
      "redis_us_per_enqueue", plain.enqueueRedis.cpuSeconds * 1e6 / Double(max(plain.enqueued, 1)),
      "CPU of Redis to make sure of one job")
    report.add("bytes_per_ready_job", bytes, "memory of Redis for a waiting job", goal: .atMost(150))
    try probe.command(["FLUSHDB"])
    try await StartBench(options: command.options, servers: servers, redisURL: redisURL, mailboxes: command.mailboxes)
      .run(&report)
  }

  private func add(
    _ name: String, _ result: QueueCycles.Result, _ plain: QueueCycles.Result, _ words: String,
    _ report: inout BenchReport
  ) {
    report.add(
      "cycles_per_s_\(name)", result.cyclesPerSecond, words, goal: .atLeast(plain.cyclesPerSecond * 0.9))
    report.add(
      "redis_us_per_cycle_\(name)", result.redisMicroseconds, "CPU of Redis for each",
      goal: .atMost(plain.redisMicroseconds / 0.9))
  }

  /// Lends queues on connections of their own, in a fresh epoch of an empty database.
  private func withQueues<T: Sendable>(
    _ url: String, _ probe: RedisProbe, _ body: ([RedisJobQueue]) async throws -> T
  ) async throws -> T {
    try probe.command(["FLUSHDB"])
    let queues = try (0..<Self.connections).map { _ in
      RedisJobQueue(configuration: try RedisQueueConfiguration(url: url), logger: Logger(label: "postrider.bench"))
    }
    return try await withThrowingTaskGroup(of: Void.self) { group in
      for queue in queues { group.addTask { try await queue.run() } }
      defer { group.cancelAll() }
      try await queues[0].open(epoch: 1, delay: .zero)
      return try await body(queues)
    }
  }

  private func cycles(_ load: QueueLoad, _ url: String, _ probe: RedisProbe) async throws -> QueueCycles.Result {
    try await withQueues(url, probe) { queues in
      try await QueueCycles(
        load: load, queues: queues, batch: command.batch, claimersPerQueue: Self.claimersPerConnection
      ).run(seconds: Double(command.options.seconds), probe: probe)
    }
  }

  /// Memory for each job of the base load while all of them wait.
  private func bytesPerJob(_ load: QueueLoad, _ url: String, _ probe: RedisProbe) async throws -> Double {
    try await withQueues(url, probe) { queues in
      try await queues[0].update(profiles: load.profiles)
      let before = try probe.counters().memoryBytes
      let jobs = load.baseJobs(due: Int64(Date().timeIntervalSince1970 * 1_000))
      for start in stride(from: 0, to: jobs.count, by: 1_000) {
        try await queues[0].enqueue(Array(jobs[start..<min(start + 1_000, jobs.count)]))
      }
      return Double(try probe.counters().memoryBytes - before) / Double(jobs.count)
    }
  }
}
