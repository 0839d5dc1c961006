import Logging
import NIOCore
import PostriderCore
import Synchronization

/// A checked connection.
struct RedisSession: Sendable {
  let connection: RedisConnection
  let server: RedisServer
}

/// Keeps one checked connection up, and tells callers at once when there is none.
final class RedisLink: Sendable {
  private enum State {
    /// Before the first attempt to connect ended; callers wait for it.
    case starting(waiting: [EventLoopPromise<RedisSession>])
    case up(RedisSession)
    case down(JobQueueError)
  }

  /// Callers that may wait for the first connection.
  private static let maximumWaiting = 1_024

  private let state = Mutex(State.starting(waiting: []))
  private let configuration: RedisQueueConfiguration
  private let eventLoop: any EventLoop
  private let logger: Logger

  init(configuration: RedisQueueConfiguration, eventLoop: any EventLoop, logger: Logger) {
    self.configuration = configuration
    self.eventLoop = eventLoop
    self.logger = logger
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
        let promise = eventLoop.makePromise(of: RedisSession.self)
        state = .starting(waiting: waiting + [promise])
        return .later(promise)
      }
    }
    switch answer {
    case .now(let result): return try result.get()
    case .later(let promise):
      let timer = eventLoop.scheduleTask(in: TimeAmount(configuration.callTimeout)) {
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

  /// Connects and reconnects until the task is cancelled.
  func run() async {
    var delay = ReconnectDelay(maximum: configuration.maximumReconnectDelay)
    while !Task.isCancelled {
      do throws(JobQueueError) {
        let connection = try await RedisConnection.open(configuration.server, timeout: configuration.callTimeout)
        defer { connection.close() }
        let server = try await RedisServer.examine(connection)
        delay.reset()
        logger.info("Connected to Redis", metadata: ["redis.address": "\(configuration.server)"])
        change(to: .up(RedisSession(connection: connection, server: server)))
        await connection.closed()
        change(to: .down(.unavailable(reason: "the connection was lost; reconnecting")))
        if !Task.isCancelled { logger.warning("Lost the connection to Redis") }
      } catch {
        change(to: .down(error))
        logger.warning("Cannot use Redis", metadata: ["error": "\(error)"])
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: delay.next())
    }
    change(to: .down(.unavailable(reason: "the queue was stopped")))
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
