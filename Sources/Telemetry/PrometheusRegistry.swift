import CoreMetrics
import Logging
import Synchronization

/// Keeps the numbers that code records through swift-metrics and writes them for Prometheus.
///
/// Counter and FloatingPointCounter become counters, Meter and a non-aggregating Recorder gauges, Timer a histogram in
/// seconds, an aggregating Recorder a histogram. Names that ``MetricNames`` knows take labels, help and buckets from
/// there; names of libraries are mapped: other characters become `_`, counters get `_total`, timers `_seconds`.
///
/// All series of a name have the same label keys and there are at most `maximumSeries` of them. What does not fit is
/// dropped, counted in `postrider_metrics_refused_total` and logged once per name; recording never fails.
public final class PrometheusRegistry: MetricsFactory, Sendable {
  /// The `Content-Type` of the exposition; Prometheus 3 refuses a scrape without it.
  public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  /// One series: a number or a histogram.
  enum Series {
    case counter(CounterSeries)
    case gauge(GaugeSeries)
    case histogram(HistogramSeries)
  }

  /// All series of one name.
  struct Family {
    let definition: MetricDefinition
    /// By the label values, in the order of the definition's keys.
    var series: [[String]: Series] = [:]
  }

  /// Why a metric was dropped.
  enum Refusal: String, CaseIterable {
    case labels
    case type
    case series
  }

  struct State {
    var families: [String: Family] = [:]
    var collectors: [String: Collector] = [:]
    /// What was logged already: name and reason.
    var refused: Set<String> = []
  }

  let known: [String: MetricDefinition]
  let maximumSeries: Int
  let collectorTimeLimit: Duration
  let logger: Logger?
  let state = Mutex(State())

  /// An empty registry.
  ///
  /// - Parameters:
  ///   - definitions: the metrics whose labels, help and buckets are fixed.
  ///   - maximumSeries: the most series of one name, 1 and up.
  ///   - collectorTimeLimit: how long a scrape waits for a collector.
  ///   - logger: told once about each metric that does not fit and about failing collectors.
  public init(
    definitions: [MetricDefinition] = MetricNames.all, maximumSeries: Int = 1_000,
    collectorTimeLimit: Duration = .seconds(2), logger: Logger? = nil
  ) {
    known = Dictionary(definitions.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    self.maximumSeries = max(1, maximumSeries)
    self.collectorTimeLimit = collectorTimeLimit
    self.logger = logger
  }

  /// Says which build runs, as `postrider_build_info`.
  public func setBuildInfo(version: String, commit: String, swift: String) {
    let labels = [("version", version), ("commit", commit), ("swift", swift)]
    if case .gauge(let gauge)? = series(MetricNames.buildInfo.name, labels, .gauge) { gauge.set(1.0) }
  }

  // MARK: MetricsFactory

  /// A counter.
  public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    if case .counter(let counter)? = series(label, dimensions, .counter) { return counter }
    return NOOPMetricsHandler.instance
  }

  /// A counter.
  public func makeFloatingPointCounter(
    label: String, dimensions: [(String, String)]
  ) -> any FloatingPointCounterHandler {
    if case .counter(let counter)? = series(label, dimensions, .counter) { return counter }
    return NOOPMetricsHandler.instance
  }

  /// A gauge.
  public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
    if case .gauge(let gauge)? = series(label, dimensions, .gauge) { return gauge }
    return NOOPMetricsHandler.instance
  }

  /// A histogram, or a gauge when it does not aggregate.
  public func makeRecorder(
    label: String, dimensions: [(String, String)], aggregate: Bool
  ) -> any RecorderHandler {
    switch series(label, dimensions, aggregate ? .histogram : .gauge) {
    case .histogram(let histogram): return histogram
    case .gauge(let gauge): return gauge
    default: return NOOPMetricsHandler.instance
    }
  }

  /// A histogram in seconds.
  public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    if case .histogram(let histogram)? = series(label, dimensions, .histogram, isTimer: true) { return histogram }
    return NOOPMetricsHandler.instance
  }

  /// Keeps the series: a counter that vanished and came back would look like a restart.
  public func destroyCounter(_ handler: any CounterHandler) {}

  /// Keeps the series, as ``destroyCounter(_:)`` does.
  public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}

  /// Removes a gauge from the exposition.
  public func destroyMeter(_ handler: any MeterHandler) { removeGauge(handler) }

  /// Removes a gauge from the exposition; a histogram stays.
  public func destroyRecorder(_ handler: any RecorderHandler) { removeGauge(handler) }

  /// Keeps the series, as ``destroyCounter(_:)`` does.
  public func destroyTimer(_ handler: any TimerHandler) {}

  private func removeGauge(_ handler: AnyObject) {
    state.withLock { state in
      for (name, family) in state.families {
        for (values, series) in family.series {
          if case .gauge(let gauge) = series, gauge === handler { state.families[name]?.series[values] = nil }
        }
      }
    }
  }

  // MARK: Series

  /// The series of a name and its labels, made when there is none; `nil` when it does not fit.
  func series(
    _ label: String, _ dimensions: [(String, String)], _ kind: MetricDefinition.Kind, isTimer: Bool = false
  ) -> Series? {
    let name = exposedName(label, kind, isTimer: isTimer)
    let labels = dimensions.map { (Self.mapped($0.0), $0.1) }.sorted { $0.0 < $1.0 }
    let values = labels.map(\.1)
    let keys = labels.map(\.0)
    let (found, refusal): (Series?, Refusal?) = state.withLock { state in
      let definition =
        state.families[name]?.definition ?? known[name]
        ?? MetricDefinition(name, kind, labels: keys, help: "Recorded by a library of Postrider.")
      if definition.kind != kind { return (nil, .type) }
      if definition.labels != keys || Set(keys).count != keys.count { return (nil, .labels) }
      if let found = state.families[name]?.series[values] { return (found, nil) }
      if state.families[name]?.series.count ?? 0 >= maximumSeries { return (nil, .series) }
      let made: Series =
        switch kind {
        case .counter: .counter(CounterSeries())
        case .gauge: .gauge(GaugeSeries())
        case .histogram: .histogram(HistogramSeries(bounds: definition.buckets))
        }
      state.families[name, default: Family(definition: definition)].series[values] = made
      return (made, nil)
    }
    if let refusal { refuse(name, refusal, keys: keys) }
    return found
  }

  func refuse(_ name: String, _ refusal: Refusal, keys: [String]) {
    let isNew = state.withLock { state in
      // The set is bounded like the series: names come from code, but nothing here trusts that.
      state.refused.count < 1_000 && state.refused.insert("\(name) \(refusal.rawValue)").inserted
    }
    if isNew {
      logger?.warning(
        "A metric does not fit and is dropped",
        metadata: [
          LogKeys.metric: "\(name)", LogKeys.reason: "\(refusal.rawValue)",
          LogKeys.labels: "\(keys.joined(separator: ","))",
        ])
    }
    if name != MetricNames.metricsRefused.name,
      case .counter(let counter)? = series(
        MetricNames.metricsRefused.name, [("reason", refusal.rawValue)], .counter)
    {
      counter.increment(by: Int64(1))
    }
  }

  private func exposedName(_ label: String, _ kind: MetricDefinition.Kind, isTimer: Bool) -> String {
    if known[label] != nil { return label }
    var name = Self.mapped(label)
    if isTimer && !name.hasSuffix("_seconds") { name += "_seconds" }
    if kind == .counter && !name.hasSuffix("_total") { name += "_total" }
    if kind != .counter && name.hasSuffix("_total") { name.removeLast("_total".count) }
    return name
  }

  /// A name or label key that Prometheus accepts: `http.server.requests` becomes `http_server_requests`.
  static func mapped(_ text: String) -> String {
    var name = ""
    for scalar in text.unicodeScalars {
      let isGood = scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "_")
      name.unicodeScalars.append(isGood ? scalar : "_")
    }
    if name.first.map({ $0.isNumber }) ?? true { name = "_" + name }
    return name
  }
}
