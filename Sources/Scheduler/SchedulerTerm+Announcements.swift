import PostriderCore

/// What was announced and not carried out yet. Many announcements of one profile or job are one.
struct Wishes: Sendable {
  /// Jobs that may wait here; more become a rescan.
  static let limit = 20_000

  var jobs: Set<JobID> = []
  var profiles: Set<ProfileID> = []
  var allProfiles = false

  var isEmpty: Bool { jobs.isEmpty && profiles.isEmpty && !allProfiles }
}

extension SchedulerTerm {
  /// Only notes what the database announces, so that nothing is ever late because something else takes its time.
  func hearAnnouncements() async {
    for await signal in store.signals() {
      if Task.isCancelled { return }
      switch signal {
      case .jobs(let ids):
        let fits = state.withLock { state in
          if state.wishes.jobs.count + ids.count > Wishes.limit { return false }
          state.wishes.jobs.formUnion(ids)
          return true
        }
        if fits { announced.signal() } else { rescanWish.signal() }
      case .profile(let id):
        state.withLock { _ = $0.wishes.profiles.insert(id) }
        announced.signal()
      case .profiles:
        state.withLock { $0.wishes.allProfiles = true }
        announced.signal()
        rescanWish.signal()
      case .moves:
        upkeepWish.signal()
        sweepWish.signal()
      case .repair: repairWish.signal()
      case .rescan:
        // Nobody knows what was missed.
        rescanWish.signal()
        upkeepWish.signal()
        sweepWish.signal()
        repairWish.signal()
      }
    }
  }

  /// Tells the queue about changed profiles, enqueues or withdraws announced rows, at once and together.
  func carryOutAnnouncements() async {
    while !Task.isCancelled {
      await announced.wait()
      let wishes = state.withLock { state in
        defer { state.wishes = Wishes() }
        return state.wishes
      }
      if wishes.isEmpty { continue }
      do {
        try await carryOut(wishes)
        reportRecovery("announcements")
      } catch {
        // The announcement is gone, what it was about is not: a rescan finds rows and profiles.
        await handle(error, of: "announcements")
        rescanWish.signal()
      }
    }
  }

  private func carryOut(_ wishes: Wishes) async throws {
    if wishes.allProfiles {
      try await sendProfiles()
    } else if !wishes.profiles.isEmpty {
      let profiles = wishes.profiles.sorted()
      try await queue.update(profiles: try await store.queueProfiles(profiles))
      // Somebody changed them, so what held their jobs may be over. If not, the next session says so.
      try await queue.hold(
        profiles.flatMap { profile in
          Direction.allCases.map { LaneHold(profile: profile, direction: $0, duration: .zero, reason: "none") }
        })
    }
    if wishes.jobs.isEmpty { return }
    let passage = gate.begin()
    defer { passage.end() }
    let rows = try await store.scheduled(Array(wishes.jobs))
    try await enqueue(rows.filter(\.runnable).map(\.job))
    // A row is scheduled as lane 0; the others are opened by sessions.
    let stopped = rows.filter { !$0.runnable }.flatMap { row in
      JobID.all(of: row.job.id.mailbox, row.job.id.kind).map {
        Job(
          id: $0, profile: row.job.profile, jobClass: row.job.jobClass, dueMilliseconds: row.job.dueMilliseconds)
      }
    }
    if !stopped.isEmpty { try await queue.withdraw(stopped) }
  }
}
