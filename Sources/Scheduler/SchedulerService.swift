import Logging
import Metrics
import PostriderCore
import ServiceLifecycle

/// Turns due rows of PostgreSQL into jobs of the queue. One process leads, any number stand by.
///
/// Two leaders at once do no harm: a job's id is its de-duplication key, and epochs only grow. Leadership saves work.
public struct SchedulerService: Service {
  private let store: any SchedulerStore
  private let queue: any JobQueue
  private let configuration: SchedulerConfiguration
  private let logger: Logger
  /// Beats while this process stands by and, once it leads, with each look for what has become due.
  public let pulse = Pulse()
  private let leaderGauge = Meter(label: "postrider_scheduler_leader")

  /// A scheduler over the given store and queue.
  public init(
    store: any SchedulerStore, queue: any JobQueue, configuration: SchedulerConfiguration, logger: Logger
  ) {
    self.store = store
    self.queue = queue
    self.configuration = configuration
    self.logger = logger
  }

  /// Stands by and leads, again and again, until the service is stopped.
  public func run() async throws {
    leaderGauge.set(0)
    await cancelWhenGracefulShutdown { await standByAndLead() }
    pulse.rest()
    leaderGauge.set(0)
    // The row is given up so that a standby need not wait for the end of the term. When that fails, it ends by itself.
    try? await store.resign(holder: configuration.holder)
  }

  private func standByAndLead() async {
    var reported = false
    while !Task.isCancelled {
      var wait = configuration.retry
      pulse.beat()
      do {
        if let term = try await store.lead(holder: configuration.holder, duration: configuration.leadership) {
          reported = false
          await lead(term)
        }
      } catch {
        // New work begins soon after PostgreSQL answers again.
        wait = min(configuration.retryWhileAway, configuration.retry)
        if !reported && !Task.isCancelled {
          reported = true
          logger.warning("Cannot ask for leadership", metadata: ["error": "\(error)"])
        }
      }
      // A woken sleep is a cancelled one; the loop's condition sees it.
      try? await Task.sleep(for: wait * Double.random(in: 0.8...1))
    }
  }

  private func lead(_ first: LeadershipTerm) async {
    logger.info("Leading", metadata: ["scheduler.term": "\(first.term)"])
    leaderGauge.set(1)
    defer { leaderGauge.set(0) }
    let term = SchedulerTerm(
      store: store, queue: queue, configuration: configuration, pulse: pulse, logger: logger)
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await keep(first) }
      group.addTask { await term.run() }
      // Whichever ends first – leadership lost, or cancelled – ends the other.
      await group.next()
      group.cancelAll()
    }
    if !Task.isCancelled { logger.warning("Leadership lost", metadata: ["scheduler.term": "\(first.term)"]) }
  }

  /// Renews the term; returns when it cannot be trusted any more or somebody else leads.
  private func keep(_ first: LeadershipTerm) async {
    var term = first
    var wait = configuration.retry
    while !Task.isCancelled {
      guard (try? await Task.sleep(for: wait)) != nil else { return }
      do {
        guard let renewed = try await store.lead(holder: configuration.holder, duration: configuration.leadership),
          renewed.term == term.term
        else { return }
        term = renewed
        wait = configuration.retry
      } catch {
        wait = min(configuration.retryWhileAway, configuration.retry)
        if ContinuousClock.now >= term.trustedUntil { return }
      }
    }
  }
}
