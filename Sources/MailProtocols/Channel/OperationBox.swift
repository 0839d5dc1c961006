import NIOCore
import Synchronization

/// Where the event loop puts what an operation gives, and a task takes it.
///
/// Items wait in order; how many octets wait decides whether the socket is read. The outcome comes after the last item.
/// The other way round the event loop asks for the pieces of a message, one at a time.
final class OperationBox<Machine: Dialogue>: Sendable {
  /// Whether a piece of a message is wanted.
  private enum Demand {
    case none
    /// By the event loop; nobody fetches it yet.
    case asked
    /// It is being fetched.
    case taken
  }

  private struct State {
    var demand = Demand.none
    var feeder: CheckedContinuation<Bool, Never>?
    var items: [Machine.Item] = []
    /// Octets put in and not yet consumed, those in the consumer's hands included.
    var waiting = 0
    /// Octets in the consumer's hands.
    var handedOut = 0
    var octets = 0
    var result: Result<Machine.Outcome, any Error>?
    var consumer: CheckedContinuation<[Machine.Item], any Error>?
    var owner: CheckedContinuation<Machine.Outcome, any Error>?
  }

  private let state = Mutex(State())

  /// Octets that wait for the consumer.
  var waitingOctets: Int { state.withLock { $0.waiting } }

  /// Puts an item in; ``deliver()`` wakes the consumer.
  func add(_ item: Machine.Item, octets: Int) {
    state.withLock {
      $0.items.append(item)
      $0.octets += octets
      $0.waiting += octets
    }
  }

  /// Hands what waits to a waiting consumer, in one go.
  func deliver() {
    let (consumer, items): (CheckedContinuation<[Machine.Item], any Error>?, [Machine.Item]) = state.withLock {
      guard let consumer = $0.consumer, !$0.items.isEmpty else { return (nil, []) }
      $0.consumer = nil
      return (consumer, Self.take(&$0))
    }
    consumer?.resume(returning: items)
  }

  /// Ends the operation; only the first call counts.
  func finish(_ result: Result<Machine.Outcome, any Error>) {
    let resume: (@Sendable () -> Void)? = state.withLock { state in
      guard state.result == nil else { return nil }
      state.result = result
      if let feeder = state.feeder {
        state.feeder = nil
        return { feeder.resume(returning: false) }
      }
      if let owner = state.owner {
        state.owner = nil
        return { owner.resume(with: result) }
      }
      if let consumer = state.consumer {
        state.consumer = nil
        let items = Self.take(&state)
        return {
          if items.isEmpty, case .failure(let error) = result {
            consumer.resume(throwing: error)
          } else {
            consumer.resume(returning: items)
          }
        }
      }
      return nil
    }
    resume?()
  }

  /// The next items; empty when the operation is done. Throws its error once all items are taken.
  ///
  /// Calling it again says that the items of the call before are consumed; `released` is told when octets became free.
  func next(released: () -> Void) async throws -> [Machine.Item] {
    let wasFreed = state.withLock { state in
      defer {
        state.waiting -= state.handedOut
        state.handedOut = 0
      }
      return state.handedOut > 0
    }
    if wasFreed { released() }
    return try await withCheckedThrowingContinuation { continuation in
      let resume: (@Sendable () -> Void)? = state.withLock { state in
        if !state.items.isEmpty {
          let items = Self.take(&state)
          return { continuation.resume(returning: items) }
        }
        switch state.result {
        case .success: return { continuation.resume(returning: []) }
        case .failure(let error): return { continuation.resume(throwing: error) }
        case nil:
          state.consumer = continuation
          return nil
        }
      }
      resume?()
    }
  }

  /// Asks for the next piece of a message; does nothing while one is on its way.
  func askForBody() {
    let feeder = state.withLock { state -> CheckedContinuation<Bool, Never>? in
      guard state.result == nil, state.demand == .none else { return nil }
      state.demand = state.feeder == nil ? .asked : .taken
      defer { state.feeder = nil }
      return state.feeder
    }
    feeder?.resume(returning: true)
  }

  /// The piece that was asked for has come.
  func fed() { state.withLock { $0.demand = .none } }

  /// Whether the operation has ended.
  var isDone: Bool { state.withLock { $0.result != nil } }

  /// Waits until a piece of a message is wanted; `false` when the operation has ended.
  func wantsBody() async -> Bool {
    await withCheckedContinuation { continuation in
      let answer = state.withLock { state -> Bool? in
        if state.result != nil { return false }
        if state.demand == .asked {
          state.demand = .taken
          return true
        }
        state.feeder = continuation
        return nil
      }
      if let answer { continuation.resume(returning: answer) }
    }
  }

  /// Waits for the outcome of an operation without items.
  func outcome(_ continuation: CheckedContinuation<Machine.Outcome, any Error>) {
    let result = state.withLock { state -> Result<Machine.Outcome, any Error>? in
      if state.result == nil { state.owner = continuation }
      return state.result
    }
    if let result { continuation.resume(with: result) }
  }

  private static func take(_ state: inout State) -> [Machine.Item] {
    let items = state.items
    state.items = []
    state.handedOut += state.octets
    state.octets = 0
    return items
  }
}
