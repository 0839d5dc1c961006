import Metrics
import PostriderCore
import Synchronization

/// How many alerts are open, as gauges that are there only while somebody counts: a process that lost the lead must not go
/// on showing what it saw last.
final class OpenAlerts: Sendable {
  private let meters = Mutex<[AlertLevel: Meter]>([:])
  private let factory: any MetricsFactory

  init(factory: any MetricsFactory = MetricsSystem.factory) { self.factory = factory }

  /// Sets the gauges.
  func show(_ counts: [AlertLevel: Int]) {
    meters.withLock { meters in
      for (level, count) in counts {
        let meter =
          meters[level]
          ?? Meter(label: "postrider_alerts_open", dimensions: [("level", level.rawValue)], factory: factory)
        meters[level] = meter
        meter.set(count)
      }
    }
  }

  /// Takes the gauges away.
  func clear() {
    meters.withLock { meters in
      for meter in meters.values { meter.destroy() }
      meters = [:]
    }
  }
}
