import PostriderCore

/// Reads the queue's numbers, at most once in two seconds whoever asks, and shows them as metrics.
///
/// Queue-wide gauges belong to one process of a deployment (the API or the scheduler); where several show them,
/// dashboards use `max`, not `sum`.
public final class QueueCollector: Sendable {
  /// The collector's name in `postrider_collect_errors_total`.
  public static let name = "queue"

  private let cache: SingleFlightCache<QueueStatistics>

  /// Reads `queue` at most once in `lifetime`.
  public init(queue: any JobQueue, lifetime: Duration = .seconds(2)) {
    cache = SingleFlightCache(lifetime: lifetime) { try await queue.statistics() }
  }

  /// The queue's numbers, at most `lifetime` old. Throws ``JobQueueError``.
  public func statistics() async throws -> QueueStatistics { try await cache.value() }

  /// Shows the numbers at every scrape; again for the same registry replaces the collector of before.
  public func register(in registry: PrometheusRegistry) {
    let definitions = [
      MetricNames.queueReady, MetricNames.queueInflight, MetricNames.queueBlocked, MetricNames.queueOldestDueSeconds,
    ]
    registry.addCollector(Self.name, definitions) { Self.samples(try await self.statistics()) }
  }

  /// The numbers as samples; every class is there, with 0 when it is empty.
  static func samples(_ statistics: QueueStatistics) -> [MetricSample] {
    var samples = [MetricSample(MetricNames.queueInflight, value: Double(statistics.inFlight))]
    for label in Set(JobClass.allCases.map(\.label)).union(statistics.ready.keys) {
      samples.append(
        MetricSample(MetricNames.queueReady, ["class": label], value: Double(statistics.ready[label] ?? 0)))
      // Both times are of the queue's own clock. A job can be due a moment after the numbers were read.
      let age = statistics.oldestDueMilliseconds[label].map { max(0, statistics.serverMilliseconds - $0) } ?? 0
      samples.append(MetricSample(MetricNames.queueOldestDueSeconds, ["class": label], value: Double(age) / 1_000))
    }
    for reason in Set(["limit", "busy-mailbox", "breaker", "paused"]).union(statistics.blocked.keys) {
      samples.append(
        MetricSample(MetricNames.queueBlocked, ["reason": reason], value: Double(statistics.blocked[reason] ?? 0)))
    }
    return samples
  }
}
