import Logging
import NIOCore
import PostriderCore
import Synchronization

/// A checked connection.
struct RedisSession: Sendable {
  let connection: RedisConnection
  let server: RedisServer

  /// The command that runs a script, with keys of one slot.
  func evaluation(of script: RedisScript, keys: [String], _ arguments: [String]) -> [String] {
    guard let hash = server.scripts[script] else { preconditionFailure("every script was loaded") }
    return ["EVALSHA", hash, String(keys.count)] + keys + arguments
  }
}

/// Keeps one checked connection up, and tells callers at once when there is none.
final class RedisLink: Sendable {
  /// Finds the server; asked before each attempt to connect.
  typealias Locator = @Sendable () async throws(JobQueueError) -> RedisServerAddress

  private enum State {
    /// Before the first attempt to connect ended; callers wait for it.
    case starting(waiting: [EventLoopPromise<RedisSession>])
    case up(RedisSession)
    case down(JobQueueError)
  }

  /// Callers that may wait for the first connection.
  private static let maximumWaiting = 1_024
  /// How often a connection's server is looked at again. A connection that died without a word is noticed by that too.
  private static let checkInterval = Duration.seconds(10)

  let locate: Locator
  private let state = Mutex(State.starting(waiting: []))
  private let isRetired = Mutex(false)
  private let role: RedisServer.Role
  private let configuration: RedisQueueConfiguration
  private let tools: RedisTools

  init(
    as role: RedisServer.Role, configuration: RedisQueueConfiguration, tools: RedisTools, locate: @escaping Locator
  ) {
    self.role = role
    self.configuration = configuration
    self.tools = tools
    self.locate = locate
  }

  /// The session, at once; only before the first attempt to connect has ended it waits, for one call timeout at most.
  func session() async throws(JobQueueError) -> RedisSession {
    enum Answer {
      case now(Result<RedisSession, JobQueueError>)
      case later(EventLoopPromise<RedisSession>)
    }
    let answer = state.withLock { state -> Answer in
      switch state {
      case .up(let session): return .now(.success(session))
      case .down(let error): return .now(.failure(error))
      case .starting(let waiting) where waiting.count >= Self.maximumWaiting:
        return .now(.failure(.unavailable(reason: "too many calls wait for the first connection")))
      case .starting(let waiting):
        let promise = tools.eventLoop.makePromise(of: RedisSession.self)
        state = .starting(waiting: waiting + [promise])
        return .later(promise)
      }
    }
    switch answer {
    case .now(let result): return try result.get()
    case .later(let promise):
      let timer = tools.eventLoop.scheduleTask(in: TimeAmount(configuration.callTimeout)) {
        promise.fail(JobQueueError.unavailable(reason: "not connected; run() was not called or has not connected yet"))
      }
      defer { timer.cancel() }
      do {
        return try await promise.futureResult.get()
      } catch let error as JobQueueError {
        throw error
      } catch {
        throw .unavailable(reason: "\(error)")
      }
    }
  }

  /// Whether a connection is up.
  var isUp: Bool {
    state.withLock { if case .up = $0 { true } else { false } }
  }

  /// Connects and reconnects until the task is cancelled or the link is retired.
  func run() async {
    var delay = ReconnectDelay(maximum: configuration.maximumReconnectDelay)
    while !Task.isCancelled, !isRetired.withLock({ $0 }) {
      do throws(JobQueueError) {
        let address = try await locate()
        let connection = try await RedisConnection.open(address, timeout: configuration.callTimeout)
        defer { connection.close() }
        let server = try await RedisServer.examine(connection, as: role)
        delay.reset()
        tools.logger.info("Connected to Redis", metadata: ["redis.address": "\(address)"])
        change(to: .up(RedisSession(connection: connection, server: server)))
        await watch(connection)
        change(to: .down(.unavailable(reason: "the connection was lost; reconnecting")))
        if !Task.isCancelled {
          tools.logger.warning("Lost the connection to Redis", metadata: ["redis.address": "\(address)"])
        }
      } catch {
        change(to: .down(error))
        tools.logger.warning("Cannot use Redis", metadata: ["error": "\(error)"])
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: delay.next())
    }
    change(to: .down(.unavailable(reason: "the queue was stopped")))
  }

  /// Closes the connection if its server is one that `condition` holds for; the server is then looked for again.
  func drop(_ reason: String, where condition: (RedisServerAddress.Endpoint) -> Bool) {
    guard let session = state.withLock({ if case .up(let session) = $0 { session } else { nil } }),
      condition(session.connection.endpoint)
    else { return }
    tools.logger.warning("Leaves a Redis server", metadata: ["reason": "\(reason)"])
    session.connection.close()
  }

  /// Ends the link: its server is not part of the topology any more.
  func retire() {
    isRetired.withLock { $0 = true }
    drop("it is not part of the Cluster any more") { _ in true }
  }

  /// Returns when the connection is closed. Looks now and then whether the server still is what it was found to be: one
  /// that became a replica, or now evicts keys, is left.
  private func watch(_ connection: RedisConnection) async {
    await withTaskGroup { group in
      group.addTask { [tools, role] in
        while !Task.isCancelled {
          // Cancelled: the loop's condition sees it.
          try? await Task.sleep(for: Self.checkInterval)
          if Task.isCancelled { return }
          do throws(JobQueueError) { try await RedisServer.check(connection, as: role) } catch {
            tools.logger.warning("Leaves a Redis server", metadata: ["reason": "\(error)"])
            connection.close()
          }
        }
      }
      await connection.closed()
      group.cancelAll()
    }
  }

  private func change(to new: State) {
    let waiting = state.withLock { state -> [EventLoopPromise<RedisSession>] in
      let old = state
      state = new
      if case .starting(let waiting) = old { return waiting } else { return [] }
    }
    for promise in waiting {
      switch new {
      case .up(let session): promise.succeed(session)
      case .down(let error): promise.fail(error)
      case .starting: preconditionFailure("a link starts once")
      }
    }
  }

  deinit {
    if case .starting(let waiting) = state.withLock({ $0 }) {
      for promise in waiting { promise.fail(JobQueueError.unavailable(reason: "the queue is gone")) }
    }
  }
}

/// The pauses between attempts to connect: 50 ms, doubling, each ± 50 %, so that a fleet does not come back at once.
struct ReconnectDelay: Sendable {
  let maximum: Duration
  private var bound: Duration = .milliseconds(50)

  init(maximum: Duration) { self.maximum = maximum }

  mutating func reset() { bound = .milliseconds(50) }

  mutating func next() -> Duration {
    defer { bound = min(bound * 2, maximum) }
    return min(bound, maximum) * Double.random(in: 0.5...1.5)
  }
}
