/// What a metric is, for the exporter and for the documentation.
public struct MetricDefinition: Hashable, Sendable {
  /// How Prometheus treats the numbers.
  public enum Kind: String, Hashable, Sendable {
    /// Only grows, except when the process restarts; its name ends in `_total`.
    case counter
    /// Goes up and down.
    case gauge
    /// Counts observations in buckets.
    case histogram
  }

  /// Letters, digits and underscores, with the base unit as suffix.
  public let name: String
  /// Counter, gauge or histogram.
  public let kind: Kind
  /// One sentence for people.
  public let help: String
  /// Every series of this name has exactly these label keys. A label has few values: never a mailbox or address.
  public let labels: [String]
  /// Upper bounds of a histogram's buckets, ascending, without infinity; empty for other kinds.
  public let buckets: [Double]

  /// Describes a metric. The label keys are kept sorted.
  public init(_ name: String, _ kind: Kind, labels: [String] = [], buckets: [Double] = [], help: String) {
    self.name = name
    self.kind = kind
    self.help = help
    self.labels = labels.sorted()
    self.buckets = kind == .histogram && buckets.isEmpty ? MetricDefinition.generalBuckets : buckets
  }

  /// For durations of which nothing is known: 1 ms to one minute.
  public static let generalBuckets: [Double] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
  ]
}
