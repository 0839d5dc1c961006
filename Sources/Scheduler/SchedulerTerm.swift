import Logging
import Metrics
import PostriderCore
import Synchronization

/// The work of one term of leadership: read what is due, enqueue it, keep the queue's epoch open.
final class SchedulerTerm: Sendable {
  private let store: any SchedulerStore
  private let queue: any JobQueue
  private let configuration: SchedulerConfiguration
  private let logger: Logger
  private let state = Mutex(State())
  /// Wakes the rescan early.
  private let rescanWish = WakeSignal()
  private let recovery = RecoveryGate()
  private let enqueued = Counter(label: "postrider_jobs_enqueued_total")
  private let lag = Meter(label: "postrider_schedule_lag_seconds")

  private struct State {
    /// The next rescan fills a fresh epoch: unthrottled.
    var refill = true
    var reportedError: String?
  }

  init(store: any SchedulerStore, queue: any JobQueue, configuration: SchedulerConfiguration, logger: Logger) {
    self.store = store
    self.queue = queue
    self.configuration = configuration
    self.logger = logger
  }

  /// Works until cancelled.
  func run() async {
    await untilDone { try await self.adoptEpoch() }
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.followSignals() }
      group.addTask { await self.followWatermark() }
      group.addTask { await self.rescanForEver() }
      group.addTask { await self.watchEpoch() }
    }
  }

  // MARK: What has just become due

  /// Enqueues rows as they become due, behind a watermark on the database's clock.
  private func followWatermark() async {
    // Everything before the start is the first rescan's.
    var position: DuePage.Position?
    while !Task.isCancelled {
      await untilDone {
        let from: DuePage.Position
        if let position {
          from = position
        } else {
          from = .init(
            dueMicroseconds: try await self.store.due(after: .init(dueMicroseconds: .max), limit: 1).nowMicroseconds)
        }
        let page = try await self.store.due(after: from, limit: self.configuration.pageSize)
        try await self.enqueue(page.jobs)
        if let oldest = page.jobs.first {
          self.lag.set(Double(page.nowMicroseconds - oldest.dueMilliseconds * 1_000) / 1_000_000)
        } else {
          self.lag.set(0)
        }
        position = page.next ?? .init(dueMicroseconds: max(page.nowMicroseconds, from.dueMicroseconds))
        if page.next == nil { try await self.sleepUntilDue(after: page.nowMicroseconds) }
      }
    }
  }

  private func sleepUntilDue(after nowMicroseconds: Int64) async throws {
    let next = try await store.nextDueMicroseconds() ?? .max
    let wait = Duration.microseconds(min(max(next &- nowMicroseconds, 0), 3_600_000_000))
    try await Task.sleep(for: min(max(wait, configuration.tick.lowerBound), configuration.tick.upperBound))
  }

  // MARK: What people asked for

  /// Enqueues or withdraws announced rows at once.
  private func followSignals() async {
    for await signal in store.signals() {
      if Task.isCancelled { return }
      do {
        switch signal {
        case .jobs(let ids):
          let rows = try await store.scheduled(ids)
          try await enqueue(rows.filter(\.runnable).map(\.job))
          let stopped = rows.filter { !$0.runnable }.map(\.job)
          if !stopped.isEmpty { try await queue.withdraw(stopped) }
        case .profile(let id):
          try await queue.update(profiles: [try await store.queueProfile(id)])
        case .profiles, .rescan:
          rescanWish.signal()
        case .moves, .repair: break
        }
      } catch {
        // The announcement is gone, its row is not: a rescan finds it.
        await handle(error)
        rescanWish.signal()
      }
    }
  }

  // MARK: The safety net

  /// Reads everything overdue every now and then, at a rate that crowds out nothing, and when asked to. Profiles too: the
  /// queue gives no lease for one that it does not know, and whatever announcement was not heard, of a row or of a
  /// profile, ends here.
  private func rescanForEver() async {
    while !Task.isCancelled {
      await untilDone {
        try await self.sendProfiles()
        try await self.rescan()
      }
      await rescanWish.wait(timeout: configuration.rescan)
    }
  }

  private func rescan() async throws {
    let unthrottled = state.withLock(\.refill)
    var position: DuePage.Position? = .init(dueMicroseconds: 0)
    let clock = ContinuousClock()
    while let from = position {
      let began = clock.now
      let page = try await store.due(after: from, limit: configuration.pageSize)
      try await enqueue(page.jobs)
      position = page.next
      if position != nil && !unthrottled {
        let share = Duration.seconds(Double(page.jobs.count) / Double(configuration.rescanRowsPerSecond))
        try await Task.sleep(until: began + share, clock: clock)
      }
    }
    if unthrottled { state.withLock { $0.refill = false } }
  }

  private func enqueue(_ jobs: [Job]) async throws {
    guard !jobs.isEmpty else { return }
    enqueued.increment(by: Int64(try await queue.enqueue(jobs)))
  }

  // MARK: The epoch

  /// Continues the queue's epoch, or opens a new one when there is none. A rescan then tells the queue every profile.
  private func adoptEpoch() async throws {
    if try await queue.currentEpoch() == nil { try await openEpoch() }
  }

  private func openEpoch() async throws {
    let epoch = try await store.nextEpoch()
    // Before the first epoch ever there was no session that could still be running.
    try await queue.open(epoch: epoch, delay: epoch == 1 ? .zero : queue.leaseDuration)
    logger.info("Opened an epoch of the queue", metadata: ["queue.epoch": "\(epoch)"])
    state.withLock { $0.refill = true }
    rescanWish.signal()
  }

  private func sendProfiles() async throws {
    let profiles = try await store.queueProfiles()
    var rest = profiles[...]
    while !rest.isEmpty {
      try await queue.update(profiles: Array(rest.prefix(500)))
      rest = rest.dropFirst(500)
    }
  }

  /// Notices an emptied or replaced server even when nothing is enqueued.
  private func watchEpoch() async {
    while !Task.isCancelled {
      do {
        try await Task.sleep(for: .seconds(1))
        if try await queue.currentEpoch() == nil { await recover() }
      } catch is CancellationError {
        return
      } catch {
        await handle(error)
      }
    }
  }

  /// Opens a new epoch; of several callers one does it and the others wait for it.
  private func recover() async {
    await recovery.run {
      await self.untilDone { try await self.adoptEpoch() }
    }
  }

  // MARK: Trouble

  /// Repeats a step until it succeeds or the term ends, with a growing, jittered wait.
  private func untilDone(_ step: () async throws -> Void) async {
    var wait = 0.1
    while !Task.isCancelled {
      do {
        try await step()
        reportRecovery()
        return
      } catch {
        if Task.isCancelled { return }
        report(error)
        if case JobQueueError.epochLost = error, !recovery.isRunning { await recover() }
        try? await Task.sleep(for: .seconds(Double.random(in: wait / 2...wait)))
        wait = min(wait * 2, 2)
      }
    }
  }

  private func handle(_ error: any Error) async {
    if Task.isCancelled { return }
    report(error)
    if case JobQueueError.epochLost = error { await recover() }
  }

  /// Logs an error once, not at each repetition.
  private func report(_ error: any Error) {
    let text = "\(error)"
    let isNew = state.withLock { state in
      defer { state.reportedError = text }
      return state.reportedError != text
    }
    if isNew { logger.warning("Scheduling waits", metadata: ["error": "\(text)"]) }
  }

  private func reportRecovery() {
    let had = state.withLock { state in
      defer { state.reportedError = nil }
      return state.reportedError != nil
    }
    if had { logger.info("Scheduling goes on") }
  }
}

/// Lets one caller work while the others wait for it to be done.
private actor RecoveryGate {
  private var waiters: [CheckedContinuation<Void, Never>] = []
  private var running = false
  private nonisolated let flag = Mutex(false)

  nonisolated var isRunning: Bool { flag.withLock { $0 } }

  func run(_ work: @Sendable () async -> Void) async {
    if running {
      await withCheckedContinuation { waiters.append($0) }
      return
    }
    running = true
    flag.withLock { $0 = true }
    await work()
    running = false
    flag.withLock { $0 = false }
    let resumed = waiters
    waiters = []
    for waiter in resumed { waiter.resume() }
  }
}
