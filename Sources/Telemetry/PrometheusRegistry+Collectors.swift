import Logging
import Synchronization

/// A number that a collector read at a scrape.
public struct MetricSample: Hashable, Sendable {
  /// The metric; a counter or gauge.
  public var name: String
  /// The values of the metric's labels by key.
  public var labels: [String: String]
  /// The number.
  public var value: Double

  /// A number of a metric.
  public init(_ definition: MetricDefinition, _ labels: [String: String] = [:], value: Double) {
    self.name = definition.name
    self.labels = labels
    self.value = value
  }
}

extension PrometheusRegistry {
  /// Something that is asked at each scrape.
  struct Collector {
    let definitions: [MetricDefinition]
    let collect: @Sendable () async throws -> [MetricSample]
    /// Whether an earlier scrape gave up waiting for it and it still runs.
    var isRunning = false
  }

  /// Has numbers read at each scrape.
  ///
  /// A collector that throws, or takes longer than the registry's time limit, leaves its metrics out of that scrape and
  /// raises `postrider_collect_errors_total`: yesterday's numbers are never shown. Registering a name again replaces the
  /// collector of before.
  ///
  /// - Parameters:
  ///   - name: the value of the error counter's label.
  ///   - definitions: the counters and gauges that it reads; samples of others are dropped.
  ///   - collect: reads them.
  public func addCollector(
    _ name: String, _ definitions: [MetricDefinition],
    collect: @escaping @Sendable () async throws -> [MetricSample]
  ) {
    state.withLock { $0.collectors[name] = Collector(definitions: definitions, collect: collect) }
    // From the start, so that a rate over the first error is right.
    _ = series(MetricNames.collectErrors.name, [("collector", name)], .counter)
  }

  /// Takes a collector away; its metrics are gone from the next scrape.
  public func removeCollector(_ name: String) {
    state.withLock { _ = $0.collectors.removeValue(forKey: name) }
  }

  /// What the collectors read, by metric name.
  func collect() async -> [String: (definition: MetricDefinition, samples: [MetricSample])] {
    let names = state.withLock { Array($0.collectors.keys) }
    return await withTaskGroup(of: [(MetricDefinition, [MetricSample])].self) { group in
      for name in names { group.addTask { await self.collect(name) } }
      var all: [String: (definition: MetricDefinition, samples: [MetricSample])] = [:]
      for await part in group {
        for (definition, samples) in part {
          all[definition.name, default: (definition, [])].samples += samples
        }
      }
      return all
    }
  }

  private struct StillRunning: Error, CustomStringConvertible {
    var description: String { "the collection of an earlier scrape is still running" }
  }

  private func collect(_ name: String) async -> [(MetricDefinition, [MetricSample])] {
    let (collector, wasRunning) = state.withLock { state in
      defer { state.collectors[name]?.isRunning = true }
      return (state.collectors[name], state.collectors[name]?.isRunning ?? false)
    }
    guard let collector else { return [] }
    do {
      // A collector that hangs is left behind after the limit; it must not pile up with every scrape.
      if wasRunning { throw StillRunning() }
      let samples = try await withTimeLimit(collectorTimeLimit) {
        defer { self.state.withLock { $0.collectors[name]?.isRunning = false } }
        return try await collector.collect()
      }
      return sorted(samples, into: collector.definitions)
    } catch {
      if case .counter(let counter)? = series(MetricNames.collectErrors.name, [("collector", name)], .counter) {
        counter.increment(by: Int64(1))
      }
      logger?.warning(
        "A collector failed and its metrics are missing from this scrape",
        metadata: [LogKeys.collector: "\(name)", LogKeys.error: "\(error)"])
      return []
    }
  }

  private func sorted(
    _ samples: [MetricSample], into definitions: [MetricDefinition]
  ) -> [(MetricDefinition, [MetricSample])] {
    let byName = Dictionary(grouping: samples, by: \.name)
    for (name, _) in byName where !definitions.contains(where: { $0.name == name }) { refuse(name, .type, keys: []) }
    return definitions.compactMap { definition in
      guard definition.kind != .histogram else { return nil }
      let mine = byName[definition.name] ?? []
      let fitting = mine.filter { $0.labels.keys.sorted() == definition.labels }
      if fitting.count < mine.count { refuse(definition.name, .labels, keys: []) }
      if fitting.count > maximumSeries { refuse(definition.name, .series, keys: definition.labels) }
      return (definition, Array(fitting.prefix(maximumSeries)))
    }
  }
}
