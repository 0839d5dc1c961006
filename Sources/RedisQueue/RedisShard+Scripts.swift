import PostriderCore

/// How many jobs or leases one script call takes; Redis runs nothing else meanwhile.
let maximumBatch = 500

extension RedisShard {
  /// Runs a script in the epoch that this process knows. Returns the reply and the epoch.
  func call(_ script: RedisScript, _ arguments: [String]) async throws(JobQueueError) -> (RedisValue, Int64) {
    let epoch = try await workingEpoch()
    return (try await call(script, arguments, epoch: epoch), epoch)
  }

  func call(_ script: RedisScript, _ arguments: [String], epoch: Int64) async throws(JobQueueError) -> RedisValue {
    let reply = try await evaluate(script, epoch: epoch, arguments, in: try await session())
    if case .error(let text) = reply { throw failure(text, of: script, in: epoch) }
    return reply
  }

  /// The epoch this process works in, read from the server when it knows none.
  func workingEpoch() async throws(JobQueueError) -> Int64 {
    if let epoch = epochs.current { return epoch }
    guard let epoch = try await currentEpoch() else {
      throw .epochLost(reason: "the server holds no epoch of this start; it was emptied, restarted or replaced")
    }
    epochs.learn(epoch)
    return epoch
  }

  /// The epoch the server holds, or `nil` when it was emptied or replaced.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` when the queue has another number of shards.
  func currentEpoch() async throws(JobQueueError) -> Int64? {
    let session = try await session()
    let reply = try await session.connection.command(["HMGET", epochKey, "epoch", "run_id", "shards"])
    guard case .array(let held) = reply, held.count == 3, held[1].string == session.server.runID else { return nil }
    try check(shards: held[2])
    return held[0].integer
  }

  /// Compares the number of shards that the queue was installed with.
  func check(shards: RedisValue) throws(JobQueueError) {
    guard let held = shards.integer, held != Int64(count) else { return }
    throw .misconfigured(
      reason: """
        the queue in Redis has \(held) shards and this process is set to \(count); set the same number in every process. \
        To change it, stop every process, remove the queue's keys (nothing is lost, they are filled again) and start
        """)
  }

  /// EVALSHA, and the script once more in full when the server has forgotten it (SCRIPT FLUSH). The script sees the epoch
  /// and the server's run id before the arguments.
  func evaluate(
    _ script: RedisScript, epoch: Int64, _ arguments: [String], in session: RedisSession
  ) async throws(JobQueueError) -> RedisValue {
    guard let hash = session.server.scripts[script] else { preconditionFailure("every script was loaded") }
    let command = ["EVALSHA", hash, "1", epochKey, String(epoch), session.server.runID] + arguments
    let reply = try await session.connection.send(command)
    guard case .error(let text) = reply, text.hasPrefix("NOSCRIPT") else { return reply }
    _ = try await RedisServer.load(script, on: session.connection)
    return try await session.connection.send(command)
  }

  private func failure(_ text: String, of script: RedisScript, in epoch: Int64) -> JobQueueError {
    let words = text.split(separator: " ")
    switch words.first {
    case "NOTOPEN": return .notOpenYet(milliseconds: words.last.flatMap { Int($0) } ?? 0)
    case "EPOCHLOST":
      switch words.dropFirst().first {
      case "other":
        let held = words.last.flatMap { Int64($0) } ?? 0
        // The server's own and newer: the next call uses it.
        if held > epoch { epochs.learn(held) }
        return .epochLost(reason: "the server holds epoch \(held), this process worked in \(epoch)")
      case "server":
        epochs.forget(epoch)
        return .epochLost(reason: "the server was restarted or is another one than the one opened")
      case "fences":
        epochs.forget(epoch)
        return .epochLost(reason: "the epoch's fences are used up; a new epoch is needed")
      default:
        epochs.forget(epoch)
        return .epochLost(reason: "the server holds no epoch; it was emptied")
      }
    default: return RedisConnection.refusal(of: "script \(script.rawValue)", text)
    }
  }

  static func unexpected(_ reply: RedisValue, from script: RedisScript) -> JobQueueError {
    if case .error(let text) = reply { return RedisConnection.refusal(of: "script \(script.rawValue)", text) }
    return .unavailable(reason: "the script \(script.rawValue) gave an unexpected reply")
  }
}

extension Array {
  /// Consecutive parts of at most `size` elements.
  func parts(of size: Int) -> [ArraySlice<Element>] {
    stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
  }
}
