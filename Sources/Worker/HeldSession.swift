import Synchronization

/// Why a session has to stop before it is done.
enum Interruption: Error, Hashable, Sendable {
  /// The lease ended or was withdrawn: somebody else may already work on the mailbox.
  case leaseLost
  /// The worker stops; the job is given back.
  case stopping
  /// It lasted longer than its settings allow.
  case deadline
}

/// Work that others may stop: a child task which is cancelled as soon as somebody says why.
///
/// One task and no timer for each session: at thousands of sessions a second those cost more than everything else here.
final class HeldSession: Sendable {
  private struct State {
    var reason: Interruption?
    var isDone = false
    var waiting: CheckedContinuation<Void, Never>?
  }

  private let state = Mutex(State())

  /// Runs the work. Returns when it is over in every case, also after it was stopped; throws the reason then.
  func run<Result: Sendable>(_ work: @escaping @Sendable () async throws -> Result) async throws -> Result {
    try await withThrowingTaskGroup(of: Result.self) { group in
      group.addTask {
        defer { self.change { $0.isDone = true } }
        return try await work()
      }
      // A cancelled caller cancels the child, whose end is noticed here.
      if let reason = await reasonOrEnd() {
        group.cancelAll()
        throw reason
      }
      guard let result = try await group.next() else { throw CancellationError() }
      return result
    }
  }

  /// Stops the work, unless it is over or was stopped before.
  func stop(_ reason: Interruption) {
    change { state in
      if !state.isDone && state.reason == nil { state.reason = reason }
    }
  }

  private func change(_ body: (inout State) -> Void) {
    let waiting = state.withLock { state in
      body(&state)
      defer { state.waiting = nil }
      return state.waiting
    }
    waiting?.resume()
  }

  private func reasonOrEnd() async -> Interruption? {
    await withCheckedContinuation { continuation in
      let over = state.withLock { state in
        let over = state.isDone || state.reason != nil
        if !over { state.waiting = continuation }
        return over
      }
      if over { continuation.resume() }
    }
    return state.withLock(\.reason)
  }
}
