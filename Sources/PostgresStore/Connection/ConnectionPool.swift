import PostriderCore
import Synchronization

/// A bounded number of connections; who finds none free waits in line, first come first served, up to a deadline.
final class ConnectionPool: Sendable {
  /// How big and how patient a pool is.
  struct Limits: Sendable {
    /// Connections at most.
    var connections: Int
    /// Longest wait for a free one.
    var wait: Duration
    /// Callers that may wait.
    var waiters: Int = 10_000
  }

  private enum Place {
    case reserved
    case waiting(CheckedContinuation<PostgresConnection, any Error>)
    case granted(PostgresConnection)
    case refused(any Error)
  }

  private struct State {
    var idle: [PostgresConnection] = []
    var opened = 0
    var line: [UInt64] = []
    var places: [UInt64: Place] = [:]
    var nextPlace: UInt64 = 0
    var closed = false
  }

  private let url: ConnectionURL
  private let options: PostgresConnection.Options
  private let limits: Limits
  private let state = Mutex(State())

  init(url: ConnectionURL, options: PostgresConnection.Options, limits: Limits) {
    self.url = url
    self.options = options
    self.limits = limits
  }

  /// Lends a connection for the time of a closure.
  func withConnection<T: Sendable>(
    _ body: @Sendable (PostgresConnection) async throws -> T
  ) async throws -> T {
    let connection = try await acquire()
    do {
      let value = try await body(connection)
      release(connection)
      return value
    } catch {
      release(connection)
      throw error
    }
  }

  /// Runs a transaction on a connection of the pool; see ``PostgresConnection/transaction(_:_:)``.
  func transaction<T: Sendable>(
    _ scope: Scope, _ body: @Sendable (isolated PostgresConnection) throws -> T
  ) async throws -> T {
    do {
      return try await withConnection { try await $0.transaction(scope, body) }
    } catch {
      throw PostgresError.storeError(error)
    }
  }

  /// Closes what is idle and refuses everything from now on; what is lent closes when it comes back.
  func close() async {
    let (idle, waiting) = state.withLock { state in
      state.closed = true
      let idle = state.idle
      state.idle = []
      let waiting = state.line
      return (idle, waiting)
    }
    for id in waiting { refuse(id, StoreError.unavailable(reason: "the store is closed")) }
    for connection in idle { await connection.close() }
  }

  private enum Entry {
    case connection(PostgresConnection)
    case wait(UInt64)
  }

  private func acquire() async throws -> PostgresConnection {
    try Task.checkCancellation()
    let entry = try state.withLock { state throws(StoreError) in
      if state.closed { throw .unavailable(reason: "the store is closed") }
      if let connection = state.idle.popLast() { return Entry.connection(connection) }
      if state.opened < limits.connections {
        state.opened += 1
        return .connection(PostgresConnection(url: url, options: options))
      }
      if state.line.count >= limits.waiters { throw .unavailable(reason: "too many callers wait for a connection") }
      state.nextPlace += 1
      state.line.append(state.nextPlace)
      state.places[state.nextPlace] = .reserved
      return .wait(state.nextPlace)
    }
    switch entry {
    case .connection(let connection): return connection
    case .wait(let id): return try await wait(id)
    }
  }

  private func wait(_ id: UInt64) async throws -> PostgresConnection {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { [limits] in
        do {
          try await Task.sleep(for: limits.wait)
          self.refuse(id, StoreError.unavailable(reason: "no database connection became free within \(limits.wait)"))
        } catch {
          // The caller was cancelled, or got its connection; then the place is gone and this does nothing.
          self.refuse(id, error)
        }
      }
      defer { group.cancelAll() }
      return try await withCheckedThrowingContinuation { continuation in
        let place = state.withLock { state -> Place? in
          switch state.places[id] {
          case .granted, .refused: return state.places.removeValue(forKey: id)
          default:
            state.places[id] = .waiting(continuation)
            return nil
          }
        }
        switch place {
        case .granted(let connection): continuation.resume(returning: connection)
        case .refused(let error): continuation.resume(throwing: error)
        default: break
        }
      }
    }
  }

  private func refuse(_ id: UInt64, _ error: any Error) {
    let continuation = state.withLock { state -> CheckedContinuation<PostgresConnection, any Error>? in
      switch state.places[id] {
      case .waiting(let continuation):
        state.places[id] = nil
        state.line.removeAll { $0 == id }
        return continuation
      case .reserved:
        state.places[id] = .refused(error)
        state.line.removeAll { $0 == id }
        return nil
      default: return nil
      }
    }
    continuation?.resume(throwing: error)
  }

  private func release(_ connection: PostgresConnection) {
    let continuation = state.withLock { state -> CheckedContinuation<PostgresConnection, any Error>? in
      // A closed pool drops the connection: its deinitializer closes it.
      if state.closed { return nil }
      guard let id = state.line.first else {
        state.idle.append(connection)
        return nil
      }
      state.line.removeFirst()
      switch state.places.removeValue(forKey: id) {
      case .waiting(let continuation): return continuation
      default:
        state.places[id] = .granted(connection)
        return nil
      }
    }
    continuation?.resume(returning: connection)
  }
}
