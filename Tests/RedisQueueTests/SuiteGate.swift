import Synchronization
import Testing

/// Lets only a few suites of this process run at once. All of them together start dozens of servers and hundreds of
/// queues, and on two cores each of those would wait for all the others; in turn they take no longer as a whole.
///
/// The tests inside a suite run at once, unless it is serialized. Their time limits begin when the suite has its place.
struct SuiteGate: SuiteTrait, TestScoping {
  private struct State {
    var free = 3
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private static let state = Mutex(State())

  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    await withCheckedContinuation { continuation in
      let isFree = Self.state.withLock { state in
        if state.free > 0 {
          state.free -= 1
          return true
        }
        state.waiting.append(continuation)
        return false
      }
      if isFree { continuation.resume() }
    }
    defer {
      let next = Self.state.withLock { state -> CheckedContinuation<Void, Never>? in
        if state.waiting.isEmpty {
          state.free += 1
          return nil
        }
        return state.waiting.removeFirst()
      }
      next?.resume()
    }
    try await function()
  }
}

extension Trait where Self == SuiteGate {
  /// The suite waits for its place among the few that run at once.
  static var gated: Self { SuiteGate() }
}
