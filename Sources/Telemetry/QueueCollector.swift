import PostriderCore
import Synchronization

/// Reads the queue's numbers, at most once in two seconds whoever asks, and shows them as metrics.
///
/// Queue-wide gauges belong to one process of a deployment (the API or the scheduler); where several show them,
/// dashboards use `max`, not `sum`.
public final class QueueCollector: Sendable {
  /// The collector's name in `postrider_collect_errors_total`.
  public static let name = "queue"

  private struct State {
    var meter = QueueMeter()
    var last: QueueReading?
  }

  private let cache: SingleFlightCache<QueueReading>
  private let state: SharedState
  private let scale: ScaleRule

  /// A `Mutex` cannot be captured; this can.
  private final class SharedState: Sendable {
    let value = Mutex(State())
  }

  /// Reads `queue` at most once in `lifetime`.
  public init(queue: any JobQueue, lifetime: Duration = .seconds(2), scale: ScaleRule = ScaleRule()) {
    let state = SharedState()
    self.state = state
    self.scale = scale
    cache = SingleFlightCache(lifetime: lifetime) {
      let statistics = try await queue.statistics()
      return state.value.withLock { state in
        state.meter.add(statistics)
        let reading = QueueReading(
          statistics: statistics, jobsPerSecond: state.meter.jobsPerSecond,
          meanSessionSeconds: state.meter.meanSessionSeconds)
        state.last = reading
        return reading
      }
    }
  }

  /// The queue's numbers, at most `lifetime` old. Throws ``JobQueueError``.
  public func statistics() async throws -> QueueStatistics { try await cache.value().statistics }

  /// The queue's numbers with rates, at most `lifetime` old. Throws ``JobQueueError``.
  public func reading() async throws -> QueueReading { try await cache.value() }

  /// How many workers the work at hand wants. Always answers: while the queue cannot be read, with the last number, so
  /// that an autoscaler leaves things as they are.
  public func scaleHint() async -> ScaleHint {
    do {
      let reading = try await cache.value()
      return scale.hint(reading.statistics, meanSessionSeconds: reading.meanSessionSeconds)
    } catch {
      // Why is in the log of whoever needs the queue for more than a hint.
      let last = state.value.withLock { $0.last }
      return scale.hint(last?.statistics, meanSessionSeconds: last?.meanSessionSeconds, isCurrent: false)
    }
  }

  /// Shows the numbers at every scrape; again for the same registry replaces the collector of before.
  public func register(in registry: PrometheusRegistry) {
    let definitions = [
      MetricNames.queueReady, MetricNames.queueInflight, MetricNames.queueBlocked, MetricNames.queueOldestDueSeconds,
      MetricNames.queueFinished, MetricNames.queuePoisoned, MetricNames.queueWorkers, MetricNames.queueWorkerSlots,
      MetricNames.workersWanted,
    ]
    registry.addCollector(Self.name, definitions) { [scale] in
      let reading = try await self.reading()
      let hint = scale.hint(reading.statistics, meanSessionSeconds: reading.meanSessionSeconds)
      return Self.samples(reading.statistics) + [MetricSample(MetricNames.workersWanted, value: Double(hint.workers))]
    }
  }

  /// The reasons that are always shown, with 0 when nothing is blocked by them; others only while they block.
  static let usualReasons: Set<String> = ["limit", "busy-mailbox", "paused", "breaker", "halted", "login-budget"]

  /// The numbers as samples; every class is there, with 0 when it is empty.
  static func samples(_ statistics: QueueStatistics) -> [MetricSample] {
    var samples = [
      MetricSample(MetricNames.queueInflight, value: Double(statistics.inFlight)),
      MetricSample(MetricNames.queueFinished, value: Double(statistics.finished)),
      MetricSample(MetricNames.queuePoisoned, value: Double(statistics.poisoned)),
      MetricSample(MetricNames.queueWorkers, value: Double(statistics.workers)),
      MetricSample(MetricNames.queueWorkerSlots, value: Double(statistics.workerSlots)),
    ]
    for label in Set(JobClass.allCases.map(\.label)).union(statistics.ready.keys) {
      samples.append(
        MetricSample(MetricNames.queueReady, ["class": label], value: Double(statistics.ready[label] ?? 0)))
      // Both times are of the queue's own clock. A job can be due a moment after the numbers were read.
      let age = statistics.oldestDueMilliseconds[label].map { max(0, statistics.serverMilliseconds - $0) } ?? 0
      samples.append(MetricSample(MetricNames.queueOldestDueSeconds, ["class": label], value: Double(age) / 1_000))
    }
    for reason in usualReasons.union(statistics.blocked.keys) {
      samples.append(
        MetricSample(MetricNames.queueBlocked, ["reason": reason], value: Double(statistics.blocked[reason] ?? 0)))
    }
    return samples
  }
}
