import Logging
import Metrics
import PostriderCore
import Synchronization

/// The work of one term of leadership: read what is due, enqueue it, keep the queue's epoch open and the queue in order.
///
/// Every part repeats itself until the term ends and leaves nothing half done: whatever it finds stands in PostgreSQL or in
/// the queue, and the next term finds it again.
final class SchedulerTerm: Sendable {
  let store: any SchedulerStore
  let queue: any JobQueue
  let configuration: SchedulerConfiguration
  let logger: Logger
  let state = Mutex(State())
  /// Wakes the rescan early.
  let rescanWish = WakeSignal()
  /// Wakes who carries out announcements.
  let announced = WakeSignal()
  /// Wakes who looks after moves and poison.
  let upkeepWish = WakeSignal()
  /// Wakes who carries out what administration began.
  let sweepWish = WakeSignal()
  /// Wakes who repairs.
  let repairWish = WakeSignal()
  let gate = PassageGate()
  let lag = ScheduleLag()
  let pulse: Pulse
  let openAlerts = OpenAlerts()
  let enqueued = Counter(label: "postrider_jobs_enqueued_total")
  /// From the start, so that the first repair is seen as one.
  let repairs = Counter(label: "postrider_invariant_repairs_total")
  private let recovery = RecoveryGate()

  struct State {
    /// The next rescan fills a fresh epoch: unthrottled, what is urgent first.
    var refill = false
    /// What was announced and not carried out yet.
    var wishes = Wishes()
    var reportedErrors: [String: String] = [:]
  }

  init(
    store: any SchedulerStore, queue: any JobQueue, configuration: SchedulerConfiguration, pulse: Pulse = Pulse(),
    logger: Logger
  ) {
    self.pulse = pulse
    self.store = store
    self.queue = queue
    self.configuration = configuration
    self.logger = logger
  }

  /// Works until cancelled.
  func run() async {
    await untilDone("epoch") { try await self.adoptEpoch() }
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.hearAnnouncements() }
      group.addTask { await self.carryOutAnnouncements() }
      group.addTask { await self.followWatermark() }
      group.addTask { await self.rescanForEver() }
      group.addTask { await self.watchEpoch() }
      group.addTask { await self.keepInOrder() }
      group.addTask { await self.sweepForEver() }
      group.addTask { await self.repairForEver() }
      group.addTask { await self.watchLateness() }
      group.addTask { await self.countAlerts() }
      group.addTask { await self.mailAlerts() }
    }
    lag.clear()
    openAlerts.clear()
  }

  // MARK: The epoch

  /// Continues the queue's epoch, or opens a new one when there is none. A rescan then tells the queue every profile.
  private func adoptEpoch() async throws {
    // Nothing else goes on meanwhile, however long Redis is away.
    pulse.beat()
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

  /// Notices an emptied or replaced server even when nothing is enqueued.
  private func watchEpoch() async {
    while !Task.isCancelled {
      do {
        try await Task.sleep(for: .seconds(1))
        lag.publish()
        if try await queue.currentEpoch() == nil { await recover() }
        reportRecovery("epoch")
      } catch is CancellationError {
        return
      } catch {
        await handle(error, of: "epoch")
      }
    }
  }

  /// Opens a new epoch; of several callers one does it and the others wait for it.
  private func recover() async {
    await recovery.run {
      await self.untilDone("epoch") { try await self.adoptEpoch() }
    }
  }

  /// Whether a new epoch is being opened.
  var isRecovering: Bool { recovery.isRunning }

  // MARK: Trouble

  /// Repeats a step until it succeeds or the term ends, with a growing, jittered wait.
  func untilDone(_ part: String, _ step: () async throws -> Void) async {
    var wait = 0.1
    while !Task.isCancelled {
      do {
        try await step()
        reportRecovery(part)
        return
      } catch {
        if Task.isCancelled { return }
        report(error, of: part)
        if case JobQueueError.epochLost = error, !recovery.isRunning { await recover() }
        try? await Task.sleep(for: .seconds(Double.random(in: wait / 2...wait)))
        wait = min(wait * 2, 2)
      }
    }
  }

  /// Does a step that comes again by itself; an error is told and nothing else.
  func attempt(_ part: String, _ step: () async throws -> Void) async {
    do {
      try await step()
      reportRecovery(part)
    } catch {
      await handle(error, of: part)
    }
  }

  func handle(_ error: any Error, of part: String) async {
    if Task.isCancelled { return }
    report(error, of: part)
    if case JobQueueError.epochLost = error { await recover() }
  }

  /// Logs an error of a part once, not at each repetition.
  private func report(_ error: any Error, of part: String) {
    let text = "\(error)"
    let isNew = state.withLock { $0.reportedErrors.updateValue(text, forKey: part) != text }
    if isNew { logger.warning("Scheduling waits", metadata: ["error": "\(text)", "scheduler.part": "\(part)"]) }
  }

  func reportRecovery(_ part: String) {
    let had = state.withLock { $0.reportedErrors.removeValue(forKey: part) != nil }
    if had { logger.info("Scheduling goes on", metadata: ["scheduler.part": "\(part)"]) }
  }
}
