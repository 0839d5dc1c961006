import Metrics

/// How long calls of the queue's scripts take, by script, as `postrider_redis_call_seconds`.
struct RedisCallTimers: Sendable {
  /// The process's timers. Made at the first call, when the metrics system is set up.
  static let shared = RedisCallTimers()

  private let timers: [RedisScript: Timer]

  private init() {
    timers = Dictionary(
      uniqueKeysWithValues: RedisScript.allCases.map {
        ($0, Timer(label: "postrider_redis_call_seconds", dimensions: [("script", $0.rawValue)]))
      })
  }

  /// Notes a call that began at `start`, however it ended.
  func record(_ script: RedisScript, since start: ContinuousClock.Instant) {
    timers[script]?.record(duration: ContinuousClock.now - start)
  }
}
