import Foundation
import Testing

/// What the HorizontalPodAutoscaler does with one external metric of target type AverageValue, as KEDA sets it up: the
/// algorithm of Kubernetes' `horizontal.go`, with its tolerance, stabilization windows and policies.
struct Autoscaler {
  /// How many replicas may be added or removed within a time.
  struct Policy: Hashable {
    /// Of the replicas at the beginning of the period; else a number of pods.
    var isPercent: Bool
    var value: Double
    var periodSeconds: Double
  }

  struct Direction: Hashable {
    var stabilizationSeconds: Double
    var policies: [Policy]
  }

  var minimum: Int
  var maximum: Int
  var target: Double
  var up: Direction
  var down: Direction
  /// A ratio of metric to target this near to 1 changes nothing (`--horizontal-pod-autoscaler-tolerance`).
  var tolerance = 0.1
  /// How often it looks (`--horizontal-pod-autoscaler-sync-period`).
  var syncSeconds = 15.0

  private var recommendations: [(at: Double, replicas: Int)] = []
  private var changes: [(at: Double, by: Int)] = []

  init(minimum: Int, maximum: Int, target: Double, up: Direction, down: Direction) {
    (self.minimum, self.maximum, self.target, self.up, self.down) = (minimum, maximum, target, up, down)
  }

  /// One sync. `metric` is the number that the endpoint answers; `nil` while it cannot be had, which changes nothing.
  mutating func sync(at now: Double, metric: Double?, replicas: Int) -> Int {
    guard let metric, replicas > 0 else { return replicas }
    let ratio = metric / (target * Double(replicas))
    let wanted = abs(1 - ratio) <= tolerance ? replicas : Int((metric / target).rounded(.up))
    let stable = stabilized(wanted, at: now, replicas: replicas)
    let limited = min(max(limit(stable, at: now, replicas: replicas), minimum), maximum)
    if limited != replicas { changes.append((now, limited - replicas)) }
    return limited
  }

  /// Up: the least that was recommended in the window; down: the most.
  private mutating func stabilized(_ wanted: Int, at now: Double, replicas: Int) -> Int {
    recommendations.removeAll { now - $0.at > max(up.stabilizationSeconds, down.stabilizationSeconds) }
    recommendations.append((now, wanted))
    let least = recommendations.filter { now - $0.at <= up.stabilizationSeconds }.map(\.replicas).min() ?? wanted
    let most = recommendations.filter { now - $0.at <= down.stabilizationSeconds }.map(\.replicas).max() ?? wanted
    var result = replicas
    if result < least { result = least }
    if result > most { result = most }
    return result
  }

  private func limit(_ wanted: Int, at now: Double, replicas: Int) -> Int {
    if wanted > replicas {
      let limits = up.policies.map { policy -> Int in
        let start = Double(replicas - changed(within: policy.periodSeconds, of: now))
        return Int((policy.isPercent ? start * (1 + policy.value / 100) : start + policy.value).rounded(.up))
      }
      return min(wanted, max(limits.max() ?? wanted, replicas))
    }
    if wanted < replicas {
      let limits = down.policies.map { policy -> Int in
        let start = Double(replicas - changed(within: policy.periodSeconds, of: now))
        return Int(policy.isPercent ? start * (1 - policy.value / 100) : start - policy.value)
      }
      return max(wanted, min(limits.min() ?? wanted, replicas))
    }
    return replicas
  }

  /// Replicas added, less those removed, in a time up to now.
  private func changed(within seconds: Double, of now: Double) -> Int {
    changes.filter { now - $0.at < seconds }.reduce(0) { $0 + $1.by }
  }
}

extension Autoscaler {
  /// The one that a manifest of `ops/kubernetes/components` describes.
  static func shipped(_ file: String) throws -> Autoscaler {
    let components = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "ops/kubernetes/components")
    let text = try String(contentsOf: components.appending(path: file), encoding: .utf8)
    let minimum = try #require(text.firstMatch(of: /minReplica(?:Count|s): (\d+)/).flatMap { Int($0.output.1) })
    let maximum = try #require(text.firstMatch(of: /maxReplica(?:Count|s): (\d+)/).flatMap { Int($0.output.1) })
    let target = try #require(
      text.firstMatch(of: /(?:targetValue|averageValue): "(\d+)"/).flatMap { Double($0.output.1) })
    func direction(_ name: String) throws -> Direction {
      let part = try #require(text.range(of: "\(name):").map { text[$0.upperBound...] })
      let window = try #require(
        part.firstMatch(of: /stabilizationWindowSeconds: (\d+)/).flatMap { Double($0.output.1) })
      let line = try #require(part.split(separator: "\n").first { $0.contains("policies:") })
      let policies = line.matches(of: /type: (Percent|Pods), value: (\d+), periodSeconds: (\d+)/).map {
        Policy(
          isPercent: $0.output.1 == "Percent", value: Double($0.output.2) ?? 0, periodSeconds: Double($0.output.3) ?? 0)
      }
      try #require(!policies.isEmpty)
      return Direction(stabilizationSeconds: window, policies: policies)
    }
    return Autoscaler(
      minimum: minimum, maximum: maximum, target: target, up: try direction("scaleUp"),
      down: try direction("scaleDown"))
  }
}
