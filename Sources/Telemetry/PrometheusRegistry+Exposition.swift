extension PrometheusRegistry {
  /// Runs the collectors and writes everything in Prometheus' text format 0.0.4, sorted by name and labels.
  public func scrape() async -> String {
    let collected = await collect()
    // Taken after the collectors ran, so that an error of this scrape is in it.
    let families = state.withLock { $0.families }
    var text = ""
    for name in Set(families.keys).union(collected.keys).sorted() {
      let recorded = families[name]
      let read = collected[name]
      guard let definition = recorded?.definition ?? read?.definition else { continue }
      // A name is either recorded or collected; where both happen, what was just read is the truth.
      if let read {
        if !read.samples.isEmpty { text += head(definition) + lines(read.samples, definition) }
      } else if let recorded, !recorded.series.isEmpty {
        text += head(definition) + lines(recorded)
      }
    }
    return text
  }

  private func head(_ definition: MetricDefinition) -> String {
    "# HELP \(definition.name) \(Self.escapedHelp(definition.help))\n# TYPE \(definition.name) "
      + "\(definition.kind.rawValue)\n"
  }

  private func lines(_ samples: [MetricSample], _ definition: MetricDefinition) -> String {
    var values: [[String]: Double] = [:]
    for sample in samples { values[definition.labels.map { sample.labels[$0] ?? "" }] = sample.value }
    return values.sorted { $0.key.lexicographicallyPrecedes($1.key) }
      .map { line(definition.name, definition.labels, $0.key, $0.value) }.joined()
  }

  private func lines(_ family: Family) -> String {
    let (name, keys) = (family.definition.name, family.definition.labels)
    var text = ""
    for (values, series) in family.series.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      switch series {
      case .counter(let counter): text += line(name, keys, values, counter.value)
      case .gauge(let gauge): text += line(name, keys, values, gauge.value)
      case .histogram(let histogram):
        let state = histogram.snapshot
        var count: UInt64 = 0
        for (index, inBucket) in state.counts.enumerated() {
          count += inBucket
          let bound = index < histogram.bounds.count ? Self.written(histogram.bounds[index]) : "+Inf"
          text += line(name + "_bucket", keys + ["le"], values + [bound], Double(count))
        }
        text += line(name + "_sum", keys, values, state.sum) + line(name + "_count", keys, values, Double(count))
      }
    }
    return text
  }

  private func line(_ name: String, _ keys: [String], _ values: [String], _ value: Double) -> String {
    let labels = zip(keys, values).map { "\($0)=\"\(Self.escapedLabel($1))\"" }.joined(separator: ",")
    return labels.isEmpty ? "\(name) \(Self.written(value))\n" : "\(name){\(labels)} \(Self.written(value))\n"
  }

  static func written(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
    // Whole numbers without ".0", as Prometheus itself writes them; beyond 2^53 the digits would lie.
    if value == value.rounded() && abs(value) < 9_007_199_254_740_992 { return String(Int64(value)) }
    return value.description
  }

  static func escapedHelp(_ text: String) -> String {
    text.unicodeScalars.map { $0 == "\\" ? "\\\\" : $0 == "\n" ? "\\n" : String($0) }.joined()
  }

  static func escapedLabel(_ text: String) -> String {
    text.unicodeScalars.map { $0 == "\\" ? "\\\\" : $0 == "\n" ? "\\n" : $0 == "\"" ? "\\\"" : String($0) }.joined()
  }
}
