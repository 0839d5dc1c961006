import Synchronization

/// Thrown when something took longer than it may.
package struct TimeLimitExceeded: Error, CustomStringConvertible {
  /// What was allowed.
  package let limit: Duration

  /// In words.
  package var description: String { "there was no answer within \(limit)" }
}

/// Whatever is ready first: a result, the end of the time, or the caller's cancellation.
private final class Race<Value: Sendable>: Sendable {
  private enum State {
    case running
    case waiting(CheckedContinuation<Value, any Error>)
    case over(Result<Value, any Error>)
  }
  private let state = Mutex(State.running)

  func finish(_ result: Result<Value, any Error>) {
    let waiting: CheckedContinuation<Value, any Error>? = state.withLock { state in
      switch state {
      case .running: state = .over(result)
      case .waiting(let continuation):
        state = .over(result)
        return continuation
      case .over: break
      }
      return nil
    }
    waiting?.resume(with: result)
  }

  func result() async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      let ready: Result<Value, any Error>? = state.withLock { state in
        if case .over(let result) = state { return result }
        state = .waiting(continuation)
        return nil
      }
      if let ready { continuation.resume(with: ready) }
    }
  }
}

/// Runs something and stops waiting for it after `limit`.
///
/// The operation is cancelled then, and left behind if it does not react: a hanging dependency must not make the
/// caller hang too. That is why it is no child task.
///
/// - Throws: ``TimeLimitExceeded``, `CancellationError`, or what the operation throws.
package func withTimeLimit<Value: Sendable>(
  _ limit: Duration, _ operation: @escaping @Sendable () async throws -> Value
) async throws -> Value {
  let race = Race<Value>()
  let work = Task {
    do { race.finish(.success(try await operation())) } catch { race.finish(.failure(error)) }
  }
  let timer = Task {
    try await Task.sleep(for: limit)
    race.finish(.failure(TimeLimitExceeded(limit: limit)))
  }
  defer {
    work.cancel()
    timer.cancel()
  }
  return try await withTaskCancellationHandler {
    try await race.result()
  } onCancel: {
    race.finish(.failure(CancellationError()))
  }
}
