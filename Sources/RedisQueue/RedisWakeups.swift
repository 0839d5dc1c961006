import Logging
import NIOCore
import PostriderCore
import Synchronization

/// Hears that something became ready. A hint only: messages are lost while the connection is down, and nobody minds.
final class RedisWakeups: Sendable {
  private struct State {
    /// Counts the messages.
    var heard: UInt64 = 0
    /// How many had been heard when the last claim was sent: what came later may be work that it missed.
    var answered: UInt64 = 0
    /// The shards heard of since a claim visited them.
    var announced: Set<Int> = []
    var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
    var nextWaiter: UInt64 = 0
  }

  private let state = Mutex(State())
  private let topology: any RedisTopology
  private let maximumReconnectDelay: Duration
  /// The channel of each shard.
  private let channels: [String]
  private let tools: RedisTools

  init(_ topology: any RedisTopology, channels: [String], maximumReconnectDelay: Duration, tools: RedisTools) {
    self.topology = topology
    self.channels = channels
    self.maximumReconnectDelay = maximumReconnectDelay
    self.tools = tools
  }

  /// A claim is about to be sent: what was heard until now is answered.
  func claiming() {
    state.withLock { $0.answered = $0.heard }
  }

  /// The shards that said that something became ready and were not visited since.
  func announced() -> Set<Int> { state.withLock { $0.announced } }

  /// A claim is about to be sent to this shard.
  func visiting(_ shard: Int) {
    state.withLock { _ = $0.announced.remove(shard) }
  }

  /// Returns at the next message, at once if one came since the last claim, or after about `timeout`.
  func wait(timeout: Duration) async throws {
    // Up to a fifth earlier, so that idle workers do not ask all at once.
    let timeout = timeout * Double.random(in: 0.8...1)
    let id = state.withLock { state in
      state.nextWaiter += 1
      return state.nextWaiter
    }
    let deadline = ContinuousClock.now + timeout
    let timer = tools.eventLoop.scheduleTask(in: TimeAmount(timeout)) { self.end(id) }
    defer { timer.cancel() }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let waits = state.withLock { state in
          if state.heard != state.answered {
            state.answered = state.heard
            return false
          }
          state.waiting[id] = continuation
          return true
        }
        if !waits { continuation.resume() }
        // The handler below may have run before the continuation was there, and so may the timer.
        if waits, Task.isCancelled || ContinuousClock.now >= deadline { end(id) }
      }
    } onCancel: {
      end(id)
    }
    try Task.checkCancellation()
  }

  private func end(_ id: UInt64) {
    state.withLock { $0.waiting.removeValue(forKey: id) }?.resume()
  }

  /// Wakes everyone: a shard said that something became ready, or nobody can say which did.
  func wake(_ shard: Int?) {
    let waiting = state.withLock { state in
      state.heard += 1
      if let shard { state.announced.insert(shard) }
      defer { state.waiting.removeAll() }
      if !state.waiting.isEmpty { state.answered = state.heard }
      return state.waiting
    }
    for continuation in waiting.values { continuation.resume() }
  }

  /// Keeps a subscribed connection of its own until the task is cancelled.
  func run() async {
    var delay = ReconnectDelay(maximum: maximumReconnectDelay)
    while !Task.isCancelled {
      do throws(JobQueueError) {
        let connection = try await topology.subscription { [weak self] channel, _ in
          guard let self else { return }
          wake(channels.firstIndex(of: channel))
        }
        defer { connection.close() }
        // One by one: each channel is answered for itself.
        for channel in channels { try await connection.command(["SUBSCRIBE", channel]) }
        delay.reset()
        // Something may have become ready while nobody listened.
        wake(nil)
        await connection.keepAlive()
      } catch {
        // The link logs the same trouble at a higher level.
        tools.logger.debug("Wake-ups are not heard", metadata: ["error": "\(error)"])
      }
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: delay.next())
    }
  }
}
