import Metrics
import PostriderCore

/// Keeping the queue in order: moved mailboxes, poison jobs, broken invariants, stretched schedules.
extension SchedulerTerm {
  /// Mailboxes or jobs looked at in one step.
  private static let batch = 500

  // MARK: Moves and poison

  /// Finishes moves and sets poison jobs aside, when announced and every now and then.
  func keepInOrder() async {
    while !Task.isCancelled {
      var waiting = 0
      await attempt("moves") { waiting = try await self.finishMoves() }
      await attempt("poison") { try await self.setPoisonAside() }
      // Leases end within seconds: look again soon.
      await upkeepWish.wait(timeout: waiting > 0 ? min(configuration.upkeep, .seconds(1)) : configuration.upkeep)
    }
  }

  /// Withdraws moved mailboxes from their old profiles; those with nothing leased there may run under the new one. Returns
  /// how many have to wait.
  ///
  /// A crash after the withdrawal repeats it; two leaders do the same thing twice.
  private func finishMoves() async throws -> Int {
    let moves = try await store.moves(limit: Self.batch)
    if moves.isEmpty { return 0 }
    // A page read before the mailbox moved would bring the job back under the old profile.
    await gate.settle()
    let leased = Set(try await queue.withdraw(moves.flatMap(\.jobs)))
    let done = moves.filter { move in !move.jobs.contains { leased.contains($0.id) } }
    try await store.finish(done)
    if moves.count == Self.batch && !done.isEmpty { upkeepWish.signal() }
    return moves.count - done.count
  }

  /// Remembers poison jobs in PostgreSQL, with an alert, before the queue may forget them.
  private func setPoisonAside() async throws {
    let jobs = try await queue.poisoned(limit: Self.batch)
    if jobs.isEmpty { return }
    try await store.setAside(jobs)
    try await queue.withdraw(
      jobs.compactMap { poisoned in
        JobID(poisoned.job).map {
          Job(id: $0, profile: poisoned.profileID, jobClass: .poll, dueMilliseconds: poisoned.sinceMilliseconds)
        }
      })
    for job in jobs {
      logger.warning(
        "A job is set aside",
        metadata: [
          "job.id": "\(job.job)", "server.profile": "\(job.profileID)", "job.reclaims": "\(job.reclaims)",
          "worker.name": "\(job.worker)",
        ])
    }
  }

  // MARK: Invariants

  /// Repairs when a person asks for it, and checks a few entries now and then while there is nothing else to do.
  func repairForEver() async {
    var lastLook: ContinuousClock.Instant?
    while !Task.isCancelled {
      if lastLook.map({ ContinuousClock.now - $0 >= configuration.upkeep }) ?? true {
        lastLook = .now
        await attempt("repair") { try await self.repairAsAsked() }
      }
      if isIdle { await attempt("check") { _ = try await self.repairStep(self.configuration.checkSize) } }
      let began = ContinuousClock.now
      await repairWish.wait(timeout: configuration.check)
      // Woken before its time: somebody asked.
      if ContinuousClock.now - began < configuration.check { lastLook = nil }
    }
  }

  /// Whether nobody waits for the scheduler.
  private var isIdle: Bool { lag.seconds < 1 && !isRecovering && !state.withLock(\.refill) }

  private func repairAsAsked() async throws {
    let asked = try await store.openRepairs()
    if asked.isEmpty { return }
    logger.info("Repairing the queue", metadata: ["repair.requests": "\(asked)"])
    var report = RepairReport()
    // The first pass may begin in the middle, where the continuous check stands: only the second is a whole one.
    for _ in 0..<2 {
      var isComplete = false
      while !isComplete {
        try Task.checkCancellation()
        let step = try await repairStep(configuration.repairSize)
        report.examined += step.examined
        report.mended.merge(step.mended, uniquingKeysWith: +)
        isComplete = step.isComplete
      }
    }
    report.isComplete = true
    for id in asked { try await store.finishRepair(id, report) }
    logger.info(
      "Repaired the queue", metadata: ["repair.examined": "\(report.examined)", "repair.mended": "\(report.total)"])
  }

  private func repairStep(_ size: Int) async throws -> RepairReport {
    let report = try await queue.repair(limit: size)
    if report.total > 0 {
      repairs.increment(by: Int64(report.total))
      for (rule, count) in report.mended.sorted(by: { $0.key < $1.key }) where count > 0 {
        logger.warning("Mended the queue", metadata: ["repair.rule": "\(rule)", "repair.count": "\(count)"])
      }
    }
    return report
  }

  // MARK: Stretched schedules

  /// Says on each profile's wall when its mailboxes are polled less often than asked for, and why; takes it back when they
  /// are in time again.
  func watchLateness() async {
    var lateBefore: Set<ProfileID> = []
    // A leader before may have left alerts open.
    var mayBeOpen = true
    while !Task.isCancelled {
      guard (try? await Task.sleep(for: configuration.lateness)) != nil else { return }
      await attempt("lateness") {
        let late = try await self.store.lateProfiles()
        // Once may be the end of an outage; twice in a row is a schedule that does not fit.
        let lasting = late.filter { lateBefore.contains($0.profileID) }
        lateBefore = Set(late.map(\.profileID))
        let stretched = try await self.causes(of: lasting)
        if stretched.isEmpty && !mayBeOpen { return }
        try await self.store.report(stretched: stretched)
        mayBeOpen = !stretched.isEmpty
      }
      await attempt("statistics") { try await self.store.forgetOldActivity() }
    }
  }

  // MARK: Open alerts

  /// Shows how many alerts are open, for whoever watches the installation as a whole. Not at all while they cannot be
  /// counted: nobody should act on old numbers.
  func countAlerts() async {
    while !Task.isCancelled {
      await attempt("alerts") {
        do {
          self.openAlerts.show(try await self.store.openAlerts())
        } catch {
          self.openAlerts.clear()
          throw error
        }
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: configuration.alertCount)
    }
  }

  // MARK: Causes

  /// Why each of these profiles is late: its own limit, what holds its jobs back, or else the workers. One that has
  /// nothing waiting is left out: its late polls are under way, in sessions longer than the interval.
  private func causes(of late: [LateProfile]) async throws -> [StretchedProfile] {
    if late.isEmpty { return [] }
    // The most waiting jobs first, so the late ones are among them, or there are too many.
    let limit = 2_000
    let numbers = try await queue.profiles(limit: limit)
    let byProfile = Dictionary(numbers.map { ($0.profileID, $0) }, uniquingKeysWith: { first, _ in first })
    return late.compactMap { profile in
      guard let waiting = byProfile[profile.profileID] else {
        return numbers.count < limit ? nil : StretchedProfile(late: profile, cause: "overload")
      }
      return waiting.totalReady == 0 ? nil : StretchedProfile(late: profile, cause: waiting.reasonOfDelay)
    }
  }
}

extension ProfileQueueStatistics {
  /// What keeps most of the profile's waiting jobs from a worker.
  fileprivate var reasonOfDelay: String {
    let limited = (blocked["limit"] ?? 0) + (blocked["busy-mailbox"] ?? 0)
    let held = blocked.filter { !["limit", "busy-mailbox", "paused"].contains($0.key) && $0.value > 0 }
    if let (reason, count) = held.max(by: { ($0.value, $1.key) < ($1.value, $0.key) }), count > limited {
      return reason
    }
    if limited > 0 || (limitIsPerProfile && limit > 0 && slotsInUse >= limit) { return "limit" }
    return "overload"
  }
}
