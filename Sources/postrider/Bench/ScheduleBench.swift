import Foundation
import PostgresStore
import PostriderCore
import PrivateServers
import RedisQueue
import Synchronization

/// `bench schedule`: a scheduler process of its own over many mailboxes, with workers that do nothing.
struct ScheduleBench: Sendable {
  let command: BenchScheduleCommand
  let servers: BenchServers

  func run(_ report: inout BenchReport) async throws {
    let redisURL = try await servers.redisURL()
    let url = try await servers.databaseURL()
    try Machine.addPostgresBatch(url: url, seconds: 1, to: &report)
    let interval = Duration.seconds(command.interval)
    report.load.merge([
      "mailboxes": .integer(command.mailboxes), "interval_s": .integer(command.interval),
      "profiles": .integer(max(1, command.mailboxes / 1_000)), "hot_rows": .integer(command.mailboxes * 3),
      "due_per_s": .number(Double(command.mailboxes) / Double(command.interval)),
    ]) { $1 }
    let past = Date(timeIntervalSinceNow: -3_600)
    let tenant = try await BenchTenant.create(
      [.init(mailboxes: command.mailboxes, profiles: max(1, command.mailboxes / 1_000))], in: url, interval: interval,
      due: { _ in past })
    try await measureRefill(url, redisURL, &report)
    try await measureSteadyState(tenant, url, redisURL, &report)
  }

  /// The real program, so that its CPU is its own.
  private func startScheduler(_ url: String, _ redisURL: String) async throws -> PrivateProgram {
    guard let program = Bundle.main.executablePath else {
      throw BenchFailure(description: "the path of this program is unknown")
    }
    let keys = "\(servers.directory.path)/keys"
    if !FileManager.default.fileExists(atPath: keys) {
      _ = FileManager.default.createFile(
        atPath: keys, contents: Data(KeyRing.generate().text.revealed.utf8), attributes: [.posixPermissions: 0o600])
    }
    return try await PrivateProgram.start(
      "scheduler", program: program, arguments: ["scheduler"],
      environment: [
        Setting.databaseURL.environmentName: url, Setting.redisURL.environmentName: redisURL,
        Setting.keysFile.environmentName: keys, Setting.probePort.environmentName: "0",
      ], in: servers.directory)
  }

  private func withScheduler(
    _ url: String, _ redisURL: String, _ body: @Sendable (PrivateProgram) async throws -> Void
  ) async throws {
    let scheduler = try await startScheduler(url, redisURL)
    do {
      try await body(scheduler)
    } catch {
      await scheduler.stop()
      throw error
    }
    await scheduler.stop()
  }

  // MARK: Everything overdue at once

  private func measureRefill(_ url: String, _ redisURL: String, _ report: inout BenchReport) async throws {
    let rig = try rig(url, redisURL, counting: nil)
    let found = Mutexed<(bytes: Double, noticed: Double, refill: Double)>()
    try await rig.run(working: false) { rig in
      try await withScheduler(url, redisURL) { scheduler in
        let probe = try RedisProbe(url: redisURL)
        Bench.say("Filling Redis with everything overdue …")
        try await waitUntilAllReady(rig, scheduler)
        try probe.command(["FLUSHDB"])
        let empty = try probe.counters()
        Bench.say("Emptied Redis, waiting until everything is back …")
        // Noticed: the scheduler has opened a new epoch.
        while try await rig.queue.currentEpoch() == nil { try await Task.sleep(for: .milliseconds(20)) }
        let noticed = ContinuousClock.now
        let cpu = Machine.cpuSeconds(of: scheduler.processID) ?? 0
        try await waitUntilAllReady(rig, scheduler)
        let full = try probe.counters()
        Bench.say(
          "Refilled; the scheduler used \(BenchReport.text((Machine.cpuSeconds(of: scheduler.processID) ?? 0) - cpu)) s of CPU"
        )
        found.value = (
          Double(full.memoryBytes - empty.memoryBytes) / Double(command.mailboxes),
          (noticed - empty.at).inSeconds, (full.at - noticed).inSeconds
        )
      }
    }
    guard let found = found.value else { return }
    report.add(
      "bytes_per_mailbox", found.bytes, "memory of Redis for each mailbox when all are ready", goal: .atMost(150))
    report.add(
      "refill_s", found.refill, "from the loss of Redis noticed until every mailbox is ready again", goal: .atMost(30))
    report.add("notice_s", found.noticed, "from the loss until it is noticed")
  }

  private func waitUntilAllReady(_ rig: WorkerRig, _ scheduler: PrivateProgram) async throws {
    let deadline = ContinuousClock.now + .seconds(600)
    while true {
      guard scheduler.isRunning, .now < deadline else {
        let log = (try? String(contentsOfFile: servers.directory.logPath("scheduler"), encoding: .utf8)) ?? ""
        throw BenchFailure(description: "the scheduler did not make every mailbox ready:\n\(log.suffix(2_000))")
      }
      // The queue is without an epoch for a moment after the loss.
      if let ready = try? await rig.queue.statistics().totalReady, ready >= command.mailboxes { return }
      try await Task.sleep(for: .milliseconds(100))
    }
  }

  // MARK: Slot after slot

  /// Session starts by second.
  private struct Starts {
    var seconds: [Int: Int] = [:]
    var delays = Samples()
  }

  private func rig(_ url: String, _ redisURL: String, counting starts: SendableStarts?) throws -> WorkerRig {
    let interval = Duration.seconds(command.interval)
    return try WorkerRig(
      databaseURL: url, redisURL: redisURL, options: .init(workers: 1, sessions: 1_024, claimBatch: 128),
      settingsCache: command.mailboxes * 2
    ) { lease, assignment in
      let now = Date()
      starts?.add(now, dueAt: assignment.dueAt)
      return WorkerRig.outcome(
        lease, assignment, startedAt: now,
        next: PollingSlots(mailbox: lease.job.mailbox, interval: interval).next(after: now))
    }
  }

  /// Counts starts of sessions from many tasks.
  private final class SendableStarts: Sendable {
    private let starts = Mutex(Starts())

    func add(_ now: Date, dueAt: Date) {
      starts.withLock { starts in
        starts.seconds[Int(now.timeIntervalSince1970), default: 0] += 1
        starts.delays.add(.seconds(max(0, now.timeIntervalSince(dueAt))))
      }
    }

    var value: Starts { starts.withLock { $0 } }
    func reset() { starts.withLock { $0 = Starts() } }
  }

  private func measureSteadyState(
    _ tenant: BenchTenant, _ url: String, _ redisURL: String, _ report: inout BenchReport
  ) async throws {
    Bench.say("Spreading the mailboxes over their slots …")
    let probe = try RedisProbe(url: redisURL)
    try probe.command(["FLUSHDB"])
    let interval = Duration.seconds(command.interval)
    // The first slots come when everything runs.
    let begin = Date(timeIntervalSinceNow: 2 + Double(command.mailboxes) / 30_000)
    let database = try PostgresProbe(url: url)
    try tenant.fillSchedule(database) { PollingSlots(mailbox: $0, interval: interval).next(after: begin) }
    let starts = SendableStarts()
    let rig = try rig(url, redisURL, counting: starts)
    let seconds = max(command.options.seconds, 3)
    let found = Mutexed<Steady>()
    try await rig.run { rig in
      try await withScheduler(url, redisURL) { scheduler in
        let wait = max(0, begin.timeIntervalSinceNow) + 1
        try await Task.sleep(for: .seconds(wait + Double(min(seconds / 2, 5))))
        Bench.say("Slots for \(seconds) s …")
        let database = try PostgresProbe(url: url)
        let size = try database.number("SELECT pg_total_relation_size('mailbox_schedule')")
        starts.reset()
        let cpu = Machine.cpuSeconds(of: scheduler.processID)
        let redis = try RedisProbe(url: redisURL).counters()
        let own = Machine.ownCPUSeconds
        let postgres = Machine.cpuSeconds(of: await servers.postgresProcess, withChildren: true)
        let began = ContinuousClock.now
        try await Task.sleep(for: .seconds(seconds))
        let elapsed = (ContinuousClock.now - began).inSeconds
        let counted = starts.value
        func share(_ from: Double?, _ to: Double?) -> Double? {
          if let from, let to { (to - from) / elapsed } else { nil }
        }
        found.value = Steady(
          starts: counted, scheduler: share(cpu, Machine.cpuSeconds(of: scheduler.processID)),
          redis: (try RedisProbe(url: redisURL).counters() - redis).cpuSeconds / elapsed,
          own: (Machine.ownCPUSeconds - own) / elapsed,
          postgres: share(postgres, Machine.cpuSeconds(of: await servers.postgresProcess, withChildren: true)),
          growth: try database.number("SELECT pg_total_relation_size('mailbox_schedule')") - size, size: size,
          dead: try database.number("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'mailbox_schedule'"))
        guard scheduler.isRunning else { throw BenchFailure(description: "the scheduler ended") }
      }
    }
    if let found = found.value { try add(found, &report) }
  }

  private struct Steady {
    var starts: Starts
    var scheduler: Double?
    var redis: Double
    var own: Double
    var postgres: Double?
    var growth: Double
    var size: Double
    var dead: Double
  }

  private func add(_ found: Steady, _ report: inout BenchReport) throws {
    // The first and the last second are parts of one.
    let whole = found.starts.seconds.sorted { $0.key < $1.key }.dropFirst().dropLast().map(\.value)
    guard let busiest = whole.max(), busiest > 0 else { throw BenchFailure(description: "no session started") }
    let mean = Double(whole.reduce(0, +)) / Double(whole.count)
    if let scheduler = found.scheduler {
      report.add("scheduler_core_share", scheduler, "CPU of the scheduler process, of one core", goal: .atMost(0.25))
    }
    report.add(
      "busiest_over_mean", Double(busiest) / mean, "starts in the busiest second over the mean", goal: .atMost(1.3))
    report.add("starts_per_s", mean, "session starts a second")
    report.add("dispatch_p99_ms", found.starts.delays.percentile(0.99), "due → session starts")
    report.add("redis_core_share", found.redis, "CPU of Redis")
    if let postgres = found.postgres { report.add("postgres_core_share", postgres, "CPU of PostgreSQL") }
    report.add("worker_core_share", found.own, "CPU of the workers")
    report.add("schedule_size_mib", found.size / 1_048_576, "mailbox_schedule with its indexes, at the beginning")
    report.add("schedule_growth_mib", found.growth / 1_048_576, "its growth while measured")
    report.add("schedule_dead_rows", found.dead, "rows that vacuum has not removed yet, at the end")
  }
}
