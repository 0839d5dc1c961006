import PostriderCore

/// Reads how many circuit breakers are open, at most once in two seconds, and shows it as a metric.
///
/// The number is the whole deployment's: where several processes show it, dashboards use `max`, not `sum`.
public final class ServerGuardCollector: Sendable {
  /// The collector's name in `postrider_collect_errors_total`.
  public static let name = "breakers"

  private let cache: SingleFlightCache<Int>

  /// Reads `serverGuard` at most once in `lifetime`.
  public init(_ serverGuard: any ServerGuard, lifetime: Duration = .seconds(2)) {
    cache = SingleFlightCache(lifetime: lifetime) { try await serverGuard.openBreakers(limit: 10_000).count }
  }

  /// Shows the number at every scrape; again for the same registry replaces the collector of before.
  public func register(in registry: PrometheusRegistry) {
    registry.addCollector(Self.name, [MetricNames.breakerOpen]) {
      [MetricSample(MetricNames.breakerOpen, value: Double(try await self.cache.value()))]
    }
  }
}
