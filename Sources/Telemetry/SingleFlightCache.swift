import Synchronization

/// Keeps a value for a short while; while it is being loaded, everybody waits for the same load.
///
/// Errors are not kept: the next caller tries again.
package final class SingleFlightCache<Value: Sendable>: Sendable {
  private struct State {
    var value: Value?
    var freshUntil: ContinuousClock.Instant?
    var flight: Task<Value, any Error>?
  }

  private let lifetime: Duration
  private let timeLimit: Duration
  private let load: @Sendable () async throws -> Value
  private let state = Mutex(State())

  /// An empty cache.
  ///
  /// - Parameters:
  ///   - lifetime: how long a value is good, counted from when the load began.
  ///   - timeLimit: how long a load may take.
  ///   - load: gets a new value.
  package init(
    lifetime: Duration, timeLimit: Duration = .seconds(5), load: @escaping @Sendable () async throws -> Value
  ) {
    self.lifetime = lifetime
    self.timeLimit = timeLimit
    self.load = load
  }

  /// The value, loaded when there is no fresh one.
  package func value() async throws -> Value {
    let now = ContinuousClock.now
    let (fresh, flight): (Value?, Task<Value, any Error>?) = state.withLock { state in
      if let value = state.value, let freshUntil = state.freshUntil, now < freshUntil { return (value, nil) }
      if let flight = state.flight { return (nil, flight) }
      // No child task: the load goes on for the others when the caller that began it goes away.
      let flight = Task {
        do {
          let value = try await withTimeLimit(timeLimit, load)
          self.state.withLock { $0 = State(value: value, freshUntil: now + lifetime, flight: nil) }
          return value
        } catch {
          self.state.withLock { $0 = State() }
          throw error
        }
      }
      state.flight = flight
      return (nil, flight)
    }
    if let fresh { return fresh }
    guard let flight else { throw CancellationError() }
    return try await flight.value
  }
}
